"""What a user writes about features, and the plain value that offline and online work from.

A `FeatureView` refers to a `Dataset` object; its `ViewSpec` holds names and integers only, so it crosses
wires and disks and its digest tells whether two processes mean the same features. Neither loads an engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from noria.errors import ConfigError
from noria.records import digest_of

if TYPE_CHECKING:
    from noria.lake.declarations import Dataset

__all__ = ["Aggregation", "AggregationKind", "FeatureSpec", "FeatureView", "Tier", "ViewSpec"]

HOUR_S, DAY_S = 3_600, 86_400
_HOURLY_UP_TO_S = 2 * DAY_S


class AggregationKind(StrEnum):
    """What is computed."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    QUANTILE = "quantile"
    LAST = "last"
    AGE = "age"


class Tier(StrEnum):
    """How wide the tiles of a window are."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Width of one tile."""
        return HOUR_S if self is Tier.HOUR else DAY_S


class Aggregation(msgspec.Struct, frozen=True, kw_only=True):
    """One aggregation of a column; made by the functions of `noria.agg`.

    Values are counted in units of `1 / scale`, so `low`, `high` and `width` are integers in those units;
    `q` is in millionths.
    """

    kind: AggregationKind
    column: str | None = None
    window_s: int | None = None
    scale: int = 1
    q_millionths: int | None = None
    low: int | None = None
    high: int | None = None
    width: int | None = None
    max_age_s: int | None = None

    @property
    def tier(self) -> Tier | None:
        """Hour tiles for windows up to two days, day tiles above; `None` for `last` and `age`."""
        if self.window_s is None:
            return None
        return Tier.HOUR if self.window_s <= _HOURLY_UP_TO_S else Tier.DAY

    @property
    def bins(self) -> int:
        """Number of histogram bins of a quantile, else 0."""
        if self.low is None or self.high is None or self.width is None:
            return 0
        return -(-(self.high - self.low) // self.width)


class FeatureSpec(msgspec.Struct, frozen=True):
    """A feature's name within its view, and how it is made."""

    name: str
    aggregation: Aggregation


class ViewSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A feature view as plain data.

    Attributes
    ----------
    name
        The view's name; feature columns outside are `<view>__<feature>`.
    source
        The dataset's name.
    key, event_at, known_at
        The dataset's columns: identity of a row, when it happened, when it could be used.
    entity
        One column or several that name whom a row is about.
    features
        In the order they were declared, which is the order of the columns.
    """

    name: str
    source: str
    key: tuple[str, ...]
    event_at: str
    known_at: str
    entity: tuple[str, ...]
    features: tuple[FeatureSpec, ...]

    @property
    def digest(self) -> str:
        """The sha256 of the definition."""
        return digest_of(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Columns of the source that the features need, sorted."""
        named = {feature.aggregation.column for feature in self.features}
        return tuple(
            sorted({*self.key, self.event_at, self.known_at, *self.entity, *(name for name in named if name)})
        )

    @property
    def longest_window_s(self) -> int | None:
        """How far back any feature looks, tile edge excluded; `None` if one looks back without end."""
        longest = 0
        for feature in self.features:
            aggregation = feature.aggregation
            reach = aggregation.max_age_s if aggregation.tier is None else aggregation.window_s
            if reach is None:
                return None
            longest = max(longest, reach)
        return longest


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Features of one kind of entity from one dataset.

    Parameters
    ----------
    name : str
        The view's name.
    source : Dataset
        Whose rows are aggregated.
    entity : str or tuple of str
        Column or columns of `source` (and of every spine) that name the entity.
    features : mapping of str to Aggregation
        By feature name, made with `noria.agg`.

    Raises
    ------
    ConfigError
        If a name is empty or holds `__`, or there is no feature.

    Examples
    --------
    >>> from noria.features import agg
    >>> from noria.lake.declarations import Dataset
    >>> flights = Dataset("flights", key="flight_id", event_at="departed_at", known_at="landed_at")
    >>> carrier = FeatureView("carrier", source=flights, entity="carrier", features={
    ...     "late_rate_7d": agg.mean("late", window="7d")})
    >>> carrier.columns
    ('carrier__late_rate_7d',)
    """

    name: str
    source: "Dataset"
    entity: str | tuple[str, ...]
    features: Mapping[str, Aggregation]

    def __post_init__(self) -> None:
        for name in (self.name, *self.features):
            if not name or "__" in name:
                raise ConfigError(f"{name!r} names no view or feature: it may not be empty or hold '__'")
        if not self.features:
            raise ConfigError(f"feature view {self.name!r} has no feature; give at least one `agg`")
        for name, feature in self.features.items():
            if not isinstance(feature, Aggregation):
                raise ConfigError(
                    f"feature {name!r} of view {self.name!r} is {feature!r}; make it with `noria.agg`"
                )
        if not self.entity:
            raise ConfigError(f"feature view {self.name!r} has no entity; name a column of its source")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return self.spec().columns

    def spec(self) -> ViewSpec:
        """Give the view as plain data."""
        source = self.source
        return ViewSpec(
            name=self.name,
            source=source.name,
            key=source.keys,
            event_at=source.event_at,
            known_at=source.known_at_column,
            entity=_names(self.entity),
            features=tuple(FeatureSpec(name, aggregation) for name, aggregation in self.features.items()),
        )


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
