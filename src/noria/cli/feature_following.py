"""`noria feature follow`."""

import sys
import threading
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.cli.stopping import follow_stdin, until_told_to_stop

if TYPE_CHECKING:
    from noria.workspace.features.follower import Told

__all__ = ["follow"]


def follow(
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    anew: Annotated[bool, Parameter(negative="")] = False,
    until_stdin_closes: Annotated[bool, Parameter(negative="", show=False)] = False,
    options: Options = DEFAULT,
) -> None:
    """Keep online features up with what comes to their tables, until Ctrl-C; `noria up` does so by itself.

    Followed are the views that the project declares and those that deployed releases need, each as it was
    defined. With --json each thing that happens is a line of JSON.

    Parameters
    ----------
    once
        Count what is there, and end.
    anew
        Throw the online store away first, as one does with one that is damaged.
    until_stdin_closes
        End when standard input does, which is when the process that keeps this one is gone.
    """
    from noria.workspace.features.follower import FeatureFollower

    stop = threading.Event()
    at_once = "stopped at once; what is not counted will be the next time"
    with options.open() as project, until_told_to_stop(stop, at_once=at_once):
        if until_stdin_closes:
            follow_stdin(stop)
        follower = FeatureFollower(project, tell=_tell_json if options.json else _tell, anew=anew)
        if once:
            follower.bring_all()
        else:
            follower.run(stop, every_s=project.settings.server.features_every_s)


def _tell(told: "Told") -> None:
    from noria.cli import screen
    from noria.features.following import Brought, HeldUp
    from noria.workspace.features.follower import Trouble

    match told:
        case Brought(loaded=None):
            screen.line(f"{told.view}: {told.rows:,} rows counted")
        case Brought():
            screen.line(f"{told.view}: {told.rows:,} rows loaded: {told.loaded}")
        case HeldUp():
            screen.line(f"{told.view} stays as it is: {told.reason}")
        case Trouble(reason=None):
            screen.line("going on")
        case _:
            screen.line(str(told.reason))
    screen.flush()


def _tell_json(told: "Told") -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    sys.stdout.flush()
