"""What is said between a run's log and a server that keeps the run: the values of the wire, as MessagePack.

A log is that of one run and process. Its entries are sent in order, in batches, each from one position of the
log to another; the server keeps with them how far it has come, so that none is lost or kept twice, whatever
is sent again.
"""

import re
from datetime import datetime
from typing import Any

import msgspec

from noria.errors import ConfigError
from noria.ledger.processes import Process
from noria.records import Run, RunId
from noria.tracking.spools.records import Entry

__all__ = [
    "CONTENT_TYPE",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "Batch",
    "Beginning",
    "Begun",
    "Kept",
    "SentCode",
    "check_log_id",
    "decode_batch",
    "decode_beginning",
    "decode_begun",
    "decode_kept",
    "encode_wire",
]

PROTOCOL, PROTOCOL_HEADER = "1", "noria-tracking"
CONTENT_TYPE = "application/vnd.noria.tracking"
_LOG_ID = re.compile(r"([0-9a-f]{32})\.[0-9a-f]{8}")

Place = tuple[int, int]  # in a log: segment, and offset in it


class SentCode(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a run; patch and distributions are sent as files, by their digest."""

    commit: str
    diff: str | None
    runtime: str


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """That a run begins, or goes on; the same one twice is one."""

    log: str
    run: RunId
    is_resumed: bool
    name: str
    experiment: str
    params: dict[str, Any]
    tags: dict[str, str]
    seed: int | None
    owner: str
    told: dict[str, str]  # tags of its process
    code: SentCode
    holder: Process
    began_at: datetime
    parent: RunId | None = None
    before: tuple["Beginning", ...] = ()  # of the runs that it is within, outermost first


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has, once the server knows that it has begun."""

    run: Run
    params: dict[str, Any]
    tags: dict[str, str]
    latest: list[tuple[str, float, int, int]]  # of each metric: name, value, step, microseconds
    paths: list[str]  # of its files
    missing: list[str]  # digests of code that are to be sent


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of a log between two positions, in their order. None: its process is still there."""

    log: str
    run: RunId
    after: Place
    end: Place  # equal to `after`: they are in no log, and each may come twice
    entries: list[Entry]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How far the server has a log: the end of the batch, unless that began elsewhere."""

    position: Place
    missing: list[str] = []  # digests of files that are to be sent first; nothing was kept


encode_wire = msgspec.msgpack.Encoder().encode
decode_beginning = msgspec.msgpack.Decoder(Beginning).decode
decode_begun = msgspec.msgpack.Decoder(Begun).decode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_kept = msgspec.msgpack.Decoder(Kept).decode


def check_log_id(log: str, run: str) -> None:
    """Raise `ConfigError` unless `log` can be the id of a log of that run."""
    found = _LOG_ID.fullmatch(log)
    if found is None or found[1] != run:
        raise ConfigError(f"{log!r:.100} is no log of run {run!r:.50}; a log is RUN.TOKEN, in hex digits")
