"""Leaderboards: configurations by the mean of a metric over their repeats, with how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from noria.errors import ConfigError
from noria.evaluation.directions import find_bounds
from noria.evaluation.intervals import Interval
from noria.evaluation.repeats import fold_overlap, repeat_interval, unpaired_interval
from noria.evaluation.scores import FloatArray
from noria.tracking.figures import RunFigures, read_figures
from noria.workspace.runs.choice import MOST_RUNS, choose_runs, direction_of, several
from noria.workspace.runs.groups import Group, Repeat, group_runs, varying

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.workspace.project import Project

__all__ = ["LARGEST", "Leaderboard", "Place", "as_table", "leaderboard_of", "read_parents"]

_FOLDED = ("fold", "split")
LARGEST = 1e150  # whose square is a float; MLflow's server keeps an infinity as 1.8e308


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of a leaderboard."""

    rank: int  # equal means have equal ranks
    what: dict[str, str | None]  # in which it differs from others
    mean: float
    sd: float | None  # None: it ran once
    n: int  # repeats that have a finite value
    left_out: int  # repeats whose value is NaN, infinite or beyond `LARGEST`
    interval: Interval | None  # of the mean; None: it ran once
    difference: Interval | None  # to the best, this minus that; None: it is the best, or nothing can be said
    ties_with_best: bool | None  # whether that interval holds 0; None: nothing can be said
    pairs: int  # repeats that both have
    compared: str  # how the difference was found
    best_run: str
    best_value: float


class Leaderboard(msgspec.Struct, frozen=True, kw_only=True):
    """Configurations, the best first, and how that was found."""

    metric: str
    direction: str
    interval: str  # by which method
    level: float
    same: dict[str, str]  # parameters and tags that are the same in all
    runs: int
    without: int  # runs that do not have the metric
    is_cut: bool  # whether there were more runs than are looked at
    unranked: int  # configurations without a finite value
    places: list[Place]


def leaderboard_of(
    project: "Project",
    metric: str,
    *,
    by: str | Sequence[str],
    filter: str,
    experiments: str | Sequence[str] | None,
    higher_is_better: bool | None,
    level: float,
    limit: int = MOST_RUNS,
) -> Leaderboard:
    """Rank; see `Runs.leaderboard`."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it is a share between 0 and 1, such as 0.95")
    chosen = choose_runs(project, [metric], filter=filter, experiments=experiments, limit=limit)
    direction = direction_of(metric, higher_is_better)
    groups = group_runs(chosen.runs, several(by), read_parents(project, chosen.runs), metric=metric)
    found = [_measured(each, metric, level, is_more=direction.is_more) for each in groups]
    known = [each for each in found if each is not None]
    sign = -1 if direction.is_more else 1
    known.sort(key=lambda each: (sign * each.mean, -each.values.size, each.best.id))
    names, same = varying(groups)
    if by := several(by):
        names, same = by, {}
    return Leaderboard(
        metric=metric,
        direction=direction.told,
        interval=_method(known, level),
        level=level,
        same=same,
        runs=sum(len(each.runs) for each in groups),
        without=chosen.without,
        is_cut=chosen.is_cut,
        unranked=len(groups) - len(known),
        places=[
            _place(each, known[0], rank, names, level)
            for each, rank in zip(known, _ranks([each.mean for each in known]), strict=True)
        ],
    )


def as_table(found: Leaderboard) -> "pa.Table":
    """Give a leaderboard as a table; how it was found is in the schema's metadata."""
    import pyarrow as pa

    names = list(found.places[0].what) if found.places else []
    places = found.places

    def ends(intervals: Sequence[Interval | None]) -> list["pa.Array"]:
        return [
            pa.array([None if each is None else getattr(each, end) for each in intervals], pa.float64())
            for end in ("low", "high")
        ]

    low, high = ends([each.interval for each in places])
    difference_low, difference_high = ends([each.difference for each in places])
    columns: dict[str, Any] = {
        "rank": pa.array([each.rank for each in places], pa.int64()),
        **{name: pa.array([each.what[name] for each in places], pa.string()) for name in names},
        "mean": pa.array([each.mean for each in places], pa.float64()),
        "sd": pa.array([each.sd for each in places], pa.float64()),
        "n": pa.array([each.n for each in places], pa.int64()),
        "left_out": pa.array([each.left_out for each in places], pa.int64()),
        "low": low,
        "high": high,
        "difference": pa.array(
            [None if each.difference is None else each.difference.mean for each in places], pa.float64()
        ),
        "difference_low": difference_low,
        "difference_high": difference_high,
        "ties_with_best": pa.array([each.ties_with_best for each in places], pa.bool_()),
        "pairs": pa.array([each.pairs for each in places], pa.int64()),
        "compared": pa.array([each.compared for each in places], pa.string()),
        "best_run": pa.array([each.best_run for each in places], pa.string()),
        "best_value": pa.array([each.best_value for each in places], pa.float64()),
    }
    told = {name: str(getattr(found, name)) for name in ("metric", "direction", "interval", "level", "runs")}
    told |= {"without": str(found.without), "unranked": str(found.unranked), "is_cut": str(found.is_cut)}
    told["same"] = msgspec.json.encode(found.same).decode()
    return pa.table(columns).replace_schema_metadata(told)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A group and the finite values of its repeats: runs that repeat one repeat count as one, their mean."""

    group: Group
    by_repeat: dict[Repeat, float]
    values: FloatArray  # one each repeat
    left_out: int
    bounds: tuple[float, float] | None
    folds: int  # that the repeats are on; 0: they are on none
    interval: Interval | None
    best: RunFigures
    best_value: float

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def _measured(group: Group, metric: str, level: float, *, is_more: bool) -> _Measured | None:
    """Give a group with what is known of it; None if no run has a finite value."""
    held: dict[Repeat, list[float]] = {}
    finite: list[tuple[float, RunFigures]] = []
    for repeat, run in group.runs:
        value = run.metrics[metric]
        if abs(value) <= LARGEST:
            finite.append((value, run))
            held.setdefault(repeat or (("run", run.id),), []).append(value)
    if not finite:
        return None
    by_repeat = {repeat: fmean(values) for repeat, values in held.items()}
    values = np.array([*by_repeat.values()], dtype=np.float64)
    bounds = find_bounds(metric)
    if bounds is not None and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
        bounds = None  # a percentage, or something else by that name
    folds = len(_on_folds(by_repeat))
    best_value, best = (max if is_more else min)(finite, key=lambda each: each[0])
    return _Measured(
        group=group,
        by_repeat=by_repeat,
        values=values,
        left_out=len(group.runs) - len(finite),
        bounds=bounds,
        folds=folds,
        interval=repeat_interval(values, overlap=_overlap(folds), level=level, bounds=bounds),
        best=best,
        best_value=best_value,
    )


def _ranks(means: Sequence[float]) -> list[int]:
    """Rank means in order; equal ones alike."""
    ranks: list[int] = []
    for at, mean in enumerate(means):
        ranks.append(ranks[-1] if at and _is_same(mean, means[at - 1]) else at + 1)
    return ranks


def _is_same(one: float, other: float) -> bool:
    """Whether two means differ by no more than the order in which their values were added up."""
    return math.isclose(one, other, rel_tol=1e-13)


def _on_folds(by_repeat: Mapping[Repeat, float]) -> dict[Repeat, float]:
    """Give of the folds that repeats are on the mean over whatever else was repeated."""
    held: dict[Repeat, list[float]] = {}
    for repeat, value in by_repeat.items():
        held.setdefault(tuple(each for each in repeat if each[0] in _FOLDED), []).append(value)
    return {fold: fmean(values) for fold, values in held.items() if fold}


def _overlap(folds: int) -> float:
    return fold_overlap(folds) if folds > 1 else 0.0


def _place(each: _Measured, best: _Measured, rank: int, names: Sequence[str], level: float) -> Place:
    difference, pairs, compared = (None, 0, "the best") if each is best else _difference(each, best, level)
    if difference is not None and _is_same(best.mean + difference.mean, best.mean):
        difference = Interval(0.0, difference.low, difference.high)
    values = each.values
    return Place(
        rank=rank,
        what={name: each.group.key.get(name) for name in names},
        mean=each.mean,
        sd=stdev(values.tolist()) if values.size > 1 else None,
        n=int(values.size),
        left_out=each.left_out,
        interval=each.interval,
        difference=difference,
        ties_with_best=True if each is best else None if difference is None
        else difference.low <= 0 <= difference.high,
        pairs=pairs,
        compared=compared,
        best_run=each.best.id,
        best_value=each.best_value,
    )  # fmt: skip


def _difference(one: _Measured, best: _Measured, level: float) -> tuple[Interval | None, int, str]:
    """Give the difference to the best: by what was repeated alike, or by folds alone; else of the means."""
    sides = one.by_repeat, best.by_repeat
    for mine, theirs in (sides, tuple(_on_folds(each) for each in sides)):
        differences = {each: mine[each] - theirs[each] for each in sorted(mine.keys() & theirs.keys())}
        if len(differences) > 1:
            names = sorted({name for each in differences for name, _ in each})
            overlap = _overlap(len(_on_folds(differences)))
            paired = repeat_interval([*differences.values()], overlap=overlap, level=level)
            return paired, len(differences), f"paired by {', '.join(names)}"
    overlaps = _overlap(one.folds), _overlap(best.folds)
    found = unpaired_interval(one.values, best.values, overlaps=overlaps, level=level)
    pairs = len(one.by_repeat.keys() & best.by_repeat.keys())
    return found, pairs, "not: one of them ran once" if found is None else "unpaired, Welch"


def _method(measured: Sequence[_Measured], level: float) -> str:
    """Say how the intervals of means were found."""
    if not any(each.interval for each in measured):
        return "none: nothing was repeated"
    told = f"Student's t over repeats, {level:.0%}"
    if any(each.folds > 1 for each in measured):
        told += "; over folds with the correction of Nadeau and Bengio for rows that they share"
    if any(each.bounds for each in measured):
        told += "; cut to 0 and 1"
    return told


def read_parents(project: "Project", runs: Sequence[RunFigures]) -> dict[str, RunFigures]:
    """Read the runs that others are nested in, up to the outermost."""
    found: dict[str, RunFigures] = {}
    wanted = {each.parent for each in runs if each.parent is not None}
    with project.ledger.database.read() as connection:
        while wanted:
            read = read_figures(connection, sorted(wanted), metrics=[])
            found |= {each.id: each for each in read}
            wanted = {each.parent for each in read if each.parent is not None} - found.keys()
    return found
