"""Workbooks of Excel. A sheet has at most 1,048,576 rows, and is read as a whole."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from noria.checks.verdicts import row_json
from noria.errors import ConfigError, SourceError
from noria.lake.reading import Reading
from noria.lake.sources.contract import Piece, broken, require
from noria.lake.sources.delimited import checked_names
from noria.lake.sources.files import SourceFile
from noria.lake.sources.standing import Standing
from noria.lake.sources.texts import apart
from noria.lake.sources.values import infer_values, read_values

try:
    import python_calamine as calamine
except ModuleNotFoundError as err:
    raise ConfigError("reading Excel needs the extra `excel`: pip install 'noria[excel]'") from err

__all__ = ["ExcelRows"]

_ROWS = 10_000


class ExcelRows:
    """Rows of one sheet of a workbook; see `noria.lake.sources.contract.Source`.

    Whole numbers are whole, whatever Excel calls them. A cell that holds an error holds nothing.
    """

    def __init__(self, file: SourceFile, reading: Reading) -> None:
        self._file, self._reading = file, reading
        self.name = file.name
        self.size_bytes: int | None = file.size_bytes
        self.bytes_read = 0
        self._standing = Standing("row")
        self._blank = 0  # rows above the table

    def where(self, place: int) -> str | None:
        """Say which row of the sheet something is that was given, as Excel numbers them."""
        return self._standing.find(place)

    @property
    def digest(self) -> str | None:
        """The sha256 of the file."""
        return self._file.digest

    @cached_property
    def _cells(self) -> Iterator[list[Any]]:
        try:
            book = calamine.CalamineWorkbook.from_path(str(self._file.path))
            return iter(self._sheet(book).iter_rows())
        except (calamine.CalamineError, OSError) as err:
            raise self._file.damaged(err, "workbook of Excel") from err

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, at most 10,000 at a time."""
        with self._file.held():
            names, cells = self._named(self._cells)
            if not names:
                return
            require(names, wanted, self.name)
            kinds: list[pa.DataType] = []
            begin = 0
            while rows := [[_plain(each) for each in row] for row in islice(cells, _ROWS)]:
                places = np.array([place for place, row in enumerate(rows) if any(_said(row))], np.int64)
                columns = [list(each) for each in zip(*(rows[place] for place in places), strict=True)]
                if columns:
                    kinds = kinds or [
                        wanted.field(name).type
                        if wanted is not None and name in wanted.names
                        else _inferred(column, self._reading, name)
                        for name, column in zip(names, columns, strict=True)
                    ]
                    yield from self._read(names, kinds, columns, places, begin)
                begin += len(rows)
            self.bytes_read = self._file.size_bytes

    def _read(
        self,
        names: Sequence[str],
        kinds: Sequence[pa.DataType],
        columns: Sequence[list[Any]],
        places: "np.ndarray[Any, np.dtype[np.int64]]",
        begin: int,
    ) -> Iterator[Piece]:
        read = [
            read_values(_fitted(column, kind), kind, time_zone=self._reading.time_zone)
            for column, kind in zip(columns, kinds, strict=True)
        ]
        batch, wrong = apart(names, read, np.arange(len(places)))
        first = self._blank + begin + (2 if self._reading.header else 1)
        self._standing.give_parted(places + first, [each for each, _ in wrong])
        if batch.num_rows:
            yield batch
        if wrong:
            yield [
                broken(
                    reason,
                    row_json(dict(zip(names, (column[place] for column in columns), strict=True))),
                    begin + int(places[place]),
                )
                for place, reason in wrong
            ]

    def _sheet(self, book: Any) -> Any:
        wanted = self._reading.sheet
        if wanted is not None:
            if wanted not in book.sheet_names:
                raise SourceError(
                    f"{self.name} has no sheet {wanted!r}; it has {', '.join(book.sheet_names)}"
                )
            return book.get_sheet_by_name(wanted)
        filled = [each for each in map(book.get_sheet_by_name, book.sheet_names) if each.height]
        if len(filled) > 1:
            raise SourceError(
                f"{self.name} has several sheets ({', '.join(each.name for each in filled)}); "
                "say which: sheet=... (--sheet)"
            )
        return filled[0] if filled else book.get_sheet_by_index(0)

    def _named(self, cells: Iterator[list[Any]]) -> tuple[list[str], Iterator[list[Any]]]:
        """Give the columns' names, and the rows below them."""
        given = self._reading.names
        if given is None and not self._reading.header:
            raise SourceError(f"{self.name} is read without a header, so give names=[...] (--names)")
        for self._blank, head in enumerate(cells):  # a table need not begin in the first row
            if any(_said([_plain(each) for each in head])):
                break
        else:
            return [], cells
        if given is not None and len(given) != len(head):
            raise SourceError(
                f"the first row of {self.name} has {len(head)} cells, but {len(given)} names are given; "
                "name each column once"
            )
        names = given or ["" if (cell := _plain(each)) is None else str(cell) for each in head]
        return checked_names(names, self.name), cells if self._reading.header else chain([head], cells)


def _said(row: Sequence[Any]) -> Iterator[bool]:
    return (each is not None for each in row)


def _plain(cell: Any) -> Any:
    """Give a cell's value: nothing for an empty one, and whole numbers as such."""
    if cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    if cell is None or isinstance(cell, bool | int | float | str | datetime | date):
        return cell
    return str(cell)


def _fitted(column: Sequence[Any], kind: pa.DataType) -> Sequence[Any]:
    """Give what cells mean where a column of `kind` is wanted.

    Excel knows no texts of digits unless it is told, no decimals, and no midnight: it is a day.
    """
    if pa.types.is_string(kind):
        return [
            str(each) if isinstance(each, int | float) and not isinstance(each, bool) else each
            for each in column
        ]
    if pa.types.is_decimal(kind):
        return [Decimal(f"{each:.15g}") if isinstance(each, float) else each for each in column]
    if pa.types.is_timestamp(kind):
        return [
            datetime.combine(each, time())
            if isinstance(each, date) and not isinstance(each, datetime)
            else each
            for each in column
        ]
    return column


def _inferred(column: Sequence[Any], reading: Reading, name: str) -> pa.DataType:
    """Tell a column's type: one of days of which some have an hour is one of instants."""
    timed = any(isinstance(each, datetime) for each in column)
    days = [isinstance(each, date) and not isinstance(each, datetime) for each in column]
    if timed and any(days):
        column = [None if day else each for each, day in zip(column, days, strict=True)]
    return infer_values(column, time_zone=reading.time_zone, expected=reading.types.get(name))
