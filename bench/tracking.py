"""Metrics that are logged in process, moved into the database included, beside bare inserts into SQLite."""

import sqlite3
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from bench.measuring import Line, take_turns
from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.storage.local import LocalStorage
from noria.tracking.active_run import ActiveRun
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.beginning import RunStores, WantedRun
from noria.tracking.system_metrics import SystemReader

_METRICS, _AT_ONCE, _TIMES, _RUNS = 100_000, 1_000, 20, 3
_BATCH = 5_000  # rows of the floor in one transaction
_MEASURES, _EVERY_S = 100, 10.0
_KEY = "(run, name, recorded_at, step, value, is_nan)"


def lines(folder: Path) -> Iterator[Line]:
    floor = sqlite3.connect(folder / "floor.db", isolation_level=None)
    floor.executescript("pragma journal_mode = wal; pragma synchronous = normal;")
    floor.execute(
        "create table points (run text, name text, recorded_at integer, step integer, value real, "
        f"is_nan integer, primary key {_KEY}) without rowid"
    )

    def insert(run: str, names: int, steps: int) -> None:
        rows = [(run, f"m{name}", step, step, step / 7, 0) for step in range(steps) for name in range(names)]
        for start in range(0, len(rows), _BATCH):
            floor.execute("begin immediate")
            floor.executemany("insert into points values (?, ?, ?, ?, ?, ?)", rows[start : start + _BATCH])
            floor.execute("commit")

    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        storage = LocalStorage(folder / "storage")
        artifacts = ArtifactStore(database, storage, folder / "staging")
        stores = RunStores(
            Ledger(database, storage=storage, clock=WallClock()), artifacts, folder / "tracking"
        )

        def log(_: int) -> None:
            with ActiveRun(nullcontext(stores), WantedRun()) as run:
                for number in range(_METRICS):
                    run.log_metric("loss", number / 7)

        def log_at_once(_: int) -> None:
            metrics = {f"m{number}": number / 7 for number in range(_AT_ONCE)}
            with ActiveRun(nullcontext(stores), WantedRun()) as run:
                for _ in range(_TIMES):
                    run.log_metrics(metrics)

        ours, bare = take_turns(
            log, lambda number: insert(f"a{number}", 1, _METRICS), runs=_RUNS, per=_METRICS, scale=1e3
        )
        what = "sqlite3, 5,000 rows each"
        yield Line("tracking: log a metric, until it is on record", ours, "ms", what, bare, at_most=0.05)
        ours, bare = take_turns(
            log_at_once, lambda number: insert(f"b{number}", _AT_ONCE, _TIMES),
            runs=_RUNS, per=_TIMES, scale=1e3,
        )  # fmt: skip
        yield Line("tracking: log 1,000 metrics in one call", ours, "ms", what, bare, at_most=50)
        reader = SystemReader()
        (measure,) = take_turns(
            lambda _: [reader.read() for _ in range(_MEASURES)], runs=_RUNS, per=_MEASURES, scale=1e3
        )
        yield Line(f"tracking: system metrics, in {_EVERY_S:.0f} s", measure, "ms", at_most=_EVERY_S)
    floor.close()
