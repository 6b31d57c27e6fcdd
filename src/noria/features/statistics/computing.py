"""Statistics of a set: each feature, with the label, with the others, over time, and what is suspicious."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np

from noria.errors import SourceError
from noria.features.columns import Bools, Floats, Ints
from noria.features.statistics.choosing import Chosen, choose
from noria.features.statistics.columns import Column
from noria.features.statistics.distributions import categories, distribution, rounded
from noria.features.statistics.information import (
    bin_categories,
    bin_ranks,
    correlation,
    cramers_v,
    information,
    most_bins,
)
from noria.features.statistics.ranks import Ranked, area, area_bounds, rank
from noria.features.statistics.records import (
    FeatureStatistics,
    LabelKind,
    SetStatistics,
    Suspicion,
    WithLabel,
)
from noria.features.statistics.relating import REDUNDANT, Sampled, groups_of, related_pairs
from noria.features.statistics.stability import CHUNK_BINS, Calendar, calendar_of, stability_of
from noria.features.statistics.suspecting import (
    Fill,
    confidence_z,
    instants_after,
    suspect_fill,
    suspect_strength,
)

__all__ = ["statistics_of"]

_MOST_TOLD = 50


@dataclass(frozen=True, slots=True)
class _Target:
    """The label, and what is asked of each feature."""

    kind: LabelKind
    values: Floats
    chosen: Chosen
    sampled: Floats
    ranks: Floats
    bins: Ints
    bin_count: int
    at: Ints | None
    calendar: Calendar | None
    tests: int
    z: float

    @property
    def of_cases(self) -> Bools:
        """Whether the label of each case is 1."""
        return cast("Bools", self.values[self.chosen.cases] == 1)


def statistics_of(
    columns: Sequence[Column],
    label: Column,
    *,
    at: Ints | None = None,
    seed: int = 0,
    left_out: Mapping[str, str] | None = None,
) -> SetStatistics:
    """Compute the statistics of a set's features.

    Counts are over all labelled rows, up to a million; all else over 20,000 of them, which `seed` picks. An
    area under the curve takes in up to 1,000 more rows of a rare label. The time it takes does not grow with
    the rows but for loading columns and counting missing values.

    Parameters
    ----------
    columns
        Of one length, in the order of time.
    label
        Missing where it is not known.
    at : ndarray of int64, optional
        Instants of the decisions, microseconds since 1970. Without them nothing is said of time.
    seed : int
        Made from the digest of the set, so that the same set has the same statistics.
    left_out : mapping, optional
        Columns that are not looked at, with the reason; only told.

    Raises
    ------
    SourceError
        If there is no feature, or no row has a label.
    """
    target = _target(label, at=at, seed=seed, tests=len(columns))
    if not columns:
        raise SourceError("there is no feature to describe; name a set with other columns than its label")
    features: list[FeatureStatistics] = []
    sampled: list[Sampled] = []
    suspicions: list[Suspicion] = []
    for column in columns:
        values = column.load()
        if len(values) != len(target.values):
            raise SourceError(f"{column.name!r} has {len(values)} rows, the label {len(target.values)}")
        feature, sample = _describe(column, values, target)
        fill = _fill(values, target)
        feature = _with_fill(feature, fill, target)
        features.append(feature)
        sampled.append(sample)
        suspicions += suspect_fill(feature, fill, z=target.z)
        if column.kind == "instant" and at is not None:
            late = values[target.chosen.sample] > at[target.chosen.sample]
            rows = feature.with_label.rows
            suspicions += instants_after(column.name, int(late.sum()), rows, z=target.z)
    rarer = len(target.sampled)
    if target.kind == "binary":
        rarer = int(min((target.sampled == 1).sum(), (target.sampled == 0).sum()))
    suspicions += suspect_strength(features, rarer=rarer)
    pairs = related_pairs(sampled)
    strengths = {each.name: each.with_label.information_share for each in features}
    known = ~np.isnan(target.values)
    found = SetStatistics(
        label=label.name,
        label_kind=target.kind,
        rows=len(target.values),
        labelled=int(known.sum()),
        sampled=len(target.sampled),
        base_rate=float(target.values[known].mean()) if target.kind == "binary" else None,
        features=tuple(features),
        related=tuple(pairs[:_MOST_TOLD]),
        groups=groups_of(pairs, strengths),
        redundancy=REDUNDANT,
        suspicions=tuple(sorted(suspicions, key=lambda each: (each.feature, each.rule))),
        left_out=dict(left_out or {}),
    )
    return msgspec.convert(rounded(msgspec.to_builtins(found)), SetStatistics)


def _target(label: Column, *, at: Ints | None, seed: int, tests: int) -> _Target:
    values = label.load()
    known = values[~np.isnan(values)]
    if not len(known):
        raise SourceError(f"no row has the label {label.name!r}; wait for outcomes, or name another column")
    kind: LabelKind = "category" if label.kind == "category" else "number"
    if kind == "number" and bool(((known == 0) | (known == 1)).all()):
        kind = "binary"
    chosen = choose(values, binary=kind == "binary", seed=seed)
    sampled = values[chosen.sample]
    ranked = rank(sampled)
    most = most_bins(len(sampled))
    bins = bin_categories(sampled, most) if kind == "category" else bin_ranks(ranked, most)
    return _Target(
        kind=kind,
        values=values,
        chosen=chosen,
        sampled=sampled,
        ranks=ranked.ranks,
        bins=bins,
        bin_count=most,
        at=at,
        calendar=None if at is None else calendar_of(at[chosen.sample]),
        tests=tests,
        z=confidence_z(tests),
    )


def _describe(column: Column, values: Floats, target: _Target) -> tuple[FeatureStatistics, Sampled]:
    sample = values[target.chosen.sample]
    if column.kind == "category":
        ranked, bins = None, bin_categories(sample, target.bin_count)
        coarse = bin_categories(sample, CHUNK_BINS)
    else:
        ranked = rank(sample)
        bins, coarse = bin_ranks(ranked, target.bin_count), bin_ranks(ranked, CHUNK_BINS)
    told = _with_label(values, sample, ranked, bins, target)
    stability = None
    if target.calendar is not None and column.kind != "instant":
        stability = stability_of(coarse, target.calendar, tests=target.tests)
    feature = FeatureStatistics(
        name=column.name,
        kind=column.kind,
        rows=0,
        missing=0,
        with_label=told,
        stability=stability,
        **(categories(column, sample) if ranked is None else distribution(column, sample)),
    )
    kept = Sampled(
        column.name, None if ranked is None else ranked.ranks, bins, target.bin_count, told.information_share
    )
    return feature, kept


def _with_label(
    values: Floats, sample: Floats, ranked: Ranked | None, bins: Ints, target: _Target
) -> WithLabel:
    found = information(bins, target.bins)
    there = ~np.isnan(sample)
    rates = values[target.chosen.cases]
    told: dict[str, Any] = {}
    if ranked is None:
        told["cramers_v"] = cramers_v(bins[there], target.bins[there])
        if target.kind == "binary":
            rates = _rates(rates, target.of_cases)
    elif target.kind != "category":
        told["pearson"] = correlation(sample, target.sampled)
        told["spearman"] = correlation(ranked.ranks, target.ranks)
    if target.kind == "binary":
        told |= _area(rates, target)
    return WithLabel(
        rows=int(there.sum()),
        information_bits=found.bits,
        information_share=found.share,
        information_low=found.low_share(target.z),
        **told,
    )


def _rates(codes: Floats, positive: Bools) -> Floats:
    """Give each row's category the rate of 1 that it has in the other half of the rows."""
    there = ~np.isnan(codes)
    whole = np.where(there, codes, 0).astype(np.int64)
    half = np.arange(len(codes)) % 2
    width = int(whole.max(initial=0)) + 1
    usual = float(positive.mean())
    rates = np.full(len(codes), np.nan)
    for mine in (0, 1):
        others = there & (half != mine)
        counts = np.bincount(whole[others], minlength=width)
        ones = np.bincount(whole[others & positive], minlength=width)
        seen = (ones + usual) / (counts + 1)
        chosen = there & (half == mine)
        rates[chosen] = seen[whole[chosen]]
    return rates


def _area(values: Floats, target: _Target) -> dict[str, float]:
    positive = target.of_cases
    found = area(values, positive)
    if found is None:
        return {}
    there = ~np.isnan(values)
    ups = int((there & positive).sum())
    low, high = area_bounds(found, positives=ups, negatives=int(there.sum()) - ups, z=target.z)
    return {"auc": found, "auc_low": low, "auc_high": high}


def _fill(values: Floats, target: _Target) -> Fill:
    chosen = target.chosen
    filled = ~np.isnan(values)
    counted, label = filled[chosen.counted], target.values[chosen.counted]
    ones = label == 1 if target.kind == "binary" else np.zeros(len(label), dtype=bool)
    positives = int(ones.sum())
    filled_ones = int((counted & ones).sum())
    is_binary = target.kind == "binary"
    return Fill(
        positives=positives,
        negatives=len(label) - positives if is_binary else 0,
        filled_positives=filled_ones,
        filled_negatives=int(counted.sum()) - filled_ones,
        unlabelled=len(chosen.unlabelled),
        filled_unlabelled=int(filled[chosen.unlabelled].sum()),
        filled_before=int(filled[chosen.before].sum()),
    )


def _with_fill(feature: FeatureStatistics, fill: Fill, target: _Target) -> FeatureStatistics:
    rows = len(target.chosen.counted)
    missing = rows - fill.filled_positives - fill.filled_negatives
    missing_auc = missing_low = None
    if fill.positives and fill.negatives:
        apart = fill.filled_positives / fill.positives - fill.filled_negatives / fill.negatives
        missing_auc = 0.5 + abs(apart) / 2
        bounds = area_bounds(missing_auc, positives=fill.positives, negatives=fill.negatives, z=target.z)
        missing_low = bounds[0]
    return msgspec.structs.replace(
        feature, rows=rows, missing=missing, missing_auc=missing_auc, missing_low=missing_low
    )
