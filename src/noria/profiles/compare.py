"""Say whether a window looks like the reference.

A column has drifted if three things hold: chance does not explain it, at a level that holds over all
columns and tests together (Holm); it is further off than the reference's own windows were from each
other; and it is far enough to matter. A reference that changes by itself, with the season or the hour,
has windows that differ by more than sampling noise: that excess enters the test, so that an unchanged
season is not reported day after day.

Missing values and unseen categories are tests of their own, one-sided, against the worst window that the
reference had.
"""

import math
from collections.abc import Iterator, Mapping

import msgspec
from scipy.special import bdtrc, chdtrc, chdtri

from noria.profiles.build import Columns, count_columns, reference_counts, vector
from noria.profiles.distances import chi_square, js_distance, js_noise, population_stability
from noria.profiles.records import ColumnCounts, ColumnProfile, Profile

__all__ = ["ColumnComparison", "compare", "compare_counts"]

_LEAST_JS = 0.02  # about a twentieth of a standard deviation
_LEAST_SHARE = 0.005  # of missing or unseen values
_FEW_WINDOWS = 5


class ColumnComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What a window's column looks like beside the reference."""

    column: str
    rows: int
    js: float  # Jensen-Shannon distance, base 2
    threshold: float  # that distance where the reference's own windows end, at this number of rows
    psi: float
    noise: float  # PSI that chance alone reaches with probability alpha / columns
    p_value: float  # of the distribution, Holm-adjusted over all tests
    missing: float
    usual_missing: float
    missing_p: float
    unseen: float
    unseen_p: float
    moved: bool  # the distribution differs
    missing_rose: bool
    unseen_rose: bool

    @property
    def drifted(self) -> bool:
        """Whether anything about the column differs."""
        return self.moved or self.missing_rose or self.unseen_rose

    @property
    def detail(self) -> str:
        """What differs, in words."""
        told = []
        if self.moved:
            told.append(f"JS distance {self.js:.3f}, limit {self.threshold:.3f}")
        if self.missing_rose:
            told.append(f"missing in {self.missing:.1%} of rows, usually in {self.usual_missing:.1%}")
        if self.unseen_rose:
            told.append(f"{self.unseen:.1%} of values never seen before")
        return "; ".join(told) or "as usual"


def compare(profile: Profile, columns: Columns, *, alpha: float = 0.01) -> tuple[ColumnComparison, ...]:
    """Compare a window of rows with the reference.

    Parameters
    ----------
    columns
        As `build_profile` takes them. Columns that the profile does not know are passed over.
    alpha
        The share of unchanged windows in which any column at all is called drifted.

    Examples
    --------
    >>> import numpy as np
    >>> from noria.profiles.build import build_profile
    >>> rng = np.random.default_rng(1)
    >>> profile = build_profile({"x": rng.normal(size=20_000)}, window_rows=1_000)
    >>> [compare(profile, {"x": rng.normal(by, size=1_000)})[0].drifted for by in (0.0, 0.3)]
    [False, True]
    """
    return compare_counts(profile, count_columns(profile, columns), alpha=alpha)


def compare_counts(
    profile: Profile, counts: Mapping[str, ColumnCounts], *, alpha: float = 0.01
) -> tuple[ColumnComparison, ...]:
    """Compare rows that were counted before, for example hour by hour, with the reference."""
    known = {name: each for name, each in counts.items() if each.rows and name in profile.columns}
    tests = {
        (name, test): p for name, each in known.items() for test, p in _p_values(profile.columns[name], each)
    }
    adjusted = _holm(tests)
    return tuple(
        _compare_column(profile.columns[name], each, adjusted, alpha, len(known))
        for name, each in known.items()
    )


def _compare_column(
    column: ColumnProfile,
    window: ColumnCounts,
    adjusted: Mapping[tuple[str, str], float],
    alpha: float,
    columns: int,
) -> ColumnComparison:
    reference, seen = vector(reference_counts(column)), vector(window)
    js, threshold = js_distance(reference, seen), _threshold(column, window.rows)
    missing, unseen = window.missing / window.rows, window.unseen / window.rows
    p_value, missing_p, unseen_p = (adjusted[(column.name, test)] for test in ("moved", "missing", "unseen"))
    free = max(int(((reference + seen) > 0).sum()) - 1, 1)
    return ColumnComparison(
        column=column.name,
        rows=window.rows,
        js=js,
        threshold=threshold,
        psi=population_stability(reference, seen),
        noise=float(chdtri(free, alpha / columns)) * (1 / window.rows + 1 / column.rows),
        p_value=p_value,
        missing=missing,
        usual_missing=column.missing_share,
        missing_p=missing_p,
        unseen=unseen,
        unseen_p=unseen_p,
        moved=p_value < alpha and js > threshold,
        missing_rose=missing_p < alpha and missing - column.missing_share >= _LEAST_SHARE,
        unseen_rose=unseen_p < alpha and unseen >= _LEAST_SHARE,
    )


def _p_values(column: ColumnProfile, window: ColumnCounts) -> Iterator[tuple[str, float]]:
    yield "moved", _moved_p(column, window)
    usual = max(column.calibration.missing_max, (column.missing + 1) / (column.rows + 2))
    yield "missing", _at_least(window.missing, window.rows, usual)
    yield (
        "unseen",
        _at_least(window.unseen, window.rows, max(column.calibration.unseen_max, 1 / (column.rows + 2))),
    )


def _moved_p(column: ColumnProfile, window: ColumnCounts) -> float:
    statistic, free = chi_square(vector(reference_counts(column)), vector(window))
    learnt = column.calibration
    mean, freedom = float(free), float(free)
    if learnt.windows >= _FEW_WINDOWS and learnt.excess > 0:
        # Satterthwaite: a multiple of chi-square with the windows' mean and spread
        mean += learnt.excess / (1 / window.rows + 1 / column.rows)
        freedom = min(learnt.freedom, float(free))
    return float(chdtrc(freedom, statistic * freedom / mean))


def _at_least(count: int, rows: int, share: float) -> float:
    """Give the probability of `count` or more of `rows` at a share."""
    return float(bdtrc(count - 1, rows, min(share, 1.0))) if count else 1.0


def _threshold(column: ColumnProfile, rows: int) -> float:
    """Give mean + 3 sd of the windows' distances, at least the largest, brought to `rows` rows."""
    learnt = column.calibration
    if learnt.windows < _FEW_WINDOWS:
        return _LEAST_JS
    bins = sum(count > 0 for count in (*column.counts, column.missing))
    limit = max(learnt.js_mean + 3 * learnt.js_sd, learnt.js_max)
    noise = js_noise(bins, rows, column.rows) - js_noise(bins, learnt.window_rows, column.rows)
    factor = limit**2 / max(learnt.js_mean**2, 1e-12)
    return max(math.sqrt(max(limit**2 + noise * min(factor, 4.0), 0.0)), _LEAST_JS)


def _holm(p_values: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Adjust p-values so that comparing each with alpha keeps the error of all together below it.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979), 65-70.
    """
    adjusted: dict[tuple[str, str], float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda each: (p_values[each], each))):
        largest = max(largest, min(p_values[name] * (len(p_values) - place), 1.0))
        adjusted[name] = largest
    return adjusted
