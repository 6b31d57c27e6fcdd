"""What a spool holds: what was logged by one call, as bytes."""

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["Entry", "Input", "KeptFile", "Params", "Points", "Tags", "decode", "encode"]


class Points(msgspec.Struct, frozen=True, array_like=True, tag="m", gc=False):
    """Values of metrics."""

    points: Sequence[tuple[str, float, int, int]]  # name, value, step, microseconds since 1970


class Params(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Parameters."""

    values: dict[str, Any]


class Tags(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """Tags."""

    values: dict[str, str]


class KeptFile(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A file whose bytes are in the storage already."""

    path: str
    sha256: str
    size_bytes: int


class Input(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """A version that the run reads."""

    version: str  # its id
    context: str  # what for; may be empty


Entry = Points | Params | Tags | KeptFile | Input

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode
