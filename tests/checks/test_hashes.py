"""Sets of hashes that grow, held against Python's own."""

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.checks import hashes
from noria.checks.hashes import HashRuns, repeated, sorted_hashes
from noria.checks.verdicts import Hashes

_hash = st.integers(0, 30) | st.integers(0, 2**64 - 1) | st.integers(0, 15).map(lambda each: each << 60)
_pieces = st.lists(st.lists(_hash, max_size=40), max_size=40)


def _array(values: list[int]) -> Hashes:
    return np.array(values, dtype=np.uint64)


@given(_pieces, st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_what_is_there_is_found_and_nothing_else(
    pieces: list[list[int]], marked_from: int, large: int
) -> None:
    runs, kept = HashRuns(), set[int]()
    with (
        patch.multiple(hashes, _MARKED_FROM=marked_from, _LARGE=large),
        patch.multiple(hashes, _MARKS_BITS=(2, 6)),
    ):
        for piece in pieces:
            ordered = sorted_hashes(_array(piece))
            assert runs.common(ordered).tolist() == sorted(kept & set(piece))
            assert runs.find(_array(piece)).tolist() == [each in kept for each in piece]
            runs.add(ordered)
            kept |= set(piece)
        other = HashRuns()
        other.add_all(runs)
        assert bool(other) is bool(kept)
        assert other.find_any(runs) is bool(kept)
        assert other.common(_array(sorted(kept))).tolist() == sorted(kept)


def test_many_are_found_among_millions() -> None:
    drawn = np.random.default_rng(8).integers(0, 2**63, 2_200_000, dtype=np.uint64) * np.uint64(2)
    runs = HashRuns()
    for begin in range(0, len(drawn), 100_000):
        piece = sorted_hashes(drawn[begin : begin + 100_000])
        assert not len(runs.common(piece))
        runs.add(piece)
    asked = np.concatenate([drawn[::20], drawn[::20] + np.uint64(1)])
    assert np.array_equal(runs.find(asked), np.arange(len(asked)) < len(asked) // 2)


def test_few_runs_are_kept() -> None:
    runs = HashRuns()
    for each in range(1_000):
        runs.add(_array([each]))
    assert len(runs._runs) <= 20
    assert sum(len(each.hashes) for each in runs._runs) == 1_000


@given(st.lists(_hash, max_size=60))
@settings(max_examples=100, deadline=None)
def test_repeated_ones_are_those_after_the_first(values: list[int]) -> None:
    ordered = sorted_hashes(_array(values))
    assert ordered.tolist() == sorted(values)
    assert repeated(ordered).tolist() == sorted(
        each for value in set(values) for each in [value] * (values.count(value) - 1)
    )


def test_sorting_by_radix_sorts() -> None:
    drawn = np.random.default_rng(5).integers(0, 2**63, 120_000, dtype=np.uint64) * np.uint64(2)
    assert np.array_equal(sorted_hashes(drawn), np.sort(drawn))
