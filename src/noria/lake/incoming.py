"""What was handed to an ingest, as pieces of a size that is good to work on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import pyarrow as pa

from noria.errors import NoriaError, SourceError
from noria.lake.declarations import ArrowFrame
from noria.lake.rows import Broken, Rows
from noria.lake.schema import as_table, plain_table

__all__ = ["Incoming"]

_ROWS_PER_PIECE = 1_000_000
_BYTES_PER_PIECE = 128 * 2**20
_STREAMS = ("read_next_batch", "to_arrow_reader", "fetch_record_batch")


class Incoming:
    """A frame, a stream of unknown length, or the rows of a source. Read once.

    Parameters
    ----------
    name
        The dataset, for errors.
    """

    def __init__(self, given: "ArrowFrame | Rows", *, name: str) -> None:
        self._name = name
        self._source: Rows | None = None
        self._reader: pa.RecordBatchReader | None = None
        self._table: pa.Table | None = None
        self._read = 0
        if _is_source(given):
            self._source = given
        elif hasattr(given, "__arrow_c_stream__") and any(hasattr(given, each) for each in _STREAMS):
            self._reader = pa.RecordBatchReader.from_stream(given)
        else:
            self._table = as_table(given, name=name)

    @property
    def rows(self) -> int | None:
        """How many rows there are; None where that shows only when they are read."""
        return None if self._table is None else self._table.num_rows

    @property
    def empty_schema(self) -> pa.Schema | None:
        """The columns of a frame without rows."""
        if self._reader is not None:
            return self._reader.schema
        return None if self._table is None else self._table.schema

    @property
    def label(self) -> str:
        """Where the rows come from, for people."""
        return getattr(self._source, "name", None) or "its stream"

    def where(self, place: int | None) -> str:
        """Say where something stands that was given, counted from 0: `line 7`; empty if nothing tells."""
        find: Callable[[int], str | None] | None = getattr(self._source, "where", None)
        return "" if find is None or place is None else find(place) or ""

    def pieces(self, wanted: pa.Schema | None) -> Iterator[pa.Table | Sequence[Broken]]:
        """Give rows, small pieces joined and large ones divided, and what could not be read.

        Raises
        ------
        SourceError
            If the source cannot be read to its end; says after how many rows.
        """
        held: list[pa.Table] = []
        rows = size = 0
        for piece in self._raw(wanted):
            if not isinstance(piece, pa.Table):
                if held:
                    yield pa.concat_tables(held)
                    held, rows, size = [], 0, 0
                if piece:
                    yield piece
                continue
            if held and not piece.schema.equals(held[0].schema):
                yield pa.concat_tables(held)
                held, rows, size = [], 0, 0
            held.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if rows >= _ROWS_PER_PIECE or size >= _BYTES_PER_PIECE:
                yield pa.concat_tables(held)
                held, rows, size = [], 0, 0
        if held:
            yield pa.concat_tables(held)

    def _raw(self, wanted: pa.Schema | None) -> Iterator[pa.Table | Sequence[Broken]]:
        if self._table is not None:
            for start in range(0, self._table.num_rows, _ROWS_PER_PIECE):
                yield self._table.slice(start, _ROWS_PER_PIECE)
            return
        source: Iterator[Any] = iter(self._reader or ())
        if self._source is not None:
            source = self._source.pieces(wanted)
        while True:
            try:
                piece: Any = next(source, None)
            except NoriaError:
                raise
            except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RuntimeError) as err:
                raise SourceError(
                    f"{self._name!r}: reading {self.label} stopped after {self._read} rows, nothing of it "
                    f"was written: {err}"
                ) from err
            if piece is None:
                return
            if isinstance(piece, pa.RecordBatch | pa.Table):
                self._read += piece.num_rows
                if piece.num_rows:
                    yield from _divided(plain_table(piece, name=self._name))
            else:
                self._read += len(piece)
                yield piece


def _divided(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, _ROWS_PER_PIECE):
        yield table.slice(start, _ROWS_PER_PIECE)


def _is_source(given: ArrowFrame | Rows) -> TypeGuard[Rows]:
    return hasattr(given, "pieces")
