"""What one request is answered does not depend on others: neither those beside nor those before."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import noria
from noria.serving.formats.scorers import Rows
from noria.serving.jobs import Job
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import decode_frame
from noria.serving.models import LoadedRoute, load_route
from noria.serving.predictor import Predictor
from noria.serving.records import SCORE, Output
from noria.serving.requests import Column, InferRequest, RequestError
from noria.serving.scoring import alike, joined
from noria.streams.spool import Spool, read_spool
from noria.workspace.project import Project

CODE = """\
class Told:
    def predict(self, rows):
        return [repr(each) for each in rows["count"]]


class Holed:
    def predict(self, rows):
        return [each if each < 5 else -float("nan") for each in rows["count"]]  # as a division of zeros gives
"""
FRAME = pd.DataFrame({"a": np.linspace(-1, 1, 30), "b": np.tile([0.0, 1.0, 2.0], 10)})
THREE = np.where(FRAME.b == 0, "low", np.where(FRAME.a > 0, "high", "mid"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "apart"\nmodules = ["told_apart"]\n[environments.production]\n'
    )
    (tmp_path / "told_apart.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with noria.open(tmp_path) as opened:
        yield opened
    sys.modules.pop("told_apart", None)


def loaded(project: Project, model: object, example: object, folder: Path) -> LoadedRoute:
    version = project.models.register(model, name="tried", example=example)
    return load_route(project.deploy(version.ref, to="production").route, folder=folder)


def predictor(folder: Path, spool: Spool, index: PredictionIndex) -> Predictor:
    return Predictor(
        environment="production", deployment="tried", clock="wall", spool=spool, index=index, features=None
    )


def asked(*ids: str, rows: int = 1) -> InferRequest:
    rows = len(ids) or rows
    columns = {"a": Column("FP64", [0.5] * rows), "b": Column("FP64", [1.0] * rows)}
    return InferRequest(rows, columns, prediction_ids=list(ids) or None)


def test_a_strangers_missing_value_makes_no_fractions_of_whole_numbers(
    project: Project, tmp_path: Path
) -> None:
    told = importlib.import_module("told_apart").Told
    (model,) = loaded(project, told, {"count": [1, 2]}, tmp_path).models.values()
    rows = [Rows(np.array([[each]])) for each in (1.0, np.nan, 2.0, 0.5)]
    groups = [list(each) for each in alike(model, rows)]
    assert sorted(groups) == [[0, 2], [1, 3]]
    for group in groups:
        (together,) = model.scorer.predict(joined([rows[each] for each in group]))
        alone = [model.scorer.predict(rows[each])[0][0] for each in group]
        assert list(together) == alone


def test_a_retry_of_what_had_other_outputs_is_refused_and_harms_no_other_request(
    project: Project, tmp_path: Path
) -> None:
    models = [
        LogisticRegression().fit(FRAME, (FRAME.a > 0).astype(int)),
        LogisticRegression().fit(FRAME, THREE),
        LogisticRegression().fit(FRAME, np.where(FRAME.a > 0, "yes", "no")),
        LinearRegression().fit(FRAME, FRAME.a * 3),
    ]
    routes = [loaded(project, each, FRAME[:10], tmp_path) for each in models]
    gives = [each.targets["tried"].outputs for each in routes]
    label = Output(name="label", datatype="BYTES")
    assert gives[0] == gives[3] == (SCORE,)
    assert [each[0] for each in gives[1:3]] == [label, label]
    with Spool(tmp_path / "spool") as spool, PredictionIndex(tmp_path / "index") as index:
        tried = predictor(tmp_path, spool, index)

        def predict(route: LoadedRoute, *ids: str) -> list[object]:
            target = route.targets["tried"]
            found = tried.predict(asked(*ids), target=target, arrived_ns=time.perf_counter_ns())
            return [each.values for each in found.outputs]

        answered = []
        for number, route in enumerate(routes):
            tried.switch(route)
            answered.append(predict(route, f"of-{number}"))
            assert predict(route, f"of-{number}") == answered[-1]
            for before, others in enumerate(gives[:number]):
                if others == gives[number]:
                    assert predict(route, f"of-{before}") == answered[before]
                    continue
                with pytest.raises(RequestError, match="gave other outputs; send new ids") as caught:
                    predict(route, f"of-{before}", f"new-{number}-{before}")
                assert caught.value.status == 409

        target = routes[-1].targets["tried"]
        jobs = [Job(each, routes[-1], target, 0) for each in (asked("of-1"), asked(rows=2))]
        assert tried.answer(jobs) == []
        assert isinstance(jobs[0].error, RequestError)
        assert jobs[1].prediction is not None
        logged = [each for _, data in read_spool(tmp_path / "spool") for each in decode_frame(data).ids]
        assert len(logged) == len(set(logged)) == 4 + 2
        assert not any(each.startswith("new") for each in logged)


@pytest.mark.parametrize("values", [[[1.5], [2.5, 3.5]], [[1.5], [9.5], [2.5, 7.5, 8.5], [0.5], [6.5]]])
def test_what_was_scored_together_is_counted_of_each(
    project: Project, tmp_path: Path, values: list[list[float]]
) -> None:
    route = loaded(project, importlib.import_module("told_apart").Holed, {"count": [1.5, 2.5]}, tmp_path)
    requests = [InferRequest(len(each), {"count": Column("FP64", each)}) for each in values]
    with Spool(tmp_path / "spool") as spool, PredictionIndex(tmp_path / "index") as index:
        tried = predictor(tmp_path, spool, index)
        tried.switch(route)
        jobs = [Job(each, route, route.targets["tried"], 0) for each in requests]
        assert tried.answer(jobs) == []
        (counts,) = tried.counts.releases.values()
    missing = [sum(value > 5 for value in each) for each in values]
    assert (counts.requests, counts.timed, sum(counts.buckets)) == (len(values),) * 3
    assert (counts.rows, counts.missing) == (sum(map(len, values)), sum(missing))
    assert (counts.incomplete, counts.errors) == (sum(map(bool, missing)), 0)
    given = [each.prediction.outputs[0].values for each in jobs if each.prediction is not None]
    expected = [[value if value < 5 else np.nan for value in each] for each in values]
    np.testing.assert_array_equal(np.concatenate(given), np.concatenate(expected))
