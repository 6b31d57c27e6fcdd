"""Which parameters explain a figure over many runs: a forest is fitted, and asked what it would miss.

The forest predicts runs that it has not seen; a parameter's importance is the share of the figure's variance
that is no longer explained once the parameter's values are drawn anew from those of all runs. A parameter
without influence makes that neither better nor worse on average, whatever the forest made of it, which gives
a test: Student's t over runs, by Holm over parameters. Forests of several folds share most of their runs, and
with them what chance there is in those; the variance is corrected for that as Nadeau and Bengio do. Without
it the test names a parameter of no influence twice as often as it says.

References
----------
Breiman, "Random Forests", Machine Learning 45 (2001), 5-32; Fisher, Rudin and Dominici, "All Models are
Wrong, but Many are Useful", Journal of Machine Learning Research 20 (2019), 1-81; Nadeau and Bengio,
"Inference for the Generalization Error", Machine Learning 52 (2003), 239-281; Holm, "A Simple Sequentially
Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6 (1979), 65-70.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from noria.evaluation.intervals import Interval
from noria.evaluation.scores import FloatArray

__all__ = ["LEAST_RUNS", "Column", "Influence", "Influences", "influences", "read_column"]

LEAST_RUNS = 20
_MOST_RUNS = 2_000  # more teach a forest little, and cost
_FOLDS, _REPEATS, _DRAWS = 5, 3, 8
_TREES = 60
_FEW_CATEGORIES, _MOST_CATEGORIES = 5, 20
_COMES_AGAIN = 3  # runs a value, from which on equal groups are no chance
_LOG_FROM = 100.0  # times the smallest: a range that is walked in steps by factors
_FALSE_ALARMS = 0.05  # of one in all parameters together
_MOST_CELLS = 4_000_000  # of a table that the forest is asked about at once


class Influence(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a figure a parameter explains."""

    name: str
    importance: float  # share of the variance that is lost without it; noise is about 0, also below
    interval: Interval  # 95 %, over runs
    stands_out: bool  # beyond what chance gives; 1 false alarm in 20 questions, over all parameters
    kind: str  # number, log or category
    values: int  # different ones
    missing: int  # runs without it
    alike: list[str] = []  # parameters that tell runs apart in the same way: one cannot know which it is


class Influences(msgspec.Struct, frozen=True, kw_only=True):
    """What parameters explain of a figure."""

    told: str  # in words; where nothing can be said, why
    r2: float | None  # share of the variance that the forest explains of runs that it has not seen
    runs: int
    is_sampled: bool
    params: list[Influence]  # the most important first; empty where nothing can be said
    left_out: dict[str, str]  # parameters that cannot tell runs apart, and why


@dataclass(frozen=True, slots=True)
class Column:
    """A parameter over runs, as numbers: NaN where a run has none."""

    kind: str
    codes: FloatArray  # numbers, their logarithms, or places in the list of categories
    categories: tuple[str, ...] = ()


def read_column(texts: Sequence[str | None]) -> Column:
    """Give a parameter as numbers if all that is there are some, as logarithms if they range widely.

    Examples
    --------
    >>> read_column(["1", "10", "1000", None]).codes
    array([ 0.,  1.,  3., nan])
    >>> read_column(["gini", "entropy", "2"]).categories
    ('2', 'entropy', 'gini')
    """
    there = [each for each in texts if each is not None]
    numbers = [_number(each) for each in there]
    if there and all(each is not None for each in numbers):
        codes = np.array([math.nan if each is None else _number(each) for each in texts], dtype=np.float64)
        found = codes[~np.isnan(codes)]
        if found.min() > 0 and found.max() / _LOG_FROM >= found.min() and np.unique(found).size > 2:
            return Column("log", np.log10(codes))
        return Column("number", codes)
    categories = tuple(sorted(set(there)))
    places = {each: float(place) for place, each in enumerate(categories)}
    codes = np.array([math.nan if each is None else places[each] for each in texts], dtype=np.float64)
    return Column("category", codes, categories)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def influences(
    params: Mapping[str, Sequence[str | None]], figure: npt.ArrayLike, *, seed: int = 0
) -> Influences:
    """Tell which parameters explain a figure.

    Parameters
    ----------
    params
        Of each parameter its value in each run as a text; None where the run has none.
    figure : array of shape (n,)
        The figure of each run.
    seed
        The same seed and runs give the same answer.

    Raises
    ------
    ValueError
        If lengths differ, or a figure is not finite.
    """
    target = np.asarray(figure, dtype=np.float64)
    if target.ndim != 1 or any(len(values) != target.size for values in params.values()):
        raise ValueError(f"the figure has shape {target.shape}; wanted (n,), and n values of each parameter")
    if not np.isfinite(target).all():
        raise ValueError("a figure is not finite; leave it out first")
    rng = np.random.default_rng(seed)
    chosen = np.arange(target.size)
    if target.size > _MOST_RUNS:
        chosen = np.sort(rng.choice(target.size, _MOST_RUNS, replace=False))
    target = target[chosen]
    columns = {
        name: read_column([values[each] for each in chosen.tolist()]) for name, values in params.items()
    }
    used, alike, left_out = _usable(columns) if target.size >= LEAST_RUNS else ({}, {}, {})

    def said(told: str, r2: float | None = None, found: Sequence[Influence] = ()) -> Influences:
        is_sampled = len(chosen) < np.size(figure)
        return Influences(
            told=told, r2=r2, runs=target.size, is_sampled=is_sampled, params=[*found], left_out=left_out
        )

    if target.size < LEAST_RUNS:
        return said(
            f"nothing can be said: {target.size} different things were tried, {LEAST_RUNS} are the least"
        )
    if not used:
        return said("nothing can be said: no parameter tells the runs apart")
    scale = float(np.abs(target).max()) or 1.0
    target = target / scale  # squares of huge figures are infinite, those of tiny ones 0
    if not target.var():
        return said("nothing can be said: the figure is the same in all runs")
    encoded = [_encoded(each) for each in used.values()]
    error, losses = _losses(encoded, target, seed)
    r2 = 1 - float(error.mean() / target.var())
    if r2 <= 0:
        return said(
            f"nothing can be said: a forest predicts runs that it has not seen no better than their mean "
            f"(R² {r2:.2f})",
            r2,
        )
    found = _judged(used, alike, losses / target.var())
    return said(_told(found, r2, target.size), r2, found)


def _usable(columns: Mapping[str, Column]) -> tuple[dict[str, Column], dict[str, list[str]], dict[str, str]]:
    """Give the parameters that tell runs apart, those that do it alike, and those that cannot and why."""
    used: dict[str, Column] = {}
    alike: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    known: dict[bytes, str] = {}
    for name in sorted(columns):
        column = columns[name]
        there = column.codes[~np.isnan(column.codes)]
        count = int(np.unique(there).size)
        if count + (there.size < column.codes.size) < 2:
            left_out[name] = "the same in all runs"
            continue
        if column.kind == "category" and count > max(_FEW_CATEGORIES, there.size / 2):
            left_out[name] = f"{count:,} different texts in {there.size:,} runs"
            continue
        mark = _mark(column, count)
        if mark in known:
            alike.setdefault(known[mark], []).append(name)
            continue
        known[mark] = name
        used[name] = column
    return used, alike, left_out


def _mark(column: Column, count: int) -> bytes:
    """Give what is equal of parameters that say the same of the runs by other names or numbers.

    That is which runs have a value in common, where values come again; else the order of the numbers.
    """
    filled = np.where(np.isnan(column.codes), np.inf, column.codes)
    _, first, places = np.unique(filled, return_index=True, return_inverse=True)
    if count > filled.size / _COMES_AGAIN and column.kind != "category":
        backwards = places.max() - places
        return b"order" + max(each.astype(np.int64).tobytes() for each in (places, backwards))
    order = np.argsort(np.argsort(first))
    return b"groups" + bytes(order[places].astype(np.int64).tobytes())


def _encoded(column: Column) -> FloatArray:
    """Give the columns that a tree splits by: of categories one each, what is missing aside of all else.

    Numbers go by their ranks, which is all that a tree looks at: it holds them in 32 bits.
    """
    codes = column.codes
    if column.kind != "category":
        ranks = np.unique(codes, return_inverse=True)[1].astype(np.float64)
        return np.where(np.isnan(codes), -1.0, ranks)[:, None]
    places, counts = np.unique(codes[~np.isnan(codes)], return_counts=True)
    frequent = places[np.argsort(-counts, kind="stable")][:_MOST_CATEGORIES]
    is_other = ~np.isnan(codes) & ~np.isin(codes, frequent)
    columns = [(codes == each).astype(np.float64) for each in frequent]
    if is_other.any():
        columns.append(is_other.astype(np.float64))
    return np.column_stack(columns)


def _losses(encoded: Sequence[FloatArray], target: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """Give each run's squared error where it was not seen, and by how much it grows without each parameter.

    Returns
    -------
    error : array of shape (runs,)
    losses : array of shape (parameters, runs)
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    whole = np.column_stack(encoded)
    ends = np.cumsum([0, *(each.shape[1] for each in encoded)])
    spans = [slice(ends[place], ends[place + 1]) for place in range(len(encoded))]
    error = np.zeros(target.size)
    losses = np.zeros((len(encoded), target.size))
    for repeat in range(_REPEATS):
        rng = np.random.default_rng([seed, repeat])
        folds = KFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(whole):
            forest = RandomForestRegressor(
                _TREES,
                max_features=max(1 / 3, min(1.0, 2 / len(encoded))),
                min_samples_leaf=2 if target.size >= 2 * LEAST_RUNS else 1,
                random_state=int(rng.integers(2**31)),
                n_jobs=1,
            ).fit(whole[train], target[train])
            seen = whole[test]
            base = np.square(forest.predict(seen) - target[test])
            error[test] += base / _REPEATS
            draws = rng.integers(target.size, size=(len(encoded), _DRAWS * test.size))
            drawn = [whole[draw][:, span] for draw, span in zip(draws, spans, strict=True)]
            grown = _without(forest, seen, spans, drawn, target[test])
            losses[:, test] += (grown - base) / _REPEATS
    return error, losses


def _without(
    forest: Any,
    seen: FloatArray,
    spans: Sequence[slice],
    drawn: Sequence[FloatArray],
    target: FloatArray,
) -> FloatArray:
    """Give the squared error of each run with each parameter drawn anew, the mean of several draws."""
    rows = _DRAWS * len(seen)
    found = np.empty((len(spans), len(seen)))
    at_once = max(1, _MOST_CELLS // (rows * seen.shape[1]))
    for start in range(0, len(spans), at_once):
        some = range(start, min(start + at_once, len(spans)))
        asked = np.tile(seen, (len(some) * _DRAWS, 1))
        for place, param in enumerate(some):
            asked[place * rows : (place + 1) * rows, spans[param]] = drawn[param]
        answers = forest.predict(asked).reshape(len(some), _DRAWS, len(seen))
        found[start : start + len(some)] = np.square(answers - target).mean(axis=1)
    return found


def _judged(
    used: Mapping[str, Column], alike: Mapping[str, list[str]], losses: FloatArray
) -> list[Influence]:
    from scipy.special import stdtr, stdtrit

    count = losses.shape[1]
    means = losses.mean(axis=1)
    errors = losses.std(axis=1, ddof=1) * math.sqrt(1 / count + _FOLDS / (_FOLDS - 1) / count)
    half = float(stdtrit(count - 1, 0.975)) * errors
    ratios = np.divide(means, errors, out=np.where(means > 0, np.inf, 0.0), where=errors > 0)
    chances = 1 - stdtr(count - 1, ratios)
    stands_out = _holm(chances)
    found = [
        Influence(
            name=name,
            importance=float(means[place]),
            interval=Interval(
                float(means[place]), float(means[place] - half[place]), float(means[place] + half[place])
            ),
            stands_out=bool(stands_out[place]),
            kind=column.kind,
            values=int(np.unique(column.codes[~np.isnan(column.codes)]).size),
            missing=int(np.isnan(column.codes).sum()),
            alike=alike.get(name, []),
        )
        for place, (name, column) in enumerate(used.items())
    ]
    return sorted(found, key=lambda each: (-each.importance, each.name))


def _holm(chances: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which hypotheses fall, so that one falls wrongly at most at the rate of false alarms."""
    order = np.argsort(chances, kind="stable")
    falls = chances[order] <= _FALSE_ALARMS / np.arange(chances.size, 0, -1)
    found = np.zeros(chances.size, dtype=bool)
    found[order] = np.logical_and.accumulate(falls)
    return found


def _told(found: Sequence[Influence], r2: float, runs: int) -> str:
    names = [each.name for each in found if each.stands_out]
    explained = (
        f"a forest explains {r2:.0%} of the variance over {runs:,} configurations that it has not seen"
    )
    if not names:
        return f"{explained}; no parameter stands out from chance"
    return f"{explained}; {', '.join(names)} stand{'s' if len(names) == 1 else ''} out"
