"""`noria run leaderboard`, `noria run importance`, `noria run picture`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.runs.leaderboards import Leaderboard, Place

__all__ = ["draw_runs", "leaderboard", "param_importance"]

_METRIC = Parameter(name="METRIC")
_BETTER = Parameter(name="--higher-is-better", negative="--lower-is-better")
_ID_LENGTH = 16  # of a run's id as lists show it
_SAME_SHOWN = 12


def leaderboard(
    metric: Annotated[str, _METRIC],
    /,
    *,
    by: Annotated[list[str] | None, Parameter(negative="")] = None,
    filter: str = "",
    experiment: Annotated[list[str] | None, Parameter(negative="")] = None,
    higher_is_better: Annotated[bool | None, _BETTER] = None,
    level: float = 0.95,
    limit: int = 20,
    options: Options = DEFAULT,
) -> None:
    """Rank what was tried by the mean of a metric over seeds and folds, with how sure that is.

    Parameters
    ----------
    metric
        Its name.
    by
        What makes a configuration, such as params.depth or tags.model; may be given several times.
        Default: every parameter but seeds and folds.
    filter
        Such as "params.model = 'lgbm'".
    experiment
        Its name; may be given several times. Default: all.
    higher_is_better
        Which way is better. Default: guessed from the metric's name.
    level
        Of the intervals.
    limit
        At most so many lines; 0 gives all.
    """
    from noria.cli import screen
    from noria.workspace.runs.leaderboards import leaderboard_of

    with options.open() as project:
        found = leaderboard_of(
            project, metric, by=by or (), filter=filter, experiments=experiment or None,
            higher_is_better=higher_is_better, level=level,
        )  # fmt: skip
    if options.json:
        screen.json(found)
        return
    if not found.places:
        screen.line(
            f"No run that is finished has a finite {metric}."
            if found.runs
            else "There is no such run; only what is finished counts, unless the filter names a status."
        )
        return
    names = [*found.places[0].what]
    columns = ["", *names, metric, f"{found.level:.0%} interval", "n", "to the best", "best run"]
    shown = found.places[: max(limit, 0) or None]
    screen.table(columns, [_row(each, names) for each in shown], right=["", metric, "n"])
    if len(shown) < len(found.places):
        screen.line(f"and {len(found.places) - len(shown):,} more; --limit 0 gives all")
    screen.line()
    for each in _notes(found):
        screen.line(each)


def _row(place: "Place", names: list[str]) -> tuple[str, ...]:
    interval = "-" if place.interval is None else f"{place.interval.low:.4g} to {place.interval.high:.4g}"
    what = (place.what[name] for name in names)
    return (
        str(place.rank),
        *("-" if each is None else each for each in what),
        f"{place.mean:.6g}",
        interval,
        str(place.n),
        _against_best(place),
        place.best_run[:_ID_LENGTH],
    )


def _against_best(place: "Place") -> str:
    if place.difference is None:
        return "" if place.ties_with_best else "unknown"
    found = place.difference
    tie = ", ties" if place.ties_with_best else ""
    return f"{found.mean:+.4g} ({found.low:+.3g} to {found.high:+.3g}){tie}"


def _notes(found: "Leaderboard") -> list[str]:
    from noria.cli import screen

    told = [f"{screen.count(found.runs, 'run')}; {found.direction}. Intervals: {found.interval}."]
    if found.same:
        some = [f"{name} {value}" for name, value in list(found.same.items())[:_SAME_SHOWN]]
        more = f", and {len(found.same) - _SAME_SHOWN} more" if len(found.same) > _SAME_SHOWN else ""
        told.append(f"The same in all: {', '.join(some)}{more}.")
    if found.without:
        told.append(f"Without {found.metric}: {screen.count(found.without, 'run')}.")
    left_out = sum(each.left_out for each in found.places)
    if left_out or found.unranked:
        told.append(
            f"NaN, infinite or too large, and left out: {screen.count(left_out, 'value')}, beside "
            f"{screen.count(found.unranked, 'configuration')} with no others."
        )
    if found.places[0].n == 1 and len(found.places) > 1:
        told.append("The first ran once: repeat it with other seeds to know whether it is the best.")
    if found.is_cut:
        told.append(
            f"There are more runs than the {found.runs:,} newest that were looked at; a filter helps."
        )
    return told


def param_importance(
    metric: Annotated[str, _METRIC],
    /,
    *,
    filter: str = "",
    experiment: Annotated[list[str] | None, Parameter(negative="")] = None,
    seed: int = 0,
    options: Options = DEFAULT,
) -> None:
    """Tell which parameters explain a metric over runs.

    Parameters
    ----------
    metric
        Its name.
    filter
        Such as "params.model = 'lgbm'".
    experiment
        Its name; may be given several times. Default: all.
    seed
        The same seed and runs give the same answer.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.runs.param_importance(
            metric, filter=filter, experiments=experiment or None, seed=seed
        )
    if options.json:
        screen.json(found)
        return
    if found.params:
        rows: list[tuple[str, ...]] = [
            (
                each.name,
                f"{each.importance:.3f}",
                f"{each.interval.low:.3f} to {each.interval.high:.3f}",
                "yes" if each.stands_out else "",
                f"{each.kind}, {screen.count(each.values, 'value')}"
                + (f", {each.missing} without" if each.missing else ""),
                ", ".join(each.alike),
            )
            for each in found.params
        ]
        columns = ["parameter", "importance", "95% interval", "stands out", "kind", "not told apart from"]
        if not any(each.alike for each in found.params):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        screen.table(columns, rows, right=["importance"])
        screen.line()
    screen.line(f"{found.told[:1].upper()}{found.told[1:]}.")
    for name, why in found.left_out.items():
        screen.line(f"Left out: {name}, {why}.")


def draw_runs(
    kind: Annotated[str, Parameter(name="KIND")],
    metric: Annotated[str, _METRIC],
    /,
    *,
    out: Path,
    run: Annotated[list[str] | None, Parameter(negative="")] = None,
    param: Annotated[list[str] | None, Parameter(negative="")] = None,
    by: Annotated[list[str] | None, Parameter(negative="")] = None,
    x: Literal["step", "time", "wall"] = "step",
    smoothing: float = 0.0,
    filter: str = "",
    experiment: Annotated[list[str] | None, Parameter(negative="")] = None,
    higher_is_better: Annotated[bool | None, _BETTER] = None,
    scheme: Literal["light", "dark"] = "light",
    options: Options = DEFAULT,
) -> None:
    """Draw runs: curves, importance, leaderboard, parallel or scatter.

    Parameters
    ----------
    kind
        curves: the metric along runs; parallel: runs across their parameters; scatter: the metric by one;
        leaderboard, importance: what the commands of these names tell.
    metric
        Its name.
    out
        A file that ends with .svg, .png, .html or .json.
    run
        Of curves: its id, or the beginning of it; may be given several times. Default: the newest.
    param
        Of parallel: which, may be given several times. Of scatter: the one.
    by
        Of curves and leaderboard: what makes a group, such as params.depth; may be given several times.
    x
        Of curves: step, time since the first point, or wall, the instant.
    smoothing
        Of curves: from 0 to below 1.
    filter
        Such as "params.model = 'lgbm'".
    experiment
        Its name; may be given several times. Default: all.
    higher_is_better
        Of leaderboard. Default: guessed from the metric's name.
    scheme
        Of SVG and PNG; a page follows its reader.
    """
    from noria.cli import screen
    from noria.errors import ConfigError, NotFound

    kinds = ("curves", "importance", "leaderboard", "parallel", "scatter")
    if kind not in kinds:
        raise NotFound("kind of picture", kind, kinds)
    params, groups = param or [], by or []
    with options.open() as project:
        pictures = project.runs.pictures
        found, experiments = filter, experiment or None
        match kind:
            case "curves":
                made = pictures.curves(
                    metric, runs=run or (), by=groups, x=x, smoothing=smoothing, filter=found,
                    experiments=experiments,
                )  # fmt: skip
            case "parallel":
                made = pictures.parallel(metric, params=params, filter=found, experiments=experiments)
            case "scatter":
                if len(params) != 1:
                    raise ConfigError(f"scatter takes one --param, found {len(params)}; name the one")
                made = pictures.scatter(params[0], metric, filter=found, experiments=experiments)
            case "leaderboard":
                made = pictures.leaderboard(
                    metric,
                    by=groups,
                    filter=found,
                    experiments=experiments,
                    higher_is_better=higher_is_better,
                )
            case _:
                made = pictures.importance(metric, filter=found, experiments=experiments)
        file = made.save(out, scheme=scheme)
    if options.json:
        screen.json({"file": str(file), "title": made.title, "description": made.description})
    else:
        screen.line(f"{file}: {made.title}, {made.description}")
