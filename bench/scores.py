"""Metrics of 250,000 predictions, against scikit-learn's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn import metrics

from bench.measuring import Line, take_turns
from noria.evaluation.intervals import paired_bootstrap
from noria.evaluation.scores import auc, log_loss

_ROWS, _RUNS = 250_000, 9


def lines(folder: Path) -> Iterator[Line]:
    rng = np.random.default_rng(7)
    p = rng.uniform(size=_ROWS)
    y = (rng.uniform(size=_ROWS) < p).astype(np.float64)
    worse = np.clip(p + rng.normal(scale=0.1, size=_ROWS), 0.001, 0.999)
    assert abs(auc(y, p) - metrics.roc_auc_score(y, p)) < 1e-12
    ours, theirs = take_turns(
        lambda _: auc(y, p), lambda _: metrics.roc_auc_score(y, p), runs=_RUNS, scale=1e3
    )
    yield Line("auc, 250,000 rows", ours, "ms", "scikit-learn", theirs, ratio_at_most=1)
    ours, theirs = take_turns(
        lambda _: log_loss(y, p), lambda _: metrics.log_loss(y, p), runs=_RUNS, scale=1e3
    )
    yield Line("log loss, 250,000 rows", ours, "ms", "scikit-learn", theirs, ratio_at_most=1)
    once, single = take_turns(
        lambda _: paired_bootstrap("log_loss", y, p, worse, n=1_000, seed=7),
        lambda _: log_loss(y, p),
        runs=3,
    )
    yield Line("interval of log loss, 1,000 resamples of them", once, "s", "1,000 x log loss", 1_000 * single)
