"""Versions of an export beside models: what its runs read and made, and what was told of its models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, select, type_coerce

from noria.ledger.rows import encode_json
from noria.ledger.tables import edges, versions
from noria.records import RunId
from noria.registry.cards import CARD_KIND
from noria.workspace.moving.exporting_records import IMPORTED_KIND

__all__ = ["Origins", "Told", "version_rows", "versions_of_runs"]

_OF_MODELS = ("model", "logged_model")  # kinds that have tables of their own
_IN_ONE_QUESTION = 500


class Told(msgspec.Struct, frozen=True):
    """What another ledger knew of a version that came from there, as its facts hold it."""

    version: str
    kind: str
    number: int
    uri: str
    facts: dict[str, Any]


class Origins:
    """Names versions that came from elsewhere as they were called there."""

    def __init__(self, connection: Connection) -> None:
        query = select(versions.c.id, versions.c.facts).where(versions.c.kind.like(f"{IMPORTED_KIND}%"))
        self._told = {
            id: msgspec.convert(msgspec.json.decode(facts)["origin"], Told)
            for id, facts in connection.execute(query)
        }

    def find(self, version: str) -> Told | None:
        """Give what is told of a version; None if it is of this ledger."""
        return self._told.get(version)

    def named(self, rows: Iterable[Any]) -> list[dict[str, Any]]:
        """Give edges by the names that their versions had, in the order of these."""
        found = []
        for row in rows:
            told = self.find(row["version"])
            found.append({**row, "version": row["version"] if told is None else told.version})
        return sorted(found, key=lambda row: (row["run"], row["role"], row["version"]))


def versions_of_runs(some: Iterable[RunId]) -> Any:
    """Ask for the versions that runs read and made, but models."""
    return (
        select(edges.c.version)
        .join(versions, versions.c.id == edges.c.version)
        .where(edges.c.run.in_(some), versions.c.kind.not_in(_OF_MODELS))
        .distinct()
    )


def version_rows(
    connection: Connection, wanted: set[str], models: set[str], origins: Origins
) -> Iterator[dict[str, Any]]:
    """Give versions, and the cards of models, as their own ledger told of them; sorted."""
    v = versions.c
    cards = select(v.id, v.facts).where(v.kind == CARD_KIND)
    about = (id for id, facts in connection.execute(cards) if msgspec.json.decode(facts)["model"] in models)
    ids = sorted({*wanted, *about})
    rows = []
    columns = (v.id, v.kind, v.name, v.number, v.sha256, v.uri, v.run, v.facts)
    for start in range(0, len(ids), _IN_ONE_QUESTION):
        query = select(*columns, type_coerce(v.at, BigInteger).label("at"))
        some = ids[start : start + _IN_ONE_QUESTION]
        for row in connection.execute(query.where(v.id.in_(some))).mappings():
            found = {**row, "version": row["id"], "made_by": row["run"]}
            told = origins.find(row["id"])
            if told is not None:
                found |= {"version": told.version, "kind": told.kind, "number": told.number, "uri": told.uri}
                found["facts"] = encode_json(told.facts)
            rows.append(found)
    yield from sorted(rows, key=lambda row: row["version"])
