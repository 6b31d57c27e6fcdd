"""Events that come one by one, and local append-only logs: what was appended survives kill -9."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from noria.streams.spool import Position, Spool, drop_segments, read_spool

if TYPE_CHECKING:
    from noria.streams.contract import BEFORE_ALL, MAX_EVENT_BYTES, EventStream, Extent, StreamEvent
    from noria.streams.declarations import Stream
    from noria.streams.opening import open_stream

__all__ = [
    "BEFORE_ALL",
    "MAX_EVENT_BYTES",
    "EventStream",
    "Extent",
    "Position",
    "Spool",
    "Stream",
    "StreamEvent",
    "drop_segments",
    "open_stream",
    "read_spool",
]

_HOMES = {
    "BEFORE_ALL": "contract",
    "MAX_EVENT_BYTES": "contract",
    "EventStream": "contract",
    "Extent": "contract",
    "Stream": "declarations",
    "StreamEvent": "contract",
    "open_stream": "opening",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # serving workers log by a spool, and are spared the rest
        return getattr(import_module(f"noria.streams.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'noria.streams' has no attribute {name!r}")
