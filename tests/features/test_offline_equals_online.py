"""One definition, three ways to its value: from the definition in plain Python, offline, and online."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.definition import VIEWS
from tests.features.histories import AT_ONCE, compare, draw, spine_table, table

from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.declarations import Aggregation, AggregationKind, FeatureSpec
from noria.features.kept_values import LastValues
from noria.features.layout import TierLayout
from noria.features.offline import point_in_time

seeds = st.integers(0, 2**64 - 1)
HISTORIES = 2_500


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbOnlineStore]:
    with LmdbOnlineStore(tmp_path_factory.mktemp("online"), map_size=1 << 20) as opened:
        yield opened


def test_every_kind_of_feature_is_in_the_property() -> None:
    for view in VIEWS[:2]:
        assert {each.aggregation.kind for each in view.spec().features} == {*AggregationKind}


def test_thousands_of_histories_are_the_definition_exactly(store: LmdbOnlineStore) -> None:
    @settings(max_examples=HISTORIES // AT_ONCE, deadline=None)
    @given(seeds)
    def the_property(seed: int) -> None:
        compare(draw(seed), store)

    the_property()


@pytest.mark.soak
def test_a_hundred_thousand_histories_agree(store: LmdbOnlineStore) -> None:
    @settings(max_examples=100_000 // AT_ONCE, deadline=None)
    @given(seeds)
    def the_property(seed: int) -> None:
        compare(draw(seed), store)

    the_property()


@settings(max_examples=40, deadline=None)
@given(seeds, seeds, st.integers(0, 7))
def test_later_events_change_no_value(seed: int, another: int, which: int) -> None:
    histories, more = draw(seed), draw(another)
    at = histories.instants[which % len(histories.instants)]
    known = [row for row in histories.rows if row["known_at"] <= at]
    later = [{**row, "id": f"later {row['id']}"} for row in more.rows if row["known_at"] > at]
    spine = spine_table([row for row in histories.spine() if row["at"] == at])
    for view in VIEWS:
        before = point_in_time(view, table(known), spine)
        for rows in (known + later, later + histories.rows):
            after = point_in_time(view, table(rows), spine)
            assert _bytes(after) == _bytes(before)


def _bytes(features: Any) -> list[bytes]:
    """Give columns as they are, to the last bit: two NaN are equal then."""
    return [
        np.asarray(column).tobytes() if column.type == "double" else str(column.to_pylist()).encode()
        for column in features.columns
    ]


def _tile_later(layout: TierLayout, at_us: int, window_s: int) -> int:
    return (at_us - window_s * 1_000_000) // layout.width_us + 1


def _tile_earlier(layout: TierLayout, at_us: int, window_s: int) -> int:
    return (at_us - window_s * 1_000_000) // layout.width_us - 1


def _first_later(at_us: Any, window_us: int, width_us: int) -> Any:
    return (at_us - window_us) // width_us + 1


def _first_earlier(at_us: Any, window_us: int, width_us: int) -> Any:
    return (at_us - window_us) // width_us - 1


def _microsecond_late(event_us: Any, width_us: int) -> Any:
    return (event_us + 1) // width_us


def _microsecond_early(event_us: Any, width_us: int) -> Any:
    return (event_us - 1) // width_us


def _forever(feature: FeatureSpec, ttl: str, view: str) -> Aggregation:
    return feature.aggregation


def _whatever_the_key(row: LastValues, event_us: int, key: bytes) -> bool:
    return row[0] > event_us


def _not_at_once(row: LastValues, event_us: int, key: bytes) -> bool:
    return (row[0] + 1, row[1]) > (event_us, key)


@pytest.mark.parametrize(
    ("where", "mutant"),
    [
        ("noria.features.layout.TierLayout.first_bucket", _tile_later),
        ("noria.features.layout.TierLayout.first_bucket", _tile_earlier),
        ("noria.features.offline.first_tiles", _first_later),
        ("noria.features.offline.first_tiles", _first_earlier),
        ("noria.features.offline.tiles_of", _microsecond_late),
        ("noria.features.offline.tiles_of", _microsecond_early),
        ("noria.features.declarations._limited", _forever),
        ("noria.features.view_tiles.happened_after", _whatever_the_key),
        ("noria.features.view_tiles.happened_after", _not_at_once),
    ],
)
def test_what_is_off_by_one_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, mutant: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, mutant)
    with LmdbOnlineStore(tmp_path) as store, pytest.raises(AssertionError, match="wanted"):
        for seed in range(HISTORIES // AT_ONCE):
            compare(draw(seed), store)
