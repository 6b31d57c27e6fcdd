"""How a table gets other columns: only as its dataset declares, each change in one commit.

New columns are null in old rows. Columns with another name, or with a type that holds every old value, need
every row written anew: Delta has neither without features that few readers know. Older versions keep their
files, and read as they were.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from noria.errors import ConfigError, StoreError
from noria.lake.data_files import DataFile, rewritten_stem
from noria.lake.declarations import Dataset
from noria.lake.delta import Table
from noria.lake.row_files import RowFiles
from noria.lake.schema import declared_schema, fill, merged_type

__all__ = ["Reshaped", "changes_of", "evolve", "reshaped"]

_ATTEMPTS = 20


def evolve(table: Table, dataset: Dataset, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a table's columns to what its dataset declares; give what has changed, nothing if nothing has.

    Raises
    ------
    ConfigError
        If the declaration lacks a column, or wants a type that is not a wider one.
    SourceError
        If a value does not fit the wider type either.
    """
    for _ in range(_ATTEMPTS):
        changes = changes_of(table.schema, dataset)
        if not changes:
            return {}
        wanted = _reshaped(table.schema, dataset)
        noted = {**facts, "verb": "evolved", "more": changes}
        if not changes["renamed"] and not changes["retyped"]:
            done = table.commit(facts=noted, unless=lambda: True, schema=wanted, operation="ADD COLUMN")
        else:
            old = table.files
            new = list(_written(table, wanted, changes))
            done = table.commit(
                add=new, remove=old, facts=noted, unless=lambda: True, schema=wanted, operation="REPLACE"
            )
        if done:
            return changes
    raise StoreError(f"{table.uri}: others commit all the time; stop them while its columns are changed")


def changes_of(schema: pa.Schema, dataset: Dataset) -> dict[str, Any]:
    """Say what a declaration wants otherwise: `added`, `renamed`, `retyped`. Raises `ConfigError`."""
    renamed = {}
    for old, new in dataset.renamed.items():
        if old in schema.names and new in schema.names:
            raise ConfigError(
                f"dataset {dataset.name!r}: {old!r} is to be called {new!r}, but its table has both; "
                "take it out of `renamed`"
            )
        if old in schema.names:
            renamed[old] = new
    names = [renamed.get(each, each) for each in schema.names]
    declared = declared_schema(dataset)
    if declared is None:
        return {"added": {}, "renamed": renamed, "retyped": {}} if renamed else {}
    dropped = [each for each in names if each not in declared.names]
    if dropped:
        raise ConfigError(
            f"dataset {dataset.name!r} does not declare {', '.join(dropped)}, which its table has; a table "
            f"keeps its columns. Declare {'it' if len(dropped) == 1 else 'them'} again (rows may hold null "
            "there), say `renamed={'old': 'new'}` if the name has changed, or declare another dataset"
        )
    retyped = {}
    added = {each.name: str(each.type) for each in declared if each.name not in names}
    for each, name in zip(schema, names, strict=True):
        wanted = declared.field(name).type
        if merged_type(each.type, wanted) != each.type and pa.types.is_struct(each.type):
            added[name] = str(merged_type(each.type, wanted))
        elif wanted != each.type and not pa.types.is_struct(each.type):
            if not _holds_all(each.type, wanted):
                raise ConfigError(
                    f"dataset {dataset.name!r} declares {name!r} as {wanted}, its table has {each.type}; a "
                    "column keeps its type, or takes a wider one: a longer integer, double for float or "
                    "integer. Declare it as it is, or add a column of another name"
                )
            retyped[name] = [str(each.type), str(wanted)]
    if not added and not renamed and not retyped:
        return {}
    return {"added": added, "renamed": renamed, "retyped": retyped}


def reshaped(schema: pa.Schema, dataset: Dataset) -> pa.Schema:
    """Give the columns that `evolve` would leave. Raises `ConfigError` like it."""
    return _reshaped(schema, dataset) if changes_of(schema, dataset) else schema


class Reshaped(RowFiles):
    """The files of a table with the columns that its dataset declares, which the table does not have yet."""

    def __init__(self, table: Table, dataset: Dataset) -> None:
        super().__init__(table.store, table.name, reshaped(table.schema, dataset))
        self._table = table
        self._renamed = dataset.renamed

    def read_files(
        self, files: Sequence[DataFile], *, columns: Sequence[str] | None = None, where: Any = None
    ) -> pa.Table:
        """Read rows of `files`; raises like `RowFiles.read_files`."""
        rows = self._table.read_files(files)
        rows = rows.rename_columns([self._renamed.get(each, each) for each in rows.column_names])
        rows = fill(rows, self.schema, name=self.name)
        if where is not None:
            rows = rows.filter(where)
        return rows if columns is None else rows.select(list(columns))


def _reshaped(schema: pa.Schema, dataset: Dataset) -> pa.Schema:
    declared = declared_schema(dataset)
    fields = []
    for each in schema:
        name = dataset.renamed.get(each.name, each.name)
        kind = each.type
        if declared is not None:
            wanted = declared.field(name).type
            kind = merged_type(each.type, wanted) if pa.types.is_struct(kind) else wanted
        fields.append(pa.field(name, kind))
    names = {each.name for each in fields}
    return pa.schema([*fields, *(each for each in declared or () if each.name not in names)])


def _written(table: Table, wanted: pa.Schema, changes: Mapping[str, Any]) -> Iterator[DataFile]:
    rows = RowFiles(table.store, table.name, wanted, taken=table.redactions.paths)
    for file in table.files:
        writer = rows.writer(rewritten_stem(file, "rewrite"))
        for batch in table.batches([file]):
            part = pa.Table.from_batches([batch])
            names = [changes["renamed"].get(each, each) for each in part.column_names]
            writer.write(fill(part.rename_columns(names), wanted, name=table.name))
        yield from writer.close()


def _holds_all(old: pa.DataType, new: pa.DataType) -> bool:
    types = pa.types
    if types.is_signed_integer(old):
        return bool((types.is_signed_integer(new) and new.bit_width > old.bit_width) or types.is_float64(new))
    return bool(types.is_float32(old) and types.is_float64(new))
