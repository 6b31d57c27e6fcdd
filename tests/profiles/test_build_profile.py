from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.profiles.build import build_profile, count_columns, merge_counts
from noria.profiles.distances import chi_square, js_distance, population_stability
from noria.profiles.records import Profile

_FLOATS = st.floats(-1e300, 1e300) | st.sampled_from([float("nan"), float("inf"), -float("inf")])
numbers = st.lists(st.one_of(_FLOATS, st.integers(-5, 5).map(float)), min_size=1, max_size=60)
texts = st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=60)


@given(numbers, texts, numbers, texts, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_counts_of_parts_add_up_to_those_of_the_whole(
    x: list[float], c: list[str | None], new_x: list[float], new_c: list[str | None], cut: int
) -> None:
    rows = min(len(x), len(c))
    profile = build_profile({"x": np.array(x[:rows]), "c": c[:rows]}, window_rows=7)

    def counted(a: Sequence[float], b: Sequence[str | None]) -> Any:
        return count_columns(profile, {"x": np.array(a, dtype=float), "c": b})

    whole = counted(new_x, new_c)
    parts = [counted(new_x[:cut], new_c[:cut]), counted(new_x[cut:], new_c[cut:])]
    assert merge_counts(parts) == whole
    assert whole["x"].rows == len(new_x) == sum(whole["x"].counts) + whole["x"].missing
    assert whole["c"].rows == len(new_c)


@given(numbers, texts)
@settings(max_examples=40, deadline=None)
def test_the_reference_counts_itself_and_survives_json(x: list[float], c: list[str | None]) -> None:
    rows = min(len(x), len(c))
    columns: dict[str, Any] = {"x": np.array(x[:rows]), "c": c[:rows]}
    profile = build_profile(columns, window_rows=5)
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile
    for name, counts in count_columns(profile, columns).items():
        own = profile.columns[name]
        assert (counts.counts, counts.missing, counts.unseen) == (own.counts, own.missing, 0)


def test_numbers_get_ten_bins_of_about_one_size() -> None:
    column = build_profile({"x": np.random.default_rng(1).normal(size=5_000)}, window_rows=500).columns["x"]
    assert column.counts == (500,) * 10
    assert column.calibration.windows == 10


def test_few_values_get_a_bin_each_and_one_on_either_side() -> None:
    column = build_profile({"x": np.array([0.0, 1.0] * 10)}, window_rows=5).columns["x"]
    assert column.counts == (0, 10, 10, 0)
    constant = build_profile({"x": np.full(10, 7.0)}, window_rows=5)
    below = count_columns(constant, {"x": np.array([6.9, 7.0, 7.1])})
    assert below["x"].counts == (1, 1, 1)


def test_a_column_without_any_value_has_a_profile() -> None:
    profile = build_profile({"x": np.full(10, np.nan), "c": [None] * 10}, window_rows=5)
    assert profile.columns["x"].missing == profile.columns["c"].missing == 10


def test_many_categories_share_hashed_bins_and_new_ones_are_counted() -> None:
    names = ["big"] * 500 + [f"tail{i}" for i in range(500)]
    profile = build_profile({"c": names}, window_rows=100)
    column = profile.columns["c"]
    assert (column.shown, column.hashed, len(column.counts), sum(column.counts)) == (1, 9, 10, 1_000)
    counts = count_columns(profile, {"c": ["tail3", "never", None]})["c"]
    assert (counts.unseen, counts.missing, sum(counts.counts)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("columns", "window_rows"),
    [({}, 5), ({"x": np.array([])}, 5), ({"x": np.ones(3), "c": ["a"]}, 5), ({"x": np.ones(3)}, 0)],
)
def test_what_cannot_be_profiled_is_refused(columns: dict[str, Any], window_rows: int) -> None:
    with pytest.raises(ValueError, match=r"wanted|positive"):
        build_profile(columns, window_rows=window_rows)


def test_distances_have_their_known_values() -> None:
    half = np.array([1.0, 1.0])
    # by hand: JS divergence of (1/2, 1/2) and (1, 0) is 3/4 log2(4/3) bits
    assert js_distance(half, np.array([1.0, 0.0])) ** 2 == pytest.approx(0.75 * np.log2(4 / 3))
    assert js_distance(half, half) == 0.0
    assert population_stability(np.array([1e9, 1e9]), np.array([1e9, 3e9])) == pytest.approx(
        0.25 * np.log(3), rel=1e-6
    )
    # scipy.stats.chi2_contingency([[50, 50], [60, 40]], correction=False) gives 2.0202
    statistic, freedom = chi_square(np.array([50.0, 50.0]), np.array([60.0, 40.0]))
    assert statistic == pytest.approx(2.0202, abs=1e-4)
    assert freedom == 1
