"""What a spool holds: what was logged by one call, as bytes."""

from collections.abc import Sequence
from typing import Any

import msgspec

from noria.records import RunState
from noria.tracking.records import LoggedDataset

__all__ = [
    "DescribedInput",
    "Ended",
    "Entry",
    "Input",
    "KeptFile",
    "MadeModel",
    "Params",
    "Point",
    "Points",
    "Tags",
    "decode",
    "encode",
]

Point = tuple[str, float, int, int]  # name, value, step, microseconds since 1970


class Points(msgspec.Struct, frozen=True, array_like=True, tag="m", gc=False):
    """Values of metrics."""

    points: Sequence[Point]


class Params(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Parameters."""

    values: dict[str, Any]


class Tags(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """Tags."""

    values: dict[str, str]


class KeptFile(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A file whose bytes are kept already: in the storage, or beside the log for a server."""

    path: str  # below the project's artifacts; for a server: files/... of the run, or models/ID/...
    sha256: str
    size_bytes: int


class Input(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """A version that the run reads."""

    version: str  # its id, or NAME or NAME:NUMBER of a dataset, to be looked up where the run is kept
    context: str  # what for; may be empty
    sha256: str = ""  # of the version, where it was looked up elsewhere


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """The run's end, where it is kept by a server."""

    state: RunState
    error: str | None
    cost: tuple[float, float] | None  # seconds of CPU, and of the wall
    at_us: int


class DescribedInput(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Data that the run reads and noria does not keep, as its owner describes it."""

    dataset: LoggedDataset


class MadeModel(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """A model that the run made; its files are kept already."""

    id: str
    name: str
    step: int
    params: dict[str, str]
    tags: dict[str, str]
    points: Sequence[Point]  # what was measured of it


Entry = Points | Params | Tags | KeptFile | Input | DescribedInput | MadeModel | Ended

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode
