"""Whether a dataset is as fresh as its contract wants, between its batches too."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from noria.lake.declarations import Dataset

if TYPE_CHECKING:
    from noria.lake.store import Lake

__all__ = ["Freshness", "find_freshness", "wanted_age"]


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh a dataset is, and has to be."""

    name: str
    column: str  # its `event_at`
    newest_at: datetime
    max_age_s: float

    @property
    def due_at(self) -> datetime:
        """The instant after which it is stale, unless newer rows come."""
        return self.newest_at + timedelta(seconds=self.max_age_s)

    def is_stale(self, at: datetime) -> bool:
        """Whether it is older than it may be."""
        return at > self.due_at

    def told(self, at: datetime) -> str:
        """Say how old it is and may be."""
        age = timedelta(seconds=max(0, round((at - self.newest_at).total_seconds())))
        return f"the newest {self.column} is {age} old, wanted at most {timedelta(seconds=self.max_age_s)}"


def wanted_age(dataset: Dataset) -> timedelta | None:
    """Give how old a dataset's newest row may be, by its strictest check `fresh`; None without one."""
    ages = [each.span_s for each in dataset.checks if each.kind == "fresh" and each.span_s is not None]
    return timedelta(seconds=min(ages)) if ages else None


def find_freshness(lake: "Lake", dataset: Dataset) -> Freshness | None:
    """Tell how fresh a dataset is; None if it need not be, or nothing has landed. No row is read."""
    wanted = wanted_age(dataset)
    if wanted is None or not lake.exists(dataset.name):
        return None
    found = lake.statistics(dataset.name).columns.get(dataset.event_at)
    if found is None or not isinstance(found.high, datetime):
        return None
    return Freshness(
        name=dataset.name,
        column=dataset.event_at,
        newest_at=found.high,
        max_age_s=wanted.total_seconds(),
    )
