import time
import warnings
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from noria import evaluation
from noria.evaluation.estimates import estimated_auc, estimated_log_loss
from noria.evaluation.scores import FloatArray

SCORES = st.integers(2, 60).flatmap(
    lambda size: st.tuples(
        arrays(np.int64, size, elements=st.integers(0, 1)).filter(lambda y: 0 < y.sum() < y.size),
        arrays(np.float64, size, elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
    )
)


@given(SCORES)
@settings(max_examples=40, deadline=None)
def test_metrics_equal_those_of_sklearn(rows: tuple[FloatArray, FloatArray]) -> None:
    y, p = rows
    assert evaluation.auc(y, p) == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-12)
    assert evaluation.brier(y, p) == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-12)
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = metrics.log_loss(y, np.column_stack((1 - clipped, clipped)))
    assert evaluation.log_loss(y, p) == pytest.approx(
        wanted, rel=1e-4, abs=1e-9
    )  # sklearn's 1 - (1 - 1e-15) is rounded
    assert evaluation.calibration_ratio(y, p) == pytest.approx(p.mean() / y.mean())


@given(SCORES, st.randoms(use_true_random=False))
def test_auc_ignores_row_order_and_any_rising_change_of_scores(
    rows: tuple[FloatArray, FloatArray], random: object
) -> None:
    y, p = rows
    order = list(range(len(y)))
    random.shuffle(order)  # type: ignore[attr-defined]
    ranks = np.unique(p, return_inverse=True)[1].astype(np.float64)
    assert evaluation.auc(y[order], ranks[order]) == evaluation.auc(y, p)
    assert evaluation.auc(1 - y, -ranks) == evaluation.auc(y, p)


def test_auc_of_a_quarter_million_rows_is_quick() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(250_000)
    y = rng.random(250_000) < p
    seconds = []
    for _ in range(3):
        start = time.process_time()
        evaluation.auc(y, p)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1  # half of it is the aim; the rest is for a busy machine


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    assert evaluation.log_loss([1, 0], [0.0, 1.0]) == pytest.approx(-log(1e-15))
    assert evaluation.log_loss([1, 0], [1.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("y", "p", "said"),
    [
        ([], [], "no rows"),
        ([1, 0], [0.5], "shape"),
        ([1, 2], [0.5, 0.5], "other than 0 and 1"),
        ([1, float("nan")], [0.5, 0.5], "unlabelled"),
        ([1, 0], [0.5, float("nan")], "probabilities"),
        ([1, 0], [0.5, 1.5], "1.5"),
    ],
)
def test_unfit_rows_are_refused_and_say_why(y: list[float], p: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluation.log_loss(y, p)


def test_one_class_has_no_area_and_no_ratio() -> None:
    with pytest.raises(ValueError, match="both classes"):
        evaluation.auc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no outcome is 1"):
        evaluation.calibration_ratio([0, 0], [0.1, 0.2])
    assert "auc" not in evaluation.evaluate([1, 1], [0.1, 0.2])


def test_estimates_meet_what_outcomes_drawn_from_the_scores_give() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(1, 4, 400).round(2)
    losses, areas = [], []
    for _ in range(2_000):
        y = rng.random(p.size) < p
        losses.append(evaluation.log_loss(y, p))
        areas.append(evaluation.auc(y, p))
    assert estimated_log_loss(p) == pytest.approx(np.mean(losses), abs=0.002)
    assert estimated_auc(p) == pytest.approx(np.mean(areas), abs=0.002)


@given(arrays(np.float64, st.integers(2, 40), elements=st.floats(0.01, 0.99)))
def test_estimated_auc_is_the_expectation_over_pairs(p: FloatArray) -> None:
    pairs = p[:, None] * (1 - p[None, :])
    np.fill_diagonal(pairs, 0)
    above = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    assert estimated_auc(p) == pytest.approx((pairs * above).sum() / pairs.sum(), abs=1e-9)


def test_scores_without_a_second_class_promise_no_area() -> None:
    with pytest.raises(ValueError, match="no pair"):
        estimated_auc([0.0, 0.0])
    with pytest.raises(ValueError, match="wanted probabilities"):
        estimated_log_loss([0.1, 2.0])
