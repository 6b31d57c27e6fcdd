"""`noria artifact prune`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["prune"]


def prune(
    *,
    older_than: str = "30d",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Remove bytes of files that were deleted or put anew, so that nothing is made of them, for good.

    Parameters
    ----------
    older_than
        Bytes that nobody has put for so long.
    dry_run
        Only tell.
    """
    from noria.cli import screen
    from noria.workspace.artifact_upkeep import prune_artifacts

    with options.open() as project:
        told = prune_artifacts(project, project.artifacts, older_than=older_than, dry_run=dry_run)
    if options.json:
        screen.json(told)
        return
    since = f"nothing names, and that nobody has put since {screen.instant(told.before)}"
    if not told.blobs:
        screen.line(f"Nothing to remove: there are no bytes that {since}.")
        return
    did = "Would remove" if told.is_dry else "Removed"
    screen.line(f"{did} {told.bytes:,} bytes in {screen.count(told.blobs, 'blob')} that {since}.")
