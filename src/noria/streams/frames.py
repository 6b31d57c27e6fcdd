"""Frames: how payloads lie in a log file.

A frame is `length, crc32 of the payload, crc32 of those two` (little endian, 4 bytes each) and the payload.
The header has its own check so that a damaged length is told from a tail that a kill cut off.
"""

import struct
import zlib
from pathlib import Path

from noria.errors import DiskFull, StoreError

__all__ = ["HEADER", "MAX_PAYLOAD_BYTES", "frame", "header_fits", "log_fault"]

HEADER = struct.Struct("<III")
MAX_PAYLOAD_BYTES = 1 << 30
_FIELDS = struct.Struct("<II")
_NO_ROOM = {28, 122, 27}  # ENOSPC, EDQUOT, EFBIG


def frame(payload: bytes) -> bytes:
    """Give a payload as a frame. Raises `ValueError` if it is too large for one."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"a payload of {len(payload)} bytes is too large for a spool; at most {MAX_PAYLOAD_BYTES}"
        )
    fields = _FIELDS.pack(len(payload), zlib.crc32(payload))
    return b"".join((fields, zlib.crc32(fields).to_bytes(4, "little"), payload))


def header_fits(data: bytes | memoryview, at: int, check: int) -> bool:
    """Tell whether the two first fields of the header at `at` are those that `check` was made of."""
    return zlib.crc32(data[at : at + _FIELDS.size]) == check


def log_fault(err: OSError, folder: Path) -> StoreError:
    """Give the error that tells of an `OSError` while a log in `folder` was written."""
    if err.errno in _NO_ROOM:
        return DiskFull(str(folder))
    return StoreError(f"the log in {folder} cannot be written: {err.strerror}")
