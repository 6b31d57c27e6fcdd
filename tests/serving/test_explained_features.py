"""Explanations by a real worker: of looked-up features, as of their instant, by the version that answers."""

from typing import Any

import numpy as np
import orjson
import pytest
from tests.serving.conftest import CARRIERS, NOW, VIEW, Trained

from noria.clock import format_instant, to_micros
from noria.deploy.supervisor import Supervisor
from noria.features.backends.lmdb_reading import LmdbFeatureReader

ROWS = [{"carrier": carrier, "distance": distance} for carrier, distance in (("AA", 100.0), ("XX", 719.5))]
FEATURES = ["carrier__flights_1d", "carrier__delay_7d"]


def test_looked_up_features_are_told_and_add_what_the_library_says(
    module_supervisor: Supervisor, online: Any, first: Trained, second: Trained
) -> None:
    with LmdbFeatureReader(online) as reader:
        features = reader.read([VIEW.spec()], {"carrier": ["AA", "XX"]}, to_micros(NOW))
    codes = [CARRIERS.index("AA"), np.nan]
    matrix = np.column_stack([[100.0, 719.5], codes, features])
    with module_supervisor.client() as client:
        body = orjson.dumps({"rows": ROWS, "at": format_instant(NOW)})
        for number, model in ((1, first), (2, second)):
            told = client.post(f"/models/late_arrival/versions/{number}/explain", body)
            wanted = np.asarray(model.booster.predict(matrix, pred_contrib=True))
            for row, (each, known) in enumerate(zip(told["rows"], wanted, strict=True)):
                assert (each["version"], each["base"]) == (number, known[-1])
                by_name = {one["name"]: one for one in each["contributions"]}
                names = ["distance", "carrier", *FEATURES]
                assert [by_name[name]["contribution"] for name in names] == known[:-1].tolist()
                assert {by_name[name]["kind"] for name in FEATURES} == {"feature"}
                values = [
                    np.nan if by_name[name]["value"] is None else by_name[name]["value"] for name in FEATURES
                ]
                np.testing.assert_array_equal(values, features[row])


def test_a_prediction_is_explained_by_the_features_that_it_saw(module_supervisor: Supervisor) -> None:
    ids = [f"explained-{row}" for row in range(12)]
    rows = [{**ROWS[row % 2], "prediction_id": each} for row, each in enumerate(ids)]
    with module_supervisor.client() as client:
        at = format_instant(NOW)
        answered = client.post("/models/late/predict", orjson.dumps({"rows": rows, "at": at}))["rows"]
        assert {each["version"] for each in answered} == {1, 2}
        before = client.post("/models/late/explain", orjson.dumps({"rows": rows, "at": at}))["rows"]
        for answer, wanted in zip(answered, before, strict=True):
            asked = orjson.dumps({"prediction_id": answer["prediction_id"]})
            told = client.post("/models/late/explain", asked)  # without the instant: that is in the log
            assert told == wanted
            assert (told["score"], told["version"]) == (answer["score"], answer["version"])


def test_a_replay_asks_for_the_instant(module_supervisor: Supervisor) -> None:
    with module_supervisor.client() as client, pytest.raises(Exception, match="clock is 'replay'"):
        client.post("/models/late/explain", orjson.dumps(ROWS[0]))
