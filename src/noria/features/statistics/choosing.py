"""Which rows of a set are looked at: as many as time allows, and the same ones for the same set."""

from dataclasses import dataclass

import numpy as np

from noria.features.columns import Bools, Floats, Ints

__all__ = ["SAMPLED_ROWS", "Chosen", "choose"]

SAMPLED_ROWS = 20_000
_FEW = 1_000  # with fewer rows of one of two labels in the sample, more of them are taken in
_COUNTED = 1_000_000
_UNLABELLED = 5_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """Positions of rows, ascending.

    Attributes
    ----------
    sample
        Labelled rows, each as likely as any.
    cases
        Those, and more rows of the rarer of two labels: for what does not depend on how many there are.
    counted
        Labelled rows in which missing values are counted: all of them, or every second, third, ...
    unlabelled, before
        Rows without a label, and of each the nearest earlier row with one.
    """

    sample: Ints
    cases: Ints
    counted: Ints
    unlabelled: Ints
    before: Ints


def choose(label: Floats, *, binary: bool, seed: int) -> Chosen:
    """Choose rows of a set by its label, NaN where it is not known; rows are in the order of time."""
    known = ~np.isnan(label)
    labelled = np.flatnonzero(known)
    random = np.random.default_rng(seed)
    sample = _some(labelled, SAMPLED_ROWS, random)
    cases = sample
    if binary and len(sample) < len(labelled):
        rarer = label == (1.0 if label[sample].mean() <= 0.5 else 0.0)
        if rarer[sample].sum() < _FEW:
            cases = np.union1d(sample, _some(np.flatnonzero(rarer), _FEW, random))
    unlabelled, before = _beside(known, random)
    step = -(-len(labelled) // _COUNTED) or 1
    return Chosen(sample, cases, labelled[::step], unlabelled, before)


def _some(rows: Ints, most: int, random: np.random.Generator) -> Ints:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def _beside(known: Bools, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Give rows without a label, and of each the nearest row before it that has one."""
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    rows = np.flatnonzero(~known & (last >= 0))
    chosen = _some(rows, _UNLABELLED, random)
    return chosen, last[chosen]
