"""What an ingest leaves in the ledger: run, version, edge and event, in one transaction.

It is written after the rows have landed. If a kill comes in between, the facts lie in the lake's own
commit, and `settle` makes the same records from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from noria.checks.engine import Finding
from noria.clock import from_micros, to_micros
from noria.ledger.store import Ledger
from noria.records import Cost, Event, RunState, Version

__all__ = ["Batch", "IngestRecords", "Ingested", "findings_of", "told"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    Attributes
    ----------
    state
        `landed`, `already` (it had landed before; nothing was done), or `empty`.
    version
        The dataset's version that holds it; None without a ledger, and for an empty batch.
    findings
        The rules that did not hold; without examples where the batch had landed before.
    """

    state: Literal["landed", "already", "empty"]
    version: Version | None
    accepted: int
    rejected: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as its records name it."""

    dataset: str
    number: int
    source: str
    cause: str | None
    at: datetime

    def facts(self, accepted: int, rejected: int, findings: Sequence[Finding]) -> dict[str, Any]:
        """Give what the lake's commit keeps, so that the records can be made from it alone."""
        return {
            "source": self.source,
            "cause": self.cause,
            "at": to_micros(self.at),
            "accepted": accepted,
            "rejected": rejected,
            "findings": told(findings),
        }

    @classmethod
    def of_facts(cls, dataset: str, number: int, facts: Mapping[str, Any]) -> "Batch":
        """Read back what `facts` gave."""
        return cls(dataset, number, facts["source"], facts["cause"], from_micros(facts["at"]))


class IngestRecords:
    """Writes the records of ingests. Each has a key, so that doing it again changes nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find_landed(self, dataset: str, number: int) -> Event | None:
        """Give the event of a batch that has landed."""
        return self._ledger.find_event(key=_key("ingested", dataset, number))

    def version_of(self, event: Event) -> Version:
        """Give the version that a landed batch made."""
        return self._ledger.get_version_by_id(event.payload["version"])

    def landed(
        self,
        batch: Batch,
        facts: Mapping[str, Any],
        *,
        table: Mapping[str, Any],
        uri: str,
        digest: str,
        cost: Cost,
    ) -> Version:
        """Record that a batch has landed; `table` holds facts about the whole table."""
        counts = {name: facts[name] for name in ("accepted", "rejected")}
        with self._ledger.database.write():
            run = self._start(batch)
            version = self._ledger.record_version(
                "dataset",
                batch.dataset,
                sha256=digest,
                uri=uri,
                run=run,
                facts={**table, "batch": batch.number, **counts},
                cause=batch.cause,
                at=batch.at,
            )
            self._ledger.finish_run(run, state=RunState.FINISHED, metrics=counts, cost=cost, at=batch.at)
            self._ledger.append(
                "dataset.ingested",
                subject=batch.dataset,
                payload={
                    "batch": batch.number,
                    "source": batch.source,
                    "run": run,
                    "version": version.id,
                    **counts,
                    "findings": facts["findings"],
                },
                cause=batch.cause,
                key=_key("ingested", batch.dataset, batch.number),
                at=batch.at,
            )
        return version

    def empty(self, batch: Batch) -> None:
        """Record that a batch held no row."""
        key = _key("empty", batch.dataset, batch.number)
        if self._ledger.find_event(key=key) is None:
            self._ledger.append(
                "dataset.empty",
                subject=batch.dataset,
                payload={"batch": batch.number, "source": batch.source},
                cause=batch.cause,
                key=key,
                at=batch.at,
            )

    def blocked(
        self, batch: Batch, *, digest: str, reasons: Sequence[str], findings: Sequence[Finding]
    ) -> None:
        """Record once that a batch of this content was blocked."""
        key = _key("blocked", batch.dataset, batch.number, digest)
        if self._ledger.find_event(key=key) is not None:
            return
        with self._ledger.database.write():
            run = self._start(batch)
            self._ledger.finish_run(run, state=RunState.FAILED, error="; ".join(reasons), at=batch.at)
            self._ledger.append(
                "dataset.blocked",
                subject=batch.dataset,
                payload={
                    "batch": batch.number,
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

    def _start(self, batch: Batch) -> str:
        return self._ledger.start_run(
            "ingest",
            batch.dataset,
            cause=batch.cause,
            params={"batch": batch.number, "source": batch.source},
            key=_key("run", batch.dataset, batch.number),
            at=batch.at,
        ).id


def told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Give findings for the record: without examples, which are values of rows."""
    return [
        {"rule": each.rule, "severity": each.severity.value, "failing": each.failing, "share": each.share}
        for each in findings
    ]


def findings_of(payload: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Read back what `told` gave."""
    return tuple(Finding(**{**each, "example": ""}) for each in payload)


def _key(what: str, dataset: str, number: int, *more: str) -> str:
    return "/".join(("dataset", what, dataset, str(number), *more))
