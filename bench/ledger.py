"""Events and runs against bare inserts of as many rows, one transaction each, into SQLite in WAL."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import Line, take_turns
from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.records import RunState
from noria.storage.local import LocalStorage

_EVENTS, _LIFES, _RUNS = 300, 100, 5
_COLUMNS = 14  # as many as an event has
_TEXT = "x" * 64


def lines(folder: Path) -> Iterator[Line]:
    floor = sqlite3.connect(folder / "floor.db", isolation_level=None)
    floor.executescript("pragma journal_mode = wal; pragma synchronous = normal;")
    floor.execute(
        f"create table events (seq integer primary key, {', '.join(f'c{n}' for n in range(_COLUMNS))})"
    )
    floor.execute("create unique index keys on events (c0)")
    insert = f"insert into events values (null, {', '.join('?' * _COLUMNS)})"
    made = iter(range(10**9))

    def commit(times: int, *, rows: int) -> None:
        for _ in range(times):
            floor.execute("begin immediate")
            for _ in range(rows):
                floor.execute(insert, (f"{next(made):064}", *[_TEXT] * (_COLUMNS - 1)))
            floor.execute("commit")

    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        ledger = Ledger(database, storage=LocalStorage(folder / "storage"), clock=WallClock())
        ledger.finish_run(ledger.start_run("bench", "warm").id, state=RunState.FINISHED)

        def append(number: int) -> None:
            for each in range(_EVENTS):
                ledger.append("bench.done", subject="bench", payload={"n": each}, key=f"{number}-{each}")

        def live(number: int) -> None:
            for each in range(_LIFES):
                run = ledger.start_run("bench", "life", key=f"life {number}-{each}", params={"n": each})
                ledger.finish_run(run.id, state=RunState.FINISHED, metrics={"auc": 0.7})

        ours, bare = take_turns(append, lambda _: commit(_EVENTS, rows=1), runs=_RUNS, per=_EVENTS, scale=1e3)
        yield Line("ledger: append an event", ours, "ms", "sqlite3, 1 row", bare, at_most=1.5)
        ours, bare = take_turns(live, lambda _: commit(2 * _LIFES, rows=2), runs=_RUNS, per=_LIFES, scale=1e3)
        yield Line("ledger: start and finish a run", ours, "ms", "sqlite3, 2 x 2 rows", bare, at_most=3)
        events = ledger.verify().events
        (ours,) = take_turns(lambda _: ledger.verify(), runs=3, per=events, scale=1e3)
        yield Line("ledger: verify an event", ours, "ms")
    floor.close()
