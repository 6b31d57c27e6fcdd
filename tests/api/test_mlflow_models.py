"""Models that a real MLflow client logs load without MLflow, and what noria writes loads by the client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.api.test_control_plane import SINCE
from tests.servers.mlflow_client import program_runner

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.errors import ConfigError, DigestMismatch, NotFound, SourceError
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.prediction import predictor_of
from noria.registry.folders.writing import write_model_folder
from noria.workspace.up.records import Role, UpState

Site = tuple[noria.Project, dict[str, Any]]
PROGRAM = Path(__file__).parent / "mlflow_programs" / "models.py"
ALL = ["weight", "stops", "depot"]
NUMBERS = ["weight", "stops"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "weight": rng.exponential(1.0, 120),
            "stops": rng.integers(0, 6, 120),
            "depot": rng.choice(["north", "south", "öst"], 120),
        }
    )


def _own_models(rows: pd.DataFrame) -> dict[str, tuple[Any, Any]]:
    """Models of every library, each with rows that it reads."""
    late, kind, numbers = (rows.weight > 1).astype(int), rows.stops % 3, rows[NUMBERS]
    columns = make_column_transformer((OneHotEncoder(), ["depot"]), (StandardScaler(), NUMBERS))
    few = {"n_estimators": 5}
    leaves = lightgbm.LGBMClassifier(verbose=-1, **few)
    weight = numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [weight],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    matrix = xgboost.DMatrix(numbers, label=late)
    single = numbers.to_numpy(dtype=np.float32)
    return {
        "pipeline": (make_pipeline(columns, LogisticRegression()).fit(rows, late), rows),
        "steps": (make_pipeline(columns, leaves).fit(rows, kind), rows),
        "line": (LinearRegression().fit(numbers, rows.weight), numbers),
        "boosted": (GradientBoostingClassifier(**few).fit(numbers, kind), numbers),
        "leaves": (lightgbm.LGBMRegressor(verbose=-1, **few).fit(numbers, rows.weight), numbers),
        "booster": (lightgbm.train({"verbose": -1}, lightgbm.Dataset(numbers, late), 5), numbers),
        "extreme": (xgboost.XGBClassifier(**few).fit(numbers, kind), numbers),
        "trees": (xgboost.train({"objective": "binary:logistic"}, matrix, 5), numbers),
        "network": (onnx, single),
    }


FLAVORS = {
    "pipeline": "sklearn",
    "steps": "sklearn",
    "line": "sklearn",
    "boosted": "sklearn",
    "leaves": "lightgbm",
    "booster": "lightgbm",
    "extreme": "xgboost",
    "trees": "xgboost",
    "network": "onnx",
}


TYPES = {
    "pipeline": "Pipeline",
    "steps": "Pipeline",
    "line": "LinearRegression",
    "boosted": "GradientBoostingClassifier",
    "leaves": "LGBMRegressor",
    "booster": "Booster",
    "extreme": "XGBClassifier",
    "trees": "Booster",
    "network": "ModelProto",
}


@pytest.fixture(scope="module")
def written(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What noria wrote, and what its models give."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "rows.json").write_text(json.dumps(rows.to_dict("list")))
    told: dict[str, Any] = {"folder": folder}
    for name, (model, example) in _own_models(rows).items():
        done = write_model_folder(model, folder / name, example=example[:5])
        assert done.flavor == FLAVORS[name]
        told[name] = np.asarray(predictor_of(done.flavor, model)(_as_given(example)), dtype=float)
    return told


def _as_given(example: Any) -> Any:
    return example if isinstance(example, np.ndarray) else pa.Table.from_pandas(example, preserve_index=False)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, Any]
) -> Iterator[tuple[noria.Project, dict[str, Any]]]:
    """A project to which a real client logged its models, and what they gave there."""
    root = tmp_path_factory.mktemp("site")
    (root / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    run = program_runner(root / "client")
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        run(PROGRAM, plane.url, str(written["folder"]), str(root / "told.json"))
        yield project, json.loads((root / "told.json").read_text())


CLIENTS = {
    "pipeline": ("sklearn", ALL),
    "regressor": ("sklearn", NUMBERS),
    "forest": ("sklearn", NUMBERS),
    "booster": ("lightgbm", NUMBERS),
    "leaves": ("lightgbm", NUMBERS),
    "extreme": ("xgboost", NUMBERS),
    "trees": ("xgboost", NUMBERS),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_registered_predicts_the_same_without_mlflow(
    site: Site, rows: pd.DataFrame, name: str
) -> None:
    project, told = site
    flavor, columns = CLIENTS[name]
    for reference in (
        name,
        f"{name}:1",
        f"models:/{name}/1",
        f"models:/{name}/latest",
        f"runs:/{told['run']}/{name}",
    ):
        model = project.load_model(reference)
        assert (model.flavor, model.reference) == (flavor, reference)
        np.testing.assert_allclose(model.predict(rows), told[name], rtol=0, atol=1e-12)
    shuffled = pa.Table.from_pandas(rows[columns[::-1]])  # found by name, whatever the order
    np.testing.assert_allclose(model.predict(shuffled), told[name], rtol=0, atol=1e-12)
    if f"{name} probabilities" in told:
        found = model.estimator.predict_proba(_as_given(rows[columns]))
        np.testing.assert_allclose(found, told[f"{name} probabilities"], rtol=0, atol=1e-12)


def test_a_network_with_its_weights_beside_it(site: Site, rows: pd.DataFrame) -> None:
    project, told = site
    model = project.load_model("network")
    assert any("model.onnx" not in each and "MLmodel" not in each for each in _files(project, "network"))
    x = rows[NUMBERS].to_numpy(dtype=np.float32)
    np.testing.assert_allclose(model.predict(x), told["network"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.predict(rows[NUMBERS]), told["network"], rtol=0, atol=1e-12)


def _files(project: noria.Project, name: str) -> list[str]:
    return list(project.registry.read_folder(project.model(name)).files)


@pytest.mark.parametrize("name", FLAVORS)
def test_what_noria_wrote_predicts_the_same_by_a_client(
    site: Site, written: dict[str, Any], name: str
) -> None:
    _, told = site
    np.testing.assert_allclose(told[f"given {name}"], written[name], rtol=0, atol=1e-12)
    kinds = {
        "pipeline": "Pipeline",
        "leaves": "LGBMRegressor",
        "extreme": "XGBClassifier",
        "network": "ModelProto",
    }
    assert told[f"type {name}"] == kinds.get(name, told[f"type {name}"])


def test_aliases_logged_models_and_what_is_not_there(site: Site, rows: pd.DataFrame) -> None:
    project, told = site
    version = project.registry.read_folder(project.model("forest"))
    for reference in ("models:/forest@champion", f"models:/{version.logged_model}"):
        np.testing.assert_array_equal(project.load_model(reference).predict(rows), told["forest"])
    for reference in ("forest:7", "models:/forest/7", "models:/forest@nobody", "models:/m-1", "nothing"):
        with pytest.raises(NotFound):
            project.load_model(reference)
    with pytest.raises(NotFound):
        project.load_model(f"runs:/{told['run']}/nothing")
    with pytest.raises(SourceError, match=r"no file 'MLmodel'.*there is rows.json"):
        project.load_model(f"runs:/{told['run']}/plain")
    with pytest.raises(ConfigError, match="names no model of a project"):
        project.load_model("s3://bucket/model")


def test_rows_that_a_model_does_not_read(site: Site, rows: pd.DataFrame) -> None:
    model = site[0].load_model("pipeline")
    with pytest.raises(SourceError, match="inputs are missing: stops, depot; the rows have weight"):
        model.predict(rows[["weight"]])
    with pytest.raises(SourceError, match="column 'depot' is int64; the model reads string"):
        model.predict(rows.assign(depot=1))
    with pytest.raises(SourceError, match="column 'stops' is double, and holds values that are no long"):
        model.predict(rows.assign(stops=0.5))


def test_code_of_a_client_runs_only_where_it_is_trusted(
    site: Site, rows: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    project, _ = site
    for reference in ("pickled", "models:/pickled/1"):
        with pytest.raises(ConfigError, match=r'cloudpickle of Python objects.*trust_pickle = \["pickled"\]'):
            project.load_model(reference)
    with pytest.raises(ConfigError, match=r"loaded by mlflow.pyfunc.model.*refused"):
        project.load_model("custom")
    assert capfd.readouterr().err == ""
    _trust(project, '["pickled"]')
    with noria.open(project.root) as trusting:
        for _ in range(2):
            found = trusting.load_model("models:/pickled/1")
            assert "WARNING: version pickled:1 is a cloudpickle" in capfd.readouterr().err
        forest = trusting.load_model("forest")
        np.testing.assert_array_equal(found.predict(rows[NUMBERS]), forest.predict(rows))
        with pytest.raises(ConfigError, match="refused"):
            trusting.load_model("custom")
    _trust(project, "true")
    with noria.open(project.root) as trusting, pytest.raises(ConfigError, match="pip install mlflow"):
        trusting.load_model("custom")


def _trust(project: noria.Project, said: str) -> None:
    head = '[project]\nname = "site"\nmodules = []\n'
    (project.root / "noria.toml").write_text(f"{head}[registry]\ntrust_pickle = {said}\n")


def test_the_verb_of_the_folder_loads_too(
    site: Site, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, told = site
    monkeypatch.chdir(project.root)
    loaded: LoadedEstimator = noria.load_model("models:/trees/1")
    np.testing.assert_allclose(loaded.predict(rows), told["trees"], rtol=0, atol=1e-12)
    assert noria.load_model("trees", project=project).flavor == "xgboost"


def test_a_file_that_was_changed_is_named(site: Site) -> None:
    project, _ = site
    part = project.registry.read_folder(project.model("booster")).files["model.lgb"]
    (path,) = (project.root / ".noria" / "storage").rglob(f"*{part.sha256[2:]}*")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    with pytest.raises(DigestMismatch, match=r"the file 'model.lgb' of version booster:1"):
        project.load_model("models:/booster/1")
    path.unlink()
    with pytest.raises(SourceError, match=r"'model.lgb' of version booster:1 is .* its bytes are gone"):
        project.load_model("models:/booster/1")
