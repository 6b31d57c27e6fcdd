"""Rows that wait: in memory while they are few, then in a temporary file."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from noria.lake.files import translated

__all__ = ["Spill"]

_BYTES_IN_MEMORY = 32 * 2**20


class Spill:
    """Tables of one schema, in their order. The file has no name: it goes with the process."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._file: Any = None
        self._segments: list[tuple[int, int]] = []
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Keep rows. Raises `DiskFull` where the temporary file finds no room."""
        self.rows += table.num_rows
        self._held.append(table)
        self._bytes += table.nbytes
        if self._bytes > _BYTES_IN_MEMORY:
            self._flush()

    def tables(self, *, at_least: int = 1) -> Iterator[pa.Table]:
        """Give what was kept, in pieces of so many rows or more, as often as asked."""
        waiting: list[pa.Table] = []
        for each in self._pieces():
            waiting.append(each)
            if sum(one.num_rows for one in waiting) >= at_least:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def _pieces(self) -> Iterator[pa.Table]:
        for begin, end in self._segments:
            self._file.seek(begin)
            with pa.ipc.open_stream(pa.py_buffer(self._file.read(end - begin))) as reader:
                yield reader.read_all()
        yield from self._held

    def close(self) -> None:
        """Let go of the temporary file."""
        self._held = []
        if self._file is not None:
            with suppress(OSError):  # a full disk is told where rows are kept; these are not wanted any more
                self._file.close()
            self._file = None

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="noria-rows-")  # noqa: SIM115 - closed by `close`
            begin = self._file.seek(0, 2)
            with pa.ipc.new_stream(self._file, self._schema) as writer:
                for each in self._held:
                    writer.write_table(each.combine_chunks())
            self._file.flush()
            self._segments.append((begin, self._file.tell()))
        except OSError as err:
            raise translated(err, tempfile.gettempdir()) from err
        self._held, self._bytes = [], 0
