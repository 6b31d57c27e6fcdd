"""Columns of codes: their distinct texts, and rules over them."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.checks.codes import distinct_codes
from noria.checks.declarations import matches, one_of
from noria.checks.engine import check_batch

_text = st.text("AB\0é", min_size=0, max_size=4)


@given(st.lists(st.lists(_text, max_size=8), max_size=4), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_the_distinct_texts_of_codes_are_found(chunks: list[list[str]], begin: int) -> None:
    column = pa.chunked_array([pa.array(each, pa.string()) for each in chunks], pa.string()).slice(begin)
    texts = column.to_pylist()
    found = distinct_codes(column)
    widths = {len(each.encode()) for each in texts}
    if len(widths) == 1 and widths <= {1, 2, 3}:
        assert found is not None
        found.validate(full=True)
        assert found.to_pylist() == sorted(set(texts), key=str.encode)
    else:
        assert found is None


def test_a_missing_text_makes_it_no_column_of_codes() -> None:
    assert distinct_codes(pa.chunked_array([["EUR", None]])) is None


def test_codes_of_many_rows_are_all_found() -> None:
    codes = [chr(65 + each // 26) + chr(65 + each % 26) for each in range(26 * 26)]
    column = pa.chunked_array([pa.array(codes[:-1] * 300), pa.array(codes[-1:])])
    found = distinct_codes(column)
    assert found is not None
    assert found.to_pylist() == codes


@pytest.mark.parametrize("bad", ["us", "USD", "EU", ""])
def test_one_code_among_many_is_set_aside(bad: str) -> None:
    rows = pa.table({"c": ["US", "DE", "FR"] * 500 + [bad] + ["US"] * 500})
    for rule in (one_of("c", ["US", "DE", "FR"]), matches("c", "US|DE|FR")):
        verdict = check_batch(rows, [rule], max_rejected_share=1.0)
        assert verdict.rejected["row"].to_pylist() == [1_500]
        assert verdict.findings[0].failing == 1
    assert not check_batch(rows.slice(0, 1_500), [rule], max_rejected_share=1.0).findings
