"""`noria deploy`, `noria promote`, `noria rollback`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.deploy.environments import Move
    from noria.workspace.project import Project

__all__ = ["deploy", "promote", "rollback"]


def deploy(
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")],
    /,
    *,
    canary: float | None = None,
    shadow: Annotated[bool, Parameter(negative="")] = False,
    ab: str | None = None,
    beside: Annotated[list[str] | None, Parameter(negative="")] = None,
    reason: str = "",
    options: Options = DEFAULT,
) -> None:
    """Let a version of a model answer in an environment, by its gate. A running `noria serve` follows.

    Parameters
    ----------
    reference
        Such as late_arrival:3@production; without a number its newest version.
    canary
        Answer this share of the traffic, such as 0.1, on trial. Default: all of it.
    shadow
        Score every row behind what answers, and answer none.
    ab
        Answer on trial by an A/B test, or a bandit, that the project declares: its name.
    beside
        With --ab, a further version that is tried, such as late_arrival:4; may be given several times.
    reason
        Why, for the record.
    """
    from noria.cli import screen

    model, at, environment = reference.rpartition("@")
    if not at or not model or not environment:
        raise ConfigError(f"{reference!r} names no environment; write NAME@ENVIRONMENT or NAME:3@ENVIRONMENT")
    if ab is not None:
        if canary is not None or shadow:
            raise ConfigError("a release is tried by a test, as a canary or as a shadow; choose one")
        _begin(ab, [model, *(beside or [])], environment=environment, reason=reason, options=options)
        return
    if beside:
        raise ConfigError("--beside names further versions of an A/B test; name the test by --ab")
    with options.open() as project:
        move = project.deploy(model, to=environment, canary=canary, shadow=shadow, reason=reason)
        version = project.models.get(model)
        gate = project.environment(environment).gate
        if options.json:
            _json(project, move, gate=gate)
            return
    told = "answers all traffic" if canary is None else f"answers {canary:.0%} of the traffic, on trial,"
    if shadow:
        told = "scores all rows as a shadow, on trial,"
    screen.line(f"{version.ref} {told} of {environment}/{version.name} (route {move.version.ref}).")
    screen.line(
        f"The gate {gate!r} let it in."
        if gate
        else f"{environment} has no gate: it was seen to give for its stored rows what it gave, and no more. "
        f'Name one in noria.toml, under [environments.{environment}]: gate = "..."'
    )
    screen.line(
        f"It is on record as event {move.pointer.event}; `noria why {version.name}@{environment}` tells "
        "the story."
    )


def _begin(test: str, references: list[str], *, environment: str, reason: str, options: Options) -> None:
    from noria.cli import screen

    with options.open() as project:
        move = project.begin_test(test, *references, to=environment, reason=reason)
    if options.json:
        screen.json({
            "environment": environment, "deployment": move.route.deployment, "test": test,
            "shares": {each.release: each.weight for each in move.route.entries},
            "route": move.version.ref, "pointer": move.pointer, "event": move.request.id,
        })  # fmt: skip
        return
    place = f"{move.route.deployment}@{environment}"
    screen.line(f"{move.pointer.reason}.")
    screen.line(f"A running noria up or noria serve judges it; `noria trial {place}` tells how it stands.")


def promote(
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")],
    /,
    *,
    reason: str = "",
    options: Options = DEFAULT,
) -> None:
    """Let what is on trial answer everything. A running `noria serve` follows within a second.

    Parameters
    ----------
    reference
        Such as late_arrival@production.
    reason
        Why, for the record.
    """
    from noria.cli import screen

    with options.open() as project:
        move = project.promote(reference, reason=reason)
        if options.json:
            _json(project, move)
            return
        environment, name = project.place(reference)
        version = project.model(reference)
    screen.line(f"{version.ref} answers all traffic of {environment}/{name} (route {move.version.ref}).")
    screen.line(f"It is on record as event {move.pointer.event}; `noria why {reference}` tells the story.")


def _json(project: "Project", move: "Move", **more: str | None) -> None:
    from noria.cli import screen
    from noria.deploy.releases import read_release

    release = project.ledger.get_version_by_id(move.request.payload["release"])
    screen.json({
        "environment": move.route.environment, "deployment": move.route.deployment,
        "model": read_release(release).model_ref, "release": release.ref, "action": move.action,
        "route": move.version.ref, "pointer": move.pointer, "event": move.request.id, **more,
    })  # fmt: skip


def rollback(
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")],
    /,
    *,
    reason: str = "",
    options: Options = DEFAULT,
) -> None:
    """Go back to the last stable route; a trial ends. A running `noria serve` follows within a second.

    Parameters
    ----------
    reference
        Such as late_arrival@production.
    reason
        Why, for the record.
    """
    from noria.cli import screen
    from noria.deploy.releases import find_standing

    with options.open() as project:
        move = project.rollback(reference, reason=reason)
        environment, name = project.place(reference)
        standing = find_standing(project.ledger, environment=environment, deployment=name)
    assert standing is not None  # a rollback ends at a stable route
    if options.json:
        screen.json({
            "environment": environment, "deployment": name, "model": standing.model.ref,
            "route": move.version.ref, "pointer": move.pointer, "event": move.request.id,
        })  # fmt: skip
        return
    screen.line(f"{environment}/{name} is back at {standing.model.ref} (route {move.version.ref}).")
    screen.line(f"It is on record as event {move.pointer.event}; `noria why {reference}` tells the story.")
