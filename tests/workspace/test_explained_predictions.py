"""Predictions explained from the lake: as the worker that answered them did, by the version that did."""

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np
import orjson
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.workspace.given_models import make_project

import noria
from noria.cli import explaining
from noria.cli.options import Options
from noria.deploy.collecting import collect_predictions
from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError, NotFound
from noria.serving.wire.explanations import told
from noria.workspace.project import Project

RNG = np.random.default_rng(1)
FRAME = pd.DataFrame({"a": RNG.normal(size=200), "b": RNG.normal(size=200)})
LATE = (FRAME.a + FRAME.b > 0).astype(int)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Give a project in which two versions have answered; each was asked first why it answers so."""
    with noria.open(make_project(tmp_path_factory.mktemp("explained") / "tried")) as opened:
        trees = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(FRAME, LATE)
        line = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LATE)
        supervisor = opened.supervisor("production")
        for number, model in enumerate((trees, line), 1):
            opened.models.register(model, name="late", example=FRAME)
            supervisor.start(opened.deploy("late", to="production").route)
            with supervisor.client() as client:
                row = {"a": -2.0, "b": None if number == 1 else -0.25, "prediction_id": f"of-{number}"}
                client.post("/models/late/predict", orjson.dumps(row))
                asked = orjson.dumps({"prediction_id": f"of-{number}"})
                kept = client.post("/models/late/explain", asked)
            (opened.root / f"told-{number}.json").write_text(json.dumps(kept))
            collect_predictions(supervisor, "late", opened.lake)
        supervisor.stop()
        yield opened


def kept(project: Project, number: int) -> Any:
    return json.loads((project.root / f"told-{number}.json").read_text())


@pytest.mark.parametrize(("number", "method"), [(1, "tree_shap"), (2, "linear_shap")])
def test_the_lake_explains_as_the_worker_did(project: Project, number: int, method: str) -> None:
    found = project.explain(f"of-{number}")
    assert (found.version, found.method, found.unit) == (number, method, "log_odds")
    assert told(found) == kept(project, number)
    (only,) = found.numbers
    assert only.total == pytest.approx(only.base + sum(each.contribution for each in only.contributions))
    assert 1 / (1 + np.exp(-only.total)) == pytest.approx(only.score, abs=1e-9)


def test_the_command_tells_it(project: Project) -> None:
    for as_json in (True, False):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            explaining.explain("of-1", top=1, options=Options(project=project.root, json=as_json))
        text = out.getvalue()
        if as_json:
            assert json.loads(text) == told(project.explain("of-1"), top=1)
        else:
            assert "late:1" in text
            assert "1 other inputs" in text
    with pytest.raises(ConfigError, match="--top is 0"):
        explaining.explain("of-1", top=0, options=Options(project=project.root))


def test_what_is_not_there_or_was_forgotten_is_refused(project: Project) -> None:
    with pytest.raises(NotFound, match="no prediction 'never'"):
        project.explain("never")
    with pytest.raises(NotFound):
        project.explain("of-1", deployment="staging")
    rows = project.lake.read(PREDICTIONS)
    blanked = [
        row | {"prediction_id": f"blanked-{row['version']}", "inputs": {**row["inputs"], "a": None}}
        for row in rows.to_pylist()
    ]
    table = pa.Table.from_pylist(blanked, rows.schema)
    project.lake.append(PREDICTIONS, table, batch=1, app_id="tests/blanked")
    for number in (1, 2):  # trees take what is missing, the linear model does not
        with pytest.raises(ConfigError, match="redacted or forgotten"):
            project.explain(f"blanked-{number}")
