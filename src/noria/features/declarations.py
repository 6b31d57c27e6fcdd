"""What a user writes about features, and the plain value that offline and online work from.

A `FeatureView` refers to a `Dataset` object; its `ViewSpec` holds names and integers only, so it crosses
wires and disks and its digest tells whether two processes mean the same features. Neither loads an engine.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, cast

import msgspec

from noria.clock import parse_duration, parse_wait
from noria.errors import ConfigError
from noria.features.defaults import checked_default
from noria.features.sources import Query, Source, rows_of
from noria.records import digest_of

if TYPE_CHECKING:
    from noria.streams.declarations import Stream

__all__ = [
    "Aggregation",
    "AggregationKind",
    "Comparison",
    "Condition",
    "Conditions",
    "FeatureSpec",
    "FeatureType",
    "FeatureView",
    "Grouped",
    "Plain",
    "Tier",
    "ViewSpec",
]

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
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
    LAST_TEXT = "last_text"
    EMBEDDING = "embedding"
    TOP = "top"
    AGE = "age"
    DECAYED_COUNT = "decayed_count"
    DECAYED_SUM = "decayed_sum"
    DECAYED_MEAN = "decayed_mean"

    @property
    def is_decayed(self) -> bool:
        """Whether rows fade instead of leaving a window."""
        return self.value.startswith("decayed")


class FeatureType(StrEnum):
    """What a feature's values are; known from its declaration alone."""

    NUMBER = "number"  # float64, NaN where there is none
    TEXT = "text"
    VECTOR = "vector"  # so many float32
    LIST = "list"  # of texts, or of whole numbers


class Tier(StrEnum):
    """How wide the tiles of a window are."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Width of one tile."""
        match self:
            case Tier.MINUTE:
                return MINUTE_S
            case Tier.HOUR:
                return HOUR_S
            case Tier.DAY:
                return DAY_S


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
Default = Plain | Sequence[Plain]


class Condition(msgspec.Struct, frozen=True):
    """One condition that a row has to fulfil to count."""

    column: str
    comparison: Comparison
    value: Plain | tuple[Plain, ...]


Conditions = tuple[Condition, ...]  # all of them hold


class Aggregation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One aggregation of a column; made by the functions of `noria.agg`.

    Values are counted in units of `1 / scale`, so `low`, `high` and `width` are integers in those units;
    `q` is in millionths. The values of a distinct count are spread over `buckets`. The `k` most frequent are
    looked for among `values`, which are sorted. A `resolution` is given where it is not the window's own.
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
    resolution: Tier | None = None
    k: int | None = None
    values: tuple[Plain, ...] = ()
    dimensions: int | None = None

    @property
    def tier(self) -> Tier | None:
        """Hour tiles for windows up to two days, day tiles above; `None` without a window."""
        if self.window_s is None or self.resolution is not None:
            return self.resolution
        return Tier.HOUR if self.window_s <= _HOURLY_UP_TO_S else Tier.DAY

    @property
    def bins(self) -> int:
        """Number of bins of the histogram of a quantile, a distinct count or the most frequent, else 0."""
        if self.buckets is not None:
            return self.buckets
        if self.values:
            return len(self.values)
        if self.low is None or self.high is None or self.width is None:
            return 0
        return -(-(self.high - self.low) // self.width)

    @property
    def type(self) -> FeatureType:
        """What its values are."""
        match self.kind:
            case AggregationKind.LAST_TEXT:
                return FeatureType.TEXT
            case AggregationKind.EMBEDDING:
                return FeatureType.VECTOR
            case AggregationKind.TOP:
                return FeatureType.LIST
            case _:
                return FeatureType.NUMBER


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


class FeatureSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A feature's name within its view, how it is made, and what stands where it has no value."""

    name: str
    aggregation: Aggregation
    default: Plain | tuple[Plain, ...] | None = None

    @property
    def type(self) -> FeatureType:
        """What its values are."""
        return self.aggregation.type


class ViewSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A feature view as plain data.

    Attributes
    ----------
    name
        The view's name; feature columns outside are `<view>__<feature>`.
    source
        The name of the dataset, table or query.
    key, event_at, known_at
        Its columns: identity of a row, when it happened, when it could be used.
    entity
        One column or several that name whom a row is about.
    features
        In the order they were declared, which is the order of the columns.
    sql
        The SELECT that gives the rows of `source`; None: it is a table.
    """

    name: str
    source: str
    key: tuple[str, ...]
    event_at: str
    known_at: str
    entity: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    sql: str | None = None

    @property
    def digest(self) -> str:
        """The sha256 of the definition."""
        return digest_of(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Names of the feature columns that are numbers, in order."""
        return tuple(f"{self.name}__{each.name}" for each in self.features if each.type == FeatureType.NUMBER)

    @property
    def model_columns(self) -> tuple[str, ...]:
        """Names of the columns that a model reads: numbers, texts, and each element of a vector; no lists."""
        made: list[str] = []
        for name, feature in zip(self.columns, self.features, strict=True):
            if feature.type == FeatureType.VECTOR:
                made += (f"{name}_{element}" for element in range(feature.aggregation.dimensions or 0))
            elif feature.type != FeatureType.LIST:
                made.append(name)
        return tuple(made)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the columns that are texts, in order."""
        return tuple(f"{self.name}__{each.name}" for each in self.features if each.type == FeatureType.TEXT)

    @property
    def matrix_columns(self) -> tuple[str, ...]:
        """Names of the columns that a model reads and that are no texts."""
        texts = set(self.text_columns)
        return tuple(name for name in self.model_columns if name not in texts)

    @property
    def is_numbers_only(self) -> bool:
        """Whether no feature is a text, a vector or a list."""
        return all(each.type == FeatureType.NUMBER for each in self.features)

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
    """Features of one kind of entity from one source.

    Parameters
    ----------
    name : str
        The view's name.
    source : Dataset, Stream, Table or Query
        Whose rows are aggregated; of a stream those of its dataset.
    entity : str or tuple of str
        Column or columns of `source` (and of every spine) that name the entity.
    features : mapping of str to Aggregation or Grouped
        By feature name, made with `noria.agg`; groups give one feature per value, `<name>_<value>`.
    owner, description, tags
        For people who look for features. They are no part of the definition: to change them makes no version.
    descriptions : mapping of str to str
        What features mean, by name; that of a group goes for each feature of it.
    defaults : mapping of str to value
        By feature name (of groups, the names that they make): what stands wherever the feature has no value.
    freshness : str or None
        Such as `"5m"` or `"500ms"`: for so long something may wait in the source before it counts online. It
        is no part of the definition.
    ttl : str or None
        Such as `"30d"`: rows that happened longer ago do not count. `last`, `age` and their like without a
        `max_age` take it; a longer window or `max_age`, and what decays, is refused.

    Raises
    ------
    ConfigError
        If a name is empty or holds `__`, there is no feature, a default is of no feature or not of its type,
        or a feature looks back further than `ttl`.

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
    source: "Source | Stream"
    entity: str | tuple[str, ...]
    features: Mapping[str, Aggregation | Grouped]
    owner: str | None = field(default=None, kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)
    descriptions: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    defaults: Mapping[str, Default] = field(default_factory=dict, kw_only=True)
    ttl: str | None = field(default=None, kw_only=True)
    freshness: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", rows_of(self.name, self.source))
        if not self.features:
            raise ConfigError(f"feature view {self.name!r} has no feature; give at least one `agg`")
        for name, feature in self.features.items():
            if not isinstance(feature, Aggregation | Grouped):
                raise ConfigError(
                    f"feature {name!r} of view {self.name!r} is {feature!r}; make it with `noria.agg`"
                )
        names = self._checked_names()
        if unknown := sorted(set(self.defaults) - set(names)):
            raise ConfigError(
                f"feature view {self.name!r} has a default for {unknown[0]!r}, which is no feature of it; "
                f"there is {', '.join(names)}"
            )
        if not self.entity:
            raise ConfigError(f"feature view {self.name!r} has no entity; name a column of its source")
        if self.freshness is not None:
            try:
                parse_wait(self.freshness)
            except ValueError as err:
                raise ConfigError(f"feature view {self.name!r}: freshness: {err}") from err
        tags: object = self.tags
        if isinstance(tags, str):
            raise ConfigError(f"feature view {self.name!r}: tags is {self.tags!r}; give a tuple of texts")
        unknown = sorted(set(self.descriptions) - {*names, *self.features})
        if unknown:
            raise ConfigError(
                f"feature view {self.name!r} describes {unknown[0]!r}, which is no feature of it; "
                f"there is {', '.join(names)}"
            )

    def _checked_names(self) -> list[str]:
        """Give the names of the features. Raises `ConfigError` where two columns would have one name."""
        features = list(self._features())
        names = [each.name for each in features]
        for name in (self.name, *names):
            if not name or "__" in name:
                raise ConfigError(f"{name!r} names no view or feature: it may not be empty or hold '__'")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"view {self.name!r} has two features {twice[0]!r}: a group gave one of them")
        elements = {
            f"{each.name}_{at}" for each in features for at in range(each.aggregation.dimensions or 0)
        }
        if both := sorted(elements & {*names}):
            raise ConfigError(
                f"view {self.name!r} has two columns '{self.name}__{both[0]}': one is an element of an "
                "embedding; give one of the features another name"
            )
        return names

    def description_of(self, feature: str) -> str | None:
        """Say what a feature means, in the words of its declaration; None if there are none."""
        for name, given in self.features.items():
            made = {each.name for each in given.features(name)} if isinstance(given, Grouped) else {name}
            if feature in made:
                return self.descriptions.get(feature, self.descriptions.get(name))
        return None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return self.spec().columns

    def spec(self) -> ViewSpec:
        """Give the view as plain data."""
        source = cast("Source", self.source)  # of a stream its dataset, since it was made
        return ViewSpec(
            name=self.name,
            source=source.name,
            key=source.keys,
            event_at=source.event_at,
            known_at=source.known_at_column,
            entity=_names(self.entity),
            features=tuple(self._features()),
            sql=source.sql if isinstance(source, Query) else None,
        )

    def _features(self) -> Iterator[FeatureSpec]:
        for name, given in self.features.items():
            made = given.features(name) if isinstance(given, Grouped) else [FeatureSpec(name, given)]
            for each in made:
                yield self._completed(each)

    def _completed(self, feature: FeatureSpec) -> FeatureSpec:
        """Give a feature with what the view says of it: how old rows may be, what stands for no value."""
        aggregation = feature.aggregation
        if self.ttl is not None:
            aggregation = _limited(feature, self.ttl, self.name)
        default = self.defaults.get(feature.name)
        if default is not None:
            default = checked_default(feature, default, self.name)
        return FeatureSpec(feature.name, aggregation, default)


def _limited(feature: FeatureSpec, ttl: str, view: str) -> Aggregation:
    """Give an aggregation that looks at no row older than `ttl`."""
    aggregation = feature.aggregation
    try:
        limit_s = int(parse_duration(ttl).total_seconds())
    except ValueError as err:
        raise ConfigError(f"ttl of view {view!r}: {err}") from err
    if aggregation.half_life_s is not None:
        raise ConfigError(
            f"feature {feature.name!r} of view {view!r} decays: it looks at all rows, and ttl = {ttl!r} "
            "would cut it off; use a window instead, or a view without ttl"
        )
    reach_s = aggregation.window_s if aggregation.max_age_s is None else aggregation.max_age_s
    if reach_s is None:
        return msgspec.structs.replace(aggregation, max_age_s=limit_s)
    if reach_s > limit_s:
        raise ConfigError(
            f"feature {feature.name!r} of view {view!r} looks back {reach_s} seconds, ttl = {ttl!r} is "
            f"{limit_s}; make the window shorter or the ttl longer"
        )
    return aggregation


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
