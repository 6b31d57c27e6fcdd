"""Whether a feature is the same all along the calendar of its set."""

import numpy as np
from scipy.special import chdtrc

from noria.features.columns import Ints
from noria.features.statistics.records import Stability
from noria.profiles.distances import population_stability

__all__ = ["CHUNK_BINS", "Calendar", "calendar_of", "stability_of"]

CHUNK_BINS = 10
_DAY_US = 86_400_000_000
_LEAST_ROWS = 200  # of a stretch; fewer tell nothing
_MOST_CHUNKS = 36
_ALPHA = 0.01  # of sets of which nothing moved and in which some feature is called moved
_LEAST_EXCESS = 0.1


class Calendar:
    """Stretches of the calendar: which one each row is in, -1 where it is in too small a one."""

    def __init__(self, names: list[str], places: Ints) -> None:
        self.names, self.places = names, places


def calendar_of(at_us: Ints) -> Calendar:
    """Divide rows by month; by week or day where they reach less far; by quarter or year where further.

    Stretches of fewer than 200 rows are left out.
    """
    days = at_us // _DAY_US
    span = int(days.max() - days.min()) + 1 if len(days) else 0
    dates = days.astype("datetime64[D]")
    if span >= 84:
        months = dates.astype("datetime64[M]").astype(np.int64)
        step = next((each for each in (1, 3, 12) if span / 30 / each <= _MOST_CHUNKS), 120)
        starts = (months // step * step).astype("datetime64[M]")
    else:
        width = 7 if span >= 21 else 1
        starts = (days - (days - 4) % width).astype("datetime64[D]")  # 1970-01-05 was a Monday
    found, places, counts = np.unique(starts, return_inverse=True, return_counts=True)
    large = counts >= _LEAST_ROWS
    table = np.where(large, np.cumsum(large) - 1, -1)
    return Calendar([str(each) for each in found[large]], table[places].astype(np.int64))


def stability_of(binned: Ints, calendar: Calendar, *, tests: int) -> Stability | None:
    """Compare each stretch with all the others, and give the one that is furthest off; None for one alone.

    Under no change the index of a stretch of `n` rows beside `m` others is about `(1 / n + 1 / m)` times a
    chi-square variable with one degree of freedom less than there are bins: that expectation is what `excess`
    leaves out, and its tail gives the p-value.

    Parameters
    ----------
    binned : ndarray of int64
        Bins of the rows, a missing value in one of its own.
    tests : int
        How many features are tested together.
    """
    chunks = len(calendar.names)
    inside = calendar.places >= 0
    if chunks < 2:
        return None
    width = int(binned.max(initial=0)) + 1
    cells = calendar.places[inside] * width + binned[inside]
    counts = np.bincount(cells, minlength=chunks * width).reshape(chunks, width).astype(np.float64)
    counts = counts[:, counts.any(axis=0)]
    whole, freedom = counts.sum(axis=0), max(counts.shape[1] - 1, 1)
    furthest: Stability | None = None
    for name, mine in zip(calendar.names, counts, strict=True):
        others = whole - mine
        noise = float(1 / mine.sum() + 1 / others.sum())
        psi = population_stability(mine, others)
        p_value = min(float(chdtrc(freedom, psi / noise)) * chunks * tests, 1.0)
        excess = psi - freedom * noise
        if furthest is None or excess > furthest.excess:
            moved = p_value <= _ALPHA and excess >= _LEAST_EXCESS
            furthest = Stability(
                chunk=name, chunks=chunks, psi=psi, excess=excess, p_value=p_value, moved=moved
            )
    return furthest
