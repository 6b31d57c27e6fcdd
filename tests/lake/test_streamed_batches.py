"""Batches that come in pieces: never whole in memory, all or nothing, once."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from noria.checks.declarations import between
from noria.errors import BatchBlocked, ConfigError, SourceError
from noria.lake import incoming
from noria.lake.declarations import Dataset
from noria.lake.rows import Broken
from noria.lake.store import Lake
from noria.ledger.store import Ledger

Day = Callable[..., pa.Table]
Piece = Any  # a record batch, or a sequence of Broken

FLIGHTS = Dataset(
    "flights",
    key="flight",
    event_at="departed_at",
    known_at="landed_at",
    checks=[between("distance", 1, 6_000)],
    max_rejected_share=0.25,
)


class Source:
    """Rows in pieces, as a file or a database gives them."""

    name = "landings.csv"

    def __init__(self, *pieces: Piece | Exception) -> None:
        self._pieces = pieces
        self.wanted: pa.Schema | None = None

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        self.wanted = wanted
        for each in self._pieces:
            if isinstance(each, Exception):
                raise each
            yield each


def batches(table: pa.Table, rows: int = 5) -> list[pa.RecordBatch]:
    found: list[pa.RecordBatch] = table.combine_chunks().to_batches(max_chunksize=rows)
    return found


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pieces be as small as they come."""
    monkeypatch.setattr(incoming, "_ROWS_PER_PIECE", 5)


@pytest.mark.usefixtures("small_pieces")
def test_a_stream_lands_in_one_commit_with_its_rows_in_their_order(lake: Lake, day: Day) -> None:
    rows = day(1, 33)
    reader = pa.RecordBatchReader.from_batches(rows.schema, batches(rows))
    done = lake.ingest(FLIGHTS, reader, batch=1)
    assert (done.state, done.accepted, done.rejected, done.repeated) == ("landed", 33, 0, 0)
    assert lake.read("flights").equals(rows)
    assert DeltaTable(f"{lake.url}/flights").version() == 1
    again = pa.RecordBatchReader.from_batches(rows.schema, batches(rows))
    assert lake.ingest(FLIGHTS, again, batch=1).state == "already"


@pytest.mark.usefixtures("small_pieces")
def test_what_could_not_be_read_is_set_aside_beside_what_breaks_the_contract(lake: Lake, day: Day) -> None:
    rows = day(1, 20, distance=[0, *range(100, 119)])
    broken = [Broken("3 fields, wanted 6", "AA,1,\\xff", 20), Broken("not a number: 'x'", "UA,x", 21)]
    done = lake.ingest(FLIGHTS, Source(*batches(rows), broken), batch=1)
    assert (done.accepted, done.rejected) == (19, 3)
    assert {each.rule: each.failing for each in done.findings} == {
        "between(distance, 1, 6000)": 1,
        "readable": 2,
    }
    found = lake.read("flights__rejected").to_pylist()
    assert [each["row"] for each in found] == [0, 20, 21]
    assert found[1]["reason"] == "3 fields, wanted 6"
    assert found[1]["payload"] == "AA,1,\\xff"
    assert {each["app"] for each in found} == {"ingest"}


@pytest.mark.usefixtures("small_pieces")
def test_the_limit_is_judged_over_the_whole_batch(lake: Lake, ledger: Ledger, day: Day) -> None:
    first_bad = day(1, 20, distance=[0] * 5 + [100] * 15)
    assert lake.ingest(FLIGHTS, Source(*batches(first_bad)), batch=1).rejected == 5
    too_bad = day(2, 20, distance=[0] * 5 + [100] * 15)
    unreadable = [Broken("no", "x", 20)]
    with pytest.raises(BatchBlocked, match=r"6 of 21 rows .* break the contract.* 1 could not be read"):
        lake.ingest(FLIGHTS, Source(*batches(too_bad), unreadable), batch=2)
    assert lake.read("flights").num_rows == 15
    assert lake.read("flights__rejected").num_rows == 5
    assert len(ledger.list_events(verb="dataset.blocked")) == 1


@pytest.mark.usefixtures("small_pieces")
def test_keys_come_once_over_all_pieces_and_equal_rows_are_repeated(lake: Lake, day: Day) -> None:
    rows = day(1, 20)
    other = day(1, 20, delay=[99.0] * 20)
    source = Source(*batches(rows), *batches(rows.slice(2, 7)), *batches(other.slice(0, 3)))
    done = lake.ingest(FLIGHTS, source, batch=1)
    assert (done.accepted, done.repeated, done.rejected) == (20, 7, 3)
    assert lake.read("flights").equals(rows)
    rejected = lake.read("flights__rejected")
    assert rejected["reason"].to_pylist() == ["unique(flight)"] * 3
    assert rejected["row"].to_pylist() == [27, 28, 29]


def test_a_source_is_asked_for_the_columns_of_the_table(lake: Lake, day: Day) -> None:
    planes = Dataset("planes", key="flight", event_at="departed_at")
    first = Source(*batches(day(1, 4).drop(["landed_at"])))
    lake.ingest(planes, first, batch=1)
    assert first.wanted is None
    second = Source(*batches(day(2, 4).drop(["landed_at"])))
    lake.ingest(planes, second, batch=2)
    assert second.wanted is not None
    assert second.wanted.names == ["flight", "carrier", "distance", "delay", "departed_at"]


@pytest.mark.parametrize("error", [ValueError("torn"), OSError("gone"), SourceError("changed while read")])
def test_a_source_that_ends_in_the_middle_lands_nothing(lake: Lake, day: Day, error: Exception) -> None:
    with pytest.raises(SourceError, match=r"landings\.csv stopped after 20 rows|changed while read"):
        lake.ingest(FLIGHTS, Source(*batches(day(1, 20)), error), batch=1)
    assert lake.names() == []
    assert lake.ingest(FLIGHTS, Source(*batches(day(1, 20))), batch=1).accepted == 20


def test_nothing_in_pieces_is_an_empty_batch(lake: Lake, ledger: Ledger, day: Day) -> None:
    empty = pa.RecordBatchReader.from_batches(day(1).schema, [])
    assert lake.ingest(FLIGHTS, empty, batch=1).state == "empty"
    assert lake.ingest(FLIGHTS, Source(), batch=1).state == "empty"
    assert len(ledger.list_events(verb="dataset.empty")) == 1
    assert lake.names() == []


def test_broken_rows_alone_say_that_no_columns_are_known(lake: Lake) -> None:
    with pytest.raises(SourceError, match=r"first rows of landings\.csv could not be read"):
        lake.ingest(FLIGHTS, Source([Broken("no", "x", 0)]), batch=1)


@pytest.mark.usefixtures("small_pieces")
def test_pieces_with_other_columns_are_told(lake: Lake, day: Day) -> None:
    source = Source(*batches(day(1, 5)), *batches(day(2, 5).drop(["delay"])))
    with pytest.raises(SourceError, match="lacks column delay"):
        lake.ingest(FLIGHTS, source, batch=1)
    assert lake.names() == []


def test_apps_have_numbers_of_their_own(lake: Lake, ledger: Ledger, day: Day) -> None:
    for app in ("file:aa", "file:bb", "stream:clicks/0"):
        assert lake.ingest(FLIGHTS, day(ord(app[-1])), batch=1, app=app).state == "landed"
        assert lake.ingest(FLIGHTS, day(ord(app[-1])), batch=1, app=app).state == "already"
    assert lake.last_batch("flights") is None
    assert lake.last_batch("flights", "file:bb") == 1
    assert [each.payload["app"] for each in ledger.list_events(verb="dataset.ingested")] == [
        "file:aa",
        "file:bb",
        "stream:clicks/0",
    ]


LARGE = """
import resource, sys
import pyarrow as pa
from noria.checks.declarations import between, unique
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

root, rows = sys.argv[1], int(sys.argv[2])
dataset = Dataset("rows", key="id", event_at="t", known_at="t", checks=[between("x", 0, 10**9)])
schema = pa.schema([("id", pa.string()), ("x", pa.int64()), ("t", pa.timestamp("us", "UTC"))])
def pieces():
    for start in range(0, rows, 50_000):
        numbers = pa.array(range(start, start + 50_000), pa.int64())
        yield pa.record_batch([numbers.cast(pa.string()), numbers, numbers.cast(schema.field("t").type)],
                              schema=schema)
lake = Lake(root, ledger=None)
warm = pa.RecordBatchReader.from_batches(schema, [next(pieces())])
lake.ingest(Dataset("warm", key="id", event_at="t", known_at="t"), warm, batch=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if "kill" in sys.argv:
    import os, signal
    from noria.lake.delta import Table
    Table.commit = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
done = lake.ingest(dataset, pa.RecordBatchReader.from_batches(schema, pieces()), batch=1)
print(done.accepted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def run_large(root: Path, rows: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LARGE, str(root), str(rows), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_memory_does_not_grow_with_the_batch(tmp_path: Path) -> None:
    done = run_large(tmp_path, 2_500_000)
    assert done.returncode == 0, done.stderr
    accepted, kilobytes = map(int, done.stdout.split())
    assert accepted == 2_500_000
    unit = 1 if os.uname().sysname == "Linux" else 1024
    assert kilobytes / unit < 700_000
    lake = Lake(str(tmp_path), ledger=None)
    assert [each.count_rows() for each in lake.reader("rows").get_fragments()] == [
        1_000_000,
        1_000_000,
        500_000,
    ]


def test_a_killed_stream_leaves_files_that_nobody_names(tmp_path: Path) -> None:
    killed = run_large(tmp_path, 1_500_000, "kill")
    assert killed.returncode == -signal.SIGKILL
    left = list((tmp_path / "rows").glob("part-*"))
    assert left
    lake = Lake(str(tmp_path), ledger=None)
    rows = lake.read("rows") if lake.exists("rows") else None
    assert rows is None or rows.num_rows == 0
    assert run_large(tmp_path, 100_000).returncode == 0
    assert not lake.vacuum("rows").removed
    gone = lake.vacuum("rows", retention=timedelta(0))
    assert {f"part-{Path(each.path).name.removeprefix('part-')}" for each in gone.removed} <= {
        each.name for each in left
    }
    assert gone.removed
    assert lake.read("rows").num_rows == 100_000


def test_no_room_for_what_waits_aside_is_told(lake: Lake, day: Day) -> None:
    import noria.lake.spill as spill

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    rows = day(1, 20_000, distance=[0] * 20_000)
    lenient = Dataset(
        "flights",
        key="flight",
        event_at="departed_at",
        known_at="landed_at",
        checks=[between("distance", 1, 6_000)],
        max_rejected_share=1.0,
    )
    spill_limit, spill._BYTES_IN_MEMORY = spill._BYTES_IN_MEMORY, 1_000
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="no space left on the disk"):
            lake.ingest(lenient, rows, batch=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, handler)
        spill._BYTES_IN_MEMORY = spill_limit
    assert lake.names() == []
    assert lake.ingest(lenient, rows, batch=1).rejected == 20_000


def test_a_declared_write_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose 'append' or 'merge'"):
        Dataset("d", key="k", event_at="t", write="upsert")  # type: ignore[arg-type]
