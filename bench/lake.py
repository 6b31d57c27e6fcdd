"""Batches of 1,000 rows into the lake, against a bare Parquet file and a bare Delta commit each."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from bench.flights import declared, landings
from bench.measuring import Line, take_turns
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.store import Lake
from noria.ledger.store import Ledger

_ROWS, _BATCHES, _RUNS = 1_000, 15, 4
_REOPEN = 20  # a Delta handle kept over many commits becomes slow


def lines(folder: Path) -> Iterator[Line]:
    dataset, rows = declared().landings, landings()

    def batch(number: int) -> pa.Table:
        return rows.slice(number * _ROWS, _ROWS)

    def numbers(run: int) -> range:
        return range(run * _BATCHES + 1, (run + 1) * _BATCHES + 1)

    def parquet(run: int) -> None:
        for number in numbers(run):
            pq.write_table(batch(number), folder / f"{number}.parquet")

    write_deltalake(str(folder / "delta"), batch(0))
    handles = {"": DeltaTable(str(folder / "delta"))}

    def delta(run: int) -> None:
        for number in numbers(run):
            if number % _REOPEN == 0:
                handles[""] = DeltaTable(str(folder / "delta"))
            once = CommitProperties(app_transactions=[Transaction("bench", number)])
            write_deltalake(handles[""], batch(number), mode="append", commit_properties=once)

    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        lake = Lake(str(folder / "lake"), ledger=Ledger(database, clock=WallClock()))
        lake.append("log", batch(0), batch=0, app_id="bench")
        lake.ingest(dataset, batch(0), batch=0)

        def append(run: int) -> None:
            for number in numbers(run):
                lake.append("log", batch(number), batch=number, app_id="bench")

        def ingest(run: int) -> None:
            for number in numbers(run):
                assert lake.ingest(dataset, batch(number), batch=number).accepted == _ROWS

        ours, checked, file, commit = take_turns(
            append, ingest, parquet, delta, runs=_RUNS, per=_BATCHES, scale=1e3
        )
        lake.close()
    yield Line("lake: append 1,000 rows, once", ours, "ms", "bare Parquet file", file)
    yield Line("lake: append 1,000 rows, once", ours, "ms", "bare deltalake", commit, at_most=12)
    yield Line("lake: ingest 1,000 rows, checked and recorded", checked, "ms", "bare deltalake", commit)
