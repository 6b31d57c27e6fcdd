"""Which datasets lack a batch: it was blocked, and has not come since."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from noria.ledger.store import Ledger
from noria.records import Event

__all__ = ["BlockedDataset", "find_blocked", "list_blocked"]

_BLOCKED = "dataset.blocked"
_RELEASED = "dataset.released"
_LANDED = ("dataset.ingested", "dataset.overwritten")
_INGEST = "ingest"  # the app of batches that were recorded without one
_PAGE = 500


@dataclass(frozen=True, slots=True)
class BlockedDataset:
    """A dataset that lacks a batch: the newest one that was blocked and has not come since."""

    name: str
    batch: int
    source: str
    reasons: tuple[str, ...]
    at: datetime
    event: str


def find_blocked(ledger: Ledger, name: str) -> BlockedDataset | None:
    """Give the batch that a dataset lacks; None if there is none.

    A blocked batch has come once it, repaired, or a later one of its app has landed. What is known by its
    content has another app when it is repaired, so what lands later from the same file, URL or table of a
    database stands for it too. What will never come is released by a person.
    """
    seen = 0
    for first in ledger.list_events(verb=_BLOCKED, subject=name):
        if first.seq <= seen:
            continue
        missing = [first]
        for event in _after(ledger, name, first.seq):
            seen = event.seq
            if event.verb == _BLOCKED:
                missing.append(event)
            else:
                missing = [each for each in missing if not _settles(event, each)]
            if not missing:
                break
        if missing:
            last = missing[-1]
            told = last.payload
            return BlockedDataset(
                name, told["batch"], told["source"], tuple(told["reasons"]), last.at, last.id
            )
    return None


def list_blocked(ledger: Ledger) -> dict[str, BlockedDataset]:
    """Give all datasets that lack a batch."""
    names = sorted({each.subject for each in ledger.list_events(verb=_BLOCKED)})
    return {name: found for name in names if (found := find_blocked(ledger, name)) is not None}


def _after(ledger: Ledger, name: str, seq: int) -> Iterator[Event]:
    """Give the events of a dataset behind `seq`, no more of them than are looked at."""
    while page := ledger.list_events(verb="dataset.*", subject=name, after=seq, limit=_PAGE):
        yield from page
        seq = page[-1].seq


def _settles(event: Event, blocked: Event) -> bool:
    if event.verb == _RELEASED:
        return True
    if event.verb not in _LANDED:
        return False
    app, blocked_app = (each.payload.get("app", _INGEST) for each in (event, blocked))
    if app == blocked_app:
        return bool(event.payload["batch"] >= blocked.payload["batch"])
    return _place(event, app) == _place(blocked, blocked_app) is not None


def _place(event: Event, app: str) -> str | None:
    """Give where a batch that is known by its content came from; None if that has no name of its own."""
    source = str(event.payload["source"])
    if app.startswith("content:"):
        return source if "://" in source else None  # frames have none
    return source if app.startswith("file:") and not source.startswith("push:") else None
