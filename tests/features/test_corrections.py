"""Rows that were corrected: what was known then is computed from what they held then."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.definition import HOUR, VIEWS, reference
from tests.features.histories import INSTANT, assert_same, draw, spine_table, table

from noria.features.offline import point_in_time
from noria.features.replaced import known_rows, replaced_from
from noria.lake.schema import REPLACED_AT

Row = Mapping[str, Any]
Told = tuple[Row, int | None]  # a row, and when another took its place


def corrected(random: Random, rows: Sequence[Row]) -> list[Told]:
    """Let some rows be corrected later, once or several times, whatever they held."""
    told: list[Told] = []
    for row in rows:
        now = row
        while random.random() < 0.45:
            other = random.choice(rows)
            known_at = now["known_at"] + random.choice((1, HOUR, random.randrange(1, 200 * HOUR)))
            event_at = random.choice((now["event_at"], min(other["event_at"], known_at)))
            held = {name: other[name] for name in ("where", "delay", "late", "price", "status", "vector")}
            who = random.choice((now["who"], other["who"]))
            told.append((now, known_at))
            now = {**now, **held, "who": who, "event_at": event_at, "known_at": known_at}
        told.append((now, None))
    random.shuffle(told)
    return told


def with_end(told: Sequence[Told]) -> pa.Table:
    until = pa.array([end for _, end in told], pa.int64()).cast(INSTANT)
    return table([row for row, _ in told]).append_column(REPLACED_AT, until)


def known(told: Sequence[Told], at: int) -> list[Row]:
    """Give the rows that were what was known at an instant."""
    return [row for row, end in told if row["known_at"] <= at and (end is None or at < end)]


def compare(seed: int) -> None:
    """Hold every feature against its definition over what was known."""
    histories = draw(seed, size=6)
    told = corrected(Random(seed), histories.rows)
    spine = histories.spine()
    for view in VIEWS:
        computed = point_in_time(view, with_end(told), spine_table(spine))
        for at in histories.instants:
            places = [place for place, row in enumerate(spine) if row["at"] == at]
            asked = [spine[place] for place in places]
            found = {
                name: column.to_numpy() if pa.types.is_floating(column.type) else column.to_pylist()
                for name, column in zip(computed.column_names, computed.take(places).columns, strict=True)
            }
            assert_same(found, reference(view, known(told, at), asked), view, asked)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_features_are_those_of_the_rows_that_were_known(seed: int) -> None:
    compare(seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_what_is_known_at_an_instant_can_be_loaded_on_its_own(seed: int) -> None:
    histories = draw(seed, size=6)
    told = corrected(Random(seed), histories.rows)
    at = histories.instants[-1]
    rows = known_rows(with_end(told), "known_at", pa.scalar(at).cast(INSTANT))
    spine = spine_table([row for row in histories.spine() if row["at"] == at])
    for view in VIEWS:
        one, other = (point_in_time(view, each, spine) for each in (rows, with_end(told)))
        for name in one.column_names:
            if "faded" in name:
                np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-9, atol=1e-9)
            else:
                np.testing.assert_equal(one[name].to_pylist(), other[name].to_pylist())


def _never(*given: Any, **named: Any) -> None:
    return None


def _late(real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(*given: Any, **named: Any) -> Any:
        found = real(*given, **named)
        return None if found is None else (found[0] + 1, found[1])

    return replaced


@pytest.mark.parametrize("mutant", ["never", "late"])
def test_a_row_that_counts_too_long_is_found(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    changed = _never if mutant == "never" else _late(replaced_from)
    monkeypatch.setattr("noria.features.offline.replaced_from", changed)
    with pytest.raises(AssertionError, match="wanted"):
        for seed in range(40):
            compare(seed)
