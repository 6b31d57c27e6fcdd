"""Models in Python and folders of MLflow in a process of their own: what it loads, and what it does not."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.workspace.given_models import make_project

import noria
from noria.deploy.environments import Move
from noria.errors import ConfigError, SourceError
from noria.registry.folders.served import folder_inputs, folder_rows
from noria.registry.folders.signatures import ColumnSpec, FolderSignature, TensorSpec
from noria.serving.formats.python_models import rows_as
from noria.serving.formats.scorers import Rows
from noria.serving.records import ROUTE_FILE, Input, write_record
from noria.workspace.project import Project

FRAME = pd.DataFrame({"a": [0.5, 1.5, 2.5], "b": [1, 2, 3]})
PROGRAM = """\
import json, pathlib, sys
import numpy as np
from noria.serving.models import load_route
from noria.serving.records import Route, read_record
from noria.serving.formats.scorers import Rows
route = read_record(pathlib.Path(sys.argv[1]), Route)
(model,) = load_route(route, folder=pathlib.Path()).models.values()
(values,) = model.scorer.predict(Rows(np.array(json.loads(sys.argv[2]))))
print(json.dumps([np.asarray(values).tolist(), [each for each in sys.argv[3:] if each in sys.modules]]))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    root = make_project(tmp_path / "tried")
    monkeypatch.syspath_prepend(str(root))
    with noria.open(root) as opened:
        yield opened
    for name in ("models_in_python", "words_of_models"):
        sys.modules.pop(name, None)


def answered(move: Move, folder: Path, rows: list[list[float]], *heavy: str) -> list[Any]:
    """Let a process of its own score rows by the route; give what it gave, and what it has loaded."""
    write_record(folder / ROUTE_FILE, move.route)
    command = [sys.executable, "-c", PROGRAM, str(folder / ROUTE_FILE), json.dumps(rows), *heavy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    given: list[Any] = json.loads(done.stdout)
    return given


def test_a_model_in_python_loads_nothing_but_what_it_imports(project: Project, tmp_path: Path) -> None:
    given = importlib.import_module("models_in_python")
    project.models.register(given.Doubler, name="twice", example={"x": [1.0, 2.0]})
    move = project.deploy("twice", to="production")
    heavy = ("pyarrow", "pandas", "sklearn", "scipy", "sqlalchemy", "duckdb", "deltalake", "models_in_python")
    assert answered(move, tmp_path, [[4.0]], *heavy) == [[8.0], []]


def test_a_folder_of_mlflow_loads_no_engine_of_the_control_plane(project: Project, tmp_path: Path) -> None:
    model = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0])
    with project.start_run("logs") as run:
        run.log_model(model, "line", example=FRAME, registered="line")
    move = project.deploy(
        "line", to="production"
    )  # its signature is on record, and no rows: some are made up
    values, loaded = answered(move, tmp_path, [[0.5, 1.0]], "sqlalchemy", "duckdb", "deltalake", "mlflow")
    np.testing.assert_allclose(values, model.predict(FRAME[:1]))
    assert loaded == []


def test_a_pipeline_is_compiled_as_it_is_released_and_needs_no_scikit_learn(
    project: Project, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, [0, 1, 0])
    project.models.register(model, name="late", example=FRAME)
    move = project.deploy("late", to="production")
    assert move.route.models[0].format == "compiled"
    values, loaded = answered(
        move, tmp_path, FRAME.to_numpy().tolist(), "sklearn", "scipy", "pandas", "pyarrow"
    )
    np.testing.assert_allclose(values, model.predict_proba(FRAME)[:, 1], rtol=1e-9)
    assert loaded == []
    project.models.register(
        KNeighborsClassifier(n_neighbors=1).fit(FRAME, [0, 1, 0]), name="near", example=FRAME
    )
    assert project.deploy("near", to="production").route.models[0].format == "skops"


def test_a_folder_without_a_signature_says_what_to_do(project: Project) -> None:
    with project.start_run("logs") as run:
        run.log_model(LinearRegression().fit(FRAME, [1.0, 2.0, 3.0]), "line", registered="line")
    with pytest.raises(ConfigError, match=r"line:1 does not say what columns it reads; log the model with"):
        project.deploy("line", to="production")


def test_columns_and_arrays_of_a_signature_are_inputs_and_come_back_as_rows() -> None:
    columns = FolderSignature(
        (
            ColumnSpec("n", "long", is_required=False),
            ColumnSpec("f", "float", is_required=True),
            ColumnSpec("t", "string", is_required=True),
        ),
        (),
    )
    told = folder_inputs(columns, "m:1")
    assert [(each.name, each.kind, each.optional is True) for each in told] == [
        ("n", "number", True), ("f", "number", False), ("t", "string", False),
    ]  # fmt: skip
    table = folder_rows(columns, np.array([[2.0, 0.1], [np.nan, 0.2]]), {"t": ["a", None]})
    assert table.to_pydict() == {"n": [2, None], "f": [np.float32(0.1), np.float32(0.2)], "t": ["a", None]}

    image = FolderSignature((TensorSpec(None, "float32", (-1, 2, 3)),), ())
    (pixels,) = folder_inputs(image, "m:1")
    assert (pixels.name, pixels.width, pixels.datatype) == ("input", 6, "FP64")
    rows = folder_rows(image, np.arange(12.0).reshape(2, 6), {})
    assert (rows.shape, rows.dtype) == ((2, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (ColumnSpec("n", "integer", is_required=True), 2.0**31),
        (ColumnSpec("n", "long", is_required=True), 2.0**63),
        (ColumnSpec("n", "boolean", is_required=True), 2.0),
        (TensorSpec("n", "uint8", (-1, 1)), 256.0),
        (TensorSpec("n", "uint8", (-1, 1)), -1.0),
        (TensorSpec("n", "bool", (-1, 1)), 0.5),
    ],
)
def test_a_number_that_a_type_does_not_hold_is_refused_and_not_cut(
    spec: ColumnSpec | TensorSpec, value: float
) -> None:
    signature = FolderSignature((spec,), ())  # type: ignore[arg-type]
    assert len(folder_rows(signature, np.array([[1.0]]), {})) == 1
    with pytest.raises(SourceError, match=r"input 'n' .*the model reads"):
        folder_rows(signature, np.array([[1.0], [value]]), {})


@pytest.mark.parametrize(
    ("datatype", "values", "kind"),
    [
        ("INT64", [1.0, 2.0], np.int64),
        ("INT64", [1.0, 2.0**63], np.float64),
        ("UINT64", [1.0, np.nan], np.float64),
        ("BOOL", [1.0, 0.0], np.bool_),
        ("BOOL", [1.0, 0.5], np.float64),
    ],
)
def test_a_model_in_python_reads_whole_numbers_and_truths_only_where_all_are(
    datatype: str, values: list[float], kind: type
) -> None:
    given = np.array(values)[:, None]
    found = rows_as("columns", Rows(given), (Input(name="n", kind="number", datatype=datatype),))["n"]
    assert found.dtype == kind
    np.testing.assert_array_equal(found.astype(np.float64), values)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ColumnSpec("t", "datetime", is_required=True), "column 't' of m:1 is of type datetime"),
        (TensorSpec("x", "float64", (-1, -1)), r"array 'x' of m:1 has the shape \(-1, -1\)"),
        (TensorSpec("x", "datetime64", (-1, 2)), "array 'x' of m:1 is of datetime64"),
    ],
)
def test_what_no_request_brings_is_refused(spec: ColumnSpec | TensorSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folder_inputs(FolderSignature((spec,), ()), "m:1")  # type: ignore[arg-type]
