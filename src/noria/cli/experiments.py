"""`noria run search`, `noria run diff`."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.runs.comparison import Pair, RunDifference

__all__ = ["diff_runs", "search_runs"]

_ID_LENGTH = 16  # of a run's id as lists show it
_SHOWN = 4  # figures of a run, in a list


def search_runs(
    filter: Annotated[str, Parameter(name="FILTER")] = "",
    /,
    *,
    experiment: Annotated[list[str] | None, Parameter(negative="")] = None,
    order_by: Annotated[list[str] | None, Parameter(negative="")] = None,
    limit: int = 20,
    options: Options = DEFAULT,
) -> None:
    """Find runs of experiments, the newest first.

    Parameters
    ----------
    filter
        Such as "metrics.auc > 0.7 AND params.model = 'lgbm' AND tags.team LIKE 'a%'".
    experiment
        Its name; may be given several times. Default: all.
    order_by
        Such as "metrics.auc DESC"; may be given several times.
    limit
        At most so many.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.runs.search(filter, experiments=experiment, order_by=order_by or (), limit=limit)
        table = project.runs.compare([each.id for each in found])
    if options.json:
        screen.json(screen.with_odd_numbers(table.to_pylist()))
        return
    if not found:
        screen.line("There is no such run.")
        return
    columns = ["run", "name", "state", "started", "metrics", "parameters"]
    asked = " ".join([filter, *(order_by or ())])
    screen.table(columns, [_row(each, asked) for each in table.to_pylist()], wrap="parameters")


def diff_runs(
    one: Annotated[str, Parameter(name="RUN")],
    other: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Tell what two runs differ in: parameters, metrics, tags, code, packages, data.

    Parameters
    ----------
    one
        Its id, or the beginning of it.
    other
        The same of another one.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.runs.diff(one, other)
    if options.json:
        screen.json(screen.with_odd_numbers(found))
        return
    if found.is_none:
        screen.line("They are alike in all that is on record of them.")
        return
    rows = list(_differences(found))
    screen.table(["", "what", found.one[:_ID_LENGTH], found.other[:_ID_LENGTH]], rows)


def _differences(found: "RunDifference") -> Any:
    parts: dict[str, dict[str, Pair]] = {
        "parameter": found.params,
        "metric": found.metrics,
        "tag": found.tags,
        "data": found.inputs,
        "package": found.distributions,
    }
    if found.code is not None:
        yield ("code", "commit", _told(found.code.commits.one), _told(found.code.commits.other))
        yield ("code", "not committed", _told(found.code.diffs.one), _told(found.code.diffs.other))
    if found.seed is not None:
        yield ("seed", "", _told(found.seed.one), _told(found.seed.other))
    for what, pairs in parts.items():
        for name, pair in pairs.items():
            yield (what, name, _told(pair.one), _told(pair.other))


def _told(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else value


def _row(run: dict[str, Any], asked: str) -> tuple[str, ...]:
    from noria.cli import screen

    return (
        run["run"][:_ID_LENGTH],
        run["name"],
        run["state"],
        screen.instant(run["started_at"]),
        _figures(run, "metrics.", asked),
        _figures(run, "params.", asked),
    )


def _figures(run: dict[str, Any], prefix: str, asked: str) -> str:
    """Give the first figures of a run: those that are asked about, then others."""
    names = [name for name, value in run.items() if name.startswith(prefix) and value is not None]
    names.sort(key=lambda name: name not in asked)
    found = [f"{name.removeprefix(prefix)} {_told(run[name])}" for name in names]
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
