"""Statistics of a set's features as values: JSON-able, kept beside the model that learned from the set."""

from typing import Literal

import msgspec

__all__ = [
    "ColumnKind",
    "ColumnShape",
    "FeatureStatistics",
    "LabelKind",
    "Related",
    "SetStatistics",
    "Stability",
    "Suspicion",
    "ViewStatistics",
    "WithLabel",
]

ColumnKind = Literal["number", "category", "instant"]
LabelKind = Literal["binary", "number", "category"]


class WithLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature alone tells of the label.

    Attributes
    ----------
    rows
        Sampled rows that have both.
    pearson, spearman
        Of numbers, over `rows`.
    information_bits
        Mutual information of binned values, what is missing in a bin of its own, corrected for the number of
        cells (Miller and Madow).
    information_share, information_low
        The share of the label's entropy that this is, and its lower confidence bound.
    auc, auc_low, auc_high
        Of a label of 0 and 1, over rows with a value: above 0.5 where greater values go with 1. Of a category
        by the rate that its other rows show. The interval holds for all features together in 99 % of sets.
    cramers_v
        Of a category, corrected for bias (Bergsma).
    """

    rows: int
    pearson: float | None = None
    spearman: float | None = None
    information_bits: float
    information_share: float
    information_low: float
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    cramers_v: float | None = None


class Stability(msgspec.Struct, frozen=True, kw_only=True):
    """The stretch of the calendar in which a feature is furthest from what it is in all the others.

    Attributes
    ----------
    chunk
        Such as `2013-02`, or the first day of a week.
    psi
        Population stability index between the stretch and the others.
    excess
        What is left of it without the part that chance gives to that many rows.
    p_value
        Of so much by chance, adjusted for the number of stretches and features.
    moved
        Whether chance does not explain it, and the excess is 0.1 or more.
    """

    chunk: str
    chunks: int
    psi: float
    excess: float
    p_value: float
    moved: bool


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over the rows of a set.

    Attributes
    ----------
    rows, missing
        How many were counted, and how many of them have no value.
    mean, std, quantiles
        Of sampled numbers; quantiles by `p05` `p25` `p50` `p75` `p95`.
    categories, top
        How many a category has among the sampled rows; the most frequent, with their counts. What fewer
        than ten rows have is not named.
    missing_auc, missing_low
        How well it tells a label of 0 and 1 whether the feature is missing, and the lower confidence bound:
        0.5 is not at all, 1 is whole.
    """

    name: str
    kind: ColumnKind
    rows: int
    missing: int
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    categories: int = 0
    top: tuple[tuple[str, int], ...] = ()
    with_label: WithLabel
    missing_auc: float | None = None
    missing_low: float | None = None
    stability: Stability | None = None

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return self.missing / self.rows if self.rows else 0.0


class Related(msgspec.Struct, frozen=True):
    """Two features that go together: Spearman's correlation, Cramér's V or the correlation ratio of ranks."""

    left: str
    right: str
    measure: Literal["spearman", "cramers_v", "correlation_ratio"]
    value: float
    rows: int


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that may know what nobody can know when the model is asked.

    Attributes
    ----------
    rule
        `predicts_too_well`, `filled_by_outcome`, `filled_when_labelled`, `after_decision` or `own_outcome`.
    value, limit
        What was found, and from where on it is suspicious.
    """

    feature: str
    rule: str
    value: float
    limit: float
    detail: str


class SetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell of the features of one set.

    Attributes
    ----------
    rows, labelled, sampled
        Of the set; those that have a label; those that were looked at for all but counts.
    base_rate
        The share of 1 in a label of 0 and 1.
    related
        Pairs of features that go together, the strongest first.
    groups
        Features that say the same: each is with another of its group at or above `redundancy`. The one that
        tells most of the label comes first.
    left_out
        Columns that were not looked at, and why.
    """

    label: str
    label_kind: LabelKind
    rows: int
    labelled: int
    sampled: int
    base_rate: float | None
    features: tuple[FeatureStatistics, ...]
    related: tuple[Related, ...]
    groups: tuple[tuple[str, ...], ...]
    redundancy: float
    suspicions: tuple[Suspicion, ...]
    left_out: dict[str, str] = {}

    def strongest(self, count: int = 5) -> tuple[FeatureStatistics, ...]:
        """Give the features that tell most of the label, the strongest first."""
        told = sorted(self.features, key=lambda each: (-each.with_label.information_share, each.name))
        return tuple(told[:count])


class ColumnShape(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over entities, without a label; fields are those of `FeatureStatistics`.

    There are no quantiles of fewer than twenty values, and no mean of fewer than ten: they would be those of
    single entities.
    """

    name: str
    kind: ColumnKind
    rows: int
    missing: int
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    categories: int = 0
    top: tuple[tuple[str, int], ...] = ()

    @property
    def missing_share(self) -> float:
        """The share of entities without a value."""
        return self.missing / self.rows if self.rows else 0.0


class ViewStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the features of a view look like, over entities as of one instant.

    Attributes
    ----------
    entities, sampled
        How many the source has; how many were looked at.
    as_of
        The instant, as text.
    busy
        Entities that were left out because one of them has more rows than may be read.
    related, groups, redundancy, left_out
        As in `SetStatistics`; of a group the feature comes first that is missing least.
    """

    view: str
    entities: int
    sampled: int
    as_of: str | None
    busy: int = 0
    features: tuple[ColumnShape, ...]
    related: tuple[Related, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    redundancy: float
    left_out: dict[str, str] = {}
