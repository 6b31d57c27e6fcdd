"""`<table>__rejected`: rows that were set aside, with the batch they came with, once each."""

from collections.abc import Iterator
from threading import RLock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import to_micros
from noria.errors import Conflict
from noria.lake.data_files import DataFile, stem_of
from noria.lake.delta import Table
from noria.lake.recording import INGEST, Batch
from noria.lake.rewriting import Rewritten, without
from noria.lake.rowsql import Flags
from noria.lake.schema import INSTANT
from noria.lake.spill import Spill
from noria.lake.tables import Tables

__all__ = ["rejected_name", "set_aside"]

_ATTEMPTS = 50
_COMPARED = 100_000  # more rows are not compared with those of a killed attempt, but replace them
_COLUMNS = ("reason", "payload", "row")
_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("payload", pa.string()),
        ("row", pa.int64()),
        ("batch", pa.int64()),
        ("rejected_at", INSTANT),
        ("app", pa.string()),
    ]
)


def rejected_name(dataset: str) -> str:
    """Name the table of a dataset's rejected rows."""
    return f"{dataset}__rejected"


def set_aside(tables: Tables, guard: RLock, batch: Batch, rejects: Spill) -> None:
    """Keep rejected rows; what a killed attempt at this batch left there is replaced."""
    name = rejected_name(batch.dataset)
    for _ in range(_ATTEMPTS):
        with guard:
            table = tables.find(name)
            if table is None and not rejects.rows:
                return
            table = table or tables.create(name, _SCHEMA)
            table.widen(_SCHEMA)
            seen, files, last = table.version, table.files, table.transaction(batch.app)
        before = Rewritten()
        if last is not None and batch.number <= last:
            before = without(table, files, lambda rows: _of_batch(rows, batch), columns=["batch", "app"])
            if before.rows == rejects.rows and _same(table, before.old, batch, rejects):
                return
        elif not rejects.rows:
            return
        new = _written(table, batch, rejects)
        with guard:
            table = tables.get(name)
            if table.version == seen and table.commit(
                add=[*before.new, *new],
                remove=before.old,
                txn=(batch.app, max(batch.number, last or 0)),
                facts={},
                unless=lambda: True,
            ):
                return
    raise Conflict(f"{name!r}: other processes write to it all the time; ingest the batch again")


def _written(table: Table, batch: Batch, rejects: Spill) -> list[DataFile]:
    writer = table.writer(stem_of(batch.number, batch.app))
    for each in _in_order(rejects):
        writer.write(_rows(each, batch).select(table.schema.names))
    return writer.close()


def _in_order(rejects: Spill) -> Iterator[pa.Table]:
    """Give the rows by their place in the batch, where they are few enough to be sorted."""
    if rejects.rows > _COMPARED:
        yield from rejects.tables()
    elif rejects.rows:
        yield pa.concat_tables(rejects.tables()).sort_by("row")


def _rows(rejected: pa.Table, batch: Batch) -> pa.Table:
    def repeated(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rejected.num_rows)

    at = repeated(to_micros(batch.at), pa.int64()).cast(INSTANT)
    columns = [repeated(batch.number, pa.int64()), at, repeated(batch.app, pa.string())]
    return pa.table([*rejected.columns, *columns], schema=_SCHEMA)


def _of_batch(rows: pa.Table, batch: Batch) -> Flags:
    numbers = np.asarray(rows["batch"].fill_null(-1)) == batch.number
    apps = np.asarray(pc.equal(rows["app"].fill_null(INGEST), batch.app))
    flags: Flags = numbers & apps
    return flags


def _same(table: Table, files: list[DataFile], batch: Batch, rejects: Spill) -> bool:
    if rejects.rows > _COMPARED:
        return False
    found = table.read_files(files)
    found = found.filter(pa.array(_of_batch(found, batch))).select(list(_COLUMNS)).sort_by("row")
    mine = [each.select(list(_COLUMNS)) for each in _in_order(rejects)]
    return bool(found.equals(pa.concat_tables(mine)) if mine else not found.num_rows)
