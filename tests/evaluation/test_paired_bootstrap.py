import numpy as np
import pytest

from noria.evaluation.intervals import Metric, paired_bootstrap
from noria.evaluation.scores import FloatArray, auc, brier, log_loss


def _rows(size: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    truth = rng.beta(1, 3, size)
    noise = rng.normal(0, 0.15, size)
    y = (rng.random(size) < truth).astype(np.float64)
    return y, truth, np.clip(truth + noise, 0.001, 0.999).round(2)


@pytest.mark.parametrize("metric", ["auc", "brier", "log_loss"])
@pytest.mark.parametrize("clustered", [False, True])
def test_resamples_equal_the_metric_on_the_drawn_rows(metric: Metric, clustered: bool) -> None:
    y, new, old = _rows(300, 1)
    days = np.arange(300) // 13 if clustered else np.arange(300)
    found = paired_bootstrap(metric, y, new, old, seed=5, n=40, cluster=days if clustered else None)
    score = {"auc": auc, "brier": brier, "log_loss": log_loss}[metric]
    rng = np.random.default_rng(5)
    units = np.unique(days)
    differences = []
    for draw in rng.integers(0, units.size, size=(40, units.size)):
        rows = np.concatenate([np.flatnonzero(days == each) for each in draw])
        differences.append(score(y[rows], new[rows]) - score(y[rows], old[rows]))
    assert found.mean == pytest.approx(score(y, new) - score(y, old), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-12
    )


def test_the_same_seed_gives_the_same_interval_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    y, new, old = _rows(500, 2)
    whole = paired_bootstrap("auc", y, new, old, seed=9, n=60)
    monkeypatch.setattr("noria.evaluation.intervals._CHUNK_CELLS", 2_000)
    assert paired_bootstrap("auc", y, new, old, seed=9, n=60) == whole
    assert paired_bootstrap("auc", y, new, old, seed=10, n=60) != whole


def test_intervals_cover_the_true_difference_about_as_often_as_they_say() -> None:
    covered = 0
    rng = np.random.default_rng(0)
    for trial in range(150):
        p = rng.beta(2, 5, 400)
        old = np.clip(p + rng.normal(0, 0.1, 400), 0.01, 0.99)
        y = (rng.random(400) < p).astype(np.float64)
        interval = paired_bootstrap("brier", y, p, old, seed=trial, n=300)
        covered += interval.low <= -0.0099 <= interval.high  # -E[noise^2], a little less by the clipping
    assert 0.88 <= covered / 150 <= 1.0


def test_days_that_hang_together_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    days = np.repeat(np.arange(40), 50)
    shock = np.repeat(rng.normal(0, 0.2, 40), 50)
    y = (rng.random(2_000) < np.clip(0.4 + shock, 0.01, 0.99)).astype(np.float64)
    new, old = np.full(2_000, 0.4), np.full(2_000, 0.5)
    rows = paired_bootstrap("log_loss", y, new, old, seed=1)
    clustered = paired_bootstrap("log_loss", y, new, old, seed=1, cluster=days)
    assert clustered.high - clustered.low > 2 * (rows.high - rows.low)


def test_one_cluster_or_one_class_has_no_interval() -> None:
    with pytest.raises(ValueError, match="one cluster"):
        paired_bootstrap("brier", [0, 1], [0.1, 0.9], [0.5, 0.5], seed=1, cluster=["a", "a"])
    with pytest.raises(ValueError, match="both classes"):
        paired_bootstrap("auc", [1, 1], [0.1, 0.9], [0.5, 0.5], seed=1)
