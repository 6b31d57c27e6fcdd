"""`noria run sync`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.remote_runs import RunsSynced

__all__ = ["sync"]

_ID_CHARS = 16


def sync(
    server: Annotated[str | None, Parameter(name="SERVER")] = None,
    /,
    *,
    again: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> int:
    """Send what runs have logged for servers and is still on this machine; no project is needed.

    A run whose process died is closed as killed. Ends with 1 while something waits or was refused.

    Parameters
    ----------
    server
        Its URL; default: every server that something waits for.
    again
        Send what was refused once more.
    """
    from noria.cli import screen
    from noria.workspace.remote_runs import sync_runs

    done = sync_runs(server, again=again)
    if options.json:
        screen.json(done)
    else:
        _show(done)
    return 0 if done.is_whole else 1


def _show(done: "RunsSynced") -> None:
    from noria.cli import screen

    if done.logs:
        rows = [
            (
                each.run[:_ID_CHARS], each.name, each.server, screen.number(each.entries),
                "waits" if not each.is_sent else f"{each.refused} refused" if each.refused else "sent",
            )
            for each in done.logs
        ]  # fmt: skip
        screen.table(["run", "name", "server", "entries sent", "state"], rows, right=["entries sent"])
    for why in dict.fromkeys(each.why for each in done.logs if each.why):
        screen.line(why)
    if any(each.refused for each in done.logs):
        screen.line("What was refused is kept; `noria run sync --again` sends it once more.")
    if done.at_work:
        screen.line(f"{screen.count(done.at_work, 'run')} at work or sent by others just now.")
    elif not done.logs:
        screen.line("Nothing waits for a server.")
