from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from noria.lake.reading import Reading
from noria.lake.rows import Broken
from noria.lake.sources.contract import Source
from noria.lake.sources.opening import open_source


@dataclass
class Taken:
    """What a source gave: the rows, and what was none."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    schema: pa.Schema | None = None

    @property
    def told(self) -> list[tuple[int, str, str]]:
        return [(each.row, each.reason, each.payload) for each in self.broken]


def drain(source: Source, wanted: pa.Schema | None = None) -> Taken:
    taken = Taken()
    for piece in source.pieces(wanted):
        if isinstance(piece, pa.RecordBatch):
            assert taken.schema is None or taken.schema.equals(piece.schema)
            taken.schema = piece.schema
            taken.rows += piece.to_pylist()
        else:
            assert piece
            taken.broken += piece
    return taken


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Taken]:
    """Give a function that writes a file, reads it as a source, and gives what came."""

    def run(
        content: str | bytes, *, name: str = "rows.csv", wanted: pa.Schema | None = None, **how: Any
    ) -> Taken:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        (source,) = open_source(path, reading=Reading(**how))
        return drain(source, wanted)

    return run


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Give what makes files come in chunks of so many bytes."""

    def set_size(size: int) -> None:
        monkeypatch.setattr("noria.lake.sources.files.CHUNK_BYTES", size)

    yield set_size
