"""Which features go together, and which say the same."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from noria.features.columns import Floats, Ints
from noria.features.statistics.information import correlation_ratio, cramers_v
from noria.features.statistics.records import Related

__all__ = ["REDUNDANT", "Sampled", "groups_of", "related_pairs"]

REDUNDANT = 0.9
_TOLD = 0.7
_LEAST_ROWS = 50  # with both values
_MOST_PAIRS = 50
_MOST_FEATURES = 200  # those that tell most of the label


@dataclass(frozen=True, slots=True)
class Sampled:
    """A feature over sampled rows: ranks of a number, NaN where missing, or bins of a category."""

    name: str
    ranks: Floats | None
    bins: Ints
    missing_bin: int
    strength: float


def related_pairs(features: Sequence[Sampled]) -> list[Related]:
    """Give the pairs of features that go together, the strongest first.

    Numbers by Spearman's correlation, categories by Cramér's V, a number with a category by the correlation
    ratio of its ranks; over rows that have both, of which there are at least fifty. Ranks are those among all
    rows that have the one. Of more than two hundred features those are paired that tell most of the label.
    """
    features = sorted(features, key=lambda each: -each.strength)[:_MOST_FEATURES]
    numbers = [each for each in features if each.ranks is not None]
    categories = [each for each in features if each.ranks is None]
    found = [each for each in _of_numbers(numbers) if abs(each.value) >= _TOLD]
    for left, right in combinations(categories, 2):
        both = (left.bins != left.missing_bin) & (right.bins != right.missing_bin)
        value = cramers_v(left.bins[both], right.bins[both]) if both.sum() >= _LEAST_ROWS else None
        if value is not None and value >= _TOLD:
            found.append(Related(left.name, right.name, "cramers_v", value, int(both.sum())))
    for category in categories:
        there = category.bins != category.missing_bin
        for number in numbers:
            assert number.ranks is not None
            rows = int((there & ~np.isnan(number.ranks)).sum())
            value = (
                correlation_ratio(category.bins[there], number.ranks[there]) if rows >= _LEAST_ROWS else None
            )
            if value is not None and value >= _TOLD:
                found.append(Related(category.name, number.name, "correlation_ratio", value, rows))
    return sorted(found, key=lambda each: (-abs(each.value), each.left, each.right))


def _of_numbers(numbers: Sequence[Sampled]) -> Iterator[Related]:
    """Correlate ranks of all pairs at once, each over the rows that have both."""
    if len(numbers) < 2:
        return
    ranks = np.column_stack([each.ranks for each in numbers if each.ranks is not None])
    there = (~np.isnan(ranks)).astype(np.float64)
    spread = np.nanmax(np.where(there > 0, ranks, 0.0), axis=0)
    values = np.where(there > 0, ranks / np.maximum(spread, 1.0) - 0.5, 0.0)
    rows = there.T @ there
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = values.T @ there  # of the row's feature, over rows that have the column's as well
        squares = (values * values).T @ there
        variance = squares - sums * sums / rows
        shared = values.T @ values - sums * sums.T / rows
        found = shared / np.sqrt(variance * variance.T)
    usable = (rows >= _LEAST_ROWS) & (np.minimum(variance, variance.T) > 1e-9 * rows)
    for one, other in combinations(range(len(numbers)), 2):
        if usable[one, other]:
            value = float(np.clip(found[one, other], -1.0, 1.0))
            yield Related(numbers[one].name, numbers[other].name, "spearman", value, int(rows[one, other]))


def groups_of(pairs: Sequence[Related], strengths: Mapping[str, float]) -> tuple[tuple[str, ...], ...]:
    """Group features by single linkage of pairs at or above `REDUNDANT`; the most telling comes first."""
    group = {name: {name} for name in strengths}
    for pair in pairs:
        if abs(pair.value) >= REDUNDANT and group[pair.left] is not group[pair.right]:
            merged = group[pair.left] | group[pair.right]
            group |= dict.fromkeys(merged, merged)
    distinct = {id(each): each for each in group.values() if len(each) > 1}
    ordered = (tuple(sorted(each, key=lambda name: (-strengths[name], name))) for each in distinct.values())
    return tuple(sorted(ordered))
