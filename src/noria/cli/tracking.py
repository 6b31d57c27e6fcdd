"""`noria run list`, `noria run show`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.records import Run

__all__ = ["list_runs", "show_run"]

_ID_LENGTH = 16  # of a run's id as lists show it


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
        Such as ingest, train, monitor, pipeline, step.
    name
        Of the dataset, model or monitor.
    state
        running, finished, failed, cancelled or killed.
    limit
        At most so many; 0 gives all.
    """
    from noria.cli import screen
    from noria.errors import NotFound
    from noria.records import RunState

    if state is not None and state not in set(RunState):
        raise NotFound("state", state, map(str, RunState))
    with options.open() as project:
        project.ledger.mark_killed()
        runs = project.ledger.list_runs(
            kind=kind, name=name, state=None if state is None else RunState(state), limit=limit or None,
            with_steps=kind is not None or name is not None,
        )  # fmt: skip
    if options.json:
        screen.json(runs)
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
            _took(each),
            _figures(each),
        )
        for each in runs
    ]
    columns = ["run", "kind", "name", "state", "at", "took", "what came of it"]
    screen.table(columns, rows, right=["took"], wrap="what came of it")


def show_run(run: Annotated[str, Parameter(name="RUN")], /, *, options: Options = DEFAULT) -> None:
    """Show a run: what it read and wrote, its parameters and metrics, code, cost and cause.

    Parameters
    ----------
    run
        Its id, or the beginning of it.
    """
    from noria.cli import screen

    with options.open() as project:
        ledger = project.ledger
        found = project.runs.get(run)
        cause = None if found.cause is None else ledger.get_event(found.cause)
        edges = ledger.list_edges(run=found.id)
        versions = [(edge.role, ledger.get_version_by_id(edge.version)) for edge in edges]
    if options.json:
        screen.json({
            "run": found, "cause": cause,
            "inputs": [each for role, each in versions if role == "input"],
            "outputs": [each for role, each in versions if role == "output"],
        })  # fmt: skip
        return
    screen.line(f"Run {found.id}", style="bold")
    screen.facts({
        "what": f"{found.kind} {found.name}", "state": found.state, "at": found.at, "attempt": found.attempt,
        "started (wall)": f"{found.started_at:%Y-%m-%d %H:%M:%S}", "took": _took(found),
        "cpu": "-" if found.cost is None else f"{found.cost.cpu_s:.2f} s", "seed": found.seed,
        "code": found.code,
        "changed code": None if found.code_diff is None else f"diff {screen.digest(found.code_diff)}",
        "runtime": found.runtime, "key": found.key, "experiment": found.experiment, "error": found.error,
        "cause": None if cause is None else f"{cause.id} {cause.verb}",
        "because": None if cause is None else cause.payload.get("reason", cause.subject),
    })  # fmt: skip
    for title, values in (("Parameters", found.params), ("Metrics", found.metrics)):
        if values:
            screen.heading(title)
            screen.facts(dict(sorted(values.items())))
    if versions:
        screen.heading("Lineage")
        rows = [(role, each.kind, each.ref, screen.digest(each.sha256)) for role, each in versions]
        screen.table(["", "kind", "version", "sha256"], rows)


def _took(run: "Run") -> str:
    if run.cost is not None:
        return f"{run.cost.wall_s:.2f} s"
    return "-" if run.ended_at is None else f"{(run.ended_at - run.started_at).total_seconds():.2f} s"


def _figures(run: "Run") -> str:
    """Tell in a few words what came of a run: the error, or the metrics that people ask for first."""
    if run.error is not None:
        return run.error
    names = [each for each in ("accepted", "rejected", "auc", "log_loss") if each in run.metrics]
    return ", ".join(f"{name} {run.metrics[name]:.6g}" for name in names)
