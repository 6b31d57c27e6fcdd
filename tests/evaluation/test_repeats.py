"""Intervals of repeats, held against scipy and against a published example; how often they hold the mean."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from noria.evaluation.directions import find_bounds, find_direction
from noria.evaluation.repeats import fold_overlap, repeat_interval, unpaired_interval

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_of_repeats_is_students(values: list[float], level: float) -> None:
    found = repeat_interval(values, level=level)
    assert found is not None
    error = float(scipy.stats.sem(values))
    if error > 0:
        wanted = scipy.stats.t.interval(level, len(values) - 1, np.mean(values), error)
        assert (found.low, found.high) == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    else:
        assert found.low == found.high == found.mean


@given(VALUES, VALUES)
def test_the_interval_without_pairs_is_welchs(one: list[float], other: list[float]) -> None:
    found = unpaired_interval(one, other)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(one) - np.mean(other), rel=1e-9, abs=1e-6)
    if min(np.std(one), np.std(other)) > 1e-3:
        wanted = scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-7, abs=1e-6)


def test_differences_are_those_of_a_published_example() -> None:
    """Student's own data (Biometrika 6, 1908): extra hours of sleep by two drugs, ten patients."""
    one = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    other = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    paired, apart = repeat_interval(other - one), unpaired_interval(other, one)
    assert paired is not None
    assert apart is not None
    assert (paired.mean, paired.low, paired.high) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=1e-6)
    assert (apart.low, apart.high) == pytest.approx((-0.2054832, 3.3654832), abs=1e-6)  # R's t.test


def test_folds_that_share_rows_make_the_interval_wider() -> None:
    values = [0.80, 0.82, 0.79, 0.83, 0.81]
    plain, folded = repeat_interval(values), repeat_interval(values, overlap=fold_overlap(5))
    assert plain is not None
    assert folded is not None
    ratio = (folded.high - folded.mean) / (plain.high - plain.mean)
    assert ratio == pytest.approx(
        math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    )  # Nadeau and Bengio, (2003), section 3.2


def test_folds_that_share_rows_make_the_interval_without_pairs_as_much_wider() -> None:
    one, other = [0.80, 0.82, 0.79, 0.83, 0.81], [0.70, 0.72, 0.69, 0.73, 0.71]
    plain = unpaired_interval(one, other)
    folded = unpaired_interval(one, other, overlaps=(fold_overlap(5), fold_overlap(5)))
    assert plain is not None
    assert folded is not None
    ratio = (folded.high - folded.mean) / (plain.high - plain.mean)
    assert ratio == pytest.approx(math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))  # the freedom is that of both, 8


def test_bounds_cut_an_interval_and_one_repeat_has_none() -> None:
    cut = repeat_interval([0.9, 0.99, 1.0], bounds=(0.0, 1.0))
    assert cut is not None
    assert (cut.high, cut.low > 0.7) == (1.0, True)
    assert repeat_interval([0.5]) is None
    assert unpaired_interval([0.5], [0.1, 0.2]) is None
    with pytest.raises(ValueError, match="not finite"):
        repeat_interval([0.5, math.nan])
    with pytest.raises(ValueError, match="at least one"):
        repeat_interval([])
    with pytest.raises(ValueError, match="cannot be cross-validated"):
        fold_overlap(1)


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """Also those of a metric that ends at 1, where half of the time they would pass it."""
    rng = np.random.default_rng(3)
    held = cut = 0
    for _ in range(2_000):
        values = 0.98 + rng.normal(0, 0.01, 4)
        found, within = repeat_interval(values), repeat_interval(values, bounds=(0.0, 1.0))
        assert found is not None
        assert within is not None
        held += found.low <= 0.98 <= found.high
        cut += within.low <= 0.98 <= within.high
    assert held == cut
    assert abs(held / 2_000 - 0.95) < 0.02


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ("auc", True), ("val/AUC", True), ("valAccuracy", True), ("f1_macro", True), ("r2", True),
        ("ndcg@10", True),
        ("loss", False), ("val_loss", False), ("validation-binary_logloss", False), ("rmse", False),
        ("neg_log_loss", True), ("neg_mean_squared_error", True), ("negative_log_likelihood", False),
        ("log_likelihood", True), ("mean_fit_time", False), ("error_rate", False),
        ("brier_score", False), ("neg_brier_score", True), ("loss_value", False), ("fid_score", False),
        ("davies_bouldin_score", False), ("silhouette_score", True), ("roc_auc_score", True),
        ("f1_score", True), ("d2_absolute_error_score", True), ("brier_skill_score", True),
        ("mse_f", False), ("objective_value", True),
    ],
)  # fmt: skip
def test_names_tell_which_way_is_better(metric: str, wanted: bool) -> None:
    found = find_direction(metric)
    assert found is not None
    assert found[0] is wanted


@given(st.text(max_size=60))
def test_any_name_is_taken_and_unknown_ones_tell_nothing(name: str) -> None:
    assert find_direction(name) is None or isinstance(find_direction(name), tuple)
    assert find_direction("answer") is None
    assert find_bounds("answer") is find_bounds("loss") is find_bounds("neg_brier") is None
