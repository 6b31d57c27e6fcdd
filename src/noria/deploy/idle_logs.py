"""Closing the logs of a deployment that no worker holds: of one that ended, or of whoever records without."""

from collections.abc import Iterable
from pathlib import Path

from noria.errors import LeaseHeld
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.outcomes import OutcomeBook, outcome_spool
from noria.serving.process.hosting import INDEX, spool_name
from noria.streams.spool import Spool

__all__ = ["rotate_idle", "rotate_idle_outcomes"]


def rotate_idle(folder: Path, *, lock_wait_s: float, without: Iterable[str] = ()) -> list[tuple[Path, int]]:
    """Close the logs in a deployment's folder that no worker holds; give each with its last closed segment.

    After it all of the segments up to that number may leave the spool: retries are still known.

    Raises
    ------
    LeaseHeld
        If another process logs there.
    """
    closed: list[tuple[Path, int]] = []
    first = folder / spool_name(0)
    others = sorted(each for each in folder.glob(f"{spool_name(0)}-*") if each.is_dir())
    for path in (first, *others):
        if path.name in without or not path.is_dir():
            continue
        with (
            Spool(path, wait_s=lock_wait_s) as spool,
            PredictionIndex(folder / INDEX, spool=path.name) as index,
        ):
            index.catch_up(path)
            segment = spool.rotate()
            index.mark(segment)
            closed.append((path, segment))
    return closed


def rotate_idle_outcomes(
    folder: Path, *, lock_wait_s: float, without: Iterable[str] = ()
) -> list[tuple[Path, int]]:
    """Close the outcomes in a deployment's folder that no worker holds, as `rotate_idle` does the logs.

    What a project is recording at that moment it moves on itself.

    Raises
    ------
    LeaseHeld
        If another process holds a worker's.
    """
    closed: list[tuple[Path, int]] = []
    for path in sorted(each for each in folder.glob(f"{outcome_spool(0)}*") if each.is_dir()):
        if path.name in without:
            continue
        is_project = path.name == outcome_spool()
        try:
            with OutcomeBook(folder, spool=path.name, wait_s=0.0 if is_project else lock_wait_s) as book:
                closed.append((path, book.rotate()))
        except LeaseHeld:
            if not is_project:
                raise
    return closed
