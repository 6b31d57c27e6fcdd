"""Taking events out of the files of a local stream: each is written beside and put in its place whole."""

import os
from contextlib import nullcontext
from pathlib import Path

from noria.streams.backends.log_frames import find_frames, frame_without, segment_path, unpack_events
from noria.streams.erasing import IsGone

__all__ = ["erase_in", "sweep"]

_BESIDE = ".erasing"


def erase_in(folder: Path, base: int, is_gone: IsGone, *, dry_run: bool) -> int:
    """Take events out of one file, while nobody appends to it; give how many.

    Readers that have it open read the old one to its end, and look for it anew then.
    """
    path = segment_path(folder, base)
    beside = path.with_name(path.name + _BESIDE)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0  # it was dropped meanwhile
    erased = 0
    try:
        with beside.open("wb") if not dry_run else nullcontext() as written:
            for found in find_frames(file, path, start=0, first=base):
                events = unpack_events(found.body, after=found.first - 1, rows=found.following - found.first)
                gone = {event.offset for event, goes in zip(events, is_gone(events), strict=True) if goes}
                erased += len(gone)
                if written is not None:
                    written.write(frame_without(found.body, gone))
            if written is not None:
                written.flush()
                os.fsync(written.fileno())
        if erased and not dry_run:
            beside.replace(path)
    finally:
        os.close(file)
        beside.unlink(missing_ok=True)
    return erased


def sweep(folder: Path) -> None:
    """Remove what a killed call has left beside the files."""
    for each in folder.glob(f"*{_BESIDE}"):
        each.unlink(missing_ok=True)
