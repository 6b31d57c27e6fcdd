"""`noria pipeline list`, `show`, `run`."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.pipelines.records import Plan

__all__ = ["list_pipelines", "run_pipeline", "show_pipeline"]

_SHOWN = 40  # tasks of a plan on the screen; JSON gives all


def list_pipelines(*, options: Options = DEFAULT) -> None:
    """List the pipelines and steps that the project declares, and how each last ran."""
    from noria.cli import screen

    with options.open() as project:
        declared = project.declarations
        newest = {}
        if project.has_begun:
            project.ledger.mark_killed()
            for name in (*declared.pipelines, *declared.steps):
                found = project.ledger.list_runs(kind="pipeline", name=name, limit=1)
                newest[name] = found[0] if found else None
        rows = [
            (name, kind, _signature(each.function), newest.get(name))
            for kind, group in (("pipeline", declared.pipelines), ("step", declared.steps))
            for name, each in group.items()
        ]
    if options.json:
        names = ("name", "kind", "parameters", "last_run")
        screen.json([dict(zip(names, row, strict=True)) for row in rows])
        return
    if not rows:
        screen.line("The project declares no pipeline. Write one: `@noria.step`, `@noria.pipeline`.")
        return
    table = [
        (name, kind, parameters, "-" if last is None else str(last.state), "-" if last is None else last.at)
        for name, kind, parameters, last in rows
    ]
    screen.table(["name", "kind", "parameters", "last run", "at"], table)


def show_pipeline(
    target: Annotated[str, Parameter(name="TARGET")],
    /,
    *params: Annotated[str, Parameter(name="NAME=VALUE")],
    options: Options = DEFAULT,
) -> None:
    """Show the steps of a pipeline and what each reads.

    Parameters
    ----------
    target
        A pipeline, a step, or PIPELINE/STEP.
    params
        Of the pipeline's function.
    """
    from noria.cli import screen
    from noria.workspace.steps import drawn

    with options.open() as project:
        graph = drawn(project, target, read_pairs(params))
    nodes = [
        {
            "step": node.name,
            "function": node.step.target,
            "reads": node.waits_for(),
            "over": sorted(node.items),
            "when": [str(each) for each in node.conditions],
            "cache": node.step.cache,
            "executor": node.step.executor,
        }
        for node in graph.nodes
    ]
    if options.json:
        screen.json({"pipeline": graph.name, "params": graph.params, "steps": nodes})
        return
    rows = [
        (
            node.name + (" (for each)" if node.is_mapped else ""),
            node.step.target,
            ", ".join(node.waits_for()) or "-",
            ", ".join(map(str, node.conditions)) or "-",
        )
        for node in graph.nodes
    ]
    screen.table(["step", "function", "reads", "only when"], rows)


def run_pipeline(
    target: Annotated[str, Parameter(name="TARGET")],
    /,
    *params: Annotated[str, Parameter(name="NAME=VALUE")],
    plan: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[list[str] | None, Parameter(negative="")] = None,
    executor: str | None = None,
    key: str | None = None,
    cause: str | None = None,
    params_json: Annotated[str | None, Parameter(name="--params-json")] = None,
    options: Options = DEFAULT,
) -> int:
    """Run what is stale of a pipeline.

    Parameters
    ----------
    target
        A pipeline, a step, or PIPELINE/STEP: what that step needs.
    params
        Of the pipeline's function, such as month=2013-02.
    plan
        Only tell what would run, and why.
    force
        A step that runs with all that depend on it, whatever is kept; may be given several times.
    executor
        Where steps run: inline, processes, ray, ray://HOST:PORT.
    key
        Names this very run: again with the same key gives the run that finished, or goes on with it.
    cause
        The event that started it.
    params_json
        More parameters as one JSON object, with their types: for programs.
    """
    from noria.cli import screen
    from noria.cli.pipeline_display import PipelineDisplay
    from noria.cli.run_screens import tell_result
    from noria.errors import StepFailed

    given = read_pairs(params) | _read_object(params_json)
    with options.open() as project:
        if plan:
            _tell_plan(project.plan_pipeline(target, given, force=force or ()), json=options.json)
            return 0
        with PipelineDisplay(quiet=options.json) as display:
            try:
                result = project.run_pipeline(
                    target,
                    given,
                    key=key,
                    cause=cause,
                    force=force or (),
                    executor=executor,
                    tell=display.tell,
                )
            except StepFailed as failed:
                if not options.json:
                    raise
                run = project.ledger.get_run(failed.run)
                screen.json({"run": run, "error": str(failed), "reasons": failed.reasons})
                return failed.exit_code
        if options.json:
            screen.json(result)
        else:
            tell_result(result)
    return 0


def read_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read `name=value` as they were typed."""
    from noria.errors import ConfigError

    found: dict[str, Any] = {}
    for each in pairs:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise ConfigError(f"{each!r} is no parameter; write NAME=VALUE, such as month=2013-02")
        if name in found:
            raise ConfigError(f"the parameter {name!r} is given twice")
        found[name] = value
    return found


def _read_object(text: str | None) -> dict[str, Any]:
    """Read parameters that were given as JSON: a text among them stays one."""
    import msgspec

    from noria.errors import ConfigError

    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"--params-json is {text!r}, wanted is a JSON object: {error}") from error


def _tell_plan(plan: "Plan", *, json: bool) -> None:
    from noria.cli import screen

    if json:
        screen.json(plan)
        return
    stale = plan.stale
    kept = sum(each.state == "cached" for each in plan.items)
    skipped = sum(each.state == "skip" for each in plan.items)
    certain = sum(each.state == "run" for each in stale)
    told = f"{screen.count(certain, 'step')} of {len(plan.items)} would run, "
    told += f"{len(stale) - certain} may, " if certain < len(stale) else ""
    told += f"{kept} are up to date"
    screen.line(told + (f", {skipped} would be skipped." if skipped else "."))
    if not stale:
        return
    screen.line()
    rows, before = [], ""
    for each in stale[:_SHOWN]:
        told = "the same" if each.reason == before else each.reason
        rows.append((each.task, "may run" if each.state == "open" else "runs", told))
        before = each.reason
    screen.table(["step", "", "because"], rows, wrap="because")
    if len(stale) > _SHOWN:
        screen.line(f"and {len(stale) - _SHOWN} more; --json gives all")


def _signature(function: Any) -> str:
    from noria.pipelines.signatures import read_signature, show

    told = []
    for each in read_signature(function, provided=("noria.workspace.project:Project",)).parameters.values():
        if each.provided is None:
            default = "" if each.is_required else f" = {each.default!r}"
            told.append(f"{each.name}: {show(each.annotation)}{default}")
    return ", ".join(told) or "-"
