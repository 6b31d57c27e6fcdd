"""Records that a kill kept from being made: they are made from what stands in the lake's own commits."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from noria.lake import log
from noria.lake.delta import Table
from noria.lake.recording import INGEST, Batch, IngestRecords
from noria.lake.tables import Tables
from noria.records import Cost, Event, Version

__all__ = ["Settling"]

_LOOKED_AT = 20  # commits whose records may be missing: as many as processes that were killed at once


class Settling:
    """Looks once per table, when it is first written to. One thread at a time."""

    def __init__(self, tables: Tables, records: IngestRecords | None) -> None:
        self._tables = tables
        self._records = records
        self._settled: set[str] = set()

    def settle(self, table: Table) -> None:
        """Make the records that the newest commits lack."""
        if self._records is None or table.name in self._settled:
            return
        commits = log.newest_first(table.store, table.name, last=table.version)
        noted = [each for each in islice(commits, _LOOKED_AT) if each.facts]
        for commit in reversed(noted):
            self._make_good(table, commit)
        self._settled.add(table.name)

    def settle_evolved(self, table: Table) -> None:
        """Make the record of the columns that the newest commit changed."""
        if self._records is not None:
            commit = next(log.newest_first(table.store, table.name, last=table.version))
            self._make_good(table, commit)

    def settle_batch(self, table: Table, batch: Batch, *, verb: str = "ingested") -> Event | None:
        """Make the records of a batch that has landed, and give its event; None if it never has."""
        commit = table.find_commit(batch.app, batch.number)
        if commit is None or self._records is None:
            return None
        self._make_good(table, commit)
        return self._records.find(batch, verb=verb)

    def record(self, batch: Batch, facts: Mapping[str, Any], table: Table, cost: Cost) -> Version | None:
        """Make the records of the commit that `table` stands at."""
        if self._records is None:
            return None
        return self._records.changed(
            batch,
            facts,
            table={"rows": table.rows, "files": len(table.files)},
            uri=f"delta:{table.name}@{table.version}",
            digest=table.digest(),
            cost=cost,
        )

    def _make_good(self, table: Table, commit: log.Commit) -> None:
        facts = _whole(commit)
        if facts is None or self._records is None:
            return
        if facts["verb"] == "evolved":
            self._records.evolved(table.name, commit.version, facts)
            return
        batch = Batch.of_facts(table.name, facts)
        if self._records.find(batch, verb=facts["verb"]) is None:
            then = self._tables.get_at(table.name, commit.version)
            self.record(batch, facts, then, Cost(cpu_s=0.0, wall_s=0.0))


def _whole(commit: log.Commit) -> dict[str, Any] | None:
    """Give a commit's facts; None if there is nothing to record."""
    facts = commit.facts
    if "at" not in facts:
        return None
    number = next((each["txn"]["version"] for each in commit.lines if "txn" in each), commit.version)
    return {"verb": "ingested", "app": INGEST, "batch": number, "more": {}, **facts}
