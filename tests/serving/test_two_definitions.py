"""A route whose releases need different definitions of one view: each gets its own, and the log has both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving.conftest import FLIGHTS, NOW, VIEW, Trained, landed, route
from tests.serving.test_worker_answers import ROWS, logged, matrix_of

from noria.clock import to_micros
from noria.deploy.supervisor import Supervisor
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.serving.client import InferError
from noria.serving.features.looked_up import logged_name, looked_up_columns
from noria.serving.records import WorkerConfig

CHANGED = FeatureView(
    "carrier",
    source=FLIGHTS,
    entity="carrier",
    features={"flights_1d": agg.count(window="2d"), "delay_7d": agg.mean("delay", window="3d")},
)


def changed_matrix(online: Path) -> Any:
    with LmdbFeatureReader(online) as reader:
        features = reader.read([CHANGED.spec()], {"carrier": ROWS["carrier"]}, to_micros(NOW))
    matrix = matrix_of(online)
    matrix[:, 2:] = features
    return matrix


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_champion_and_challenger_see_their_own_definition(
    tmp_path: Path,
    worker_config: WorkerConfig,
    online: Path,
    first: Trained,
    second: Trained,
    order: tuple[int, ...],
) -> None:
    models = {1: first.served(1), 2: second.served(2, views=[CHANGED.spec()])}
    ids = [f"two-{row}" for row in range(5)]
    with Supervisor(tmp_path / "production", worker_config) as supervisor:
        supervisor.start(route(3, *(models[each] for each in order), weights=[0.5, 0.5]))
        with supervisor.client() as client:
            if order == (1, 2):
                with pytest.raises(InferError, match="cannot be looked up"):
                    client.infer("late_arrival", ROWS, ids=ids, at=NOW)
                with LmdbOnlineStore(online) as store:
                    store.load(CHANGED, landed())
            answers = client.infer("late_arrival", ROWS, ids=ids, at=NOW)
            alone = client.infer("late_arrival", ROWS, ids=[f"{each}-2" for each in ids], at=NOW, version=2)
        old, new = matrix_of(online), changed_matrix(online)
        assert not np.array_equal(old, new, equal_nan=True)
        wanted = {1: first.booster.predict(old), 2: second.booster.predict(new)}
        assert answers.scores == [wanted[version][row] for row, version in enumerate(answers.versions)]
        assert len(set(answers.versions)) == 2
        assert alone.scores == list(wanted[2])
        frame = logged(supervisor, "two-0")
        values = dict(zip(frame.feature_names, frame.feature_matrix().T, strict=True))
        for view, matrix in ((VIEW, old), (CHANGED, new)):
            for place, column in enumerate(view.columns, 2):
                np.testing.assert_array_equal(values[logged_name(view.spec(), column)], matrix[:, place])
        for place, column in enumerate(VIEW.columns, 2):
            seen = [
                (old if version == 1 else new)[row, place] for row, version in enumerate(answers.versions)
            ]
            np.testing.assert_array_equal(values[column], seen)
        assert logged(supervisor, "two-0-2").feature_names == list(CHANGED.columns)


def test_one_definition_is_logged_by_its_plain_names() -> None:
    spec = VIEW.spec()
    found = looked_up_columns([spec], [("late:1", [spec]), ("late:2", [spec])])
    assert found.names == list(VIEW.columns)
    assert found.releases["late:1"] == found.releases["late:2"]
    matrix = np.ones((2, 2))
    assert found.logged(matrix, ["late:1", "late:2"]) is matrix
    assert logged_name(spec, "carrier__flights_1d") == f"carrier@{spec.digest[:12]}__flights_1d"
