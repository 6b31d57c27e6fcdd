"""Learning curves: a metric along runs, or along groups of runs with the band that they lie in."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.clock import from_micros
from noria.errors import ConfigError, NotFound
from noria.evaluation.scores import FloatArray
from noria.records import RunId
from noria.tracking.figures import RunFigures, read_figures
from noria.tracking.histories import Curve, HistoryReader
from noria.workspace.runs.charts import curves_chart
from noria.workspace.runs.choice import choose_runs
from noria.workspace.runs.groups import Group, group_runs
from noria.workspace.runs.leaderboards import read_parents
from noria.workspace.runs.picture import Picture

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["curves_of"]

_PARTS = 300  # of a run's points in a picture
_GROUPED = 200  # runs that are read for groups, at most
_GRID = 200
_AS_POINTS = 30  # so few points are drawn as such, too
_LOG_FROM = 1_000.0
_UNITS = (("hours", 3_600.0, 10_800.0), ("minutes", 60.0, 300.0), ("seconds", 1.0, 0.0))  # and from which on
_TITLES = {"step": "step", "wall": "instant, UTC"}


def curves_of(
    project: "Project",
    metric: str,
    *,
    runs: Sequence[str],
    by: Sequence[str],
    x: str,
    smoothing: float,
    filter: str,
    experiments: str | Sequence[str] | None,
    limit: int,
    engine: Path,
) -> Picture:
    """Draw; see `RunPictures.curves`."""
    if x not in ("step", "time", "wall"):
        raise ConfigError(f"x is {x!r}; wanted step, time or wall")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"smoothing is {smoothing}; it goes from 0 (none) to below 1")
    if by and x == "wall":
        raise ConfigError("runs of a group ran at other instants; take step or time as x")
    if limit < 1:
        raise ConfigError(f"limit is {limit}; a picture has a line at least")
    if runs:
        chosen = _named(project, metric, runs)
    else:
        chosen = choose_runs(project, [metric], filter=filter, experiments=experiments).runs
    total, chosen = len(chosen), chosen[: _GROUPED if by else limit]
    curves = HistoryReader(project.ledger.database).curves([each.id for each in chosen], metric, parts=_PARTS)
    lines = {each.id: _line(curves[each.id], x, smoothing) for each in chosen}
    if by:
        groups = group_runs(chosen, by, read_parents(project, chosen), metric=metric)
        rows = [row for each in groups[:limit] for row in _band(each, lines)]
        told = f"{_counted(min(len(groups), limit), len(groups), 'group')} of "
        told += f"{_counted(len(chosen), total, 'run')}: mean, and lowest to highest"
    else:
        names = _labels(chosen)
        rows = [row for each in chosen for row in lines[each.id].rows(names[each.id])]
        told = _counted(len(chosen), total, "run")
    unfit = sum(each.unfit for each in curves.values())
    if unfit:
        told += f", {unfit:,} points that are NaN or infinite left out"
    if smoothing:
        told += f", smoothed by {smoothing:g}"
    title, rows = _scaled(x, rows)
    shown = [value for row in rows for value in (row[3], row[4]) if math.isfinite(value)]
    chart = curves_chart(
        metric,
        x,
        x_title=title,
        is_log=bool(shown) and min(shown) > 0 and max(shown) >= _LOG_FROM * min(shown),
        are_bands=any(row[3] < row[4] for row in rows),
        is_smoothed=smoothing > 0 and not by,
        has_points=len(rows) <= _AS_POINTS * max(len({row[0] for row in rows}), 1),
    )
    if x == "wall":
        rows = [[row[0], _instant(row[1]), *row[2:]] for row in rows]
    kinds = dict.fromkeys(("value", "low", "high", "raw"), "number")
    columns = {"name": "text", "x": "instant" if x == "wall" else "number", **kinds}
    return Picture(metric, told, chart, columns, rows, engine)


class _Line:
    """A run's curve as it is drawn; NaN where there is no value."""

    def __init__(self, x: FloatArray, curve: Curve, smoothing: float) -> None:
        self.x = x
        self.raw = np.array(curve.means, dtype=np.float64)
        self.low, self.high = (np.array(each, dtype=np.float64) for each in (curve.lows, curve.highs))
        self.value = _smoothed(self.raw, smoothing) if smoothing else self.raw

    def rows(self, name: str) -> list[list[Any]]:
        columns = (self.x, self.value, self.low, self.high, self.raw)
        return [[name, *map(float, row)] for row in zip(*columns, strict=True)]


def _line(curve: Curve, x: str, smoothing: float) -> _Line:
    at = np.array(curve.at_us, dtype=np.float64)
    match x:
        case "step":
            places = np.array(curve.steps, dtype=np.float64)
        case "time":
            places = (at - at.min()) / 1e6 if at.size else at
        case _:
            places = at
    return _Line(places, curve, smoothing)


def _smoothed(values: FloatArray, weight: float) -> FloatArray:
    """Give an exponentially weighted mean of each value and those before it; NaN stays, and counts for none.

    Divided by the weights so far, so that the beginning is not drawn to zero.
    """
    found = np.full(values.size, math.nan)
    held, weights = 0.0, 0.0
    for place, value in enumerate(values.tolist()):
        if math.isfinite(value):
            held, weights = weight * held + (1 - weight) * value, weight * weights + (1 - weight)
            found[place] = held / weights
    return found


def _band(group: Group, all_lines: Mapping[RunId, _Line]) -> list[list[Any]]:
    """Give mean, lowest and highest of runs along their places, between which each is a straight line."""
    told = (
        f"{each.partition('.')[2] or each} {value}" for each, value in group.key.items() if value is not None
    )
    name = f"{', '.join(told) or 'others'} ({len(group.runs)})"
    lines = [all_lines[run.id] for _, run in group.runs]
    places = np.unique(np.concatenate([each.x for each in lines]))
    if places.size > _GRID:
        places = places[np.linspace(0, places.size - 1, _GRID).round().astype(int)]
    layers = []
    for each in lines:
        known = np.isfinite(each.value)
        if known.any():
            order = np.argsort(each.x[known], kind="stable")
            at, values = each.x[known][order], each.value[known][order]
            layers.append(np.interp(places, at, values, left=math.nan, right=math.nan))
    if not layers:
        return []
    stacked = np.stack(layers)
    there = np.isfinite(stacked).any(axis=0)
    inside = stacked[:, there]
    mean, low, high = (function(inside, axis=0) for function in (np.nanmean, np.nanmin, np.nanmax))
    columns = (places[there], mean, low, high, mean)
    return [[name, *map(float, row)] for row in zip(*columns, strict=True)]


def _named(project: "Project", metric: str, runs: Sequence[str]) -> list[RunFigures]:
    ids = [project.runs.get(each).id for each in dict.fromkeys(runs)]
    with project.ledger.database.read() as connection:
        found = read_figures(connection, ids)
    having = [each for each in found if metric in each.metrics]
    if not having:
        raise NotFound("metric", metric, {name for each in found for name in each.metrics})
    return having


def _labels(runs: Sequence[RunFigures]) -> dict[RunId, str]:
    """Name runs by their names, and by the end of their ids where those are the same."""
    counts = Counter(each.name for each in runs)
    return {
        each.id: each.name if counts[each.name] == 1 else f"{each.name} ({each.id[-6:]})" for each in runs
    }


def _scaled(x: str, rows: list[list[Any]]) -> tuple[str, list[list[Any]]]:
    """Give the title of the horizontal axis, and the rows in its unit."""
    if x != "time":
        return _TITLES[x], rows
    longest = max((row[1] for row in rows), default=0.0)
    unit, size = next(each for each in _UNITS if longest >= each[2])[:2]
    return f"{unit} since its first point", [[row[0], row[1] / size, *row[2:]] for row in rows]


def _instant(at_us: float) -> datetime:
    return from_micros(int(at_us))


def _counted(shown: int, all_: int, what: str) -> str:
    noun = what if all_ == 1 else f"{what}s"
    return f"{all_:,} {noun}" if shown == all_ else f"{shown:,} of {all_:,} {noun}"
