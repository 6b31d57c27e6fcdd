"""The measures, against other implementations, known values and their own rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import mutual_info_score, roc_auc_score

from noria.features.statistics.information import (
    bin_categories,
    bin_ranks,
    correlation,
    correlation_ratio,
    cramers_v,
    information,
    most_bins,
)
from noria.features.statistics.ranks import area, area_bounds, rank, share_bounds
from noria.features.statistics.relating import Sampled, groups_of, related_pairs

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.0, 1.0, float("inf"), float("nan")])
VALUES = arrays(np.float64, st.integers(1, 60), elements=NUMBERS)


@settings(deadline=None)
@given(VALUES)
def test_ranks_are_those_of_scipy(values: np.ndarray) -> None:
    ranked = rank(values)
    np.testing.assert_array_equal(ranked.ranks, stats.rankdata(values, nan_policy="omit"))
    there = values[~np.isnan(values)]
    assert ranked.distinct == len(np.unique(there))
    assert ranked.present == len(there)


@settings(deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_area_is_that_of_scikit_learn(values: np.ndarray, random: object) -> None:
    values = values[np.isfinite(values)]
    y = np.arange(len(values)) % 3 == 0
    found = area(values, y)
    if len(values) < 2:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(y, values), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "positives", "negatives"), [(0.95, 25, 60), (0.85, 200, 200), (0.5, 8, 40)]
)
def test_bounds_of_areas_hold_as_often_as_they_say(truth: float, positives: int, negatives: int) -> None:
    rng = np.random.default_rng(3)
    shift = np.sqrt(2) * stats.norm.ppf(truth)
    y = np.arange(positives + negatives) < positives
    missed = 0
    for _ in range(600):
        found = area(rng.normal(size=len(y)) + shift * y, y)
        assert found is not None
        low, high = area_bounds(found, positives=positives, negatives=negatives, z=stats.norm.ppf(0.99))
        assert low <= found <= high
        missed += low > truth
    assert missed <= 600 * 0.01 + 3 * np.sqrt(600 * 0.01)


def test_perfect_order_of_few_rows_proves_little() -> None:
    assert area_bounds(1.0, positives=4, negatives=4, z=3.0)[0] < 0.6
    assert area_bounds(1.0, positives=1_000, negatives=1_000, z=3.0)[0] > 0.99


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 500), st.floats(1.0, 4.0))
def test_bounds_of_shares_enclose_them(count: int, more: int, z: float) -> None:
    rows = count + more
    low, high = share_bounds(count, rows, z=z)
    assert 0 <= low <= count / rows <= high <= 1


def test_information_is_that_of_scikit_learn_less_what_chance_shows() -> None:
    rng = np.random.default_rng(5)
    left = rng.integers(0, 6, 4_000)
    right = (left + rng.integers(0, 3, 4_000)) % 6
    plain = mutual_info_score(left, right) / np.log(2)
    found = information(left, right)
    cells = len(set(zip(left.tolist(), right.tolist(), strict=True)))
    assert found.bits == pytest.approx(plain - (cells - 11) / (2 * 4_000 * np.log(2)))
    assert found.entropy == pytest.approx(stats.entropy(np.bincount(right), base=2))


def test_without_dependence_there_is_no_information_and_no_association_on_average() -> None:
    rng = np.random.default_rng(6)
    bits, plain, v = [], [], []
    for _ in range(300):
        left, right = rng.integers(0, 12, 500), rng.integers(0, 2, 500)
        plain.append(mutual_info_score(left, right) / np.log(2))
        bits.append(information(left, right).bits)
        v.append(cramers_v(left, right) or 0.0)
    assert np.mean(plain) > 0.014
    assert np.mean(bits) < 0.003  # cut off at zero, so not quite none
    assert (
        np.mean(v) < 0.05 < stats.contingency.association(np.histogram2d(left, right, (12, 2))[0].astype(int))
    )


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**31))
def test_associations_stay_between_none_and_all(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, height, 60), rng.integers(0, width, 60)
    v = cramers_v(left, right)
    assert v is None or 0 <= v <= 1
    same = cramers_v(left, left)
    assert same is None or same == pytest.approx(1)
    ratio = correlation_ratio(left, rng.normal(size=60))
    assert ratio is None or 0 <= ratio <= 1
    told = information(left, right)
    assert 0 <= told.low_share(3.0) <= told.share <= 1


def test_the_correlation_is_that_of_numpy_whatever_the_scale() -> None:
    rng = np.random.default_rng(7)
    left, right = rng.normal(size=300), rng.normal(size=300)
    right = right + left
    expected = np.corrcoef(left, right)[0, 1]
    for scale in (1.0, 1e200, 1e-200):
        assert correlation(left * scale, right * scale) == pytest.approx(expected, abs=1e-9)
    assert correlation(np.append(left, np.nan), np.append(right, 1e9)) == pytest.approx(expected, abs=1e-9)
    assert correlation(left, np.ones(300)) is None


@settings(deadline=None)
@given(VALUES, st.integers(2, 12))
def test_bins_keep_ties_together_and_missing_values_apart(values: np.ndarray, bins: int) -> None:
    binned = bin_ranks(rank(values), bins)
    missing = np.isnan(values)
    assert (binned[missing] == bins).all()
    assert ((binned[~missing] >= 0) & (binned[~missing] < bins)).all()
    for each in np.unique(values[~missing]):
        assert len(set(binned[values == each])) == 1
    order = np.argsort(values[~missing])
    assert (np.diff(binned[~missing][order]) >= 0).all()


def test_rare_categories_share_a_bin() -> None:
    codes = np.array([0.0] * 50 + [1.0] * 20 + [2.0] * 3 + [3.0] + [np.nan] * 2)
    binned = bin_categories(codes, 8)
    assert set(binned[:50]) == {0}
    assert set(binned[50:70]) == {1}
    assert set(binned[70:74]) == {2}
    assert set(binned[74:]) == {8}
    assert most_bins(10) == 2
    assert most_bins(1_000_000) == 32


def made(name: str, values: np.ndarray, *, strength: float = 0.0) -> Sampled:
    ranked = rank(values)
    return Sampled(name, ranked.ranks, bin_ranks(ranked, 10), 10, strength)


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(8)
    base = rng.normal(size=400)
    features = [
        made(f"f{each}", np.round(base + rng.normal(size=400) * 0.2 * each, 1)) for each in range(1, 5)
    ]
    pairs = {(each.left, each.right): each.value for each in related_pairs(features)}
    assert len(pairs) > 2
    for (left, right), value in pairs.items():
        one, other = (next(each.ranks for each in features if each.name == name) for name in (left, right))
        assert value == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)


def test_features_that_say_the_same_are_grouped_whatever_is_missing() -> None:
    rng = np.random.default_rng(9)
    base = rng.normal(size=2_000)
    holes = np.where(rng.random(2_000) < 0.5, np.nan, -base)
    codes = rng.integers(0, 4, 2_000)
    kinds = Sampled("kinds", None, codes, 10, 0.0)
    again = Sampled("again", None, (codes + 1) % 4, 10, 0.0)
    steps = made("steps", codes * 10.0)
    features = [made("base", base, strength=0.1), made("holes", holes), kinds, again, steps]
    pairs = related_pairs([*features, made("alone", rng.normal(size=2_000))])
    strengths = {each.name: each.strength for each in features} | {"alone": 0.0}
    assert groups_of(pairs, strengths) == (("again", "kinds", "steps"), ("base", "holes"))
    measures = {frozenset((each.left, each.right)): each.measure for each in pairs}
    assert measures[frozenset(("base", "holes"))] == "spearman"
    assert measures[frozenset(("kinds", "again"))] == "cramers_v"
    assert measures[frozenset(("kinds", "steps"))] == "correlation_ratio"
