"""`noria model compare`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.models.comparison import ModelComparison
    from noria.workspace.runs.comparison import Pair

__all__ = ["compare_models"]

_SHOWN = 12


def compare_models(
    one: Annotated[str, Parameter(name="MODEL")],
    other: Annotated[str, Parameter(name="OTHER")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Tell what two model versions differ in, and how both score the same requests.

    Parameters
    ----------
    one
        NAME, NAME:3, or NAME@production.
    other
        Likewise.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.models.compare(one, other)
    if options.json:
        screen.json(found)
        return
    screen.line(f"{found.one} and {found.other}", style="bold")
    _show_paired(found)
    _show_pairs(found, "Figures that were recorded", found.metrics)
    _show_inputs(found)
    _show_pairs(found, "What they learned from", {**found.window, **found.data})
    _show_shifts(found)
    _show_importance(found)
    _show_pairs(found, "Parameters", found.params)
    _show_code(found)
    _show_pairs(found, "Installed packages", found.distributions)
    _show_pairs(found, "Bytes", found.sizes)


def _show_paired(found: "ModelComparison") -> None:
    from noria.cli import screen

    screen.heading("On the same requests, which came after both had learned")
    paired = found.paired
    if paired is None:
        screen.line(f"Nothing: {found.unpaired}.")
        return
    screen.line(
        f"{screen.number(paired.rows)} answered requests with an outcome, of "
        f"{screen.count(paired.days, 'day')} from {screen.instant(paired.since)} to "
        f"{screen.instant(paired.until)}; intervals are of 95 %, days resampled."
    )
    rows = []
    for name, values in paired.metrics.items():
        if name in ("rows", "base_rate"):
            continue
        difference = paired.differences.get(name)
        told = (
            ""
            if difference is None
            else f"{difference.mean:+.4g} ({difference.low:+.4g} to {difference.high:+.4g})"
        )
        rows.append((name.replace("_", " "), values.one, values.other, told))
    screen.table(["", found.one, found.other, "difference"], rows, right=[found.one, found.other])


def _show_pairs(found: "ModelComparison", title: str, pairs: "Mapping[str, Pair]") -> None:
    from noria.cli import screen

    if not pairs:
        return
    screen.heading(title)
    rows = [(name, each.one, each.other) for name, each in pairs.items()]
    screen.table(["", found.one, found.other], rows)


def _show_inputs(found: "ModelComparison") -> None:
    from noria.cli import screen

    if found.inputs_added is None or found.inputs_removed is None:
        screen.heading("Inputs")
        screen.line("One of them has no signature on record.")
        return
    changes = [
        *((name, "-", "added") for name in found.inputs_added),
        *((name, "removed", "-") for name in found.inputs_removed),
        *((name, each.one, each.other) for name, each in found.inputs_changed.items()),
    ]
    if found.output is not None:
        changes.append(("the output", found.output.one, found.output.other))
    screen.heading("Inputs")
    if changes:
        screen.table(["", found.one, found.other], changes)
    else:
        screen.line("Both read the same.")


def _show_shifts(found: "ModelComparison") -> None:
    from noria.cli import screen

    if not found.shifts:
        return
    screen.heading("How far apart their training rows are")
    rows = [
        (
            each.column,
            screen.number(each.distance, 3),
            screen.number(each.usual, 3),
            each.means.one,
            each.means.other,
            f"{each.missing.one:.1%} / {each.missing.other:.1%}",
        )
        for each in found.shifts[:_SHOWN]
    ]
    columns = ["column", "distance", "usual", f"mean of {found.one}", f"of {found.other}", "missing"]
    screen.table(columns, rows, right=columns[1:])
    _show_left(len(found.shifts))
    screen.line(
        f"Jensen-Shannon distances, estimated from profiles; usual is what windows of {found.one}'s own "
        "rows reached."
    )


def _show_importance(found: "ModelComparison") -> None:
    from noria.cli import screen

    if not found.importance:
        return
    screen.heading("What they depend on: shares of all that inputs add")
    rows = [
        (name, *("-" if share is None else f"{share:.1%}" for share in (each.one, each.other)))
        for name, each in list(found.importance.items())[:_SHOWN]
    ]
    screen.table(["input", found.one, found.other], rows, right=[found.one, found.other])
    _show_left(len(found.importance))


def _show_left(count: int) -> None:
    from noria.cli import screen

    if count > _SHOWN:
        screen.line(f"and {count - _SHOWN} more; --json gives all.")


def _show_code(found: "ModelComparison") -> None:
    from noria.cli import screen

    screen.heading("Code")
    if found.code is None:
        screen.line("The same, or none is on record.")
        return
    screen.table(
        ["", found.one, found.other],
        [
            ("commit", found.code.commits.one, found.code.commits.other),
            ("uncommitted", found.code.diffs.one, found.code.diffs.other),
        ],
    )
    if found.files:
        screen.line(f"Files that differ between the commits: {', '.join(found.files)}")
