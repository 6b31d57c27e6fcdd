"""Deviations and numbers of different values, against exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.features.finishing import deviation, deviations, estimates

LOW = 2**40
large = st.integers(-(2**40), 2**40)


def parts(values: list[int]) -> tuple[int, int, int, int]:
    high = sum(value * value // LOW for value in values)
    low = sum(value * value % LOW for value in values)
    return len(values), sum(values), high, low


def exact(values: list[int]) -> float:
    mean = Fraction(sum(values), len(values))
    squares = sum(((value - mean) ** 2 for value in values), Fraction(0)) / (len(values) - 1)
    return math.sqrt(squares.numerator / squares.denominator)


@given(st.lists(st.lists(large, min_size=1, max_size=12), min_size=1, max_size=5), st.sampled_from((1, 100)))
def test_arrays_and_numbers_give_the_same_bits(groups: list[list[int]], scale: int) -> None:
    columns = [np.array(column, dtype=np.int64) for column in zip(*map(parts, groups), strict=True)]
    found = deviations(*columns, scale)  # type: ignore[call-arg, arg-type]
    wanted = [deviation(*parts(group), scale) for group in groups]
    np.testing.assert_array_equal(found, wanted)


@given(
    st.lists(large, min_size=2, max_size=30)
    | st.lists(st.integers(2**40 - 3, 2**40), min_size=2, max_size=30)
)
def test_nothing_cancels(values: list[int]) -> None:
    assert deviation(*parts(values), 1) == pytest.approx(exact(values), rel=1e-14)


def test_one_value_has_no_deviation() -> None:
    assert math.isnan(deviation(*parts([7]), 1))
    assert math.isnan(deviation(0, 0, 0, 0, 1))
    assert deviation(*parts([7, 7]), 1) == 0.0


@pytest.mark.parametrize("buckets", [16, 512, 4_096])
def test_estimates_keep_their_stated_error(buckets: int) -> None:
    random = np.random.default_rng(20240229)
    for load in (0.05, 0.25, 1.0, 2.0):
        n = max(int(load * buckets), 1)
        held = [len(np.unique(random.integers(0, buckets, n))) for _ in range(300)]
        found = estimates(buckets)[held]
        stated = math.sqrt(buckets * (math.exp(n / buckets) - n / buckets - 1)) / n
        # Rounding to a whole number adds at most half of one; linear counting's own bias is below its error.
        assert abs(found.mean() / n - 1) < stated + 0.5 / n
        assert found.std() / n < 1.25 * stated + 0.5 / n


def test_estimates_grow_with_the_buckets_that_are_held() -> None:
    for buckets in (16, 100, 4_096):
        assert estimates(buckets)[0] == 0
        assert (np.diff(estimates(buckets)) > 0).all()
