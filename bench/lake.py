"""Batches into the lake: of 1,000 rows, against a bare Parquet file and a bare Delta commit each; of ten
million rows as one stream, against the library that writes the same stream unchecked; many that are tiny.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from bench.flights import declared, landings
from bench.measuring import Line, take_turns
from noria import check
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

_ROWS, _BATCHES, _RUNS = 1_000, 15, 4
_COPIES = 30  # of a year of flights: ten million rows
_TINY, _TINY_ROWS = 1_000, 100
_REOPEN = 20  # a Delta handle kept over many commits becomes slow


def lines(folder: Path) -> Iterator[Line]:
    yield from _of_1000_rows(folder)
    yield from _of_ten_million_rows(folder)
    yield from _of_tiny_batches(folder)


def _of_1000_rows(folder: Path) -> Iterator[Line]:
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


def _of_ten_million_rows(folder: Path) -> Iterator[Line]:
    """Measure one stream, which is made anew each time and costs everybody the same."""
    declared_too = Dataset(
        "checked",
        key="flight_id",
        event_at="departed_at",
        known_at="landed_at",
        max_rejected_share=0.5,
        checks=[
            check.not_null("carrier"),
            check.not_null("origin"),
            check.not_null("departed_at"),
            check.between("dep_delay", -200, 5_000),
            check.between("arr_delay", -200, 5_000),
            check.matches("carrier", "[A-Z0-9]{2}"),
            check.matches("dest", "[A-Z]{3}"),
            check.one_of("origin", ["JFK", "LGA", "EWR"]),
            check.expression("arr_delay - dep_delay between -1000 and 1000", name="made up in the air"),
            check.unique("flight_id"),
        ],
    )
    lake = Lake(str(folder / "large"), ledger=None)
    lake.ingest(declared_too, landings().slice(0, 1_000), batch=0)
    lake.append("plain", landings().slice(0, 1_000), batch=0, app_id="bench")
    peaks = [0.0]

    def library(run: int) -> None:
        write_deltalake(str(folder / f"library{run}"), _stream())

    def append(run: int) -> None:
        lake.append("plain", _stream(), batch=run + 1, app_id="bench")

    def ingest(run: int) -> None:
        before = _forget_peak()
        done = lake.ingest(declared_too, _stream(), batch=run + 1)
        assert done.accepted == _COPIES * landings().num_rows
        peaks.append(_peak() - before)

    floor, appended, checked = take_turns(library, append, ingest, runs=1)
    lake.close()
    yield Line("lake: append 10M rows, a stream", appended, "s", "deltalake", floor, ratio_at_most=1.3)
    yield Line("lake: ingest them, 10 checks", checked, "s", "deltalake", floor, ratio_at_most=1.6)
    yield Line("lake: memory that took, beyond the rest", max(peaks), "MB", at_most=1_000)


def _of_tiny_batches(folder: Path) -> Iterator[Line]:
    """Append the first hundred to a new table, and the last hundred of a thousand to an old one."""
    lake = Lake(str(folder / "tiny"), ledger=None)
    rows = landings().slice(0, _TINY_ROWS)
    tenth = _TINY // 10
    for batch in range(_TINY - tenth):
        lake.append("old", rows, batch=batch, app_id="bench")

    def append(name: str, first: int) -> None:
        for batch in range(first, first + tenth):
            lake.append(name, rows, batch=batch, app_id="bench")

    first, last = take_turns(
        lambda run: append(f"new{run}", 0),
        lambda run: append("old", _TINY + (run - 1) * tenth),
        runs=_RUNS,
        per=tenth,
        scale=1e3,
    )
    lake.close()
    yield Line("lake: the last 100 of 1,000 appends", last, "ms", "the first 100", first, ratio_at_most=1.3)


def _stream() -> pa.RecordBatchReader:
    rows = landings()

    def copies() -> Iterator[pa.RecordBatch]:
        for number in range(_COPIES):
            ids = pc.binary_join_element_wise(rows["flight_id"], pa.scalar(str(number)), "/")
            yield from rows.set_column(0, "flight_id", ids).to_batches(max_chunksize=65_536)

    return pa.RecordBatchReader.from_batches(rows.schema, copies())


def _forget_peak() -> float:
    """Let the kernel count the highest memory anew; give the memory now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _of_status("VmRSS")


def _peak() -> float:
    return _of_status("VmHWM")


def _of_status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
