"""Metrics along runs, gathered so that no extreme is lost."""

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from noria.ledger.store import Ledger
from noria.records import RunId
from noria.tracking.histories import HistoryReader
from noria.tracking.records import MetricPoint
from noria.tracking.runs import tracked_run
from noria.tracking.store import TrackingStore

_MAX = sys.float_info.max
_TINY = 5e-324


def _log(ledger: Ledger, values: Sequence[float]) -> RunId:
    with tracked_run(ledger, "train", "trial", experiment="night") as run:
        points = [
            MetricPoint(name="loss", value=value, step=step, at_us=1_000_000 + step)
            for step, value in enumerate(values)
        ]
        TrackingStore(ledger.database).append_points(run.id, points)
    return run.id


def test_few_points_are_given_as_they_are(either_ledger: Ledger) -> None:
    run = _log(either_ledger, [3.0, math.nan, -math.inf, 1.5])
    found = HistoryReader(either_ledger.database).curves([run], "loss", parts=4)[run]
    assert (found.steps, found.points, found.unfit) == ([0, 1, 2, 3], 4, 2)
    assert found.at_us == [1_000_000, 1_000_001, 1_000_002, 1_000_003]
    for values in (found.means, found.lows, found.highs):
        assert np.array_equal(values, [3.0, math.nan, math.nan, 1.5], equal_nan=True)


def test_many_points_are_gathered_with_their_extremes(either_ledger: Ledger) -> None:
    values = [math.sin(step / 50) for step in range(1_003)]
    values[577] = 99.0
    run, other = _log(either_ledger, values), _log(either_ledger, [1e308, 1e308, -1e308])
    found = HistoryReader(either_ledger.database).curves([run, other, RunId("none")], "loss", parts=10)
    curve = found[run]
    pieces = [values[-(-place * 1_003 // 10) : -(-(place + 1) * 1_003 // 10)] for place in range(10)]
    assert curve.points == 1_003
    assert curve.highs == [max(each) for each in pieces]
    assert curve.lows == [min(each) for each in pieces]
    assert np.allclose(curve.means, [np.mean(each) for each in pieces])
    assert (max(curve.highs), curve.steps[-1]) == (99.0, 1_002)
    assert found[other].means == [1e308, 1e308, -1e308]
    assert (found[RunId("none")].points, found[RunId("none")].steps) == (0, [])


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([0.1, 0.2, 0.6, 0.3], 0.3),
        ([1e200, 1.0], 5e199),
        ([1e200, -1e200, 3.0], 1.0),
        ([_MAX] * 4, _MAX),  # as MLflow's server keeps an infinity
        ([_MAX, -_MAX, 3.0, -3.0], 0.0),
        ([_MAX, 0.0, math.nan, math.inf], _MAX / 2),
        ([_TINY] * 3, _TINY),
        ([_TINY, 1.0], 0.5),
    ],
)
def test_a_part_is_drawn_as_its_mean_however_large_or_small_it_is(
    either_ledger: Ledger, values: list[float], mean: float
) -> None:
    run = _log(either_ledger, values)
    curve = HistoryReader(either_ledger.database).curves([run], "loss", parts=1)[run]
    assert curve.means == [pytest.approx(mean, rel=1e-12)]
    assert (curve.points, len(curve.lows), curve.lows <= curve.means <= curve.highs) == (len(values), 1, True)
