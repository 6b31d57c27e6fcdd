"""The trend of the rejected share: how often it alarms for nothing, and that it sees what is there."""

import numpy as np
import pytest

from noria.checks.declarations import Rule, rejected_share
from noria.checks.engine import check_batch
from noria.checks.trends import rejected_share_p_value
from noria.errors import ConfigError

BATCHES = 1_500


@pytest.mark.parametrize("earlier", [5, 28])
@pytest.mark.parametrize(
    ("mean", "sameness"),
    [(0.01, None), (0.001, None), (0.01, 300.0), (0.01, 50.0), (0.2, 50.0), (0.05, 20.0)],
)
def test_it_alarms_for_nothing_no_more_often_than_it_says(
    earlier: int, mean: float, sameness: float | None
) -> None:
    """One share for all batches, or a beta-binomial share: then the rate is about what was asked for."""
    rng = np.random.default_rng(7)
    alarms = {0.05: 0, 0.01: 0}
    for _ in range(BATCHES):
        rows = rng.integers(200, 20_000, size=earlier + 1)
        shares = np.full(earlier + 1, mean)
        if sameness is not None:
            shares = rng.beta(mean * sameness, (1 - mean) * sameness, earlier + 1)
        rejected = rng.binomial(rows, shares)
        past = list(zip(rejected[:-1].tolist(), rows[:-1].tolist(), strict=True))
        found = rejected_share_p_value(int(rejected[-1]), int(rows[-1]), past)
        for alpha in alarms:
            alarms[alpha] += found <= alpha
    for alpha, count in alarms.items():
        assert count <= BATCHES * alpha + 3 * np.sqrt(BATCHES * alpha)


@pytest.mark.parametrize(
    ("usual", "found", "rows", "earlier"),
    [(10, 60, 1_000, 7), (100, 300, 10_000, 7), (0, 20, 1_000, 5), (1_000, 3_000, 1_000_000, 5)],
)
def test_a_share_that_jumps_is_seen(usual: int, found: int, rows: int, earlier: int) -> None:
    rng = np.random.default_rng(1)
    past = [(int(rng.poisson(usual)), rows) for _ in range(earlier)]
    assert rejected_share_p_value(found, rows, past) < 0.001
    assert rejected_share_p_value(usual, rows, past) > 0.05


def test_a_share_that_was_there_before_is_no_alarm() -> None:
    past = [(0, 1_000)] * 20 + [(500, 1_000)]
    assert rejected_share_p_value(499, 1_000, past) == 1.0
    assert rejected_share_p_value(0, 1_000, past) == 1.0
    assert rejected_share_p_value(1_000, 1_000, [(0, 10)] * 5) < 0.001


@pytest.mark.parametrize("rule", [{"jump": 0.5}, {"jump": float("nan")}, {"alpha": 0}, {"alpha": 1.0}])
def test_what_says_nothing_is_refused(rule: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        rejected_share(**rule)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="can reject no row"):
        rejected_share(severity="reject")


def test_only_an_ingest_judges_it() -> None:
    import pyarrow as pa

    rule: Rule = rejected_share()
    with pytest.raises(ConfigError):
        check_batch(pa.table({"x": [1]}), [rule], max_rejected_share=1)
