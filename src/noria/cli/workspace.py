"""`noria init`, `noria status`, `noria doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEBUG, DEFAULT, JSON, Options

if TYPE_CHECKING:
    from noria.pipelines.records import AtWork
    from noria.workspace.status import ProjectStatus

__all__ = ["doctor", "init", "status"]


def init(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    template: str = "empty",
    json: Annotated[bool, JSON] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Make a project that runs; nothing is ever overwritten.

    Parameters
    ----------
    folder
        Where; made if it is not there.
    template
        `empty`; `pipeline`: from a file to a report, in steps; `customers`: features and a model of who buys
        again; or `flights`: the project of the demo, to read and to copy.
    """
    from noria.cli import screen
    from noria.workspace.creation import create_project

    files = create_project(folder, template=template)
    if json:
        screen.json({"project": str(folder), "template": template, "files": [each.name for each in files]})
        return
    screen.line(f"A project from the template {template!r} is in {folder}:")
    for each in files:
        screen.line(f"  {each.name}")
    screen.line()
    screen.line(f"Next: cd {folder}, read {files[-2].name}, then `noria status`.")


def status(*, options: Options = DEFAULT) -> None:
    """Tell where the project stands: data, pipelines, models at work, runs, what was left unfinished."""
    from noria.cli import screen
    from noria.workspace.status import project_status

    with options.open() as project:
        found = project_status(project)
    if options.json:
        screen.json(found)
        return
    screen.line(f"Project {found.project} in {found.root}", style="bold")
    _show_replays(found)
    _show_datasets(found)
    _show_pipelines(found)
    _show_deployments(found)
    _show_monitors(found)
    _show_runs(found)
    _show_next(found)


def doctor(*, options: Options = DEFAULT) -> int:
    """Look machine and project over; each check says what was found and what to do about it.

    Ends with 1 if a check failed, else with 0.
    """
    from noria.cli import screen
    from noria.workspace.doctor import Health, examine

    failed, warned = 0, 0
    found = []
    for each in examine(options.project):
        found.append(each)
        failed += each.health is Health.FAIL
        warned += each.health is Health.WARN
        if not options.json:
            screen.finding(each.health, each.check, each.found, each.todo)
    if options.json:
        screen.json({"ok": not failed, "findings": found})
    else:
        told = "All is well." if not failed + warned else f"{failed} failed, {warned} to look at."
        screen.line()
        screen.line(told)
    return 1 if failed else 0


def _show_replays(found: "ProjectStatus") -> None:
    from noria.cli import screen

    for each in found.replays:
        if each.until is None:
            told = f"not begun; it goes from {each.start:%Y-%m-%d} to {each.end:%Y-%m-%d}"
        elif each.is_finished:
            told = f"finished, {each.start:%Y-%m-%d} to {each.end:%Y-%m-%d}"
        else:
            told = f"stands at {each.until:%Y-%m-%d}, goes to {each.end:%Y-%m-%d}: `noria replay` goes on"
        screen.line(f"Replay {each.name}: {told}")


def _show_datasets(found: "ProjectStatus") -> None:
    from noria.cli import screen

    if not found.datasets:
        if not found.pipelines:
            screen.line("No dataset is declared.")
        return
    screen.heading("Datasets")
    rows = [
        (
            each.name,
            screen.number(each.version),
            screen.number(each.rows),
            each.batch,
            screen.instant(each.at),
        )
        for each in found.datasets
    ]
    screen.table(
        ["name", "version", "rows", "last batch", "landed"], rows, right=["version", "rows", "last batch"]
    )
    for each in found.datasets:
        if each.blocked:
            screen.line(f"{each.name}: the newest batch is blocked: {'; '.join(each.blocked)}")
        if each.stale:
            screen.line(f"{each.name} is stale: {each.stale}")
        if each.unreadable:
            screen.line(f"{each.name}: whether it is fresh cannot be told: {each.unreadable}")
    for view in found.features:
        if view.online == "other":
            screen.line(f"feature view {view.view} is kept online as it was defined before")
        if view.is_stale:
            screen.line(f"feature view {view.view} is stale: {view.told()}")
    if found.online_error is not None:
        screen.line(f"the online store cannot be read: {found.online_error}")


def _show_pipelines(found: "ProjectStatus") -> None:
    from noria.cli import screen

    if not found.pipelines:
        return
    screen.heading("Pipelines")
    rows = [
        (
            each.name,
            "-" if each.last is None else each.last.state,
            None if each.last is None else each.last.started_at,
            "-" if each.last is None else _told_steps(each.last.steps),
            None if each.next is None else each.next.at,
        )
        for each in found.pipelines
    ]
    screen.table(["name", "last run", "at", "steps", "next"], rows)
    for each in found.pipelines:
        for task in () if each.last is None else each.last.at_work:
            screen.line(f"At work: {each.name}/{task.task} since {screen.instant(task.since)}{_far(task)}")
    if any(each.next is not None for each in found.pipelines):
        screen.line("`noria up` acts on schedules.")


def _far(task: "AtWork") -> str:
    """Say how far a step says that it is."""
    done = "" if task.done is None else f", {task.done:g}"
    total = f" of {task.total:g}" if done and task.total else ""
    return f"{done}{total}" + (f": {task.note}" if task.note else "")


def _told_steps(steps: dict[str, int]) -> str:
    """Say how many steps ran, were kept, failed."""
    told = [f"{count:,} {'kept' if state == 'cached' else state}" for state, count in steps.items()]
    return ", ".join(told) or "-"


def _show_deployments(found: "ProjectStatus") -> None:
    from noria.cli import screen

    if not found.deployments:
        if found.declared["trainings"]:
            screen.heading("Models at work")
            screen.line("None yet.")
        return
    screen.heading("Models at work")
    rows = [
        (
            each.environment,
            each.model,
            screen.instant(each.since),
            "-" if each.on_trial is None else f"{each.on_trial} ({screen.share(each.share)})",
            each.reason,
        )
        for each in found.deployments
    ]
    screen.table(["environment", "model", "since", "on trial", "last move"], rows, wrap="last move")
    for each in found.deployments:
        if each.trial is not None:
            screen.line(f"On trial at {each.environment}/{each.deployment}: {each.trial}")
        if each.verified is not None:
            told = f"{each.environment}/{each.deployment} at {screen.instant(each.verified.at)}: "
            screen.line(told + each.verified.found, style="bold" if each.verified.is_broken else "")


def _show_monitors(found: "ProjectStatus") -> None:
    from noria.cli import screen

    for report in found.monitors:
        screen.heading(
            f"Monitor {report.monitor}, last report of {screen.instant(report.at)} "
            f"({report.environment}, {report.version_ref}, {screen.number(report.rows)} rows)"
        )
        marks = {True: "ok", False: "out", None: "-"}
        rows = [(each.name, marks[each.passed], each.detail) for each in report.checks]
        screen.table(["check", "", "found"], rows, wrap="found")


def _show_runs(found: "ProjectStatus") -> None:
    from noria.cli import screen

    if not found.runs:
        return
    screen.heading("Runs")
    states = ("finished", "running", "failed", "cancelled", "killed")
    here = [state for state in states if any(state in counts for counts in found.runs.values())]
    rows = [
        (kind, *(screen.number(counts.get(state, 0)) for state in here))
        for kind, counts in found.runs.items()
    ]
    screen.table(["kind", *here], rows, right=here)
    if found.killed:
        screen.heading("Killed, and not done again since")
        killed = [
            (run.id[:16], run.kind, run.name, screen.instant(run.at), run.error or "") for run in found.killed
        ]
        screen.table(["run", "kind", "name", "at", "what is known"], killed, wrap="what is known")
    if found.unfinished:
        screen.heading("Decided, and not finished yet")
        open_ones = [(screen.instant(each.at), each.run, each.reason) for each in found.unfinished]
        screen.table(["at", "run", "because"], open_ones, wrap="because")


def _show_next(found: "ProjectStatus") -> None:
    from noria.cli import screen

    screen.line()
    if found.events:
        screen.line(f"{screen.number(found.events)} events are on record; `noria ledger verify` proves them.")
    elif found.replays:
        screen.line("Nothing is recorded yet; `noria replay` begins.")
    elif found.declared["pipelines"]:
        name = found.declared["pipelines"][0]
        screen.line(f"Nothing is recorded yet; `noria pipeline run {name}` begins.")
    else:
        screen.line("Nothing is recorded yet; `noria ingest DATASET FILE` takes in a file.")
