"""What processes have logged and the database may not have yet: a log for each run and process.

A log is a folder `RUN.TOKEN` below the project's state, held by a lock while its process lives. How far it
was moved into the database is in its file `moved`, so that what was moved is not moved once more.
"""

import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from noria.errors import LeaseHeld, StoreDamaged, StoreError
from noria.records import RunId
from noria.streams.frames import log_fault
from noria.streams.spool import Position, Spool, drop_segments, read_spool, take_lock
from noria.tracking.spools.records import Entry, KeptFile, Points, decode

__all__ = ["RunSpool", "abandoned_spools", "count_spools"]

_SEGMENT_BYTES = 4 << 20  # what was moved is removed by so much at a time
_MOST_POINTS, _MOST_BYTES = 5_000, 1 << 20  # moved at once
_POINTS_OF_FILE = 20  # as long as so many points: nobody else writes meanwhile
_MOVED = struct.Struct("<QQ")
_ASIDE = "aside."
_TRIES = 10


class RunSpool:
    """The log of one run and process, opened; what `append` has returned survives kill -9.

    Several threads may append while one reads.
    """

    def __init__(self, folder: Path, spool: Spool | None, *, lock: int = -1) -> None:
        self.folder, self._spool, self._lock = folder, spool, lock
        self.run = RunId(folder.name.partition(".")[0])
        self._moved_file = os.open(folder / "moved", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        read = os.pread(self._moved_file, _MOVED.size, 0)
        if len(read) < _MOVED.size:
            read = _MOVED.pack(0, 0)
            os.pwrite(self._moved_file, read, 0)  # has its room while there is some
        segment, offset = _MOVED.unpack(read)
        self._moved = Position(segment, offset)

    @classmethod
    def create(cls, root: Path, run: RunId) -> Self:
        """Begin a log. Raises `DiskFull` or `StoreError` if none can be."""
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise log_fault(err, root) from err
        for _ in range(_TRIES):
            folder = root / f"{run}.{secrets.token_hex(4)}"
            with suppress(LeaseHeld, FileNotFoundError):  # taken for an abandoned one while it was made
                return cls._begin(folder)
        raise StoreError(f"no log can be begun in {root}: others remove it all the time; look who does")

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """Open the log of a process that has ended; None if it lives, or the log is gone.

        Raises `StoreError` if the disk cannot be written.
        """
        try:
            lock = take_lock(folder)
            if os.fstat(lock).st_nlink:
                return cls(folder, None, lock=lock)
            os.close(lock)  # somebody else has moved and removed it since
        except (LeaseHeld, FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise log_fault(err, folder) from err
        return None

    @classmethod
    def _begin(cls, folder: Path) -> Self:
        spool = None
        try:
            spool = Spool(folder, segment_bytes=_SEGMENT_BYTES)
            return cls(folder, spool)
        except (OSError, StoreError) as err:
            if spool is not None:
                spool.close()
            _remove_begun(folder)
            if FileNotFoundError in {type(err), type(err.__cause__)}:
                raise FileNotFoundError(f"{folder} was removed while it was opened") from err
            raise err if isinstance(err, StoreError) else log_fault(err, folder) from err

    def append(self, payload: bytes) -> None:
        """Append one entry by one write(2). Raises `DiskFull` or `StoreError`; the log is then as it was."""
        assert self._spool is not None, "it is another process's"
        self._spool.append(payload)

    def sync(self) -> None:
        """Return when all that was appended is on the disk. Raises `DiskFull` or `StoreError`."""
        assert self._spool is not None, "it is another process's"
        try:
            self._spool.sync()
        except OSError as err:
            raise err if isinstance(err, StoreError) else log_fault(err, self.folder) from err

    @property
    def moved(self) -> Position:
        """Up to where it was moved."""
        return self._moved

    def read(self, *, most_entries: int = _MOST_POINTS) -> tuple[list[Entry], Position]:
        """Give what comes next of what was not moved, and where it ends; none: nothing is left.

        Raises
        ------
        StoreDamaged
            If what lies there is not what was written.
        """
        entries: list[Entry] = []
        position, points, size = self._moved, 0, 0
        if self._is_behind_the_end():
            return entries, position
        try:
            for end, payload in read_spool(self.folder, after=self._moved):
                entry = decode(payload)
                entries.append(entry)
                position, size = end, size + len(payload)
                points += _weight(entry)
                if points >= _MOST_POINTS or size >= _MOST_BYTES or len(entries) >= most_entries:
                    break
        except (StoreError, msgspec.DecodeError) as err:
            if not entries:  # else what is whole comes first
                raise StoreDamaged(f"the log {self.folder} of run {self.run} is damaged: {err}") from err
        except OSError as err:  # such as too many open files
            if not entries:
                raise StoreError(f"the log {self.folder} cannot be read: {err.strerror}") from err
        if not entries and not (self.folder / "moved").exists():
            raise StoreError(f"the log {self.folder} was moved or removed while it was at work; put it back")
        return entries, position

    @property
    def waiting_bytes(self) -> int:
        """About how much was appended and not moved yet."""
        assert self._spool is not None, "it is another process's"
        end, moved = self._spool.position, self._moved
        return (end.segment - max(moved.segment, 1)) * _SEGMENT_BYTES + end.offset - moved.offset

    def mark_moved(self, position: Position) -> None:
        """Remember that all up to there is in the database; whole segments of it are removed.

        Raises `DiskFull` or `StoreError`.
        """
        try:
            os.pwrite(self._moved_file, _MOVED.pack(*position), 0)
            if position.segment != self._moved.segment:
                drop_segments(self.folder, through=position.segment - 1)
        except OSError as err:
            raise log_fault(err, self.folder) from err
        self._moved = position

    def close(self) -> None:
        """Let go of the log; what is left of it is moved by whoever opens the project next."""
        if self._spool is not None:
            self._spool.close()
        for each in (self._lock, self._moved_file):
            if each >= 0:
                os.close(each)
        self._lock = self._moved_file = -1

    def remove(self) -> None:
        """Remove a log of which all was moved, and let go of it; what cannot be removed holds nothing new."""
        with suppress(OSError):  # somebody has just begun to look into it, and will remove it
            for each in sorted(self.folder.iterdir()):  # first what was moved, then `lock` and `moved`
                each.unlink(missing_ok=True)
            self.folder.rmdir()
        self.close()

    def set_aside(self) -> Path:
        """Let go of a log that cannot be moved, under a name that nobody looks for; give that."""
        aside = self.folder.with_name(f"{_ASIDE}{self.folder.name}")
        self.folder.rename(aside)
        self.close()
        return aside

    def drop_inherited(self) -> None:
        """Close what a forked child has got of its parent's log, which the parent goes on with."""
        if self._spool is not None:
            self._spool.drop_inherited()
        with suppress(OSError):
            os.close(self._moved_file)

    def _is_behind_the_end(self) -> bool:
        """Tell whether more was moved than lies there: power was lost before it was on the disk."""
        segment, offset = self._moved
        try:
            return (self.folder / f"{segment:08d}.log").stat().st_size < offset
        except FileNotFoundError:
            return False


def abandoned_spools(root: Path, *, run: RunId | None = None) -> Iterator[RunSpool]:
    """Take the logs of processes that have ended, one after the other; those of a run, or all.

    Whoever goes through them closes each. One that cannot be taken keeps nobody from the others: its
    `StoreError` is raised at the end.
    """
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208 - at each opening of a project
    except (FileNotFoundError, NotADirectoryError):
        return
    fault: StoreError | None = None
    for name in names:
        if name.startswith(_ASIDE) or not (run is None or name.startswith(f"{run}.")):
            continue
        try:
            spool = RunSpool.take(root / name)
        except StoreError as err:
            fault = fault or err
            continue
        if spool is not None:
            yield spool
    if fault is not None:
        raise fault


def _weight(entry: Entry) -> int:
    """Give how many points it takes as long to keep."""
    if isinstance(entry, Points):
        return len(entry.points)
    return _POINTS_OF_FILE if isinstance(entry, KeptFile) else 1


def _remove_begun(folder: Path) -> None:
    """Remove a log that nothing was appended to; there may be no file to list its folder with."""
    with suppress(OSError):
        for name in ("00000001.log", "moved", "lock"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def count_spools(root: Path) -> tuple[int, int]:
    """Give how many logs are at work or wait for it, and how many were set aside."""
    names = [each.name for each in root.iterdir()] if root.is_dir() else []
    aside = sum(each.startswith(_ASIDE) for each in names)
    return len(names) - aside, aside
