"""Versions and lineage."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from noria.errors import Conflict, NotFound
from noria.ledger.chain import Change
from noria.ledger.rows import encode_json, row_digest, row_key, to_edge, to_version
from noria.ledger.runs import get_run, started_by
from noria.ledger.tables import edges, versions
from noria.records import Edge, Version

__all__ = [
    "add_edge",
    "find_version",
    "get_version",
    "get_version_by_id",
    "list_edges",
    "list_versions",
    "record_version",
]

_OF_NAME = (
    versions.c.scope == bindparam("scope"),
    versions.c.kind == bindparam("kind"),
    versions.c.name == bindparam("name"),
)
_BY_ID = select(versions).where(versions.c.id == bindparam("id"))
_BY_SHA256 = select(versions).where(*_OF_NAME, versions.c.sha256 == bindparam("sha256"))
_BY_NUMBER = select(versions).where(*_OF_NAME, versions.c.number == bindparam("number"))
_NEWEST = select(versions).where(*_OF_NAME).order_by(versions.c.number.desc()).limit(1)
_LAST_NUMBER = select(func.max(versions.c.number)).where(*_OF_NAME)
_INSERT = versions.insert()
_EDGE = select(edges.c.run).where(
    edges.c.run == bindparam("run"),
    edges.c.version == bindparam("version"),
    edges.c.role == bindparam("role"),
)
_INSERT_EDGE = edges.insert()


def record_version(
    change: Change,
    *,
    kind: str,
    name: str,
    sha256: str,
    uri: str,
    run: str | None,
    facts: Mapping[str, Any] | None,
    cause: str | None,
    number: int | None = None,
) -> Version:
    """Record a version under the next number; the same content again gives the version it has.

    One that was numbered elsewhere keeps its number, if no other has it. Raises `Conflict`.
    """
    if run is not None:
        get_run(change.connection, run)
        cause = cause or started_by(change.connection, run)
    existing = find_version(change.connection, change.scope, kind=kind, name=name, sha256=sha256)
    if existing is not None:
        if run is not None:
            add_edge(change, run=run, version=existing.id, role="output", cause=cause)
        return existing
    of_name = {"scope": change.scope, "kind": kind, "name": name}
    if number is None:
        number = (change.connection.execute(_LAST_NUMBER, of_name).scalar() or 0) + 1
    elif change.connection.execute(_BY_NUMBER, {**of_name, "number": number}).first() is not None:
        raise Conflict(f"there is a {kind} {name}:{number} of other content; a version never changes")
    row: dict[str, Any] = {
        "id": f"{change.scope}/{kind}/{name}:{number}",
        **of_name,
        "number": number,
        "sha256": sha256,
        "uri": uri,
        "run": run,
        "facts": encode_json(facts),
        "at": change.at,
        "recorded_at": change.recorded_at,
    }
    change.connection.execute(_INSERT, row)
    rows = {row_key(versions, row): row_digest(versions, row)}
    if run is not None:
        rows |= _insert_edge(change, run=run, version=row["id"], role="output")
    payload = {"kind": kind, "name": name, "number": number, "sha256": sha256}
    change.record("version.recorded", row["id"], payload=payload, cause=cause, rows=rows)
    return to_version(row)


def add_edge(change: Change, *, run: str, version: str, role: str, cause: str | None = None) -> None:
    """Record that a run read or wrote a version; once more does nothing."""
    if change.connection.execute(_EDGE, {"run": run, "version": version, "role": role}).first() is not None:
        return
    get_run(change.connection, run)
    get_version_by_id(change.connection, version)
    change.record(
        "lineage.added",
        f"run/{run}",
        payload={"version": version, "role": role},
        cause=cause or started_by(change.connection, run),
        rows=_insert_edge(change, run=run, version=version, role=role),
    )


def _insert_edge(change: Change, *, run: str, version: str, role: str) -> dict[str, str]:
    row = {"run": run, "version": version, "role": role, "scope": change.scope}
    change.connection.execute(_INSERT_EDGE, row)
    return {row_key(edges, row): row_digest(edges, row)}


def find_version(connection: Connection, scope: str, *, kind: str, name: str, sha256: str) -> Version | None:
    """Give the version of a name that has this content."""
    values = {"scope": scope, "kind": kind, "name": name, "sha256": sha256}
    row = connection.execute(_BY_SHA256, values).mappings().first()
    return None if row is None else to_version(row)


def get_version(connection: Connection, scope: str, *, kind: str, name: str, number: int | None) -> Version:
    """Give a version by its number, or the newest. Raises `NotFound` with what exists."""
    of_name = {"scope": scope, "kind": kind, "name": name}
    if number is None:
        row = connection.execute(_NEWEST, of_name).mappings().first()
    else:
        row = connection.execute(_BY_NUMBER, {**of_name, "number": number}).mappings().first()
    if row is None:
        raise _not_found(connection, scope, kind=kind, name=name, number=number)
    return to_version(row)


def get_version_by_id(connection: Connection, id: str) -> Version:
    """Give a version of any scope. Raises `NotFound`."""
    row: RowMapping | None = connection.execute(_BY_ID, {"id": id}).mappings().first()
    if row is None:
        raise NotFound("version", id)
    return to_version(row)


def list_versions(connection: Connection, scope: str, *, kind: str | None, name: str | None) -> list[Version]:
    """List versions of one scope by kind, name and number."""
    query = select(versions).where(versions.c.scope == scope)
    if kind is not None:
        query = query.where(versions.c.kind == kind)
    if name is not None:
        query = query.where(versions.c.name == name)
    query = query.order_by(versions.c.kind, versions.c.name, versions.c.number)
    return [to_version(row) for row in connection.execute(query).mappings()]


def list_edges(connection: Connection, scope: str, *, run: str | None, version: str | None) -> list[Edge]:
    """List edges of one scope, those of older runs first."""
    query = select(edges).where(edges.c.scope == scope)
    if run is not None:
        query = query.where(edges.c.run == run)
    if version is not None:
        query = query.where(edges.c.version == version)
    query = query.order_by(edges.c.run, edges.c.role, edges.c.version)
    return [to_edge(row) for row in connection.execute(query).mappings()]


def _not_found(connection: Connection, scope: str, *, kind: str, name: str, number: int | None) -> NotFound:
    same_kind = select(versions.c.name, func.max(versions.c.number)).where(
        versions.c.scope == scope, versions.c.kind == kind
    )
    newest: dict[str, int] = {
        row[0]: row[1] for row in connection.execute(same_kind.group_by(versions.c.name))
    }
    if name not in newest or number is None:
        return NotFound(kind, name, newest)
    return NotFound(kind, f"{name}:{number}", [f"{name}:{newest[name]}"])
