"""`noria pipeline prune`."""

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
    """Forget kept results that no run needs any more; a later run makes them again.

    What is on record stays: runs, versions, lineage, logs. Room is made in the database; blobs in the storage
    stay where they are.

    Parameters
    ----------
    older_than
        Results that no run of this time has made or used.
    dry_run
        Only tell.
    """
    from noria.cli import screen

    with options.open() as project:
        told = project.prune_results(older_than=older_than, dry_run=dry_run)
    if options.json:
        screen.json(told)
        return
    since = f"no run since {screen.instant(told.before)} has made or used"
    if not told.results:
        screen.line(f"Nothing to forget: there is no kept result that {since}.")
        return
    did = "Would forget" if told.is_dry else "Forgot"
    kept = f"{screen.count(told.kept, 'result')} {'is' if told.kept == 1 else 'are'} kept."
    screen.line(f"{did} {screen.count(told.results, 'result')} that {since}; {kept}")
    freed = "would be freed" if told.is_dry else "are freed"
    screen.line(f"Of their {told.result_bytes:,} bytes, {told.freed_bytes:,} {freed} in the database.")
    if told.left_bytes:
        screen.line(f"{told.left_bytes:,} bytes lie in the storage and stay there.")
    screen.table(["step", "results"], told.steps.items(), right=["results"])
