"""Hashes of texts, told apart by their ends."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.lake.ends import with_ends
from noria.lake.rowsql import RowSql

_texts = st.lists(st.none() | st.text("ab1é\0", max_size=12), max_size=8)


@given(st.lists(_texts, max_size=4), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_equal_hashes_stay_equal_where_the_last_eight_bytes_are(
    chunks: list[list[str | None]], begin: int
) -> None:
    column = pa.chunked_array([pa.array(each, pa.string()) for each in chunks], pa.string()).slice(begin)
    mixed = with_ends(np.full(len(column), 7, np.uint64), column).tolist()
    ends = [int.from_bytes((each or "").encode()[-8:], "little") for each in column.to_pylist()]
    assert len(mixed) == len(ends)
    for one, end in zip(mixed, ends, strict=True):
        assert [each == one for each in mixed] == [each == end for each in ends]


def test_what_lies_beneath_a_missing_text_does_not_count() -> None:
    offsets, data = np.array([0, 9, 18], np.int32), b"numbered1numbered2"
    buffers = [pa.py_buffer(b"\0"), pa.py_buffer(offsets), pa.py_buffer(data)]
    column = pa.chunked_array([pa.Array.from_buffers(pa.string(), 2, buffers)])
    assert len(set(with_ends(np.zeros(2, np.uint64), column).tolist())) == 1


def test_numbered_texts_have_hashes_of_their_own() -> None:
    texts = pa.table({"k": [f"customer-{each:09d}" for each in range(300_000)]})
    sql = RowSql()
    try:
        assert len(np.unique(sql.hashes(texts, ["k"]))) == texts.num_rows
        twice = pa.concat_tables([texts.slice(5, 9), texts.slice(5, 9).combine_chunks()])
        found = sql.hashes(twice, ["k"])
        assert np.array_equal(found[:9], found[9:])
    finally:
        sql.close()
