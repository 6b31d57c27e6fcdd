"""`noria rollback`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["rollback"]


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
