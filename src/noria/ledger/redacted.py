"""Versions that read otherwise than they were recorded, because something was taken out of them for good.

A version never changes; what it stands for may have to go, as when a person asks to be forgotten. An event
`redacted` says so: which version, its digest before and after, and why.
"""

from noria.ledger.store import Ledger
from noria.records import Version

__all__ = ["REDACTED", "expected_digest", "record_redacted"]

REDACTED = "redacted"


def expected_digest(ledger: Ledger, version: Version) -> str:
    """Give the digest that a version has to have: the recorded one, or that of its newest redaction.

    Empty: nothing of it is left.
    """
    events = ledger.list_events(verb=REDACTED, subject=version.name, newest_first=True)
    found: str | None = next(
        (each.payload["new"] for each in events if each.payload["version"] == version.id), None
    )
    return version.sha256 if found is None else found


def record_redacted(ledger: Ledger, version: Version, new: str, *, why: str, cause: str | None) -> bool:
    """Record that a version has another digest from now on; False if that is on record.

    Parameters
    ----------
    new
        The digest; empty where nothing of it is left.
    why
        Why it was asked for; no value of a row.
    """
    old = expected_digest(ledger, version)
    if old == new:
        return False
    ledger.append(
        REDACTED,
        subject=version.name,
        payload={"version": version.id, "ref": version.ref, "old": old, "new": new, "why": why},
        cause=cause,
        key=f"redacted/{version.id}/{new}",
    )
    return True
