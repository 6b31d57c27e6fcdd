"""What happened, in order and for good: events, runs, versions, lineage, pointers, leases.

Only light names are imported here; `Ledger` and with it SQLAlchemy are loaded when asked for.
"""

from typing import TYPE_CHECKING, Any

from noria.ledger.records import Verification

if TYPE_CHECKING:
    from noria.ledger.running import Running
    from noria.ledger.store import Ledger

__all__ = ["Ledger", "Running", "Verification"]


def __getattr__(name: str) -> Any:
    if name == "Ledger":
        from noria.ledger.store import Ledger

        return Ledger
    if name == "Running":
        from noria.ledger.running import Running

        return Running
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
