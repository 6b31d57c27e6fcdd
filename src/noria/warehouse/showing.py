"""What is told of one table: what it is, its columns and where they come from, its tests, its last build."""

from datetime import datetime

import msgspec

from noria.errors import NotFound
from noria.lake.files import open_files
from noria.lake.tables import Tables
from noria.ledger.store import Ledger
from noria.records import RunState, Version
from noria.warehouse.deciding import KIND
from noria.warehouse.lineage import Lineage
from noria.warehouse.records import ColumnLineage
from noria.warehouse.transforming import Warehouse

__all__ = ["ColumnShown", "TableShown", "TestShown", "column_lineage", "show_table"]


class ColumnShown(msgspec.Struct, frozen=True, kw_only=True):
    """A column; `sources` are `table.column`, perhaps more than there are where `approximate`."""

    name: str
    type: str
    sources: tuple[str, ...] = ()
    approximate: bool = False


class TestShown(msgspec.Struct, frozen=True, kw_only=True):
    """A test that a build has to pass."""

    name: str
    severity: str


class TableShown(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it is shown. `now` tells whether it is stale, and why."""

    name: str
    kind: str  # model, view or table
    path: str = ""
    materialize: str = ""
    partition: str = ""
    key: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    columns: tuple[ColumnShown, ...] = ()
    tests: tuple[TestShown, ...] = ()
    version: str | None = None
    rows: int | None = None
    built_at: datetime | None = None
    run: str | None = None
    now: str = ""


def show_table(warehouse: Warehouse, ledger: Ledger, name: str, *, url: str) -> TableShown:
    """Show a model, or any other table of the lake. Raises `NotFound`, which says what exists."""
    graph, name = warehouse.graph, name.lower() if name.lower() in warehouse.graph.models else name
    tables = Tables(open_files(url))
    table = tables.find(name)
    readers = tuple(sorted(each for each, reads in graph.reads.items() if name in reads))
    version = _newest(ledger, name)
    types = {} if table is None else {each.name: str(each.type) for each in table.schema}
    model = graph.models.get(name)
    if model is None and table is None:
        raise NotFound("table", name, {*graph.models, *tables.names()})
    if model is None:
        return TableShown(
            name=name,
            kind="table",
            readers=readers,
            columns=tuple(ColumnShown(name=each, type=kind) for each, kind in types.items()),
            version=None if version is None else version.ref,
            rows=None if table is None else table.rows,
        )
    lineage = _lineage(warehouse, tables)
    types = {} if model.is_view else types
    columns = tuple(_column(lineage.of(name, each), types.get(each, "")) for each in lineage.columns(name))
    rules = [*model.rules, *(each.rule for each in graph.tests.get(name, ()))]
    plan = next((each for each in warehouse.plan([name]).models if each.model == name), None)
    runs = ledger.list_runs(kind=KIND, name=name, state=RunState.FINISHED, limit=1)
    header = model.header
    return TableShown(
        name=name,
        kind="view" if model.is_view else "model",
        path=model.path,
        materialize=header.materialize,
        partition=str(header.partition or ""),
        key=header.key,
        description=header.description,
        owner=header.owner,
        tags=header.tags,
        inputs=graph.reads.get(name, ()),
        readers=readers,
        columns=columns,
        tests=tuple(TestShown(name=each.name, severity=each.severity) for each in rules),
        version=None if version is None or model.is_view else version.ref,
        rows=None if table is None or model.is_view else table.rows,
        built_at=runs[0].at if runs else None,
        run=runs[0].id if runs else None,
        now="" if plan is None else f"{plan.state}: {plan.reason}",
    )


def column_lineage(warehouse: Warehouse, name: str, column: str, *, url: str) -> ColumnLineage:
    """Give where a column of a model comes from. Raises `NotFound`, which says what exists."""
    model = name.lower()
    if model not in warehouse.graph.models:
        raise NotFound("model", name, warehouse.graph.models)
    return _lineage(warehouse, Tables(open_files(url))).of(model, column)


def _column(found: ColumnLineage, kind: str) -> ColumnShown:
    sources = tuple(f"{each.table}.{each.column}" for each in found.sources)
    return ColumnShown(name=found.column, type=kind, sources=sources, approximate=found.approximate)


def _lineage(warehouse: Warehouse, tables: Tables) -> Lineage:
    def stored(name: str) -> list[str] | None:
        table = tables.find(name)
        return None if table is None else list(table.schema.names)

    return Lineage(warehouse.graph, stored)


def _newest(ledger: Ledger, name: str) -> Version | None:
    try:
        return ledger.get_version("dataset", name)
    except NotFound:
        return None
