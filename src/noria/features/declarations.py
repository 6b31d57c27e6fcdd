"""What a user writes about features, and the plain value that offline and online work from.

A `FeatureView` refers to a `Dataset` object; its `ViewSpec` holds names and integers only, so it crosses
wires and disks and its digest tells whether two processes mean the same features. Neither loads an engine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from noria.errors import ConfigError
from noria.records import digest_of

if TYPE_CHECKING:
    from noria.lake.declarations import Dataset

__all__ = [
    "Aggregation",
    "AggregationKind",
    "Comparison",
    "Condition",
    "Conditions",
    "FeatureSpec",
    "FeatureView",
    "Grouped",
    "Plain",
    "Tier",
    "ViewSpec",
]

HOUR_S, DAY_S = 3_600, 86_400
_HOURLY_UP_TO_S = 2 * DAY_S


class AggregationKind(StrEnum):
    """What is computed."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    STD = "std"
    MIN = "min"
    MAX = "max"
    QUANTILE = "quantile"
    DISTINCT = "distinct"
    FIRST = "first"
    LAST = "last"
    AGE = "age"
    DECAYED_COUNT = "decayed_count"
    DECAYED_SUM = "decayed_sum"
    DECAYED_MEAN = "decayed_mean"

    @property
    def is_decayed(self) -> bool:
        """Whether rows fade instead of leaving a window."""
        return self.value.startswith("decayed")


class Tier(StrEnum):
    """How wide the tiles of a window are."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Width of one tile."""
        return HOUR_S if self is Tier.HOUR else DAY_S


class Comparison(StrEnum):
    """How a condition compares a column with its value; what is missing fulfils none."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    AMONG = "in"
    NOT_AMONG = "not in"


Plain = bool | int | float | str


class Condition(msgspec.Struct, frozen=True):
    """One condition that a row has to fulfil to count."""

    column: str
    comparison: Comparison
    value: Plain | tuple[Plain, ...]


Conditions = tuple[Condition, ...]  # all of them hold


class Aggregation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One aggregation of a column; made by the functions of `noria.agg`.

    Values are counted in units of `1 / scale`, so `low`, `high` and `width` are integers in those units;
    `q` is in millionths. the values of a distinct count are spread
    over `buckets`.
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
    half_life_s: int | None = None
    buckets: int | None = None
    where: Conditions = ()

    @property
    def tier(self) -> Tier | None:
        """Hour tiles for windows up to two days, day tiles above; `None` without a window."""
        if self.window_s is None:
            return None
        return Tier.HOUR if self.window_s <= _HOURLY_UP_TO_S else Tier.DAY

    @property
    def bins(self) -> int:
        """Number of bins of a quantile's or distinct count's histogram, else 0."""
        if self.buckets is not None:
            return self.buckets
        if self.low is None or self.high is None or self.width is None:
            return 0
        return -(-(self.high - self.low) // self.width)


@dataclass(frozen=True, slots=True)
class Grouped:
    """One aggregation per value of a column; made by `agg.by`."""

    column: str
    values: tuple[Plain, ...]
    aggregation: Aggregation

    def features(self, name: str) -> "Iterator[FeatureSpec]":
        """Give the feature of each group."""
        for value in self.values:
            condition = Condition(self.column, Comparison.EQUAL, value)
            where = (*self.aggregation.where, condition)
            yield FeatureSpec(f"{name}_{value}", msgspec.structs.replace(self.aggregation, where=where))


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
        return tuple(sorted({*self.key, self.event_at, self.known_at, *self.entity, *self.measured_columns}))

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """Columns that are aggregated or decide which rows are, sorted."""
        named: set[str] = set()
        for feature in self.features:
            named.update(each.column for each in feature.aggregation.where)
            if feature.aggregation.column is not None:
                named.add(feature.aggregation.column)
        return tuple(sorted(named))

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
    features : mapping of str to Aggregation or Grouped
        By feature name, made with `noria.agg`; groups give one feature per value, `<name>_<value>`.

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
    features: Mapping[str, Aggregation | Grouped]

    def __post_init__(self) -> None:
        if not self.features:
            raise ConfigError(f"feature view {self.name!r} has no feature; give at least one `agg`")
        for name, feature in self.features.items():
            if not isinstance(feature, Aggregation | Grouped):
                raise ConfigError(
                    f"feature {name!r} of view {self.name!r} is {feature!r}; make it with `noria.agg`"
                )
        names = [each.name for each in self._features()]
        for name in (self.name, *names):
            if not name or "__" in name:
                raise ConfigError(f"{name!r} names no view or feature: it may not be empty or hold '__'")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"view {self.name!r} has two features {twice[0]!r}: a group gave one of them")
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
            features=tuple(self._features()),
        )

    def _features(self) -> Iterator[FeatureSpec]:
        for name, given in self.features.items():
            if isinstance(given, Grouped):
                yield from given.features(name)
            else:
                yield FeatureSpec(name, given)


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
