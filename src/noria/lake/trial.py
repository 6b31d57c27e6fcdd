"""What would become of a batch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from noria.lake.arrival import Arrival

__all__ = ["Tried", "tried"]


@dataclass(frozen=True, slots=True)
class Tried:
    """What an ingest would come to.

    Attributes
    ----------
    accepted, rejected, repeated
        Rows that hold, that do not, and that are there already or come twice.
    reasons
        Why rows would be rejected -> how many.
    blocked
        Why all of it would be blocked: rule, value and limit. Empty if it would not.
    columns
        The columns that it would have, and their types.
    """

    accepted: int = 0
    rejected: int = 0
    repeated: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    blocked: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


def tried(arrival: Arrival) -> Tried:
    """Sum up a batch that has arrived, and will not land."""
    reasons: Counter[str] = Counter()
    for table in arrival.rejects.tables():
        reasons.update(table["reason"].to_pylist())
    return Tried(
        accepted=sum(each.rows for each in arrival.kept.files()),
        rejected=arrival.rejects.rows,
        repeated=arrival.repeated,
        reasons=reasons,
        blocked=arrival.reasons,
        columns={each.name: str(each.type) for each in arrival.schema if each.name in arrival.content},
    )
