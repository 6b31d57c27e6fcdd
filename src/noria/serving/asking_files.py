"""The file in which a worker says which releases it asks: read when the worker has ended, without numpy.

Two are asked at once: one that answers, and one in the shadow. Each has two bytes for the number of its slot;
what the slots stand for follows.
"""

import logging
import struct
from pathlib import Path

import msgspec

__all__ = ["ANSWERING", "NOBODY", "SHADOWING", "SIZE", "asked_at_the_end", "asking_name", "encode_slots"]

_LOG = logging.getLogger(__name__)
SIZE = 16 * 1024
NOBODY = b"\0\0"
ANSWERING, SHADOWING = slice(0, 2), slice(2, 4)
_HEAD = struct.Struct("<HHH")  # both slots, and how long what follows is


class _Slots(msgspec.Struct, frozen=True, array_like=True):
    asked: list[tuple[int, str]]  # route and release; slot 1 is the first


_DECODER = msgspec.msgpack.Decoder(_Slots)


def asking_name(worker: int) -> str:
    """Give the name of a worker's file in the folder of a deployment."""
    return f"asking-{worker}"


def encode_slots(asked: list[tuple[int, str]]) -> tuple[slice, bytes] | None:
    """Give where in the file it stands what the slots are, and that; None where they are too many."""
    told = msgspec.msgpack.encode(_Slots(asked))
    if len(told) > SIZE - _HEAD.size:
        return None
    return slice(SHADOWING.stop, _HEAD.size + len(told)), len(told).to_bytes(2, "little") + told


def asked_at_the_end(path: Path) -> list[tuple[int, str]]:
    """Give route and release of whom a process asked when it ended, once."""
    try:
        with path.open("r+b") as file:
            kept = file.read(SIZE)
            file.seek(0)
            file.write(NOBODY + NOBODY)
    except FileNotFoundError:
        return []
    except OSError as err:
        _LOG.warning("whose fault an end of a worker was is not known: %s", err)
        return []
    if len(kept) < _HEAD.size:
        return []
    *slots, length = _HEAD.unpack_from(kept)
    try:
        asked = _DECODER.decode(kept[_HEAD.size : _HEAD.size + length]).asked if any(slots) else []
        return [asked[slot - 1] for slot in slots if slot]
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        IndexError,
    ):  # it ended while it wrote, or wrote at random
        return []
