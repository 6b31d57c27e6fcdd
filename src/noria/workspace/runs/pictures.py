"""Pictures of runs: learning curves, parallel coordinates, a leaderboard, importances, one parameter."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from noria.errors import NotFound
from noria.evaluation.surrogates import Column, read_column
from noria.tracking.figures import RunFigures
from noria.workspace.runs.charts import bars_chart, parallel_chart, places_chart, scatter_chart
from noria.workspace.runs.choice import MOST_RUNS, Chosen, choose_runs, several
from noria.workspace.runs.groups import is_repeat
from noria.workspace.runs.importance import importance_of
from noria.workspace.runs.leaderboards import leaderboard_of
from noria.workspace.runs.picture import Picture

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["RunPictures"]

_LINES, _POINTS, _PLACES = 400, 4_000, 30  # of a picture; more are thinned out evenly by the metric
_AXES = 8
_CATEGORIES = 24
_LABEL_CHARS = 60
_LOG_FROM = 1_000.0  # times the smallest: what lies below would be one line
_NOWHERE = -0.1  # of an axis, where a run has no value
_TICKS = 5

Axis = Literal["step", "time", "wall"]


class RunPictures:
    """Pictures of a project's runs; `project.runs.pictures` gives it.

    Every method takes `filter` and `experiments` as `project.runs.search` does; only what is finished is
    drawn, unless the filter says something of `status`. Raises `NotFound` and `BadFilter` like it.

    Parameters
    ----------
    most
        How many runs are looked at, the newest; of `curves` and `leaderboard` the default many.
    """

    def __init__(self, project: "Project", *, most: int = MOST_RUNS) -> None:
        self._project, self._most = project, most

    def curves(
        self,
        metric: str,
        *,
        runs: str | Iterable[str] = (),
        by: str | Sequence[str] = (),
        x: Axis = "step",
        smoothing: float = 0.0,
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
        limit: int = 8,
    ) -> Picture:
        """Draw a metric along several runs.

        Parameters
        ----------
        runs
            Their ids, or beginnings of them, finished or not; default: the newest that are found.
        by
            Such as `params.model`: a line for each group of runs that have it in common, in a band from the
            lowest to the highest of them.
        x
            `step`; `time` since the run's first point; `wall`, the instant.
        smoothing
            0 to 1, exclusive: how much of what was before stays in each point.
        limit
            Lines at most.
        """
        from noria.workspace.runs.curves import curves_of

        return curves_of(
            self._project, metric, runs=several(runs), by=several(by), x=x, smoothing=smoothing,
            filter=filter, experiments=experiments, limit=limit, engine=self._engine,
        )  # fmt: skip

    def parallel(
        self,
        metric: str,
        *,
        params: str | Sequence[str] = (),
        metrics: str | Sequence[str] = (),
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
    ) -> Picture:
        """Draw each run as a line across its parameters to its metric, which gives the colour.

        Parameters
        ----------
        params
            Which, in this order; default: the first eight in which runs differ, by name.
        metrics
            More of them, before the last axis.
        """
        more = [each for each in several(metrics) if each != metric]
        chosen = self._chosen([metric, *more], filter, experiments)
        finite, unfit = _finite(chosen.runs, metric)
        names, others = _params(finite, several(params))
        drawn = _thinned(finite, metric, _LINES)
        axes = [_axis(each, [run.params.get(each) for run in drawn]) for each in names]
        for each in (*more, metric):
            texts = [repr(run.metrics[each]) if _is_finite(run, each) else None for run in drawn]
            axes.append(_axis(f"{each} (metric)" if each in names else each, texts))
        rows = [
            [run.id, _name(run), axis.name, axis.places[place], axis.texts[place], run.metrics[metric]]
            for place, run in enumerate(drawn)
            for axis in axes
        ]
        has_missing = any(None in axis.texts for axis in axes)
        told = [_counted(len(drawn), len(finite)), *_cut(chosen), *_unfit(unfit, metric)]
        told += [f"{others} more parameters differ; params chooses"] if others else []
        return self._picture(
            metric,
            ", ".join(told),
            parallel_chart(
                [axis.name for axis in axes],
                [tick for axis in axes for tick in axis.ticks],
                metric,
                has_missing=has_missing,
                opacity=max(0.25, min(0.85, 30 / max(len(drawn), 1))),
            ),
            {
                "run": "text",
                "name": "text",
                "axis": "text",
                "at": "number",
                "value": "text",
                "colour": "number",
            },
            rows,
        )

    def leaderboard(
        self,
        metric: str,
        *,
        by: str | Sequence[str] = (),
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
        higher_is_better: bool | None = None,
        level: float = 0.95,
    ) -> Picture:
        """Draw the first of `project.runs.leaderboard` with their intervals."""
        found = leaderboard_of(
            self._project, metric, by=by, filter=filter, experiments=experiments,
            higher_is_better=higher_is_better, level=level,
        )  # fmt: skip
        shown = found.places[:_PLACES]
        names = _distinct(_short(_what(each.what)) for each in shown)
        rows = []
        for place, name in zip(shown, names, strict=True):
            interval, gap = place.interval, place.difference
            standing = {True: "ties with it", False: "behind it", None: "unknown"}[place.ties_with_best]
            rows.append([
                name, place.mean, interval and interval.low, interval and interval.high, place.n,
                "-" if gap is None else f"{gap.mean:+.4g} ({gap.low:+.3g} to {gap.high:+.3g})",
                "the best" if place is shown[0] else standing,
            ])  # fmt: skip
        told = f"{_counted(len(shown), len(found.places), 'configuration')}, {found.direction}"
        kinds = dict.fromkeys(("mean", "low", "high", "n"), "number")
        columns = {"name": "text", **kinds, "difference": "text", "standing": "text"}
        return self._picture(metric, told, places_chart(metric, len(rows), level=level), columns, rows)

    def importance(
        self,
        metric: str,
        *,
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> Picture:
        """Draw `project.runs.param_importance`; where nothing can be said it is empty and says why."""
        found = importance_of(
            self._project, metric, filter=filter, experiments=experiments, seed=seed, limit=self._most
        )
        shown = found.params[:_PLACES]
        names = _distinct(_short(" = ".join([each.name, *each.alike])) for each in shown)
        rows = [
            [
                name, each.importance, each.interval.low, each.interval.high,
                "stands out" if each.stands_out else "may be chance", each.kind,
            ]
            for name, each in zip(names, shown, strict=True)
        ]  # fmt: skip
        kinds = dict.fromkeys(("importance", "low", "high"), "number")
        columns = {"name": "text", **kinds, "standing": "text", "kind": "text"}
        return self._picture(metric, found.told, bars_chart(len(rows)), columns, rows)

    def scatter(
        self,
        param: str,
        metric: str,
        *,
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
    ) -> Picture:
        """Draw each run as a point: a parameter and a metric."""
        chosen = self._chosen([metric], filter, experiments)
        finite, unfit = _finite(chosen.runs, metric)
        having = [each for each in finite if param in each.params]
        if finite and not having:
            raise NotFound("parameter", param, {name for each in finite for name in each.params})
        drawn = _thinned(having, metric, _POINTS)
        texts = [each.params[param] for each in drawn]
        column = read_column(texts)
        values = [_short(each) if column.kind == "category" else float(each) for each in texts]
        rows = [[_name(run), x, run.metrics[metric]] for run, x in zip(drawn, values, strict=True)]
        told = [_counted(len(drawn), len(having)), *_cut(chosen), *_unfit(unfit, metric)]
        if len(having) < len(finite):
            told.append(f"{len(finite) - len(having):,} without {param}")
        kind = "text" if column.kind == "category" else "number"
        chart = scatter_chart(
            param,
            metric,
            kind=column.kind,
            categories=list(dict.fromkeys(map(_short, column.categories))),
            is_log=spans_much(each.metrics[metric] for each in drawn),
        )
        return self._picture(
            f"{metric} by {param}", ", ".join(told), chart, {"name": "text", "x": kind, "y": "number"}, rows
        )

    def _chosen(self, metrics: Sequence[str], filter: str, experiments: str | Sequence[str] | None) -> Chosen:
        return choose_runs(self._project, metrics, filter=filter, experiments=experiments, limit=self._most)

    @property
    def _engine(self) -> Path:
        return self._project.state / "dashboards" / "engine"

    def _picture(
        self, title: str, told: str, chart: dict[str, Any], columns: dict[str, str], rows: list[list[Any]]
    ) -> Picture:
        return Picture(title, told, chart, columns, rows, self._engine)


class _Axis:
    """An upright axis of parallel coordinates: where each run crosses it, and its marks."""

    def __init__(self, name: str, column: Column, texts: Sequence[str | None]) -> None:
        self.name, self.texts = name, texts
        codes = column.codes
        there = codes[~np.isnan(codes)]
        low, high = (float(there.min()), float(there.max())) if there.size else (0.0, 0.0)
        span = high - low
        if column.kind == "category" or not span or not math.isfinite(span):
            different = sorted({*there.tolist()})
            marks = {each: (place + 0.5) / len(different) for place, each in enumerate(different)}
            labels = {
                each: column.categories[int(each)] if column.categories else _number(each, column)
                for each in different
            }
            self.places = [_NOWHERE if math.isnan(each) else marks[each] for each in codes.tolist()]
            ticks = [(marks[each], labels[each]) for each in different]
        else:
            self.places = [_NOWHERE if math.isnan(each) else (each - low) / span for each in codes.tolist()]
            inner = [low + span * place / (_TICKS - 1) for place in range(_TICKS)]
            ticks = [((each - low) / span, _number(each, column)) for each in inner]
        if None in texts:
            ticks.append((_NOWHERE, "none"))
        self.ticks = [{"axis": name, "at": at, "label": _short(label)} for at, label in ticks]


def _axis(name: str, texts: Sequence[str | None]) -> _Axis:
    return _Axis(name, read_column(texts), texts)


def _number(value: float, column: Column) -> str:
    return f"{10**value if column.kind == 'log' else value:.3g}"


def _params(runs: Sequence[RunFigures], wanted: Sequence[str]) -> tuple[list[str], int]:
    """Give the parameters that are drawn, and how many others differ."""
    values: dict[str, set[str | None]] = {}
    for run in runs:
        for name in run.params:
            values.setdefault(name, set())
    for name, seen in values.items():
        seen.update(run.params.get(name) for run in runs)
    if wanted:
        missing = [each for each in wanted if each not in values]
        if missing and runs:
            raise NotFound("parameter", missing[0], values)
        return [*wanted], 0
    differing = [
        name
        for name, seen in sorted(values.items())
        if len(seen) > 1 and not is_repeat(name) and (len(seen) <= _CATEGORIES or _are_numbers(seen))
    ]
    return differing[:_AXES], max(len(differing) - _AXES, 0)


def _are_numbers(texts: set[str | None]) -> bool:
    return read_column(sorted(each for each in texts if each is not None)).kind != "category"


def _is_finite(run: RunFigures, metric: str) -> bool:
    return math.isfinite(run.metrics.get(metric, math.nan))


def _finite(runs: Sequence[RunFigures], metric: str) -> tuple[list[RunFigures], int]:
    found = [each for each in runs if _is_finite(each, metric)]
    return found, len(runs) - len(found)


def _thinned(runs: Sequence[RunFigures], metric: str, most: int) -> list[RunFigures]:
    """Give runs by their metric, of many an even choice with the lowest and the highest."""
    ordered = sorted(runs, key=lambda each: (each.metrics[metric], each.id))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (most - 1))] for place in range(most)]


def spans_much(values: Iterable[float]) -> bool:
    """Tell whether positive values range so widely that a logarithmic axis shows more of them."""
    found = [*values]
    return bool(found) and min(found) > 0 and max(found) / min(found) >= _LOG_FROM


def _counted(shown: int, all_: int, what: str = "run") -> str:
    noun = what if all_ == 1 else f"{what}s"
    return f"{all_:,} {noun}" if shown == all_ else f"{shown:,} of {all_:,} {noun}"


def _cut(chosen: Chosen) -> list[str]:
    return ["there are older ones that were not looked at"] if chosen.is_cut else []


def _unfit(count: int, metric: str) -> list[str]:
    return [f"{count:,} whose {metric} is NaN or infinite left out"] if count else []


def _what(what: dict[str, str | None]) -> str:
    told = [f"{name.partition('.')[2] or name} {value}" for name, value in what.items() if value is not None]
    return ", ".join(told) or "all runs"


def _name(run: RunFigures) -> str:
    return f"{_short(run.name)} ({run.id[-6:]})"


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_CHARS else f"{text[: _LABEL_CHARS - 1]}…"


def _distinct(names: Iterable[str]) -> list[str]:
    """Tell names apart that were cut down to the same."""
    seen: dict[str, int] = {}
    found = []
    for each in names:
        seen[each] = seen.get(each, 0) + 1
        found.append(each if seen[each] == 1 else f"{each} ({seen[each]})")
    return found
