"""Bodies of any size: taken in piece by piece, and given up where nothing, or next to nothing, comes."""

import asyncio
import time
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from noria.api.mlflow.errors import ErrorCode, MlflowFault

__all__ = ["Uploads", "receive"]

PIECE_BYTES = 1 << 20
_UPLOADS = 32  # at once, of a piece each; others wait
_HEAVY = 4  # threads at once that read whole files: to keep them, or to verify them
_LOOK_EVERY_S = 60.0
_LEAST_BYTES = 64 << 10  # that have to come between two looks: else others wait for its place for ever


class _Writer(Protocol):
    def write(self, data: bytes | bytearray) -> None: ...


class Uploads:
    """How many may come at once, and how many may be read as a whole."""

    def __init__(self) -> None:
        self.coming, self.heavy = asyncio.Semaphore(_UPLOADS), asyncio.Semaphore(_HEAVY)


async def receive(request: Request, writer: _Writer, *, most: int | None = None) -> int:
    """Write the body, a large piece at a time, and give its size.

    Raises
    ------
    MlflowFault
        If the client goes away, is too slow, or sends more than `most` bytes.
    """
    pieces = request.stream()
    held, size = bytearray(), 0
    looked_at, had = time.monotonic(), 0
    try:
        while True:
            left_s = max(looked_at + _LOOK_EVERY_S - time.monotonic(), 0.0)
            async with asyncio.timeout(left_s):
                piece = await anext(pieces, None)
            if piece is not None:
                held += piece
                size += len(piece)
            if most is not None and size > most:
                raise MlflowFault.invalid(f"Artifact size is too large. Max size is {most >> 20}MB.")
            if held and (piece is None or len(held) >= PIECE_BYTES):
                await run_in_threadpool(writer.write, held)
                held = bytearray()
            if piece is None:
                return size
            if size - had >= _LEAST_BYTES:  # enough for this while: another one begins
                looked_at, had = time.monotonic(), size
    except ClientDisconnect as err:
        raise MlflowFault(
            ErrorCode.BAD_REQUEST, "the client went away in the middle of a file; nothing of it was kept"
        ) from err
    except TimeoutError as err:
        raise MlflowFault(
            ErrorCode.BAD_REQUEST,
            f"less than {_LEAST_BYTES >> 10} kB came in {_LOOK_EVERY_S:.0f} s; nothing of the file was kept, "
            "send it again",
        ) from err
