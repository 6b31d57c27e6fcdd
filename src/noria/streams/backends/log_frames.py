"""How events lie in the frames of a local stream, and how frames are found in its files.

A frame holds events that were appended together: the offset of the first, the instant, their number, the
sizes of their keys (0: none, else one more than its bytes) and payloads, then keys and payloads in turn.
An event that was erased keeps its place: the size of its key says so, and nothing of it is left.
A file is named after the offset of its first event.
"""

import os
import re
import struct
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, repeat
from pathlib import Path
from typing import NamedTuple

from noria.errors import StoreError
from noria.streams.contract import StreamEvent
from noria.streams.frames import HEADER, frame, header_fits

__all__ = [
    "Damaged",
    "Found",
    "find_frames",
    "frame_without",
    "list_segments",
    "pack_events",
    "segment_path",
    "unpack_events",
]

_HEAD = struct.Struct("<QqI")  # first offset, microseconds since 1970, number of events
_CHUNK = 1 << 20
_EVENTS_PER_FRAME = 4_096
_ERASED = 0xFFFF_FFFF  # in place of the size of a key
_event = partial(tuple.__new__, StreamEvent)  # twice as quick as the class is
_SEGMENT = re.compile(r"(\d{20})\.log")


class Damaged(StoreError):
    """Bytes that are no frame, though more follow them."""


class Found(NamedTuple):
    """A whole frame of a file."""

    first: int  # offset of its first event
    following: int  # offset that comes after its last event
    end: int  # the byte behind it
    body: bytes


def segment_path(folder: Path, base: int) -> Path:
    """Give the file whose first event has offset `base`."""
    return folder / f"{base:020d}.log"


def list_segments(folder: Path) -> list[int]:
    """List the first offsets of a partition's files, oldest first."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - ten times faster than Path.iterdir on a hot path
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def pack_events(
    payloads: Sequence[bytes], keys: Sequence[bytes | None] | None, *, first: int, at_us: int | None = None
) -> Iterator[bytes]:
    """Give events as frames, the first event with offset `first`."""
    at_us = time.time_ns() // 1_000 if at_us is None else at_us
    start = 0
    while start < len(payloads):
        stop, size = start, 0
        while stop < len(payloads) and stop - start < _EVENTS_PER_FRAME and size < _CHUNK:
            size += len(payloads[stop])
            stop += 1
        some = payloads[start:stop]
        parts: Sequence[bytes] = some
        sizes = [0] * (2 * len(some))
        sizes[1::2] = map(len, some)
        if keys is not None:
            given = keys[start:stop]
            sizes[0::2] = [0 if key is None else 1 + len(key) for key in given]
            parts = [part for key, payload in zip(given, some, strict=True) for part in (key or b"", payload)]
        head = _HEAD.pack(first + start, at_us, len(some)) + struct.pack(f"<{len(sizes)}I", *sizes)
        yield frame(b"".join((head, *parts)))
        start = stop


def unpack_events(body: bytes, *, after: int, rows: int) -> list[StreamEvent]:
    """Give at most `rows` of a frame's events, those behind offset `after`; erased ones are left out."""
    first, at_us, count = _HEAD.unpack_from(body)
    sizes = struct.unpack_from(f"<{2 * count}I", body, _HEAD.size)
    start = max(0, after + 1 - first)
    is_plain = not any(sizes[0::2])
    places: Sequence[int] = range(start, min(count, start + rows))
    if not is_plain and _ERASED in sizes[0::2]:
        places = [each for each in range(start, count) if sizes[2 * each] != _ERASED][:rows]
    ends = list(accumulate(sizes if is_plain else _plain_sizes(sizes), initial=_HEAD.size + 8 * count))
    payloads = [body[ends[2 * each + 1] : ends[2 * each + 2]] for each in places]
    keys: Iterable[bytes | None] = repeat(None)
    if not is_plain:
        keys = [body[ends[2 * each] : ends[2 * each + 1]] if sizes[2 * each] else None for each in places]
    offsets = [first + each for each in places]
    return list(map(_event, zip(offsets, payloads, repeat(at_us), keys)))


def frame_without(body: bytes, gone: Collection[int]) -> bytes:
    """Give a frame again without the events of the offsets `gone`; the others keep their offsets."""
    first, _, count = _HEAD.unpack_from(body)
    sizes = list(struct.unpack_from(f"<{2 * count}I", body, _HEAD.size))
    ends = list(accumulate(_plain_sizes(sizes), initial=_HEAD.size + 8 * count))
    kept = []
    for place in range(count):
        if first + place in gone or sizes[2 * place] == _ERASED:
            sizes[2 * place : 2 * place + 2] = [_ERASED, 0]
        else:
            kept.append(body[ends[2 * place] : ends[2 * place + 2]])
    return frame(b"".join((body[: _HEAD.size], struct.pack(f"<{2 * count}I", *sizes), *kept)))


def _plain_sizes(sizes: Sequence[int]) -> Sequence[int]:
    """Give the bytes that keys and payloads take."""
    return [
        size if place % 2 else 0 if size == _ERASED else max(0, size - 1) for place, size in enumerate(sizes)
    ]


def find_frames(file: int, path: Path, *, start: int, first: int) -> Iterator[Found]:
    """Give the whole frames of an open file from byte `start` on; that one begins with offset `first`.

    Ends at the end, and at a frame that is still being written or that a kill cut off.

    Raises
    ------
    Damaged
        If a frame is not what was written, or is not the one that follows.
    """
    data, at, base = b"", 0, start
    while True:
        wanted = HEADER.size
        if len(data) - at >= HEADER.size:
            length, checksum, check = HEADER.unpack_from(data, at)
            if not header_fits(data, at, check):
                if not any(data[at:]) and not any(_rest(file, base + len(data))):
                    return  # zeros to the end: what a loss of power leaves
                raise Damaged(f"{path} is damaged at byte {base + at}: no frame begins there; restore it")
            wanted += length
            if len(data) - at >= wanted:
                body = data[at + HEADER.size : at + wanted]
                if zlib.crc32(body) != checksum:
                    raise Damaged(
                        f"{path} is damaged at byte {base + at}: events do not match their checksum; "
                        "restore it"
                    )
                found, _, count = _HEAD.unpack_from(body)
                if found != first:
                    raise Damaged(
                        f"{path} goes on with offset {found} at byte {base + at}, wanted is {first}: "
                        "events between were lost; restore it"
                    )
                at += wanted
                first += count
                yield Found(found, first, base + at, body)
                continue
        base, data, at = base + at, data[at:], 0
        more = os.pread(file, max(_CHUNK, wanted - len(data)), base + len(data))
        if not more:
            return
        data += more


def _rest(file: int, start: int) -> bytes:
    return os.pread(file, 1 << 30, start)
