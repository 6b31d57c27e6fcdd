"""`noria transform`, `noria table show`, `noria table drop`."""

import getpass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.warehouse.records import ModelPlan, ModelResult, TransformPlan, TransformResult
    from noria.warehouse.showing import TableShown

__all__ = ["drop_table", "show_table", "transform"]

_SPANS = 3  # that are told of a model


def transform(
    *models: Annotated[str, Parameter(name="MODEL")],
    since: str | None = None,
    until: str | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    plan: Annotated[bool, Parameter(negative="")] = False,
    ignore_blocked: Annotated[bool, Parameter(negative="")] = False,
    cause: str | None = None,
    options: Options = DEFAULT,
) -> int:
    """Build what is stale of the warehouse's models, in order. Ends with 1 if something cannot be built.

    Parameters
    ----------
    models
        These and all that they need. Default: all.
    since
        A day or an instant: of incremental models only partitions from then on are built, stale or not.
    until
        And only those before.
    full
        Build the models named, or all, as a whole, stale or not.
    plan
        Only tell what would be built, and why.
    ignore_blocked
        Go on where the newest batch of a dataset is blocked.
    cause
        The event that started it.
    """
    from noria.cli import screen

    with options.open() as project:
        if plan:
            planned = project.plan_transform(
                *models, since=since, until=until, full=full, ignore_blocked=ignore_blocked
            )
            if options.json:
                screen.json(planned)
            else:
                _tell_plan(planned)
            return 0 if planned.is_well else 1
        result = project.transform(
            *models,
            since=since,
            until=until,
            full=full,
            ignore_blocked=ignore_blocked,
            cause=cause,
            tell=None if options.json else _tell_model,
        )
    if options.json:
        screen.json(result)
    else:
        _tell_result(result)
    return 0 if result.is_well else 1


def show_table(name: Annotated[str, Parameter(name="NAME")], /, *, options: Options = DEFAULT) -> None:
    """Show a table: what it is, its columns and where they come from, its tests, its last build.

    Parameters
    ----------
    name
        A model, a dataset, or any other table of the lake.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.show_table(name)
    if options.json:
        screen.json(found)
    else:
        _tell_table(found)


def drop_table(
    name: Annotated[str, Parameter(name="NAME")], /, *, reason: str, options: Options = DEFAULT
) -> None:
    """Drop the table of a model that was removed, where nothing reads it. Versions on record stay readable.

    Parameters
    ----------
    name
        Of the table.
    reason
        Why, for the record.
    """
    from noria.cli import screen

    with options.open() as project:
        asked = project.ledger.append(
            "person.asked",
            actor=f"person:{getpass.getuser()}",
            subject=name,
            payload={"verb": "drop", "reason": reason},
        )
        done = project.drop_table(name, reason=reason, cause=asked.id)
    if options.json:
        screen.json(done)
        return
    kept = ""
    if done.versions:
        kept = (
            f" {screen.count(len(done.versions), 'version')} on record can be read still, such as by `noria "
            f"dataset read {name} --version {done.versions[-1].rpartition(':')[2]}`."
        )
    screen.line(f"The table {name} with {screen.count(done.rows, 'row')} is dropped.{kept}")


def _tell_model(each: "ModelResult") -> None:
    from noria.cli import screen

    if each.state in ("unchanged", "view"):
        return
    if each.state == "built":
        rows = "" if each.rows is None else f", {screen.count(each.rows, 'row')}"
        parts = "" if each.partitions is None else f", {screen.count(len(each.partitions), 'partition')}"
        took = "" if each.seconds is None else f" in {each.seconds:.2f} s"
        screen.line(f"built    {each.model}{took}{rows}{parts}: {each.reason}", style="green")
    else:
        screen.line(f"{each.state:7}  {each.model}: {each.reason}", style="red")
    for test in each.tests:
        if test.severity == "warn":
            rows = screen.count(test.failing, "row")
            screen.line(f"warning: {test.name} fails for {rows}, for example {test.example}", indent=9)
    screen.flush()


def _tell_result(result: "TransformResult") -> None:
    from noria.cli import screen

    for note in result.notes:
        screen.line(note)
    order = ("built", "unchanged", "view", "failed", "blocked", "broken")
    counts = [f"{result.counts[each]} {each}" for each in order if each in result.counts]
    screen.line(f"{screen.count(len(result.models), 'model')}: {', '.join(counts)}.")


def _tell_plan(plan: "TransformPlan") -> None:
    from noria.cli import screen

    for note in plan.notes:
        screen.line(note)
    built = len(plan.stale)
    screen.line(f"{built} of {screen.count(len(plan.models), 'model')} would be built.")
    told = [each for each in plan.models if each.state not in ("unchanged", "view")]
    if told:
        screen.line()
        rows = [(each.model, each.state, _spans(each) + each.reason) for each in told]
        screen.table(["model", "", "because"], rows, wrap="because")


def _spans(plan: "ModelPlan") -> str:
    from noria.cli import screen

    if plan.spans is None:
        return ""
    shown = [f"{screen.instant(low)} to {screen.instant(high)}" for low, high in plan.spans[:_SPANS]]
    more = f" and {len(plan.spans) - _SPANS} more spans" if len(plan.spans) > _SPANS else ""
    return f"{', '.join(shown)}{more}: "


def _tell_table(found: "TableShown") -> None:
    from noria.cli import screen

    screen.line(f"{found.kind} {found.name}", style="bold")
    screen.facts(
        {
            "description": found.description or None,
            "owner": found.owner or None,
            "tags": ", ".join(found.tags) or None,
            "file": found.path or None,
            "made as": found.materialize or None,
            "partition": found.partition or None,
            "key": ", ".join(found.key) or None,
            "reads": ", ".join(found.inputs) or None,
            "read by": ", ".join(found.readers) or None,
            "version": found.version,
            "rows": None if found.rows is None else screen.number(found.rows),
            "last build": None
            if found.built_at is None
            else f"{screen.instant(found.built_at)}, run {found.run}",
            "now": found.now or None,
        }
    )
    if found.columns:
        screen.heading("Columns")
        rows = [(each.name, each.type, _sources(each.sources, each.approximate)) for each in found.columns]
        screen.table(["name", "type", "comes from"], rows, wrap="comes from")
    if found.tests:
        screen.heading("Tests")
        screen.table(["severity", "test"], [(each.severity, each.name) for each in found.tests], wrap="test")


def _sources(sources: tuple[str, ...], approximate: bool) -> str:
    return ("perhaps " if approximate and sources else "") + ", ".join(sources)
