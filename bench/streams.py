"""Events of 75 bytes from the local log into a table, contract and records included, and into the log.

The floor reads no log, checks nothing and records nothing: it parses the same events and commits them with
`deltalake`, the offset in the same commit. 150,000 events a second are 6.7 us each.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from bench.measuring import Line, take_turns
from noria import check
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.streams.backends.log import LogStream
from noria.streams.consume import consume
from noria.streams.declarations import Stream

_EVENTS, _BATCH, _RUNS = 100_000, 10_000, 3
_PUSHED, _SINGLE = 100_000, 5_000


class _Click(msgspec.Struct, gc=False):
    id: str
    user: int
    price: float
    at: str


def lines(folder: Path) -> Iterator[Line]:
    runs = [_events(run) for run in range(_RUNS)]
    clicks = Dataset(
        "clicks",
        key="id",
        event_at="at",
        schema={"id": "string", "user": "int64", "price": "double", "at": "timestamp[us, tz=UTC]"},
        checks=[check.between("price", 0, 1_000), check.not_null("user")],
    )
    floor_table = _floor_table(folder)
    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        lake = Lake(str(folder / "lake"), ledger=Ledger(database, clock=WallClock()))
        log = LogStream(folder / "log", name="clicks")

        def push(run: int) -> None:
            for start in range(0, _PUSHED, 1_000):
                log.append(runs[run][start : start + 1_000])

        def push_bare(run: int) -> None:
            file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for start in range(0, _PUSHED, 1_000):
                os.write(file, b"\n".join(runs[run][start : start + 1_000]))
            os.close(file)

        def ours(run: int) -> None:
            push(run)  # is measured below, and taken off
            landed: list[object] = []
            declared = Stream("clicks", into=clicks, rows=_BATCH)
            stop = threading.Event()
            consume(declared, log, lake, leases=None, tell=landed.append, stop=stop, until_empty=True)
            assert len(landed) == _EVENTS // _BATCH

        def floor(run: int) -> None:
            for start in range(0, _EVENTS, _BATCH):
                _commit(floor_table, runs[run][start : start + _BATCH], run * _EVENTS + start + _BATCH)

        whole, alone = take_turns(ours, floor, runs=_RUNS, per=_EVENTS, scale=1e6)
        assert lake.read("clicks").num_rows == _RUNS * _EVENTS
        pushed, bare = take_turns(push, push_bare, runs=_RUNS, per=_PUSHED, scale=1e6)

        def push_one(run: int) -> None:
            for each in runs[run][:_SINGLE]:
                log.append([each])

        (single,) = take_turns(push_one, runs=_RUNS, per=_SINGLE, scale=1e6)
        lake.close()
        log.close()
    yield Line(
        "streams: an event from log to table, checked",
        whole - pushed,
        "us",
        "parse + deltalake commit",
        alone,
        at_most=6.7,
    )
    yield Line("streams: an event into the log, 1,000 at once", pushed, "us", "bare write(2)", bare)
    yield Line("streams: an event into the log, alone", single, "us", at_most=100)


def _events(run: int) -> list[bytes]:
    return [
        b'{"id":"e%08d","user":%d,"price":%d.5,"at":"2024-05-01T10:%02d:%02d.123Z"}'
        % (run * _EVENTS + number, number % 1_000, number % 77, number // 60 % 60, number % 60)
        for number in range(_EVENTS)
    ]


def _floor_table(folder: Path) -> str:
    path = str(folder / "floor")
    instant = pa.timestamp("us", "UTC")
    schema = pa.schema([("id", pa.string()), ("user", pa.int64()), ("price", pa.float64()), ("at", instant)])
    write_deltalake(path, schema.empty_table())
    return path


def _commit(path: str, payloads: list[bytes], offset: int) -> None:
    decode = msgspec.json.Decoder(_Click).decode
    rows = [decode(each) for each in payloads]
    table = pa.table(
        {
            "id": pa.array([each.id for each in rows], pa.string()),
            "user": pa.array([each.user for each in rows], pa.int64()),
            "price": pa.array([each.price for each in rows], pa.float64()),
            "at": pa.array([each.at for each in rows], pa.string()).cast(pa.timestamp("us", "UTC")),
        }
    )
    once = CommitProperties(app_transactions=[Transaction("floor", offset)])
    write_deltalake(DeltaTable(path), table, mode="append", commit_properties=once)
