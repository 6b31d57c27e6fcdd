"""`noria model history`, `noria model at`, `noria model restore`, `noria model undelete`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.models.history import PlacedStay

__all__ = ["restore", "show_at", "show_history", "stay_rows", "undelete"]

STAY_COLUMNS = ("model", "where", "from", "to", "share", "by", "because")


def show_history(
    reference: Annotated[str, Parameter(name="MODEL")], /, *, options: Options = DEFAULT
) -> None:
    """Tell where and when versions of a model answered, who put them there, and why.

    Parameters
    ----------
    reference
        NAME (all versions), NAME:3, or NAME@production (the version that is there now).
    """
    from noria.cli import screen

    with options.open() as project:
        stays = project.models.history(reference)
    if options.json:
        screen.json(stays)
        return
    if not stays:
        screen.line(f"{reference} was never put up anywhere.")
        return
    screen.table(list(STAY_COLUMNS), stay_rows(stays), right=["share"], wrap="because")
    gates = {each.gate.event: each.gate for each in stays if each.gate is not None}
    if gates:
        screen.heading("Let in by")
        rows = [(screen.instant(each.at), each.event, each.reason) for each in gates.values()]
        screen.table(["at", "event", "because"], rows, wrap="because")


def show_at(
    instant: Annotated[str, Parameter(name="INSTANT")],
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Tell which version of a model an environment had at an instant, and who put it there.

    Parameters
    ----------
    instant
        A day or an instant of the environment's clock, such as 2013-04-01 or 2013-04-01T06:30Z.
    reference
        Such as late_arrival@production.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.models.at(reference, instant)
    if options.json:
        screen.json(found)
        return
    screen.line(
        f"{found.deployment}@{found.environment} had {found.model} on {screen.instant(found.at)} UTC",
        style="bold",
    )
    screen.table(list(STAY_COLUMNS), stay_rows(found.stays), right=["share"], wrap="because")
    for each in found.stays:
        screen.heading(f"Why {each.model} had {each.share:.0%}, newest first")
        rows = [
            (screen.instant(link.at), link.verb.replace(".", " ").replace("_", " "), link.event, link.reason)
            for link in each.chain
        ]
        screen.table(["at", "", "event", "because"], rows, wrap="because")
        if each.gate is not None and each.gate.event not in {link.event for link in each.chain}:
            screen.line(f"It was let in by {each.gate.event}: {each.gate.reason}.")


def restore(
    reference: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    environment: str = "production",
    share: float | None = None,
    reason: str = "",
    options: Options = DEFAULT,
) -> None:
    """Put an earlier version up again, if the gate has let it in. A running `noria serve` follows.

    Parameters
    ----------
    reference
        Such as late_arrival:2.
    environment
        Where.
    share
        Try it on a part of the traffic, such as 0.1. Default: it answers all of it.
    reason
        Why, for the record.
    """
    from noria.cli import screen

    with options.open() as project:
        move = project.models.restore(reference, environment, share=share, reason=reason)
        version = project.models.get(reference)
    if options.json:
        screen.json({
            "environment": environment, "deployment": version.name, "model": version.ref,
            "route": move.version.ref, "pointer": move.pointer, "event": move.request.id,
        })  # fmt: skip
        return
    told = "answers all traffic" if share is None else f"answers {share:.0%} of the traffic, on trial,"
    screen.line(f"{version.ref} {told} of {environment}/{version.name} (route {move.version.ref}).")
    screen.line(
        f"It is on record as event {move.pointer.event}; `noria why {version.name}@{environment}` tells "
        "the story."
    )


def undelete(reference: Annotated[str, Parameter(name="MODEL")], /, *, options: Options = DEFAULT) -> None:
    """Take back the deletion of a registered model, or of one of its versions.

    Parameters
    ----------
    reference
        NAME, with the versions that were deleted with it, or NAME:3.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.models.undelete(reference)
    if options.json:
        screen.json(found)
        return
    screen.line(f"{reference} is there again; its aliases are not, put them anew with `noria model alias`.")


def stay_rows(stays: "Sequence[PlacedStay]") -> list[tuple[str, ...]]:
    """Give stays as rows of `STAY_COLUMNS`."""
    from noria.cli import screen

    return [
        (
            each.model,
            f"{each.deployment}@{each.environment}",
            screen.instant(each.since),
            "still" if each.until is None else screen.instant(each.until),
            f"{each.share:.0%}" + " shadow" * (each.mode == "shadow") + " trial" * each.trial,
            each.by,
            f"{each.reason}; set off by {each.asked_by}",
        )
        for each in stays
    ]
