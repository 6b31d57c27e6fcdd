"""Values that the ledger alone speaks about."""

import msgspec

__all__ = ["Verification"]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `Ledger.verify` found.

    A chain proves that nothing in it was changed, not that nothing was taken off its end: a tail that was
    cut, together with the rows that it made, shows only against a `head` that was exported before and kept
    elsewhere.
    """

    ok: bool
    scope: str
    events: int
    rows: int  # of runs, versions, edges and pointers
    head: str  # digest of the last event: export it and keep it elsewhere
    problems: tuple[str, ...]
