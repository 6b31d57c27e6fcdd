"""The rows of a training set before they have features, piece by piece, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from noria.errors import ConfigError
from noria.lake.schema import as_table, plain_table
from noria.lake.versions import stored_versions
from noria.records import Version
from noria.training.declarations import Spine
from noria.workspace.querying import limits_of

if TYPE_CHECKING:
    from noria.lake.declarations import ArrowFrame
    from noria.workspace.project import Project

__all__ = ["OpenedSpine", "opened_spine"]

_NAME = "spine"


@dataclass(frozen=True, slots=True)
class OpenedSpine:
    """Rows that are read once.

    Attributes
    ----------
    at
        The column of instants.
    read
        The versions that the rows come from.
    """

    at: str
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    read: tuple[Version, ...] = ()

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        """Give the rows in tables of so many, the last one with what is left; at least one, maybe empty."""
        if rows < 1:
            raise ConfigError(f"rows_at_once is {rows}; join one row at a time or more")
        waiting: list[pa.RecordBatch] = []
        held, given = 0, False
        for batch in self.batches:
            waiting.append(batch)
            held += batch.num_rows
            while held >= rows:
                table = pa.Table.from_batches(waiting, self.schema)
                yield self._plain(table.slice(0, rows))
                given = True
                waiting = table.slice(rows).to_batches()
                held -= rows
        if held or not given:
            yield self._plain(pa.Table.from_batches(waiting, self.schema))

    def _plain(self, table: pa.Table) -> pa.Table:
        """Give texts for numbered texts: their numbers are others in each piece."""
        table = plain_table(table, name=_NAME)
        for place, each in enumerate(table.schema):
            if pa.types.is_dictionary(each.type):
                table = table.set_column(place, each.name, table.column(place).cast(each.type.value_type))
        return table


@contextmanager
def opened_spine(
    project: Project, spine: ArrowFrame | Spine | str, *, at: str, folder: Path
) -> Iterator[OpenedSpine]:
    """Open a spine for the block: a frame or a stream of one, a declared spine, or a SELECT.

    Parameters
    ----------
    folder
        Where the answer of a SELECT is kept meanwhile: it need not fit into memory.

    Raises
    ------
    SourceError
        If it is no frame.
    """
    if isinstance(spine, str):
        yield _asked(project, spine, at, folder / "spine.arrow")
    elif isinstance(spine, Spine):
        name = spine.source.name
        versions = stored_versions(project.ledger, name)
        rows = project.lake.reader(name, version=versions[-1] if versions else None)
        yield OpenedSpine(spine.at, rows.schema, rows.scanner().to_batches(), tuple(versions[-1:]))
    elif hasattr(spine, "__arrow_c_stream__") and not isinstance(spine, pa.Table):
        with pa.RecordBatchReader.from_stream(spine) as reader:
            yield OpenedSpine(at, reader.schema, reader)
    else:
        table = as_table(spine, name=_NAME)
        yield OpenedSpine(at, table.schema, cast("Iterable[pa.RecordBatch]", table.to_reader()))


def _asked(project: Project, sql: str, at: str, path: Path) -> OpenedSpine:
    """Answer a SELECT into a file, within the time and memory that any query may take."""
    from noria.warehouse.query import answering
    from noria.workspace.tables import ProjectTables

    tables = ProjectTables(project, is_recorded=True)
    with (
        answering(sql, tables, travel=tables.as_it_was, limits=limits_of(project, None)) as answer,
        pa.ipc.new_file(str(path), answer.schema) as writer,
    ):
        for batch in answer:
            writer.write_batch(batch)
    opened = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    return OpenedSpine(at, opened.schema, batches, tuple(each for each in tables.read.values() if each))
