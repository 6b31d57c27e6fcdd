"""Shapley values over sampled orders: sums that hold exactly, errors that tell the truth."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.explain.sampling import OutOfTime, shapley_by_orders


def game(inputs: int, seed: int) -> Any:
    """Give a value for each subset of inputs, and what gives them for masks."""
    worth = np.random.default_rng(seed).normal(size=(2**inputs, 2))

    def means(masks: Any) -> Any:
        return worth[masks @ (1 << np.arange(inputs))]

    return worth, means


def exact(worth: Any, inputs: int) -> Any:
    """Give Shapley values by their definition."""
    values = np.zeros((2, inputs))
    for place in range(inputs):
        others = [each for each in range(inputs) if each != place]
        for size in range(inputs):
            weight = factorial(size) * factorial(inputs - size - 1) / factorial(inputs)
            for some in combinations(others, size):
                mask = sum(1 << each for each in some)
                values[:, place] += weight * (worth[mask | 1 << place] - worth[mask])
    return values


@given(inputs=st.integers(1, 6), seed=st.integers(0, 1_000))
@settings(max_examples=40, deadline=None)
def test_base_and_values_add_up_to_the_score_whatever_the_game(inputs: int, seed: int) -> None:
    worth, means = game(inputs, seed)
    found = shapley_by_orders(means, inputs, base=worth[0], score=worth[-1], seed=seed, pairs=3)
    np.testing.assert_allclose(worth[0] + found.values.sum(axis=1), worth[-1], atol=1e-12)


@given(seed=st.integers(0, 1_000))
@settings(max_examples=25, deadline=None)
def test_two_inputs_are_shared_exactly(seed: int) -> None:
    worth, means = game(2, seed)
    found = shapley_by_orders(means, 2, base=worth[0], score=worth[-1], seed=1)
    np.testing.assert_allclose(found.values, exact(worth, 2), atol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-12)


def test_estimates_lie_about_as_far_off_as_their_errors_say() -> None:
    off = []
    for seed in range(60):
        worth, means = game(5, seed)
        found = shapley_by_orders(means, 5, base=worth[0], score=worth[-1], seed=seed, pairs=40)
        assert found.orders == 80
        off.append((found.values - exact(worth, 5)) / found.errors)
    assert 0.85 < np.std(off) < 1.15
    assert abs(np.mean(off)) < 0.1


def test_the_same_seed_gives_the_same_and_time_ends_it() -> None:
    worth, means = game(5, 1)
    whole: dict[str, Any] = {"base": worth[0], "score": worth[-1]}
    first, second = (shapley_by_orders(means, 5, seed=7, **whole) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    times = iter([True, True, True, False])
    assert shapley_by_orders(means, 5, seed=7, is_time=lambda: next(times), **whole).orders == 6
    with pytest.raises(OutOfTime):
        shapley_by_orders(means, 5, seed=7, is_time=iter([True, False]).__next__, **whole)
