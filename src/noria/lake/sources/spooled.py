"""Rows written to a temporary file first, so that their digest is known before they are read."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from noria.lake.rows import Broken, Rows
from noria.lake.sources.contract import Piece

__all__ = ["SpooledRows", "spooled"]


class SpooledRows:
    """What another source gave; see `noria.lake.sources.contract.Source`."""

    def __init__(self, name: str, rows: Path, wrong: Path, digest: str) -> None:
        self.name = name
        self._rows, self._wrong = rows, wrong
        self.digest: str | None = digest
        self.size_bytes: int | None = rows.stat().st_size
        self.bytes_read = 0

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows; they were brought to the wanted types before they were written."""
        if self._rows.stat().st_size:
            with pa.OSFile(str(self._rows)) as file:
                for batch in pa.ipc.open_stream(file):
                    yield batch
                    self.bytes_read = file.tell()
        with self._wrong.open("rb") as file:
            for line in file:
                yield msgspec.json.decode(line, type=list[Broken])

    def where(self, place: int) -> str | None:
        """What was spooled has no number that people know."""
        return None


@contextmanager
def spooled(source: Rows, wanted: pa.Schema | None, *, folder: Path) -> Iterator[SpooledRows]:
    """Write what a source gives below `folder`; it is gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="rows-", dir=folder) as name:
        rows, wrong = Path(name, "rows.arrow"), Path(name, "wrong.jsonl")
        writer: Any = None
        with rows.open("wb") as file, wrong.open("wb") as others:
            for piece in source.pieces(wanted):
                if isinstance(piece, pa.RecordBatch):
                    if writer is None:
                        writer = pa.ipc.new_stream(pa.PythonFile(_Tee(file, digest), mode="w"), piece.schema)
                    writer.write_batch(piece)
                else:
                    line = msgspec.json.encode(list(piece)) + b"\n"
                    digest.update(line)
                    others.write(line)
            if writer is not None:
                writer.close()
        yield SpooledRows(source.name, rows, wrong, digest.hexdigest())


class _Tee:
    """A file that keeps the digest of what is written through it."""

    closed = False

    def __init__(self, file: Any, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave the file to who opened it."""
