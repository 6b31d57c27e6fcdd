"""Statistics of a set as a whole: what is told, of which rows, and over time."""

import msgspec
import numpy as np
import pytest
from tests.features.statistics.made_sets import category, columns, honest, hourly, number, statistics

from noria.errors import SourceError
from noria.features.statistics.computing import statistics_of
from noria.features.statistics.records import SetStatistics
from noria.features.statistics.stability import calendar_of, stability_of


def test_a_feature_is_told_as_it_is() -> None:
    values = np.array([*range(1, 101), *[np.nan] * 20], dtype=float)
    y = np.array([0.0, 1.0] * 60)
    told = statistics(y, [number("values", values), category("kinds", np.arange(120) % 12 // 3, 5)])
    numbers, kinds = told.features
    assert (numbers.rows, numbers.missing, numbers.mean) == (120, 20, 50.5)
    assert numbers.std == pytest.approx(np.std(np.arange(1, 101)), rel=1e-5)
    assert numbers.quantiles == {"p05": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95}
    assert numbers.with_label.rows == 100
    assert numbers.missing_share == pytest.approx(1 / 6)
    assert kinds.top == (("kind 0", 30), ("kind 1", 30), ("kind 2", 30), ("kind 3", 30))
    assert kinds.categories == 4
    assert (told.label, told.label_kind, told.base_rate, told.rows) == ("label", "binary", 0.5, 120)


def test_what_few_rows_have_is_not_named() -> None:
    codes = np.array([0.0] * 91 + [1.0] * 9)
    (feature,) = statistics(np.arange(100) % 2, [category("names", codes, 2)]).features
    assert feature.top == (("kind 0", 91),)
    assert feature.categories == 2


def test_the_strongest_come_first_and_groups_are_led_by_them() -> None:
    y, features = honest(1, rows=3_000)
    told = statistics(y, columns(features))
    assert [each.name for each in told.strongest(2)] == ["alike", "good"]
    assert told.groups == (("alike", "good"),)
    good = next(each.with_label for each in told.features if each.name == "good")
    assert good.auc_low is not None
    assert good.auc_low < 0.87 < (good.auc_high or 0)
    assert good.pearson == pytest.approx(np.corrcoef(features["good"], y)[0, 1], rel=1e-4)


@pytest.mark.parametrize("kind", ["number", "category"])
def test_labels_that_are_not_of_0_and_1_are_described_too(kind: str) -> None:
    rng = np.random.default_rng(2)
    cause = rng.normal(size=4_000)
    if kind == "number":
        label = number("label", cause + rng.normal(size=4_000))
    else:
        label = category("label", np.digitize(cause + rng.normal(size=4_000), [-1, 1]), 3)
    told = statistics_of(columns({"cause": cause, "noise": rng.normal(size=4_000)}), label)
    assert told.label_kind == kind
    assert told.base_rate is None
    cause_told, noise_told = told.features
    assert cause_told.with_label.information_low > 0.05
    assert noise_told.with_label.information_share < 0.02
    assert cause_told.with_label.auc is None
    assert cause_told.missing_auc is None
    assert told.suspicions == ()
    copied = statistics_of(columns({"copy": label.load(), "cause": cause}), label)
    assert [each.feature for each in copied.suspicions] == ["copy"]


def test_the_same_set_has_the_same_statistics_and_many_rows_are_sampled() -> None:
    y, features = honest(4, rows=30_000)
    first, second = (statistics(y, columns(features), seed=9) for _ in range(2))
    assert first == second
    assert (first.rows, first.sampled) == (30_000, 20_000)
    other = statistics(y, columns(features), seed=10)
    assert other != first
    means = [[each.mean or 0 for each in told.features if each.name == "good"] for told in (first, other)]
    assert means[0] == pytest.approx(means[1], abs=0.05)
    assert msgspec.json.decode(msgspec.json.encode(first), type=SetStatistics) == first


def test_columns_of_other_lengths_and_sets_without_labels_are_refused() -> None:
    with pytest.raises(SourceError, match="has 3 rows, the label 2"):
        statistics([0, 1], [number("x", [1, 2, 3])])
    with pytest.raises(SourceError, match="no row has the label 'label'"):
        statistics([np.nan, np.nan], [number("x", [1, 2])])
    with pytest.raises(SourceError, match="there is no feature"):
        statistics([0, 1], [])


@pytest.mark.parametrize(
    "values", [[1e308, -1e308] * 30, [np.inf, -np.inf, 0] * 20, [np.nan] * 60, [1e-320] * 60]
)
def test_extreme_values_are_described(values: list[float]) -> None:
    y = np.arange(60) % 2
    told = statistics(y, [number("wild", values)])
    assert told.features[0].rows == 60
    assert b"NaN" not in msgspec.json.encode(told)


def test_a_feature_that_changes_is_told_with_when_and_one_that_does_not_is_not() -> None:
    rng = np.random.default_rng(5)
    size = 24 * 200
    features = {"same": rng.normal(size=size), "moved": rng.normal(size=size)}
    months = calendar_of(hourly(size))
    assert months.names == ["2020-09", "2020-10", "2020-11", "2020-12", "2021-01", "2021-02", "2021-03"]
    features["moved"][months.places == 3] += 1
    features["gone"] = np.where(months.places == 4, np.nan, rng.normal(size=size))
    told = {each.name: each.stability for each in statistics(np.arange(size) % 2, columns(features)).features}
    same, moved, gone = told["same"], told["moved"], told["gone"]
    assert same is not None
    assert moved is not None
    assert gone is not None
    assert not same.moved
    assert abs(same.excess) < 0.05
    assert (moved.chunk, moved.moved) == ("2020-12", True)
    assert moved.excess > 0.5
    assert (gone.chunk, gone.moved) == ("2021-01", True)


def test_stability_allows_for_how_few_rows_a_stretch_has() -> None:
    """Without a change the excess is none on average, however small stretches are; few are significant."""
    excess, p_values = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        calendar = calendar_of(hourly(24 * 40)) if seed % 2 else calendar_of(hourly(24 * 200))
        binned = rng.integers(0, 10, len(calendar.places))
        found = stability_of(binned, calendar, tests=1)
        if found is not None:
            excess.append(found.excess)
            p_values.append(found.p_value)
    assert len(p_values) >= 75
    assert sum(each <= 0.01 for each in p_values) <= 6
    assert np.mean(excess) < 0.05  # the furthest of several, so not quite none


def test_short_sets_are_divided_by_week_or_day_or_not_at_all() -> None:
    day = np.repeat(np.arange(30), 300) * 24 * 3_600_000_000 + 1_600_000_000_000_000
    assert calendar_of(day).names == [
        "2020-09-07",
        "2020-09-14",
        "2020-09-21",
        "2020-09-28",
        "2020-10-05",
        "2020-10-12",
    ]
    assert len(calendar_of(day[:1_500]).names) == 5
    assert stability_of(np.zeros(100, dtype=np.int64), calendar_of(day[:100]), tests=1) is None
    assert calendar_of(np.empty(0, dtype=np.int64)).names == []
