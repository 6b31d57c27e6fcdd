"""What is packed for many rows at once is what is packed row by row."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from noria.features.kept_rows import NOTHING, kept_row
from noria.features.packing import KeyedBytes, kept_rows, spread

INSTANTS = st.integers(-(2**62), 2**62)
ROWS = st.lists(st.tuples(INSTANTS, st.binary(max_size=20), st.lists(st.floats(), min_size=2, max_size=2)))


@given(ROWS)
def test_rows_are_those_that_are_kept_one_by_one(rows: list[tuple[int, bytes, list[float]]]) -> None:
    values = np.array([each[2] for each in rows], dtype=np.float64).reshape(len(rows), 2)
    events = np.array([each[0] for each in rows], dtype=np.int64)
    made = kept_rows(events, [each[1] for each in rows], values).to_pylist()
    assert made == [kept_row(at, key, np.array(kept).tobytes()) for at, key, kept in rows]


@given(st.lists(st.integers(0, 30), unique=True), st.integers(31, 40))
def test_what_is_spread_lies_at_its_place(places: list[int], size: int) -> None:
    parts = pa.array([str(each).encode() for each in places], pa.large_binary())
    wanted = [NOTHING] * size
    for place in places:
        wanted[place] = str(place).encode()
    assert spread(parts, np.array(places, dtype=np.int64), size, empty=NOTHING).to_pylist() == wanted


def test_keys_and_values_come_again_and_again() -> None:
    keys = [b"%06d" % each for each in range(40_000)]
    items = KeyedBytes(keys, pa.array(keys, pa.large_binary()))
    assert list(items) == list(items) == list(zip(keys, keys, strict=True))
