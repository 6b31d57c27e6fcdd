"""`noria trace`, `noria why`."""

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from noria.audit.records import Chain, Link, Trace

__all__ = ["show_trace", "trace", "why"]

_TOLD_FEATURES, _TOLD_ROWS = 8, 2  # of a brief trace


def trace(
    prediction_id: Annotated[str, Parameter(name="PREDICTION_ID")],
    /,
    *,
    environment: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Trace a prediction: version, run, features, raw rows, code, gates, outcome, money.

    Every digest is computed again; features are computed again from the raw rows.

    Parameters
    ----------
    prediction_id
        As it was sent, or given back with the answer; `noria query "select prediction_id from predictions
        limit 5"` shows some.
    environment
        production, or production/late_arrival, where several logged the same id.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.trace(prediction_id, deployment=environment)
    if options.json:
        screen.json(found)
    else:
        show_trace(found)


def why(
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")], /, *, options: Options = DEFAULT
) -> None:
    """Tell what put a model where it is: the chain of causes, newest first.

    Parameters
    ----------
    reference
        Such as late_arrival@production.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.why(reference)
    if options.json:
        screen.json(found)
    else:
        _show_chain(found)


def show_trace(found: "Trace", *, brief: bool = False) -> None:
    """Write a trace; a brief one leaves out most features, rows and checks."""
    from noria.cli import screen

    asked = found.prediction
    screen.line(f"Prediction {asked.id}", style="bold")
    screen.facts({
        "asked": f"{screen.instant(asked.at)} UTC of {asked.environment}/{asked.deployment}",
        "answer": f"{asked.score:.4f} by {asked.model} in {asked.latency_us / 1000:.1f} ms",
        "request": _pairs(asked.inputs),
        "beside it": ", ".join(f"{each.model} gave {each.score:.4f}" for each in found.shadows) or None,
        "route": f"{found.route.version.ref}, since {screen.instant(found.route.since)}",
        "because": found.route.reason,
        "release": f"{found.release.version.ref}, digest {screen.digest(found.release.version.sha256)}",
        "model": f"{found.model.ref}, digest {screen.digest(found.model.sha256)}",
    })  # fmt: skip
    _show_runs(found)
    if found.features:
        _show_features(found, brief=brief)
    if found.raw or found.spine is not None:
        _show_raw(found, brief=brief)
    if found.verdicts:
        screen.heading("Gates and trials")
        verdicts = [(screen.instant(each.at), _verb(each.verb), each.reason) for each in found.verdicts]
        screen.table(["at", "", "because"], verdicts, wrap="because")
    _show_money(found)
    _show_digests(found)


def _show_runs(found: "Trace") -> None:
    from noria.cli import screen

    for run in found.runs:
        screen.heading(f"Train run {run.id} made {run.model}")
        screen.facts({
            "at": run.at, "seed": run.seed,
            "code": run.code,
            "changed code": None if run.code_diff is None else f"diff {screen.digest(run.code_diff)}",
            "runtime": screen.digest(run.runtime),
            "read": ", ".join(f"{each.kind.replace('_', ' ')} {each.ref}" for each in run.inputs),
            "metrics": _pairs(run.metrics) or None,
        })  # fmt: skip


def _show_features(found: "Trace", *, brief: bool) -> None:
    from noria.cli import screen

    equal = sum(each.equal is True for each in found.features)
    screen.heading(f"Features: {equal} of {len(found.features)} equal what the raw rows give offline")
    shown = found.features[:_TOLD_FEATURES] if brief else found.features
    marks = {True: "yes", False: "NO", None: "-"}
    rows = [(each.name, _value(each.used), _value(each.offline), marks[each.equal]) for each in shown]
    screen.table(["feature", "used", "offline", "equal"], rows, right=["used", "offline"])
    _show_more(len(found.features) - len(shown), "features")


def _show_raw(found: "Trace", *, brief: bool) -> None:
    from noria.cli import screen

    screen.heading("Raw rows")
    rows = [
        (
            each.view,
            each.dataset if each.version is None else each.version.ref,
            ", ".join(_value(value) for value in each.entity.values()),
            screen.number(each.count),
            screen.instant(each.known_last),
            screen.digest(each.sha256),
        )
        for each in found.raw
    ]
    screen.table(["view", "dataset", "of", "rows", "known until", "digest"], rows, right=["rows"])
    for each in found.raw:
        newest = each.newest[:_TOLD_ROWS] if brief else each.newest
        if newest and not (brief and each is not found.raw[0]):
            screen.line()
            screen.line(f"The newest of view {each.view}, of {each.dataset}:")
            for row in newest:
                screen.line(_pairs(row), indent=2)
        if not brief:
            screen.line("All of them:", indent=2)
            screen.verbatim(f"noria query {shlex.quote(each.sql)}")
    if found.spine is not None and found.spine.row is not None:
        screen.line()
        screen.line(f"What was asked about, in {found.spine.dataset}:")
        screen.line(_pairs(found.spine.row), indent=2)


def _show_money(found: "Trace") -> None:
    from noria.cli import screen

    screen.heading("What came of it")
    outcome, money = found.outcome, found.money
    if outcome is None:
        screen.line("Its outcome is not known yet.")
    elif outcome.label is not None:
        screen.line(f"Outcome {outcome.label}, known at {screen.instant(outcome.known_at)} UTC.")
    elif outcome.outcome is None:
        screen.line(f"It has no outcome, known at {screen.instant(outcome.known_at)}; it pays nothing.")
    else:
        screen.line(f"Outcome {outcome.outcome:g}, known at {screen.instant(outcome.known_at)} UTC.")
    if money is not None:
        did = "was taken" if money.acted else "was not taken"
        told = f"The decision to {money.decision} {did} (threshold {money.threshold:.4f})"
        if money.gain is not None:
            told += f": {money.value:g} {money.unit}, {money.gain:+g} against the baseline"
        screen.line(f"{told}.")


def _show_digests(found: "Trace") -> None:
    from noria.cli import screen

    checked = [each for each in found.digests if each.ok is not None]
    failed = [each for each in checked if not each.ok]
    screen.line()
    if not failed:
        screen.line(f"All {len(checked)} digests were computed again and hold.")
        return
    screen.line(f"{len(failed)} of {len(checked)} digests do not hold:", style="bold")
    for each in failed:
        screen.line(
            f"{each.what}: {each.problem or f'recorded {each.sha256}, found {each.recomputed}'}", indent=2
        )


def _show_chain(found: "Chain") -> None:
    from noria.cli import screen

    now = found.now
    screen.line(
        f"{found.deployment}@{found.environment} is {now.model} since {screen.instant(now.since)}",
        style="bold",
    )
    screen.facts({
        "route": now.route, "release": now.release,
        "before": None if found.before is None else f"{found.before.model} (route {found.before.route})",
        "on trial": None if found.on_trial is None else found.on_trial.model,
        "asked by a person": found.human,
    })  # fmt: skip
    screen.heading("Because, newest first")
    _show_links(found.links)
    if found.origin:
        screen.heading("How it came there first")
        _show_links(found.origin)
    for branch in found.branches:
        if branch.links:
            screen.heading(f"How {branch.model} was made")
            _show_links(branch.links)
    if found.gap is not None:
        screen.line()
        screen.line(f"The cause {found.gap} is not on record: `noria ledger verify` tells what was changed.")


def _show_links(links: "Sequence[Link]") -> None:
    from noria.cli import screen

    rows = []
    for place, link in enumerate(links):
        if link.verb == "route.requested" and place and link.reason == links[place - 1].reason:
            continue  # the move says the same
        rows.append((screen.instant(link.at), _verb(link.verb), link.event, link.reason))
    screen.table(["at", "", "event", "because"], rows, wrap="because")


def _show_more(left: int, what: str) -> None:
    from noria.cli import screen

    if left:
        screen.line(f"and {left} more {what}")


def _verb(verb: str) -> str:
    return verb.replace(".", " ").replace("_", " ")


def _pairs(values: "Mapping[str, object]") -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)
