"""`noria trial`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["show_trial"]


def show_trial(
    reference: Annotated[str, Parameter(name="MODEL@ENVIRONMENT")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Tell how what is on trial stands: a canary, a shadow, an A/B test or a bandit.

    Parameters
    ----------
    reference
        Such as late_arrival@production.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.trial(reference)
    if options.json:
        screen.json(found)
        return
    named = f" {found.name!r}" if found.name else ""
    screen.line(f"{found.kind}{named} at {reference} since {screen.instant(found.since)}", style="bold")
    rows = [(model, release, screen.share(found.shares[release])) for release, model in found.models.items()]
    screen.table(["model", "release", "share"], rows, right=["share"])
    screen.line(found.told)
    if found.event is not None:
        screen.line(f"The last look on record is event {found.event}.")
