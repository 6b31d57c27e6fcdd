"""Streams as files of this machine: one folder for each partition, written by any number of processes.

Whoever appends takes the partition's lock for one write(2). What came since its last append, and how far
offsets have got, it finds by looking at what the file has grown by; a tail that a kill cut off is cut away.
Readers take no lock.
"""

import bisect
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

from noria.errors import StoreError
from noria.streams.backends.log_erasing import erase_in, sweep
from noria.streams.backends.log_frames import (
    Damaged,
    find_frames,
    list_segments,
    pack_events,
    segment_path,
    unpack_events,
)
from noria.streams.contract import Extent, StreamEvent, check_place, check_sizes
from noria.streams.erasing import IsGone
from noria.streams.frames import log_fault

__all__ = ["LogStream", "open_log"]

_SEGMENT_BYTES = 16 << 20
_LOCK_WAIT_S = 10.0
_POLL_S = 0.01
_NEAR = 1 << 16  # so many offsets ahead are sooner read over than looked for

T = TypeVar("T")


class LogStream:
    """A local stream; see `noria.streams.contract.EventStream`.

    Parameters
    ----------
    folder
        Where its partitions live; made when something is appended.
    partitions
        How many there are; those that were made before stay.
    segment_bytes
        A file that has grown past this is followed by the next one.
    """

    def __init__(
        self, folder: Path, *, name: str, partitions: int = 1, segment_bytes: int = _SEGMENT_BYTES
    ) -> None:
        self.name = name
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._partitions = [
            _Partition(folder / str(number), segment_bytes, name=name, number=number)
            for number in range(max(partitions, _made(folder)))
        ]
        self._turn = count()

    def partitions(self) -> Sequence[int]:
        """Number the partitions."""
        return range(len(self._partitions))

    def append(
        self, payloads: Sequence[bytes], *, keys: Sequence[bytes | None] | None = None
    ) -> dict[int, int]:
        """Append events by one write(2) for each partition, and give the last offset in each."""
        check_sizes(payloads)
        if not payloads:
            return {}
        if len(self._partitions) == 1:
            return {0: self._partitions[0].append(payloads, keys)}
        shares: dict[int, tuple[list[bytes], list[bytes | None]]] = {}
        turn = next(self._turn) % len(self._partitions)
        for place, payload in enumerate(payloads):
            key = None if keys is None else keys[place]
            number = turn if key is None else zlib.crc32(key) % len(self._partitions)
            share = shares.setdefault(number, ([], []))
            share[0].append(payload)
            share[1].append(key)
        return {number: self._partitions[number].append(*share) for number, share in sorted(shares.items())}

    def read(
        self,
        partition: int,
        *,
        after: int,
        rows: int,
        size_bytes: int = 64 << 20,
        wait_s: float = 0.0,
    ) -> list[StreamEvent]:
        """Give the events behind an offset; looks every 10 ms while it waits."""
        deadline = time.monotonic() + wait_s
        while True:
            events = self._partitions[partition].read(after, rows, size_bytes)
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            time.sleep(min(_POLL_S, left))

    def extent(self, partition: int) -> Extent:
        """Tell from where to where the partition reaches."""
        return self._partitions[partition].extent()

    def forget(self, partition: int, *, through: int, keep_bytes: int) -> None:
        """Remove the oldest files whose events are all up to `through`, until `keep_bytes` are left."""
        self._partitions[partition].forget(through, keep_bytes)

    def erase(self, is_gone: IsGone, *, dry_run: bool = False) -> int:
        """Take events out of all partitions; see `noria.streams.erasing.ErasableStream`."""
        return sum(each.erase(is_gone, dry_run=dry_run) for each in self._partitions)

    def close(self) -> None:
        """Let go of the files."""
        for each in self._partitions:
            each.close()


class _Place:
    """An open file, and a frame's beginning in it."""

    def __init__(self, folder: Path, base: int, *, flags: int) -> None:
        self.base, self.path = base, segment_path(folder, base)
        self.file = os.open(self.path, flags | os.O_CLOEXEC, 0o644)
        self.byte, self.offset = 0, base  # where the frame begins, and the offset of its first event

    def is_there(self) -> bool:
        """Whether the file still has its name."""
        return os.fstat(self.file).st_nlink > 0

    def close(self) -> None:
        os.close(self.file)


class _Partition:
    """Both ends of one partition."""

    def __init__(self, folder: Path, segment_bytes: int, *, name: str, number: int) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._name, self._number = name, number
        self._writing, self._reading, self._ending = (threading.Lock() for _ in range(3))
        self._lock: int | None = None
        self._tail: _Place | None = None  # where this process writes on
        self._cursor: _Place | None = None  # where it read last
        self._end: _Place | None = None  # how far it knows the partition to reach
        self._awaited = -1  # looked for up to the end in vain: the cursor is past what was erased

    def close(self) -> None:
        for guard in (self._writing, self._reading, self._ending):
            guard.acquire()
        for place in (self._tail, self._cursor, self._end):
            if place is not None:
                place.close()
        self._tail = self._cursor = self._end = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for guard in (self._writing, self._reading, self._ending):
            guard.release()

    # -- writing

    def append(self, payloads: Sequence[bytes], keys: Sequence[bytes | None] | None) -> int:
        with self._writing, self._locked():
            try:
                tail = self._catch_up()
                data = b"".join(pack_events(payloads, keys, first=tail.offset))
                try:
                    written = os.write(tail.file, data)
                    while written < len(data):  # a signal or a nearly full disk
                        written += os.write(tail.file, data[written:])
                except OSError:
                    os.ftruncate(tail.file, tail.byte)
                    raise
            except OSError as err:
                if isinstance(err, StoreError):
                    raise
                raise log_fault(err, self._folder) from err
            tail.byte += len(data)
            tail.offset += len(payloads)
            return tail.offset - 1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the partition's lock, which goes with the process that holds it."""
        if self._lock is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as err:
                raise log_fault(err, self._folder) from err
        deadline, pause = time.monotonic() + _LOCK_WAIT_S, 0.0001
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process has appended to {self._folder} for {_LOCK_WAIT_S:.0f} s and is not "
                        "done; look what holds it up, and try again"
                    ) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.002)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _catch_up(self) -> _Place:
        """Go to the end of the newest file, past what others wrote, and cut away what a kill left."""
        tail = self._tail
        if tail is None or not tail.is_there():
            bases = list_segments(self._folder)
            tail = self._move_tail(bases[-1] if bases else 0)
        while True:
            size = os.fstat(tail.file).st_size
            if size < tail.byte:
                raise StoreError(f"{tail.path} was cut from {tail.byte} to {size} bytes; restore it")
            if size > tail.byte:
                for found in find_frames(tail.file, tail.path, start=tail.byte, first=tail.offset):
                    tail.byte, tail.offset = found.end, found.following
                if size > tail.byte:
                    os.ftruncate(tail.file, tail.byte)
            is_followed = tail.offset > tail.base and segment_path(self._folder, tail.offset).exists()
            if not is_followed and tail.byte < self._segment_bytes:
                return tail
            tail = self._move_tail(tail.offset)

    def _move_tail(self, base: int) -> _Place:
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        self._tail = _Place(self._folder, base, flags=os.O_RDWR | os.O_CREAT | os.O_APPEND)
        return self._tail

    # -- reading

    def read(self, after: int, rows: int, size_bytes: int) -> list[StreamEvent]:
        with self._reading:
            return self._safely(lambda: self._read(after, rows, size_bytes))

    def extent(self) -> Extent:
        with self._ending:
            return self._safely(self._extent)

    def forget(self, through: int, keep_bytes: int) -> None:
        if len(list_segments(self._folder)) < 2:
            return
        with self._writing, self._locked():
            bases = list_segments(self._folder)
            sizes = [segment_path(self._folder, base).stat().st_size for base in bases]
            for place, following in enumerate(bases[1:]):
                if following > through + 1 or sum(sizes[place:]) <= keep_bytes:
                    return
                segment_path(self._folder, bases[place]).unlink(missing_ok=True)

    def erase(self, is_gone: IsGone, *, dry_run: bool) -> int:
        if not list_segments(self._folder):
            return 0
        try:
            with self._writing, self._locked():
                if not dry_run:
                    self._catch_up()  # a tail that a kill cut off is cut away
                    sweep(self._folder)
                bases = list_segments(self._folder)
                return sum(erase_in(self._folder, base, is_gone, dry_run=dry_run) for base in bases)
        except OSError as err:
            if isinstance(err, StoreError):
                raise
            raise log_fault(err, self._folder) from err

    def _safely(self, look: Callable[[], T]) -> T:
        """Look again with the lock: what looked damaged may have been a tail that was just cut away."""
        try:
            return look()
        except Damaged:
            if not self._folder.exists():
                raise
            with self._writing, self._locked():
                return look()
        except OSError as err:
            if isinstance(err, StoreError):
                raise
            raise StoreError(f"the stream in {self._folder} cannot be read: {err.strerror}") from err

    def _read(self, after: int, rows: int, size_bytes: int) -> list[StreamEvent]:
        place, self._awaited = self._go_to(after + 1), -1
        wanted, size = after + 1, 0
        events: list[StreamEvent] = []
        while place is not None:
            for found in find_frames(place.file, place.path, start=place.byte, first=place.offset):
                some = unpack_events(found.body, after=wanted - 1, rows=rows - len(events))
                events += some
                size += len(found.body)
                if some:
                    wanted = some[-1].offset + 1
                if some and wanted < found.following and len(events) >= rows:
                    return events  # the next reading begins with the rest of this frame
                place.byte, place.offset = found.end, found.following
                if len(events) >= rows or size >= size_bytes:
                    return events
            last, place = place, self._follow(place)
            if place is None and last.offset < wanted:
                self._check(Extent(0, last.offset), wanted)
        self._awaited = -1 if events else wanted
        return events

    def _go_to(self, wanted: int) -> _Place | None:
        """Give a place at or before offset `wanted`; None if nothing was ever appended."""
        cursor = self._cursor
        if cursor is not None and cursor.is_there():
            is_past_erased = wanted == self._awaited < cursor.offset
            if is_past_erased or 0 <= wanted - cursor.offset <= _NEAR:
                return cursor
        bases = list_segments(self._folder)
        if not bases:
            self._check(Extent(0, 0), wanted)
            return None
        self._check(Extent(bases[0], wanted), wanted)
        return self._move_cursor(bases[max(0, bisect.bisect_right(bases, wanted) - 1)])

    def _follow(self, place: _Place) -> _Place | None:
        """Go to the file behind `place`, which was read to its end; None if there is none yet."""
        if place.offset == place.base:
            return None
        if not segment_path(self._folder, place.offset).exists():
            bases = list_segments(self._folder)
            if bases and bases[-1] > place.offset and not segment_path(self._folder, place.offset).exists():
                self._check(Extent(bases[0], bases[-1]), place.offset)
                raise Damaged(f"{segment_path(self._folder, place.offset)} is gone, yet a later file exists")
            return None
        if os.fstat(place.file).st_size > place.byte:
            raise Damaged(
                f"{place.path} is cut off at byte {place.byte}, yet a later file exists; restore it"
            )
        return self._move_cursor(place.offset)

    def _check(self, extent: Extent, wanted: int) -> None:
        check_place(self._name, self._number, extent, after=wanted - 1)

    def _move_cursor(self, base: int) -> _Place:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        self._cursor = _Place(self._folder, base, flags=os.O_RDONLY)
        return self._cursor

    def _extent(self) -> Extent:
        bases = list_segments(self._folder)
        if not bases:
            return Extent(0, 0)
        end = self._end
        if end is None or end.base != bases[-1] or not end.is_there():
            if end is not None:
                end.close()
                self._end = None
            end = self._end = _Place(self._folder, bases[-1], flags=os.O_RDONLY)
        for found in find_frames(end.file, end.path, start=end.byte, first=end.offset):
            end.byte, end.offset = found.end, found.following
        return Extent(bases[0], end.offset)


def open_log(url: str, name: str, *, root: Path, partitions: int) -> LogStream:
    """Open a stream below the folder that `log:FOLDER` names."""
    _, _, where = url.partition(":")
    return LogStream(root / where / "logs" / name, name=name, partitions=partitions)


def _made(folder: Path) -> int:
    """Count the partitions up to the last that was ever appended to."""
    names = [each.name for each in folder.iterdir() if each.name.isdecimal()] if folder.is_dir() else []
    return max((int(each) + 1 for each in names), default=0)
