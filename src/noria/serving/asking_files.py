"""The file in which a worker says which release it asks: read when the worker has ended, without numpy."""

from pathlib import Path

import msgspec

__all__ = ["FIRST", "NOBODY", "SIZE", "Slots", "asked_at_the_end", "asking_name"]

SIZE = 16 * 1024
NOBODY = 0  # the first byte, or the slot of a release
FIRST = 3  # byte of the slots, after their length


class Slots(msgspec.Struct, frozen=True, array_like=True):
    """Of which route the releases are, and which they are: slot 1 is the first."""

    route: int
    releases: list[str]


def asking_name(worker: int) -> str:
    """Give the name of a worker's file in the folder of a deployment."""
    return f"asking-{worker}"


def asked_at_the_end(path: Path) -> tuple[int, str] | None:
    """Give route and release that were asked when a process ended, once; None where none was."""
    try:
        with path.open("r+b") as file:
            kept = file.read(SIZE)
            if len(kept) < FIRST or kept[0] == NOBODY:
                return None
            file.seek(0)
            file.write(bytes([NOBODY]))
    except FileNotFoundError:
        return None
    length = int.from_bytes(kept[1:FIRST], "little")
    try:
        slots = msgspec.msgpack.decode(kept[FIRST : FIRST + length], type=Slots)
        return slots.route, slots.releases[kept[0] - 1]
    except (msgspec.MsgspecError, IndexError):  # it ended while it wrote the file
        return None
