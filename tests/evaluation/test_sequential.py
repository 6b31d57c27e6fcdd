"""Always-valid intervals: how often one who looks after every row is misled, and what looking costs in rows.

The simulations stop at the first interval that excludes what is true. Each is run with few paths in
`make test` and with many in `make soak`, which prints the figures of the guide.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import norm

from noria.evaluation.sequential import (
    BoundedMean,
    Moments,
    mean,
    mean_difference,
    proportion,
    proportion_difference,
    quantile_buckets,
)

ALPHA = 0.05
SIZES = [300, pytest.param(4_000, marks=pytest.mark.soak)]
Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def assert_held(wrong: int, paths: int, name: str) -> None:
    """At most alpha of the paths were misled, but for what so many paths may show by chance."""
    rate = wrong / paths
    print(f"{name}: {rate:.2%} of {paths} were misled")
    assert rate <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / paths)


def evidence(hits: npt.NDArray[np.int64], n: npt.NDArray[np.int64], rate: float) -> npt.NDArray[np.float64]:
    """The logarithm of the evidence against a rate, for arrays of counts, by scipy."""
    found = betaln(0.5 + hits, 0.5 + n - hits) - betaln(0.5, 0.5)
    return np.asarray(found - xlogy(hits, rate) - xlog1py(n - hits, -rate))


@pytest.mark.parametrize("paths", SIZES)
def test_one_rate_is_seldom_missed_and_by_a_fixed_interval_often(paths: int) -> None:
    rng, misled, naively, rate, steps = np.random.default_rng(12), 0, 0, 0.05, 2_000
    n, limit = np.arange(1, steps + 1), -math.log(ALPHA)
    for _ in range(paths // 100):
        hits = (rng.random((100, steps)) < rate).cumsum(axis=1)
        over = evidence(hits, n, rate)
        misled += int((over.max(axis=1) >= limit).sum())
        z = np.abs(hits - n * rate) / np.sqrt(n * rate * (1 - rate))
        naively += int((z[:, 100:].max(axis=1) > norm.ppf(1 - ALPHA / 2)).sum())
        found = proportion(int(hits[0, -1]), steps, alpha=ALPHA)
        assert (not found.low <= rate <= found.high) == (over[0, -1] >= limit)
    assert_held(misled, paths, "one rate of 0.05")
    assert naively / paths > 3 * ALPHA  # what the same looks do to an interval of fixed size


@given(n=st.integers(1, 2_000), part=st.floats(0, 1), rate=st.floats(0.001, 0.999))
def test_an_interval_of_a_rate_holds_what_the_evidence_does_not_exclude(
    n: int, part: float, rate: float
) -> None:
    hits = round(part * n)
    against = float(evidence(np.array([hits]), np.array([n]), rate)[0])
    found, wider = (proportion(hits, n, alpha=each) for each in (ALPHA, ALPHA / 10))
    assert 0 <= wider.low <= found.low <= found.mean <= found.high <= wider.high <= 1
    if abs(against + math.log(ALPHA)) > 1e-6:
        assert (not found.low <= rate <= found.high) == (against > -math.log(ALPHA))


@pytest.mark.parametrize("paths", SIZES)
@pytest.mark.parametrize("paired", [True, False])
def test_equal_rates_are_seldom_told_apart(paths: int, paired: bool) -> None:
    """One in ten trials is the first's; or both have every trial, and mostly fail at the same."""
    rng, misled, rate = np.random.default_rng(11), 0, 0.02
    for _ in range(paths):
        common = rng.random(2_000) < 0.8 * rate
        one, other = (common | (rng.random(2_000) < 0.2 * rate / (1 - 0.8 * rate)) for _ in range(2))
        first = np.ones(2_000, dtype=bool) if paired else rng.random(2_000) < 0.1
        second = first if paired else ~first
        counts = [each.cumsum() for each in (one & first, first, other & second, second)]
        for row in range(20, 2_000, 40):
            s, n, t, m = (int(each[row]) for each in counts)
            found = proportion_difference((s, n), (t, m), alpha=ALPHA)
            if not found.low <= 0 <= found.high:
                misled += 1
                break
    assert_held(misled, paths, f"two rates of {rate}, paired: {paired}")


@pytest.mark.parametrize("paths", SIZES)
@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("log losses", lambda rng, n: rng.gamma(0.6, 0.7, n)),
        ("conversions", lambda rng, n: (rng.random(n) < 0.04).astype(np.float64)),
        ("money", lambda rng, n: np.where(rng.random(n) < 0.1, rng.lognormal(3.0, 0.8, n), 0.0)),
    ],
)
def test_equal_means_are_seldom_told_apart(paths: int, name: str, draw: Draw) -> None:
    rng, misled = np.random.default_rng(13), 0
    every = 10 if paths <= 1_000 else 5
    for _ in range(paths):
        values, first = draw(rng, 3_000), rng.random(3_000) < 0.5
        sums = [
            [np.where(own, each, 0.0).cumsum() for each in (np.ones(3_000), values, values**2)]
            for own in (first, ~first)
        ]
        for row in range(200, 3_000, every):
            one, other = (Moments(int(n[row]), float(t[row]), float(q[row])) for n, t, q in sums)
            found = mean_difference(one, other, alpha=ALPHA, effect=0.15 * float(values.std()))
            if not found.low <= 0 <= found.high:
                misled += 1
                break
    assert_held(misled, paths, f"two means of {name}")


@pytest.mark.parametrize("paths", SIZES)
def test_one_mean_is_seldom_missed(paths: int) -> None:
    rng, misled = np.random.default_rng(14), 0
    for _ in range(paths):
        values = rng.exponential(2.0, 3_000)
        totals, squares = values.cumsum(), (values**2).cumsum()
        for row in range(200, 3_000, 20):
            found = mean(Moments(row + 1, float(totals[row]), float(squares[row])), alpha=ALPHA)
            if not found.low <= 2.0 <= found.high:
                misled += 1
                break
    assert_held(misled, paths, "one mean of an exponential")


@pytest.mark.parametrize("paths", SIZES)
def test_the_mean_of_bounded_values_is_seldom_missed_whatever_the_batches(paths: int) -> None:
    rng, misled, width = np.random.default_rng(15), 0, 0.0
    for _ in range(paths):
        bounded = BoundedMean(-1.0, 3.0, alpha=ALPHA)
        for size in rng.integers(1, 40, 100):
            bounded.add(Moments.of(4.0 * rng.beta(1.0, 9.0, size) - 1.0))
            found = bounded.interval
            if not found.low <= -0.6 <= found.high:
                misled += 1
                break
        width += found.high - found.low
    assert_held(misled, paths, "the mean of bounded values")
    assert width / paths < 0.25  # of 4, after some 2,000 values with a deviation of 0.36


@pytest.mark.parametrize("paths", SIZES)
@pytest.mark.parametrize("q", [0.5, 0.99])
def test_a_quantile_is_seldom_missed(paths: int, q: float) -> None:
    rng, misled = np.random.default_rng(16), 0
    edges = np.exp(np.linspace(-3, 4, 120))
    true = int(np.searchsorted(edges, math.exp(norm.ppf(q)), side="right"))
    for _ in range(paths):
        buckets = np.searchsorted(edges, np.exp(rng.normal(size=3_000)), side="right")
        for row in range(10, 3_000, 50):
            counts = np.bincount(buckets[:row], minlength=edges.size + 1)
            low, high = quantile_buckets(counts.tolist(), q, alpha=ALPHA)
            if not low <= true <= high:
                misled += 1
                break
    assert_held(misled, paths, f"quantile {q}")
    assert high - low < 12


@pytest.mark.parametrize("paths", [100, pytest.param(2_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ["conversions", "values"])
def test_what_it_costs_to_look_at_every_row(paths: int, name: str) -> None:
    """Against the number of rows with which a test of fixed size has 80 % power for the same effect."""
    rng, effect, rate = np.random.default_rng(17), 0.1, 0.1
    z = norm.ppf(1 - ALPHA / 2) + norm.ppf(0.8)
    if name == "conversions":
        effect = 0.03
    variances = 2.0 if name == "values" else sum(each * (1 - each) for each in (rate, rate + effect))
    fixed = 2 * math.ceil((z / effect) ** 2 * variances)
    ends = list[int]()
    for _ in range(paths):
        first = rng.random(4 * fixed) < 0.5
        noise = rng.normal(size=first.size) if name == "values" else rng.random(first.size)
        values = noise + effect * first if name == "values" else noise < rate + effect * first
        sums = [
            [np.where(own, each, 0.0).cumsum() for each in (np.ones(first.size), values, values**2)]
            for own in (first, ~first)
        ]
        for row in range(200, first.size, 20):
            one, other = (Moments(int(n[row]), float(v[row]), float(q[row])) for n, v, q in sums)
            if mean_difference(one, other, alpha=ALPHA, effect=effect).low > 0:
                break
        ends.append(row)
    half, most = np.quantile(ends, [0.5, 0.8]) / fixed
    print(f"{name}, of {fixed} rows: half are sure at {half:.2f}, 80 % at {most:.2f}")
    assert half < 1.2
    assert most < 1.8


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50), st.lists(st.floats(-1e3, 1e3), max_size=50))
def test_moments_of_parts_add_up_to_those_of_the_whole(some: list[float], more: list[float]) -> None:
    both, whole = Moments.of(some) + Moments.of(more), np.array(some + more)
    assert both.n == whole.size
    assert both.mean == pytest.approx(whole.mean(), abs=1e-9)
    if whole.size > 1:
        assert both.variance == pytest.approx(whole.var(ddof=1), rel=1e-6, abs=1e-6)


def test_what_cannot_be_is_refused_and_what_is_not_known_bounds_nothing() -> None:
    with pytest.raises(ValueError, match="5 successes of 4 trials"):
        proportion(5, 4, alpha=ALPHA)
    with pytest.raises(ValueError, match="alpha is 0"):
        proportion(1, 4, alpha=0.0)
    with pytest.raises(ValueError, match="which none between 0"):
        BoundedMean(0.0, 1.0, alpha=ALPHA).add(Moments.of([0.5, 3.0]))
    with pytest.raises(ValueError, match="NaN"):
        Moments.of([1.0, math.nan])
    with pytest.raises(ValueError, match="a quantile lies between"):
        quantile_buckets([1], 1.0, alpha=ALPHA)
    assert (proportion(0, 0, alpha=ALPHA).low, proportion(0, 0, alpha=ALPHA).high) == (0.0, 1.0)
    assert proportion(0, 50, alpha=ALPHA).low == 0.0
    assert quantile_buckets([0, 0, 0], 0.5, alpha=ALPHA) == (0, 2)
    same = Moments.of(np.zeros(500))
    assert mean_difference(same, same, alpha=ALPHA).high == math.inf  # never differing proves no equality
