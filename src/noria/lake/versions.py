"""Which versions of a table of the lake are on record, and which of them an instant means."""

from collections.abc import Iterable
from datetime import datetime

from noria.ledger.store import Ledger
from noria.records import Version

__all__ = ["STORED_KINDS", "stored_at", "stored_versions"]

STORED_KINDS = ("dataset", "table", "features")  # of a table's versions; the first one there is counts


def stored_versions(ledger: Ledger, name: str) -> list[Version]:
    """Give the versions of a table by number: of one kind, as each kind has numbers of its own."""
    every = [each for each in ledger.list_versions(name=name) if each.uri.startswith("delta:")]
    for kind in STORED_KINDS:
        found = [each for each in every if each.kind == kind]
        if found:
            return found
    return []


def stored_at(versions: Iterable[Version], at: datetime) -> Version | None:
    """Give the newest of versions at an instant: the one of the latest instant up to then.

    Of two of one instant it is the one of the higher number. Numbers alone do not tell: a batch may be
    recorded for an instant before that of the one before it.
    """
    held = [each for each in versions if each.at <= at]
    return max(held, key=lambda each: (each.at, each.number), default=None)
