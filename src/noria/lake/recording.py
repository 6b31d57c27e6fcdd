"""What a change of a table leaves in the ledger: run, version, edge and event, in one transaction.

It is written after the rows have landed. If a kill comes in between, the facts lie in the lake's own
commit, and `recorded` makes the same records from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from noria.checks.verdicts import Finding
from noria.clock import from_micros, to_micros
from noria.ledger.store import Ledger
from noria.records import Cost, Event, RunState, Version

__all__ = ["INGEST", "REPAIR", "Batch", "Changed", "IngestRecords", "Ingested", "findings_of", "told"]

INGEST = "ingest"  # the app whose batches go without one being named
REPAIR = "repair"  # the app of rows that were rejected before
_COUNTS = ("accepted", "rejected", "repeated", "replaced", "removed")
_VERBS = {  # what happened -> kind of the run, verb of the event
    "ingested": ("ingest", "dataset.ingested"),
    "overwritten": ("ingest", "dataset.overwritten"),
    "deleted": ("delete", "dataset.deleted"),
    "forgotten": ("forget", "dataset.forgotten"),
}


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    Attributes
    ----------
    state
        `landed`, `already` (it had landed before; nothing was done), or `empty`.
    version
        The dataset's version that holds it; None without a ledger, and for an empty batch.
    accepted
        Rows that are in the table now.
    rejected
        Rows that were set aside.
    findings
        The rules that did not hold; without examples where the batch had landed before.
    repeated
        Rows that changed nothing: they were there with equal content, or, where the table merges, newer.
    replaced
        Rows of the table whose place was taken.
    """

    state: Literal["landed", "already", "empty"]
    version: Version | None
    accepted: int
    rejected: int
    findings: tuple[Finding, ...]
    repeated: int = 0
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of an overwrite, a deletion, or of forgetting.

    Attributes
    ----------
    state
        `done`, `already` (this batch was done before), or `nothing` (there was no such row).
    version
        The dataset's version after it; None without a ledger, for a table that is no dataset, and where
        nothing was done.
    added, removed
        Rows that came and went.
    rejected
        Rows that broke the contract and were set aside.
    """

    state: Literal["done", "already", "nothing"]
    version: Version | None
    added: int = 0
    removed: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as its records name it."""

    dataset: str
    number: int
    source: str
    cause: str | None
    at: datetime
    app: str = INGEST

    @property
    def is_known_by_content(self) -> bool:
        """Whether its content tells whether it has landed: its number says nothing to people."""
        return self.app.startswith(("file:", "content:", "push:"))

    @property
    def called(self) -> str:
        """What its source is called, for people: a body that was pushed has no name."""
        return "the body" if self.source.startswith("push:") else self.source

    def facts(
        self,
        verb: str,
        findings: Sequence[Finding] = (),
        *,
        more: Mapping[str, Any] | None = None,
        **counts: int,
    ) -> dict[str, Any]:
        """Give what the lake's commit keeps, so that the records can be made from it alone."""
        return {
            "verb": verb,
            "app": self.app,
            "batch": self.number,
            "source": self.source,
            "cause": self.cause,
            "at": to_micros(self.at),
            "findings": told(findings),
            "more": dict(more or {}),
            **counts,
        }

    @classmethod
    def of_facts(cls, dataset: str, facts: Mapping[str, Any]) -> "Batch":
        """Read back what `facts` gave."""
        at = from_micros(facts["at"])
        return cls(dataset, facts["batch"], facts["source"], facts["cause"], at, facts["app"])


class IngestRecords:
    """Writes the records of changes. Each has a key, so that doing it again changes nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find(self, batch: Batch, *, verb: str = "ingested") -> Event | None:
        """Give the event of a batch that has landed."""
        return self._ledger.find_event(key=_key(verb, batch))

    def version_of(self, event: Event) -> Version:
        """Give the version that a landed batch made."""
        return self._ledger.get_version_by_id(event.payload["version"])

    def changed(
        self,
        batch: Batch,
        facts: Mapping[str, Any],
        *,
        table: Mapping[str, Any],
        uri: str,
        digest: str,
        cost: Cost,
    ) -> Version:
        """Record what a commit did; `table` holds facts about the whole table."""
        counts = {name: facts[name] for name in _COUNTS if name in facts}
        kind, verb = _VERBS[facts["verb"]]
        seen = {"rejected_share": _share(counts)} if kind == "ingest" else {}
        with self._ledger.database.write():
            run = self._start(batch, kind)
            version = self._ledger.record_version(
                "dataset" if kind == "ingest" else self._kind_of(batch.dataset, facts["verb"]),
                batch.dataset,
                sha256=digest,
                uri=uri,
                run=run,
                facts={**table, "batch": batch.number, **_told_counts(counts)},
                cause=batch.cause,
                at=batch.at,
            )
            self._ledger.finish_run(
                run, state=RunState.FINISHED, metrics={**counts, **seen}, cost=cost, at=batch.at
            )
            self._ledger.append(
                verb,
                subject=batch.dataset,
                payload={
                    "batch": batch.number,
                    "app": batch.app,
                    "source": batch.source,
                    "run": run,
                    "version": version.id,
                    **counts,
                    **facts["more"],
                    "findings": facts["findings"],
                },
                cause=batch.cause,
                key=_key(facts["verb"], batch),
                at=batch.at,
            )
        return version

    def evolved(self, dataset: str, number: int, facts: Mapping[str, Any]) -> None:
        """Record that a table has other columns since Delta's version `number`."""
        self._ledger.append(
            "dataset.evolved",
            subject=dataset,
            payload=facts["more"],
            cause=facts["cause"],
            key=f"dataset/evolved/{dataset}/{number}",
            at=from_micros(facts["at"]),
        )

    def earlier_rows(self, batch: Batch, since: datetime) -> list[int]:
        """Give how many rows each batch had that landed from `since` on, before this one."""
        events = self._ledger.list_events(
            verb="dataset.ingested", subject=batch.dataset, since=since, until=batch.at
        )
        return [
            sum(each.payload.get(name, 0) for name in ("accepted", "rejected", "repeated"))
            for each in events
            if (each.payload.get("app", INGEST), each.payload["batch"]) != (batch.app, batch.number)
        ]

    def earlier_rejected(self, batch: Batch, since: datetime, rule: str) -> list[tuple[int, int]]:
        """Give rejected and all rows of the batches that landed from `since` on, before this one.

        Repairs are none, and batches of which `rule` did not hold are left out.
        """
        events = self._ledger.list_events(
            verb="dataset.ingested", subject=batch.dataset, since=since, until=batch.at
        )
        return [
            (told["rejected"], told["rejected"] + told["accepted"] + told.get("repeated", 0))
            for told in (each.payload for each in events)
            if (told.get("app", INGEST), told["batch"]) != (batch.app, batch.number)
            and told.get("app") != REPAIR
            and rule not in [finding["rule"] for finding in told["findings"]]
        ]

    def empty(self, batch: Batch) -> None:
        """Record that a batch held no row."""
        key = _key("empty", batch)
        if self._ledger.find_event(key=key) is None:
            self._ledger.append(
                "dataset.empty",
                subject=batch.dataset,
                payload={"batch": batch.number, "app": batch.app, "source": batch.source},
                cause=batch.cause,
                key=key,
                at=batch.at,
            )

    def blocked(
        self, batch: Batch, *, digest: str, reasons: Sequence[str], findings: Sequence[Finding]
    ) -> None:
        """Record once that a batch of this content was blocked."""
        key = f"{_key('blocked', batch)}/{digest}"
        if self._ledger.find_event(key=key) is not None:
            return
        with self._ledger.database.write():
            run = self._start(batch, "ingest")
            self._ledger.finish_run(run, state=RunState.FAILED, error="; ".join(reasons), at=batch.at)
            self._ledger.append(
                "dataset.blocked",
                subject=batch.dataset,
                payload={
                    "batch": batch.number,
                    "app": batch.app,
                    "source": batch.source,
                    "run": run,
                    "digest": digest,
                    "reasons": list(reasons),
                    "findings": told(findings),
                },
                cause=batch.cause,
                key=key,
                at=batch.at,
            )

    def _kind_of(self, name: str, verb: str) -> str:
        """Give the kind of versions that a table has: rows leave tables that are no dataset too."""
        versions = self._ledger.list_versions(name=name)
        if versions:
            return versions[-1].kind
        return "table" if verb == "forgotten" else "dataset"

    def _start(self, batch: Batch, kind: str) -> str:
        return self._ledger.start_run(
            kind,
            batch.dataset,
            cause=batch.cause,
            params={"batch": batch.number, "app": batch.app, "source": batch.source},
            key=_key("run", batch) if kind == "ingest" else f"{_key('run', batch)}/{kind}",
            at=batch.at,
        ).id


def told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Give findings for the record: without examples, which are values of rows."""
    return [
        {
            "rule": each.rule,
            "severity": each.severity.value,
            "failing": each.failing,
            "share": each.share,
            **({"detail": each.detail} if each.detail else {}),
        }
        for each in findings
    ]


def findings_of(payload: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Read back what `told` gave."""
    return tuple(Finding(**{**each, "example": ""}) for each in payload)


def _told_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Leave out what seldom happens, where it has not."""
    return {name: count for name, count in counts.items() if count or name in ("accepted", "rejected")}


def _share(counts: Mapping[str, int]) -> float:
    rejected = counts.get("rejected", 0)
    rows = rejected + counts.get("accepted", 0) + counts.get("repeated", 0)
    return rejected / rows if rows else 0.0


def _key(what: str, batch: Batch) -> str:
    app = () if batch.app == INGEST else (batch.app,)
    return "/".join(("dataset", what, batch.dataset, *app, str(batch.number)))
