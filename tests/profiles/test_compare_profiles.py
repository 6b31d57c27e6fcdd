from typing import Any

import numpy as np
import pytest

from noria.profiles.build import build_profile, count_columns, merge_counts
from noria.profiles.compare import ColumnComparison, compare, compare_counts

SEEDS = 12


def draw(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A table of the columns that break careless statistics."""
    return {
        "normal": rng.normal(size=n),
        "heavy": rng.standard_t(2, size=n),
        "counts": rng.poisson(3, size=n).astype(float),
        "rare": (rng.random(n) < 0.03).astype(float),
        "zeros": np.where(rng.random(n) < 0.6, 0.0, rng.exponential(size=n)),
        "nulls": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "constant": np.full(n, 7.0),
        "skewed": [("a", "b", "c")[i] for i in rng.choice(3, size=n, p=[0.9, 0.09, 0.01])],
        "tail": [f"k{min(i, 3_000)}" for i in rng.zipf(1.5, size=n)],
        "many": [f"t{i}" for i in rng.integers(0, 2_000, size=n)],
        "holes": [None if r < 0.02 else "x" if r < 0.5 else "y" for r in rng.random(n)],
    }


def found(comparisons: tuple[ColumnComparison, ...]) -> set[str]:
    return {each.column for each in comparisons if each.drifted}


@pytest.mark.parametrize("n", [200, 1_000, 10_000])
def test_unchanged_traffic_raises_almost_no_alarm(n: int) -> None:
    alarms = windows = 0
    for seed in range(SEEDS // 2):
        rng = np.random.default_rng(seed)
        profile = build_profile(draw(rng, 10_000), window_rows=500)
        for _ in range(8):
            alarms += bool(found(compare(profile, draw(rng, n), alpha=0.01)))
            windows += 1
    assert alarms <= 3, f"{alarms} of {windows} unchanged windows, 1 expected"


@pytest.mark.parametrize("n", [1_000, 10_000])
def test_shifts_nulls_and_new_categories_are_found(n: int) -> None:
    hits = {"normal": 0, "heavy": 0, "skewed": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        profile = build_profile(draw(rng, 10_000), window_rows=500)
        window = draw(rng, n)
        window["normal"] = window["normal"] + 0.3
        window["heavy"] = np.where(rng.random(n) < 0.02, np.nan, window["heavy"])
        window["skewed"] = ["new" if rng.random() < 0.02 else each for each in window["skewed"]]
        judged = {each.column: each for each in compare(profile, window)}
        hits["normal"] += judged["normal"].moved
        hits["heavy"] += judged["heavy"].missing_rose
        hits["skewed"] += judged["skewed"].unseen_rose
    assert hits == dict.fromkeys(hits, SEEDS)


def test_a_tenth_of_a_standard_deviation_is_found_in_many_rows() -> None:
    hits = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        profile = build_profile({"x": rng.normal(size=20_000)}, window_rows=1_000)
        hits += compare(profile, {"x": rng.normal(0.1, size=20_000)})[0].moved
    assert hits >= SEEDS - 2


def test_a_season_that_the_reference_knows_is_no_drift_but_a_jump_out_of_it_is() -> None:
    alarms = jumps = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        level = 0.8 * np.sin(2 * np.pi * np.arange(42_000) / 7_000)
        x = rng.normal(size=42_000) + level
        profile = build_profile({"x": x[:35_000]}, window_rows=1_000)
        for start in range(35_000, 42_000, 1_000):
            alarms += compare(profile, {"x": x[start : start + 1_000]})[0].drifted
        jumps += compare(profile, {"x": x[35_000:36_000] + 2.5})[0].drifted
    assert alarms <= 3
    assert jumps == SEEDS


def test_days_that_differ_by_themselves_seldom_alarm() -> None:
    alarms = windows = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        level = np.repeat(rng.normal(size=50) * 0.3, 1_000)
        x = rng.normal(size=50_000) + level
        profile = build_profile({"x": x[:40_000]}, window_rows=1_000)
        for start in range(40_000, 50_000, 1_000):
            alarms += compare(profile, {"x": x[start : start + 1_000]})[0].drifted
            windows += 1
    assert alarms / windows <= 0.03


def test_a_few_rows_or_a_few_windows_raise_nothing_by_themselves() -> None:
    rng = np.random.default_rng(3)
    profile = build_profile({"x": rng.normal(size=300)}, window_rows=200)
    assert found(compare(profile, {"x": rng.normal(size=1)})) == set()
    assert found(compare(profile, {"x": rng.normal(size=300)})) == set()
    assert found(compare(profile, {"x": rng.normal(3.0, size=300)})) == {"x"}
    assert compare(profile, {"x": np.array([]), "unknown": np.ones(3)}) == ()


def test_hours_counted_apart_are_judged_as_the_day() -> None:
    rng = np.random.default_rng(4)
    profile = build_profile(draw(rng, 5_000), window_rows=500)
    hours = [draw(rng, 40) for _ in range(24)]
    day = {name: np.concatenate([hour[name] for hour in hours]) for name in hours[0]}
    day = {name: values if values.dtype.kind == "f" else values.tolist() for name, values in day.items()}
    assert compare_counts(profile, merge_counts([count_columns(profile, each) for each in hours])) == compare(
        profile, day
    )


def test_an_alarm_says_why() -> None:
    rng = np.random.default_rng(5)
    profile = build_profile({"c": ["a", "b"] * 5_000, "x": rng.normal(size=10_000)}, window_rows=500)
    window: dict[str, Any] = {"c": ["a", "b", "z", None] * 100, "x": rng.normal(2.0, size=400)}
    judged = {each.column: each for each in compare(profile, window)}
    assert "never seen" in judged["c"].detail
    assert "missing in 25.0%" in judged["c"].detail
    assert "JS distance" in judged["x"].detail
    assert judged["x"].psi > judged["x"].noise > 0
