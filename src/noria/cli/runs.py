"""`noria run watch`, `cancel`, `retry`, `logs`, `reproduce`: what is done with runs."""

import sys
from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["cancel", "logs", "reproduce", "retry", "watch"]

RUN = Parameter(name="RUN")


def watch(run: Annotated[str, RUN], /, *, options: Options = DEFAULT) -> int:
    """Follow a run until it ends.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    """
    from noria.cli import screen
    from noria.cli.pipeline_display import PipelineDisplay
    from noria.cli.run_screens import params_told, tell_end
    from noria.pipelines.accounts import given_params
    from noria.records import Run, RunState

    with options.open() as project:
        project.ledger.mark_killed()
        found = project.runs.get(run)
        is_over = found.state is not RunState.RUNNING
        with PipelineDisplay(quiet=options.json or is_over) as display:
            params = params_told(given_params(found))
            display.say(
                f"{found.name} {found.id[:16]} runs since {found.started_at:%H:%M:%S} UTC {params}".rstrip()
            )
            for told in project.runs.watch(found.id):
                if isinstance(told, Run):
                    ended = told
                elif options.json:
                    screen.json(told)
                    screen.flush()
                else:
                    display.tell(told)
        if options.json:
            screen.json(ended)
        else:
            tell_end(ended, project.runs.account(ended) if ended.kind == "pipeline" else None)
    return 0 if ended.state is RunState.FINISHED else 1


def cancel(run: Annotated[str, RUN], /, *, reason: str = "", options: Options = DEFAULT) -> None:
    """End a run of a pipeline: its steps are ended, what they finished is kept.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    reason
        For the record.
    """
    from noria.cli import screen

    with options.open() as project:
        project.ledger.mark_killed()
        event = project.runs.cancel(run, reason=reason)
    if options.json:
        screen.json(event)
    else:
        screen.line(f"Asked for {event.subject} to end; `noria run watch {run}` shows when it has.")


def retry(
    run: Annotated[str, RUN],
    /,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    executor: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Run the pipeline of a run again with its parameters: what did not finish, or all from a step on.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    from_
        A step that runs again with all that depend on it, whatever is kept.
    executor
        Where steps run: inline, processes, ray, ray://HOST:PORT.
    """
    from noria.cli import screen
    from noria.cli.pipeline_display import PipelineDisplay
    from noria.cli.run_screens import tell_result

    with options.open() as project:
        project.ledger.mark_killed()
        with PipelineDisplay(quiet=options.json) as display:
            result = project.runs.retry(run, from_step=from_, executor=executor, tell=display.tell)
        if options.json:
            screen.json(result)
        else:
            tell_result(result)


def logs(run: Annotated[str, RUN], /, *, step: str | None = None, options: Options = DEFAULT) -> None:
    """Show what the steps of a run printed, and how those that failed did.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    step
        Only of this step.
    """
    from noria.cli import screen
    from noria.errors import NotFound

    with options.open() as project:
        found = project.runs.get(run)
        steps = project.runs.steps(found) if found.kind == "pipeline" else [found]
        if step is not None:
            names = {f"{found.name}/{step}", step}
            known = [each.name.removeprefix(f"{found.name}/") for each in steps]
            steps = [each for each in steps if each.name in names or each.name.partition("[")[0] in names]
            if not steps:
                raise NotFound("step", step, known)
        told = [(each, project.runs.log(each)) for each in steps]
    if options.json:
        screen.json(
            [
                {"run": each.id, "step": each.name, "state": each.state, "error": each.error,
                 "log": text.decode("utf-8", "replace")}
                for each, text in told
            ]
        )  # fmt: skip
        return
    shown = [(each, text) for each, text in told if text or each.error]
    if not shown:
        screen.line(f"The steps of {found.name} printed nothing.")
        return
    for each, text in shown:
        again = f"  attempt {each.attempt}" if each.attempt > 1 else ""
        screen.line(f"{each.name}  {each.id[:16]}  {each.state}{again}", style="bold")
        screen.flush()
        if text:
            sys.stdout.write(text.decode("utf-8", "replace"))
            if not text.endswith(b"\n"):
                sys.stdout.write("\n")
        if each.error:
            sys.stdout.write(each.error + "\n")
        screen.line()


def reproduce(
    run: Annotated[str, RUN],
    /,
    *,
    tolerance: float = 1e-9,
    current: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> int:
    """Run a recorded run again, in its recorded code with its recorded inputs, and compare what it gives.

    Parameters
    ----------
    run
        Its id, the beginning of it, or a pipeline's name for its newest run.
    tolerance
        How far figures may differ, relative, to count as equal where bits are not.
    current
        Run the project's code as it is now instead of the recorded one.
    """
    from noria.cli import screen

    with options.open() as project:
        told = project.runs.reproduce(run, tolerance=tolerance, current=current)
    if options.json:
        screen.json(told)
    else:
        screen.line(told.told, style="bold")
        if told.differences:
            screen.table(
                ["where", "what"], [(each.where, each.told) for each in told.differences], wrap="what"
            )
        for each in told.notes:
            screen.line(each)
    return 0 if told.verdict != "different" else 1
