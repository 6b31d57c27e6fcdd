"""Which features may know the outcome: rules with limits, and how often they are wrong.

Bounds are those that hold for all features of a set together in 99 % of sets, rows being independent. So a
set of which no feature truly reaches a limit is suspected in at most one case of a hundred, and by far less
where features stay away from the limits. Rows of one day that are alike make bounds a little too narrow; the
limits lie far above what honest features reach.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from noria.features.statistics.ranks import share_bounds
from noria.features.statistics.records import FeatureStatistics, Suspicion

__all__ = [
    "Fill",
    "confidence_z",
    "early_outcomes",
    "instants_after",
    "suspect_fill",
    "suspect_strength",
    "unready_source",
]

ALPHA = 0.01  # of sets without a leak in which anything is suspected
AREA_LIMIT = 0.95
INFORMATION_LIMIT = 0.7
MISSING_LIMIT = 0.85
PURE_LIMIT = 0.9
_USUAL = 0.6  # share of a label that a group of rows may well have throughout
_FEWER_ERRORS = 3.0  # times, than the next best feature
_MORE_INFORMATION = 2.0  # times
_FILLED, _UNFILLED = 0.5, 0.1
_LATE_LIMIT = 0.01
_UNREADY_LIMIT = 0.5
_LEAST_ROWS, _LEAST_RARER = 100, 20  # for a verdict by information
_TESTS = 6  # bounds of one feature: two of the area, information, missing, purity, fill


def confidence_z(features: int) -> float:
    """Give the number of standard errors at which all bounds of a set hold together."""
    return NormalDist().inv_cdf(1 - ALPHA / (_TESTS * max(features, 1)))


@dataclass(frozen=True, slots=True)
class Fill:
    """How many rows have a value of one feature.

    Attributes
    ----------
    positives, negatives, filled_positives, filled_negatives
        Labelled rows; zero where the label is not of 0 and 1.
    unlabelled, filled_unlabelled, filled_before
        Rows without a label; how many of them are filled; how many of the nearest earlier rows with a label.
    """

    positives: int
    negatives: int
    filled_positives: int
    filled_negatives: int
    unlabelled: int
    filled_unlabelled: int
    filled_before: int


def suspect_strength(features: Sequence[FeatureStatistics], *, rarer: int) -> Iterator[Suspicion]:
    """Find features that predict the label alone, and far better than all that do not.

    The lower bound of the area under the curve is 0.95 or more, with at most a third of the errors (one minus
    the area) of the next best feature; or the lower bound of the share of the label's entropy is 0.7 or more,
    and twice that of the next best. The next best is the best of those below the limit.

    Parameters
    ----------
    rarer : int
        Sampled rows of the rarer of two labels; of any other label, all.
    """
    areas = {each.name: _area(each) for each in features}
    next_area = max((found for low, found in areas.values() if low < AREA_LIMIT), default=0.5)
    shares = {
        each.name: each.with_label.information_low
        if each.with_label.rows >= _LEAST_ROWS and rarer >= _LEAST_RARER
        else 0.0
        for each in features
    }
    next_share = max(
        (each.with_label.information_share for each in features if shares[each.name] < INFORMATION_LIMIT),
        default=0.0,
    )
    for each in features:
        low, found = areas[each.name]
        if low >= AREA_LIMIT and (1 - low) * _FEWER_ERRORS <= 1 - next_area:
            yield Suspicion(
                feature=each.name,
                rule="predicts_too_well",
                value=low,
                limit=AREA_LIMIT,
                detail=f"alone it ranks the label with an AUC of {found:.3f}, surely {low:.3f} or more, "
                f"limit {AREA_LIMIT}; the next best feature has {next_area:.3f}",
            )
        elif shares[each.name] >= INFORMATION_LIMIT and shares[each.name] >= _MORE_INFORMATION * next_share:
            told = each.with_label.information_share
            yield Suspicion(
                feature=each.name,
                rule="predicts_too_well",
                value=shares[each.name],
                limit=INFORMATION_LIMIT,
                detail=f"alone it tells {told:.0%} of the label, surely {shares[each.name]:.0%} or more, "
                f"limit {INFORMATION_LIMIT:.0%}; the next best feature tells {next_share:.0%}",
            )


def _area(each: FeatureStatistics) -> tuple[float, float]:
    """Give the lower bound and the value of the area, in the direction in which it ranks better."""
    told = each.with_label
    if told.auc is None or told.auc_low is None or told.auc_high is None:
        return 0.0, 0.5
    return (told.auc_low, told.auc) if told.auc >= 0.5 else (1 - told.auc_high, 1 - told.auc)


def suspect_fill(each: FeatureStatistics, fill: Fill, *, z: float) -> Iterator[Suspicion]:
    """Find whether having a value, or none, gives the outcome away."""
    if each.missing_low is not None and each.missing_low >= MISSING_LIMIT:
        yield Suspicion(
            feature=each.name,
            rule="filled_by_outcome",
            value=each.missing_low,
            limit=MISSING_LIMIT,
            detail=f"whether it is missing ranks the label with an AUC of {each.missing_auc:.3f}, surely "
            f"{each.missing_low:.3f} or more, limit {MISSING_LIMIT}",
        )
    elif fill.positives and fill.negatives:
        yield from _suspect_purity(each.name, fill, z)
    least = share_bounds(fill.filled_before, fill.unlabelled, z=z)[0]
    most = share_bounds(fill.filled_unlabelled, fill.unlabelled, z=z)[1]
    if fill.unlabelled and least >= _FILLED and most <= _UNFILLED:
        yield Suspicion(
            feature=each.name,
            rule="filled_when_labelled",
            value=most,
            limit=_UNFILLED,
            detail=f"{fill.filled_unlabelled / fill.unlabelled:.1%} of {fill.unlabelled} rows without a "
            f"label have it, surely {most:.1%} or less, limit {_UNFILLED:.0%}; of the rows with a label just "
            f"before them {fill.filled_before / fill.unlabelled:.1%} have it",
        )


def _suspect_purity(name: str, fill: Fill, z: float) -> Iterator[Suspicion]:
    """Find a group of rows, with or without a value, that nearly all have a label that is not usual."""
    rows = fill.positives + fill.negatives
    ones, zeros = fill.filled_positives, fill.filled_negatives
    groups = (("has a value", zeros, ones), ("is missing", fill.negatives - zeros, fill.positives - ones))
    for label, of_label in enumerate((fill.negatives, fill.positives)):
        if of_label > _USUAL * rows:
            continue
        for words, *counts in groups:
            low = share_bounds(counts[label], sum(counts), z=z)[0]
            if sum(counts) and low >= PURE_LIMIT:
                yield Suspicion(
                    feature=name,
                    rule="filled_by_outcome",
                    value=low,
                    limit=PURE_LIMIT,
                    detail=f"where it {words} the label is {label} in {counts[label]} of {sum(counts)} rows, "
                    f"surely in {low:.1%} or more, limit {PURE_LIMIT:.0%}; of all rows it is in "
                    f"{of_label / rows:.1%}",
                )


def instants_after(name: str, later: int, rows: int, *, z: float) -> Iterator[Suspicion]:
    """Find whether a column of instants lies after the decision, in more than one row of a hundred."""
    low = share_bounds(later, rows, z=z)[0]
    if rows and low > _LATE_LIMIT:
        yield Suspicion(
            feature=name,
            rule="after_decision",
            value=low,
            limit=_LATE_LIMIT,
            detail=f"its instant is after that of the decision in {later} of {rows} rows, surely in "
            f"{low:.1%} or more, limit {_LATE_LIMIT:.0%}",
        )


def early_outcomes(name: str, early: int, rows: int, *, z: float) -> Iterator[Suspicion]:
    """Find whether a feature of the label's own column sees outcomes that were known by the decision."""
    low = share_bounds(early, rows, z=z)[0]
    if rows and low > _LATE_LIMIT:
        yield Suspicion(
            feature=name,
            rule="own_outcome",
            value=low,
            limit=_LATE_LIMIT,
            detail=f"it is made from the label's own column, and {early} of {rows} labels count as known by "
            f"the decision, surely {low:.1%} or more, limit {_LATE_LIMIT:.0%}: its own outcome is in it",
        )


def unready_source(
    name: str, column: str, source: str, late: int, rows: int, *, z: float
) -> Iterator[Suspicion]:
    """Find whether a feature of a column like the label's is read before the label can be known."""
    low = share_bounds(late, rows, z=z)[0]
    if rows and low > _UNREADY_LIMIT:
        yield Suspicion(
            feature=name,
            rule="own_outcome",
            value=low,
            limit=_UNREADY_LIMIT,
            detail=f"it is made from {column!r} of {source!r}, whose rows are declared as known when they "
            f"happen; the label's source tells it later, {late} of {rows} outcomes after the decision, "
            f"surely {low:.1%} or more, limit {_UNREADY_LIMIT:.0%}",
        )
