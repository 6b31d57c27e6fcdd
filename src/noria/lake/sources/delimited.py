"""CSV and its kin: read in blocks; what is no row is kept with its raw text, all other rows go on."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from noria.errors import SourceError
from noria.lake.reading import Reading
from noria.lake.rows import Broken
from noria.lake.sources.contract import Piece, broken, require
from noria.lake.sources.files import SourceFile, as_utf8
from noria.lake.sources.splitting import Block, Splitter
from noria.lake.sources.standing import Standing, count_lines
from noria.lake.sources.texts import Column, apart, infer_type, read_texts

__all__ = ["DelimitedRows", "checked_names"]

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 50
_SAMPLE_BYTES = 1 << 16
_LOCAL = pa.timestamp("us")


class DelimitedRows:
    """Rows of a text file with a delimiter; see `noria.lake.sources.contract.Source`."""

    def __init__(self, file: SourceFile, reading: Reading) -> None:
        self._file, self._reading = file, reading
        self.name = file.name
        self.size_bytes: int | None = file.size_bytes
        self._standing = Standing("line")

    def where(self, place: int) -> str | None:
        """Say on which line of the file something begins that was given."""
        return self._standing.find(place)

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read."""
        return self._file.bytes_read

    @property
    def digest(self) -> str | None:
        """The sha256 of the file."""
        return self._file.digest

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows of each block, then what was none in it."""
        chunks = as_utf8(self._file.chunks(), encoding=self._reading.encoding, called=self._file.called)
        first, line = b"", 1
        for first in chunks:
            if first.strip(b"\r\n"):
                break
            line += count_lines(first)
        if not first.strip(b"\r\n"):
            return
        splitter = Splitter(self._reading.delimiter or self._sniffed(first))
        blocks = splitter.blocks(chain([first], chunks))
        whole = next(blocks)
        names, block = self._named(splitter, whole)
        line += count_lines(whole.data[: len(whole.data) - len(block.data)])
        require(names, wanted, self.name)
        table = _Table(names, self._reading, self._file.called)
        place = 0
        for each in chain([block], blocks):
            parsed = _parse(splitter, each, len(names))
            records = parsed.rows + len(parsed.wrong)
            lines = splitter.lines_of(each, records)
            if parsed.rows:
                rows, wrong = table.read(parsed, wanted)
                wrong = sorted([*parsed.wrong, *wrong])
                if rows.num_rows:
                    yield rows
            else:
                wrong = parsed.wrong
            if lines is None:
                self._standing.give(None, rows=records)
            else:
                self._standing.give_parted(lines + line, [each for each, _ in wrong])
            if wrong:
                yield _kept(splitter, parsed, wrong, place)
            place += records
            line += count_lines(each.data)

    def _sniffed(self, first: bytes) -> str:
        """Find the delimiter: the only one that the header has, or that all first lines have as often."""
        if {".tsv", ".tab"} & {each.lower() for each in PurePath(self.name).suffixes}:
            return "\t"
        whole = len(first) <= _SAMPLE_BYTES
        sample = first if whole else first[: first[:_SAMPLE_BYTES].rfind(b"\n") + 1] or first[:_SAMPLE_BYTES]
        cut = {each: list(Splitter(each).blocks(iter([sample]))) for each in _DELIMITERS}
        widths = {each: _widths(Splitter(each), blocks) for each, blocks in cut.items()}
        found = [each for each in _DELIMITERS if widths[each] and widths[each][0] > 1]
        if len(found) > 1:
            found = [each for each in found if all(block.regular for block in cut[each])] or found
        if len(found) > 1:
            even = [each for each in found if len(set(widths[each])) == 1]
            found = even or found
        if len(found) > 1:
            listed = " or ".join(map(repr, found))
            raise SourceError(
                f"{self._file.called} may be delimited by {listed}; say which: delimiter=... (--delimiter)"
            )
        return found[0] if found else ","

    def _named(self, splitter: Splitter, block: Block) -> tuple[list[str], Block]:
        """Give the columns' names, and the block without the header."""
        given = self._reading.names
        record, rest = splitter.take_first(block)
        if record is None or record.fields is None:
            raise SourceError(
                f"{self._file.called} begins with a line that is no row: {record.reason if record else ''}; "
                "correct its quotes"
            )
        if given is not None and len(given) != len(record.fields):
            raise SourceError(
                f"the first line of {self.name} has {len(record.fields)} fields, but {len(given)} names are "
                "given; name each column once"
            )
        if not self._reading.header:
            if given is None:
                raise SourceError(
                    f"{self._file.called} has no header, so its columns need names: give names=[...] "
                    f"(--names), {len(record.fields)} of them"
                )
            return checked_names(given, self.name), block
        if given is None:
            try:
                given = [(each or b"").decode() for each in record.fields]
            except UnicodeDecodeError as err:
                raise SourceError(
                    f"the header of {self.name} is no UTF-8 text; say its encoding, for example "
                    "encoding='cp1252' (--encoding cp1252)"
                ) from err
        return checked_names(given, self.name), rest


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A block taken apart: columns of bytes, and what is no row.

    `rows` were parsed; `places` are their places among the block's records, `wrong` the others'.
    """

    block: Block
    columns: list[pa.Array]
    places: "np.ndarray[Any, np.dtype[np.int64]]"
    wrong: list[tuple[int, str]]

    @property
    def rows(self) -> int:
        return len(self.places)


class _Table:
    """Brings columns of bytes to their types, which the first block decides where none is wanted."""

    def __init__(self, names: Sequence[str], reading: Reading, called: str) -> None:
        self._names, self._reading, self._called = names, reading, called
        self._kinds: list[pa.DataType] = []

    def read(self, parsed: _Parsed, wanted: pa.Schema | None) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
        """Give the rows that could be read, and the others with the reason."""
        nulls, time_zone = self._reading.nulls, self._reading.time_zone
        first = not self._kinds
        if wanted is not None and self._reading.only_wanted:
            places = [place for place, name in enumerate(self._names) if name in wanted.names]
            parsed = replace(parsed, columns=[parsed.columns[place] for place in places])
        else:
            places = list(range(len(self._names)))
        names = [self._names[place] for place in places]
        if first:
            self._kinds = [
                wanted.field(name).type
                if wanted is not None and name in wanted.names
                else infer_type(
                    column, nulls=nulls, time_zone=time_zone, expected=self._reading.types.get(name)
                )
                for name, column in zip(names, parsed.columns, strict=True)
            ]
        columns = [
            read_texts(raw, kind, nulls=nulls, time_zone=time_zone)
            for raw, kind in zip(parsed.columns, self._kinds, strict=True)
        ]
        if first and time_zone is None:
            self._refuse_local(names, parsed, columns)
        return apart(names, columns, parsed.places)

    def _refuse_local(self, names: Sequence[str], parsed: _Parsed, columns: Sequence[Column]) -> None:
        for name, raw, kind, column in zip(names, parsed.columns, self._kinds, columns, strict=True):
            if (
                column.bad is None
                or column.values.null_count < parsed.rows
                or not pa.types.is_timestamp(kind)
            ):
                continue
            if kind.tz is not None and read_texts(raw, _LOCAL).values.null_count < parsed.rows:
                raise SourceError(
                    f"{self._called}: column {name!r} holds instants without an offset, wanted is "
                    f"{kind}; say where the clock stood: time_zone='Europe/Vienna' "
                    "(--time-zone Europe/Vienna), or UTC"
                )


def _parse(splitter: Splitter, block: Block, width: int) -> _Parsed:
    if not block.regular:
        return _parsed_records(block, width)
    if not block.data.strip(b"\r\n"):
        return _Parsed(block, [], np.empty(0, np.int64), [])
    ragged: list[tuple[int, str]] = []

    def note(row: Any) -> str:
        ragged.append((row.number - 1, _ragged(row.actual_columns, width)))
        return "skip"

    columns = [str(place) for place in range(width)]
    table = pacsv.read_csv(
        pa.BufferReader(block.data),
        read_options=pacsv.ReadOptions(
            use_threads=False, column_names=columns, block_size=len(block.data) + 1
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=splitter.delimiter.decode(), newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    places = np.arange(table.num_rows + len(ragged))
    if ragged:
        places = np.delete(places, [place for place, _ in ragged])
    arrays = [_one(column) for column in table.columns]
    return _Parsed(block, arrays, places, ragged)


def _parsed_records(block: Block, width: int) -> _Parsed:
    rows: list[Sequence[bytes | None]] = []
    places: list[int] = []
    wrong: list[tuple[int, str]] = []
    for place, each in enumerate(block.records):
        if each.fields is None:
            wrong.append((place, each.reason))
        elif len(each.fields) != width:
            wrong.append((place, _ragged(len(each.fields), width)))
        else:
            rows.append(each.fields)
            places.append(place)
    columns = [pa.array([row[column] for row in rows], pa.binary()) for column in range(width)]
    return _Parsed(block, columns, np.array(places, np.int64), wrong)


def _kept(splitter: Splitter, parsed: _Parsed, wrong: Sequence[tuple[int, str]], begin: int) -> list[Broken]:
    block = parsed.block
    raws = splitter.lines(block.data) if block.regular else [each.raw for each in block.records]
    return [broken(reason, raws[place], begin + place) for place, reason in wrong]


def _ragged(found: int, wanted: int) -> str:
    return f"{found} {'field' if found == 1 else 'fields'}, wanted {wanted}"


def _widths(splitter: Splitter, blocks: Sequence[Block]) -> list[int]:
    """Count the fields of the first records."""
    widths: list[int] = []
    for block in blocks:
        rest = block
        while len(widths) < _SAMPLE_RECORDS and (rest.records or (rest.regular and rest.data.strip(b"\r\n"))):
            record, rest = splitter.take_first(rest)
            if record is not None and record.fields is not None:
                widths.append(len(record.fields))
    return widths


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def checked_names(names: Sequence[str], source: str) -> list[str]:
    """Give the names of columns in one spelling (NFC).

    Raises
    ------
    SourceError
        If one is empty, or comes twice.
    """
    found = [unicodedata.normalize("NFC", each) for each in names]
    unnamed = [str(place + 1) for place, each in enumerate(found) if not each.strip()]
    if unnamed:
        raise SourceError(
            f"column {', '.join(unnamed)} of {source} has no name; write one into its header, "
            "or name all columns: names=[...] (--names)"
        )
    twice = sorted({each for each in found if found.count(each) > 1})
    if twice:
        raise SourceError(
            f"{source} has column {', '.join(map(repr, twice))} more than once; rename one in its header, "
            "or name all columns: names=[...] (--names)"
        )
    return found
