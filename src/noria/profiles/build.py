"""Make profiles, and count rows into their bins."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from noria.profiles.distances import js_distances, nested_chi_squares
from noria.profiles.records import Calibration, ColumnCounts, ColumnProfile, Profile

__all__ = ["Columns", "build_profile", "count_columns", "merge_counts", "reference_counts", "vector"]

Columns = Mapping[str, npt.NDArray[Any] | Sequence[str | None]]
_Numbers = np.ndarray[Any, np.dtype[np.float64]]

_BINS = 10
_KNOWN_CATEGORIES = 10_000  # more are not kept by name
_FEW_WINDOWS = 5  # with fewer nothing is learnt from them


def build_profile(columns: Columns, *, window_rows: int) -> Profile:
    """Profile a reference, and calibrate each column on its contiguous windows.

    Parameters
    ----------
    columns
        By name: arrays of numbers, NaN where one is missing, or sequences of texts and None. All of one
        length, **in the order of time**: the windows tell what time itself does to a column, and rows
        in any other order tell less.
    window_rows
        Rows of a window, about as many as will be judged at once.

    Raises
    ------
    ValueError
        If lengths differ, there are no rows, or `window_rows` is not positive.

    Examples
    --------
    >>> profile = build_profile({"x": np.arange(100.0), "c": ["a", "b"] * 50}, window_rows=10)
    >>> profile.columns["c"].counts, len(profile.columns["x"].counts)
    ((50, 50), 10)
    """
    lengths = {name: len(values) for name, values in columns.items()}
    rows = max(lengths.values(), default=0)
    if not rows or set(lengths.values()) != {rows}:
        raise ValueError(f"columns of one length, with rows, are wanted; found {lengths}")
    if window_rows < 1:
        raise ValueError(f"window_rows is {window_rows}; it must be positive")
    return Profile(
        rows=rows,
        columns={name: _profile_column(name, values, window_rows) for name, values in columns.items()},
    )


def count_columns(profile: Profile, columns: Columns) -> dict[str, ColumnCounts]:
    """Count rows into the bins of those columns that the profile knows."""
    return {
        name: _count(profile.columns[name], values)
        for name, values in columns.items()
        if name in profile.columns
    }


def merge_counts(parts: Sequence[Mapping[str, ColumnCounts]]) -> dict[str, ColumnCounts]:
    """Add up the counts of parts: what counting all their rows at once would give."""
    merged: dict[str, ColumnCounts] = {}
    for part in parts:
        for name, counts in part.items():
            merged[name] = merged[name] + counts if name in merged else counts
    return merged


def _is_numeric(values: object) -> bool:
    """Say whether a column is one of numbers."""
    return isinstance(values, np.ndarray) and values.dtype.kind in "fiub"


def _profile_column(
    name: str, values: npt.NDArray[Any] | Sequence[str | None], window_rows: int
) -> ColumnProfile:
    blank = Calibration(
        windows=0,
        window_rows=window_rows,
        js_mean=0.0,
        js_sd=0.0,
        js_max=0.0,
        excess=0.0,
        freedom=0.0,
        missing_max=0.0,
        unseen_max=0.0,
    )
    draft = (
        _draft_numbers(name, values, blank) if _is_numeric(values) else _draft_categories(name, values, blank)
    )
    whole = _count(draft, values)
    draft = replace(draft, counts=whole.counts, missing=whole.missing)
    return replace(draft, calibration=_calibrate(draft, values, window_rows))


def _draft_numbers(name: str, values: Any, calibration: Calibration) -> ColumnProfile:
    numbers: _Numbers = np.asarray(values, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    return ColumnProfile(
        name=name,
        kind="number",
        rows=len(numbers),
        counts=(),
        missing=0,
        calibration=calibration,
        edges=_edges(finite),
        low=float(finite.min()) if len(finite) else None,
        high=float(finite.max()) if len(finite) else None,
        mean=float(finite.mean()) if len(finite) else None,
    )


def _edges(finite: _Numbers) -> tuple[float, ...]:
    """Give bin edges that are values of the reference, at most ten bins and one for what is below it."""
    if not len(finite):
        return ()
    ordered = np.sort(finite)
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if len(changes) < _BINS:
        edges = ordered[np.concatenate([[0], changes])]
    else:
        # The deciles by the inverted distribution function: the values at ceil(n * k / 10), counted from 1.
        ranks = -(-len(ordered) * np.arange(1, _BINS) // _BINS) - 1
        edges = np.unique(ordered[ranks])
    if edges[0] == ordered[0]:
        edges = np.concatenate([[np.nextafter(edges[0], -np.inf)], edges])
    return tuple(edges.tolist())


def _draft_categories(name: str, values: Any, calibration: Calibration) -> ColumnProfile:
    """Give frequent categories bins of their own and spread the others by hash.

    Showing the most frequent of many would pick those that chance favoured in the reference.
    """
    found = Counter(each for each in values if each is not None)
    ordered = sorted(found, key=lambda each: (-found[each], each))
    frequent = sum(count * _BINS >= found.total() for count in found.values())
    many = len(ordered) > _BINS
    return ColumnProfile(
        name=name,
        kind="category",
        rows=len(values),
        counts=(),
        missing=0,
        calibration=calibration,
        categories=tuple(ordered[:_KNOWN_CATEGORIES]),
        shown=frequent if many else len(ordered),
        hashed=max(_BINS - frequent, 1) if many else 0,
        complete=len(ordered) <= _KNOWN_CATEGORIES,
    )


def _count(column: ColumnProfile, values: npt.NDArray[Any] | Sequence[str | None]) -> ColumnCounts:
    if column.kind == "number":
        return _count_numbers(column, np.asarray(values, dtype=np.float64))
    return _count_categories(column, Counter(values))


def _count_numbers(column: ColumnProfile, numbers: _Numbers) -> ColumnCounts:
    present = numbers[~np.isnan(numbers)]
    places = np.searchsorted(np.asarray(column.edges), present, side="left")
    counts = np.bincount(places, minlength=len(column.edges) + 1)
    return ColumnCounts(
        rows=len(numbers), counts=tuple(counts.tolist()), missing=len(numbers) - len(present), unseen=0
    )


def _count_categories(column: ColumnProfile, found: Counter[str | None]) -> ColumnCounts:
    counts = [found.get(each, 0) for each in column.categories[: column.shown]] + [0] * column.hashed
    shown, known = set(column.categories[: column.shown]), set(column.categories)
    unseen = 0
    for category, count in found.items():
        if category is None or category in shown:
            continue
        if column.complete and category not in known:
            unseen += count
        if column.hashed:
            counts[column.shown + crc32(category.encode()) % column.hashed] += count
    missing = found.get(None, 0)
    return ColumnCounts(rows=found.total(), counts=tuple(counts), missing=missing, unseen=unseen)


def _calibrate(column: ColumnProfile, values: Any, window_rows: int) -> Calibration:
    """Compare each whole contiguous window with all of the reference."""
    starts = range(0, column.rows - window_rows + 1, window_rows)
    windows = _window_vectors(column, values, starts, window_rows)
    whole = vector(reference_counts(column))
    distances = js_distances(whole, windows) if len(windows) else np.empty(0)
    excess, freedom = _excess(whole, windows)
    missing = windows[:, -2] / window_rows
    return Calibration(
        windows=len(windows),
        window_rows=window_rows,
        js_mean=float(distances.mean()) if len(windows) else 0.0,
        js_sd=float(distances.std(ddof=1)) if len(windows) > 1 else 0.0,
        js_max=float(distances.max()) if len(windows) else 0.0,
        excess=excess,
        freedom=freedom,
        missing_max=float(missing.max()) if len(windows) else column.missing_share,
        unseen_max=_unseen_max(column, [values[start : start + window_rows] for start in starts]),
    )


def _window_vectors(column: ColumnProfile, values: Any, starts: range, window_rows: int) -> _Numbers:
    """Count each window into the compared bins, as `vector` has them: shape (windows, bins + 2)."""
    width = len(column.counts) + 2
    if column.kind != "number":
        counted = [vector(_count(column, values[start : start + window_rows])) for start in starts]
        return np.array(counted, dtype=np.float64).reshape(len(starts), width)
    numbers = np.asarray(values, dtype=np.float64)[: len(starts) * window_rows]
    places = np.where(
        np.isnan(numbers), width - 2, np.searchsorted(np.asarray(column.edges), numbers, side="left")
    )
    places += np.repeat(np.arange(len(starts)) * width, window_rows)
    return np.bincount(places, minlength=len(starts) * width).reshape(len(starts), width).astype(np.float64)


def _excess(whole: _Numbers, windows: _Numbers) -> tuple[float, float]:
    """Give what time adds to the chi-square distance, and the degrees of freedom that its spread shows."""
    if len(windows) < _FEW_WINDOWS:
        return 0.0, 0.0
    statistics, free = nested_chi_squares(whole, windows)
    scale = float(1 / windows[0].sum() - 1 / whole.sum())
    excess = max(float(statistics.mean()) - free, 0.0) * scale
    variance = float(statistics.var(ddof=1))
    freedom = 2 * float(statistics.mean()) ** 2 / variance if variance else float(free)
    return excess, min(max(freedom, 1.0), float(free))


def _unseen_max(column: ColumnProfile, windows: Sequence[Any]) -> float:
    """Give the largest share of a window that no other knows: how new categories come by themselves."""
    if column.kind == "number" or not column.complete or len(windows) < 2:
        return 0.0
    found = [Counter(each for each in window if each is not None) for window in windows]
    seen_in = Counter(category for each in found for category in each)
    shares = [
        sum(count for category, count in each.items() if seen_in[category] == 1) / max(len(window), 1)
        for each, window in zip(found, windows, strict=True)
    ]
    return max(shares)


def vector(counts: ColumnCounts) -> _Numbers:
    """Give the compared bins: those of values, one for what is missing, one for what falls into none."""
    strays = counts.rows - counts.missing - sum(counts.counts)
    return np.array([*counts.counts, counts.missing, strays], dtype=np.float64)


def reference_counts(column: ColumnProfile) -> ColumnCounts:
    """Give the reference's own counts."""
    return ColumnCounts(rows=column.rows, counts=column.counts, missing=column.missing, unseen=0)
