"""Dropping the table of a model that is no more."""

from collections.abc import Collection

from noria.errors import Conflict, NotFound
from noria.lake.dropping import drop
from noria.lake.files import open_files
from noria.lake.tables import Tables
from noria.lake.versions import stored_versions
from noria.ledger.store import Ledger
from noria.warehouse.keeping import Keeping
from noria.warehouse.records import Dropped
from noria.warehouse.transforming import Warehouse

__all__ = ["drop_table"]


def drop_table(
    warehouse: Warehouse,
    ledger: Ledger,
    name: str,
    *,
    url: str,
    readers: Collection[str],
    reason: str,
    cause: str | None,
) -> Dropped:
    """Drop a table that a model has made, once no model makes it any more and nothing reads it.

    Parameters
    ----------
    url
        Of the tables.
    readers
        What else reads it, in words: feature views, contracts.
    reason
        Why, for the record.

    Raises
    ------
    NotFound
        If there is no such table; says what exists.
    Conflict
        If a model of that name is declared, no model has made it, or something reads it.
    LeaseHeld
        If another process transforms right now.
    """
    with Keeping(ledger) as keeping:
        tables = Tables(open_files(url))
        table = tables.find(name)
        if table is None:
            raise NotFound("table", name, tables.names())
        _want_free(warehouse, name, readers)
        rows = table.rows
        versions = tuple(each.ref for each in stored_versions(ledger, name))
        keeping.check()
        drop(tables, name, facts={"dropped": reason})
        payload = {"rows": rows, "versions": list(versions), "reason": reason}
        ledger.append("table.dropped", subject=name, payload=payload, cause=cause)
    return Dropped(name=name, rows=rows, versions=versions)


def _want_free(warehouse: Warehouse, name: str, readers: Collection[str]) -> None:
    graph = warehouse.graph
    if name in graph.models:
        raise Conflict(
            f"{graph.models[name].path} makes the table {name!r}: it would come back by the next "
            "`noria transform`; remove the model first"
        )
    if name in graph.broken:
        raise Conflict(f"a model of the name {name!r} is declared, though it is broken; remove it first")
    if not warehouse.has_made(name):
        raise Conflict(
            f"no model has made the table {name!r}: it is a dataset, or one of noria's own; rows of datasets "
            f"are deleted by `noria dataset delete {name} WHERE`"
        )
    reading = [graph.models[each].path for each, reads in sorted(graph.reads.items()) if name in reads]
    reading += [each.path for each in warehouse.models.tests if name in {one.name for one in each.tables}]
    reading += readers
    if reading:
        raise Conflict(f"{', '.join(reading)} still read the table {name!r}; let them read something else")
