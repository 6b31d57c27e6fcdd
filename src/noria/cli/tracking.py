"""`noria run list`, `noria run show`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.pipelines.accounts import RunAccount
    from noria.pipelines.records import Progress
    from noria.records import Event, Run, Version

__all__ = ["list_runs", "show_run"]

_ID_LENGTH = 16  # of a run's id as lists show it
_KINDS = ("ingest", "monitor", "pipeline", "step", "train")  # others may be on record as well
_CHARS = 120  # of what came of a run, in a list


def list_runs(
    *,
    kind: str | None = None,
    name: str | None = None,
    state: str | None = None,
    limit: int = 20,
    options: Options = DEFAULT,
) -> None:
    """List what ran, newest first; steps of pipelines only with --kind step, or by name.

    Runs whose process is gone are marked as killed on the way.

    Parameters
    ----------
    kind
        Such as ingest, train, monitor, pipeline, step; one that there is not is refused.
    name
        Of the dataset, model or monitor.
    state
        running, finished, failed, cancelled or killed.
    limit
        At most so many; 0 gives all.
    """
    from noria.cli import screen
    from noria.cli.run_screens import took
    from noria.errors import NotFound
    from noria.records import RunState

    if state is not None and state not in set(RunState):
        raise NotFound("state", state, map(str, RunState))
    with options.open() as project:
        if kind is not None and kind not in _KINDS and kind not in (known := project.runs.kinds()):
            raise NotFound("kind", kind, known or _KINDS)
        project.ledger.mark_killed()
        runs = project.ledger.list_runs(
            kind=kind, name=name, state=None if state is None else RunState(state), limit=limit or None,
            with_steps=kind is not None or name is not None,
        )  # fmt: skip
        at_work = {
            each.id: project.runs.progress(each)
            for each in runs
            if each.state is RunState.RUNNING and each.kind == "pipeline" and not options.json
        }
    if options.json:
        screen.json(screen.with_odd_numbers(runs))
        return
    if not runs:
        screen.line("There is no such run." if kind or name or state else "Nothing ran yet.")
        return
    rows = [
        (
            each.id[:_ID_LENGTH],
            each.kind,
            each.name,
            str(each.state),
            screen.instant(each.at),
            took(each),
            _figures(each, at_work.get(each.id)),
        )
        for each in runs
    ]
    columns = ["run", "kind", "name", "state", "at", "took", "what came of it"]
    screen.table(columns, rows, right=["took"], wrap="what came of it")


def show_run(run: Annotated[str, Parameter(name="RUN")], /, *, options: Options = DEFAULT) -> None:
    """Show a run: what it read and wrote, its parameters and metrics, code, cost and cause.

    Of a pipeline: its steps with their attempts and costs, and what it gave.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    """
    from noria.cli import screen
    from noria.records import RunState
    from noria.tracking.remote.hearing import heard_of

    with options.open() as project:
        ledger = project.ledger
        ledger.mark_killed()
        found = project.runs.get(run)
        cause = None if found.cause is None else ledger.get_event(found.cause)
        if found.kind == "pipeline":
            account = project.runs.account(found)
            if options.json:
                screen.json({"run": screen.with_odd_numbers(found), "cause": cause} | _whole(account))
            else:
                _show_pipeline_run(account, cause)
            return
        edges = ledger.list_edges(run=found.id)
        versions = [(edge.role, ledger.get_version_by_id(edge.version)) for edge in edges]
        parent = None if found.parent is None else ledger.get_run(found.parent)
        heard = heard_of(ledger.database, found.id) if found.state is RunState.RUNNING else None
    if options.json:
        screen.json({
            "run": screen.with_odd_numbers(found), "cause": cause,
            "inputs": [each for role, each in versions if role == "input"],
            "outputs": [each for role, each in versions if role == "output"],
            **({} if heard is None else {"heard_of": {"process": str(heard.holder), "at": heard.at}}),
        })  # fmt: skip
        return
    _show_other_run(found, parent, cause, versions, None if heard is None else str(heard))


def _whole(account: "RunAccount") -> dict[str, object]:
    """Give all that is told of a pipeline's run, but the run."""
    return {
        "params": account.params, "counts": account.counts, "value": account.value, "steps": account.steps,
        "inputs": account.inputs, "outputs": account.outputs,
        "kept": account.kept, "progress": account.progress,
    }  # fmt: skip


def _show_pipeline_run(account: "RunAccount", cause: "Event | None") -> None:
    from noria.cli import screen
    from noria.cli.run_screens import block, counts_told, params_told, show_steps, show_versions, took

    run = account.run
    now = sum(each.cost.cpu_s for each in account.steps if each.cost is not None)
    screen.line(f"Run {run.id}", style="bold")
    screen.facts({
        "what": f"pipeline {run.name}", "called with": params_told(account.params) or None,
        "state": run.state, "steps": counts_told(account.counts) or None, "gave": account.value,
        "at": run.at, "attempt": run.attempt, "started (wall)": f"{run.started_at:%Y-%m-%d %H:%M:%S}",
        "took": took(run), "cpu of its steps": f"{now:.2f} s", "executor": run.params.get("executor"),
        **_circumstances(run, cause),
    })  # fmt: skip
    if run.error is not None:
        screen.heading("Error")
        block(run.error)
    if account.steps:
        screen.heading("Steps")
        show_steps(account)
    roles = {"read": account.inputs, "wrote": account.outputs, "kept": account.kept}
    versions = [(role, each) for role, group in roles.items() for each in group]
    if versions:
        screen.heading("Lineage")
        show_versions(versions)


def _show_other_run(
    run: "Run",
    parent: "Run | None",
    cause: "Event | None",
    versions: "list[tuple[str, Version]]",
    heard: str | None,
) -> None:
    from noria.cli import screen
    from noria.cli.run_screens import block, took

    params = run.params
    told = {}
    if run.kind == "step":  # the rest is for programs: what it takes to make it again
        told = {"function": params.get("target"), "executor": params.get("executor")}
        params = params.get("arguments", {})
    screen.line(f"Run {run.id}", style="bold")
    screen.facts({
        "what": f"{run.kind} {run.name}", **told,
        "part of": None if parent is None else f"{parent.kind} {parent.name} {parent.id[:_ID_LENGTH]}",
        "state": run.state, "at work": heard, "at": run.at, "attempt": run.attempt,
        "started (wall)": f"{run.started_at:%Y-%m-%d %H:%M:%S}", "took": took(run),
        "cpu": "-" if run.cost is None else f"{run.cost.cpu_s:.2f} s", "seed": run.seed,
        **_circumstances(run, cause),
    })  # fmt: skip
    if run.error is not None:
        screen.heading("Error")
        block(run.error)
    title = "Arguments" if run.kind == "step" else "Parameters"
    for heading, values in ((title, params), ("Metrics", run.metrics)):
        if values:
            screen.heading(heading)
            screen.facts(dict(sorted(values.items())))
    if versions:
        screen.heading("Lineage")
        rows = [(role, each.kind, each.ref, screen.digest(each.sha256)) for role, each in versions]
        screen.table(["", "kind", "version", "sha256"], rows)


def _circumstances(run: "Run", cause: "Event | None") -> dict[str, object]:
    """Give the facts about the code of a run, and about what started it."""
    from noria.cli import screen

    return {
        "code": run.code,
        "changed code": None if run.code_diff is None else f"diff {screen.digest(run.code_diff)}",
        "runtime": run.runtime, "key": run.key, "experiment": run.experiment,
        "cause": None if cause is None else f"{cause.id} {cause.verb}",
        "because": None if cause is None else cause.payload.get("reason", cause.subject),
    }  # fmt: skip


def _figures(run: "Run", progress: "Progress | None") -> str:
    """Tell in a few words what a run was about and what came of it.

    Of a pipeline: parameters and counts of steps; of a step: its arguments; of others: the metrics that
    people ask for first; of what failed: how.
    """
    from noria.cli.run_screens import counts_told, params_told
    from noria.pipelines.accounts import given_params

    told = []
    if run.kind == "pipeline":
        counts = {
            name.removeprefix("tasks_"): int(value)
            for name, value in run.metrics.items()
            if name.startswith("tasks_")
        }
        told += [
            params_told(given_params(run)),
            counts_told(counts if progress is None else progress.counts),
        ]
    elif run.kind == "step":
        arguments = run.params.get("arguments", {})
        told += [
            " ".join(f"{name}={value}" for name, value in arguments.items()),
            f"attempt {run.attempt}" if run.attempt > 1 else "",
        ]
    names = [each for each in ("accepted", "rejected", "auc", "log_loss") if each in run.metrics]
    told.append(", ".join(f"{name} {run.metrics[name]:.6g}" for name in names))
    if run.error is not None:
        told.append(run.error.removeprefix(f"StepFailed: pipeline {run.name!r} failed: ").partition("\n")[0])
    text = "; ".join(each for each in told if each)
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"
