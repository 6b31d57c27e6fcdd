"""Blocks of whole records: nothing is lost, wherever the stream is cut and whatever its quotes are like."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.lake.sources import splitting
from noria.lake.sources.splitting import Block, Splitter

TEXTS = st.lists(
    st.lists(st.text(st.sampled_from('ab",;\n\r é'), max_size=6), min_size=2, max_size=4),
    min_size=1,
    max_size=8,
)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def records(blocks: list[Block]) -> list[list[str] | None]:
    """Give the records of blocks as texts; None for a line that is none."""
    found: list[list[str] | None] = []
    for block in blocks:
        rest = block
        while rest.records or (rest.regular and rest.data.strip(b"\r\n")):
            record, rest = Splitter(",").take_first(rest)
            assert record is not None
            fields = record.fields
            found.append(None if fields is None else [(each or b"").decode() for each in fields])
    return found


@given(TEXTS, st.integers(1, 40))
def test_what_csv_writes_is_found_again_wherever_it_is_cut(rows: list[list[str]], size: int) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    found = records(list(Splitter(",").blocks(cut(out.getvalue().encode(), size))))
    assert found == rows


@given(
    st.binary(max_size=200).map(lambda data: bytes(b'ab",\n\r"'[each % 7] for each in data)),
    st.integers(1, 30),
)
def test_no_byte_is_lost_and_the_records_do_not_depend_on_the_cuts(data: bytes, size: int) -> None:
    whole = list(Splitter(",").blocks(iter([data])))
    pieces = list(Splitter(",").blocks(cut(data, size)))
    assert b"".join(each.data for each in pieces).replace(b"\r", b"").replace(b"\n", b"") == data.replace(
        b"\r", b""
    ).replace(b"\n", b"")
    raws = [[each.raw for block in blocks for each in _raws(block)] for blocks in (whole, pieces)]
    assert raws[0] == raws[1]


def _raws(block: Block) -> list[splitting.Record]:
    if not block.regular:
        return list(block.records)
    return [splitting.Record(each, None) for each in Splitter(",").lines(block.data)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [('x,"never closed', "its quotes do not pair"), ('x,"closed" too soon', "its quotes do not pair")],
)
def test_a_wrong_quote_costs_its_line_and_no_more(line: str, reason: str) -> None:
    data = f'a,b\n{line}\n"c\n",d\ne,"f""g"\n'.encode()
    assert records(list(Splitter(",").blocks(iter([data])))) == [["a", "b"], None, ["c\n", "d"], ["e", 'f"g']]


def test_a_quote_that_is_never_closed_costs_its_line_and_no_more() -> None:
    data = b'a,b\nx,"never closed\n' + b"c,d\n" * 5
    head, rest = Splitter(",").blocks(iter([data]))
    assert (head.data, rest.regular) == (b"a,b\n", False)
    assert [each.reason for each in rest.records if each.fields is None] == ["a quote is never closed"]
    assert len(rest.records) == 6


def test_a_quote_open_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "MAX_RECORD_BYTES", 64)
    data = b'a,b\nx,"never closed\n' + b"c,d\n" * 100
    blocks = list(Splitter(",").blocks(cut(data, 16)))
    assert [each for each in records(blocks) if each != ["c", "d"]] == [["a", "b"], None]
    assert len(records(blocks)) == 102


def test_a_quote_within_a_field_is_a_sign_like_others() -> None:
    (block,) = Splitter(",").blocks(iter([b'5" disc,1\n3,"x"\n']))
    assert records([block]) == [['5" disc', "1"], ["3", "x"]]
