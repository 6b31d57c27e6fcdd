"""What is told of forgetting a subject: store by store, what it held and what became of it."""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

import msgspec

__all__ = ["Forgetting", "Holding", "State", "Store"]

State = Literal["forgotten", "rebuilt", "nothing", "left"]


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one store holds of a subject, and what became of it.

    Attributes
    ----------
    kind
        Of the store: `dataset`, `table`, `samples`, `results`, `logs`, `predictions`, `answers`, `stream`,
        `files`, `online`, `training set`, `route`, `database`, `model`, `record`, `artifacts`.
    name
        Of the very one.
    state
        `forgotten`; `rebuilt` from what is left; `nothing` was there; `left`, for the reason that `told`
        gives. Of a dry run: what would become of it.
    held
        Rows, events, answers or results that were found, older versions' among them.
    versions
        On record that read otherwise now, or would.
    told
        What was looked at, or why something is left and what to do.
    """

    kind: str
    name: str
    state: State
    held: int = 0
    versions: tuple[str, ...] = ()
    told: str = ""


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a subject everywhere.

    Attributes
    ----------
    dataset, column, subjects
        Whose rows: how many values of which column.
    is_dry
        Whether nothing was done.
    holdings
        Store by store, in the order in which they are dealt with.
    models
        Model versions that were trained on versions of data that held the subject: what they have learned
        is not taken out. Train them again to be rid of it.
    """

    dataset: str
    column: str
    subjects: int
    is_dry: bool
    holdings: tuple[Holding, ...]
    models: tuple[str, ...]

    @property
    def left(self) -> tuple[Holding, ...]:
        """What was left, and why."""
        return tuple(each for each in self.holdings if each.state == "left")

    def of(self, kind: str) -> tuple[Holding, ...]:
        """Give the holdings of one kind of store."""
        return tuple(each for each in self.holdings if each.kind == kind)

    @property
    def rows(self) -> int:
        """Rows of the dataset that were found, as it was."""
        return sum(each.held for each in self.of("dataset") if each.name == self.dataset)


class Store(Protocol):
    """A place that may hold something of a subject.

    Both can be called again and again: a call that a kill cut off is completed by the next one, and where
    nothing is left nothing is done.
    """

    def look(self) -> Iterator[Holding]:
        """Tell what it holds; nothing is changed."""
        ...

    def forget(self) -> Iterator[Holding]:
        """Take it out, and tell what became of it."""
        ...


def summed(holdings: Iterable[Holding]) -> dict[str, int]:
    """Count what was found by kind of store, for the record: no name of a subject is in it."""
    counts: dict[str, int] = {}
    for each in holdings:
        counts[each.kind] = counts.get(each.kind, 0) + each.held
    return counts
