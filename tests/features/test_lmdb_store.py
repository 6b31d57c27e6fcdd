"""The LMDB store among processes, under kills, damage and growth."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from noria.clock import to_micros
from noria.errors import ConfigError, LeaseHeld, SourceError, StoreError
from noria.features import FeatureView, agg
from noria.features.backends import lmdb_reading
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.backends.lmdb_files import HEAD_KEY, entities_of, list_definitions
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.features.offline import point_in_time
from noria.features.online import open_online_store
from noria.features.online_format import FORMAT, HEAD, HEAD_MAGIC
from noria.features.reading import feature_columns
from noria.lake.declarations import Dataset

START = datetime(2013, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
TRIPS = Dataset("trips", key="id", event_at="event_at", known_at="known_at")
VIEW = FeatureView(
    "by_line",
    source=TRIPS,
    entity="line",
    features={
        "n_1d": agg.count("1d"),
        "n_30d": agg.count("30d"),
        "mean_7d": agg.mean("delay", "7d"),
        "p50_7d": agg.quantile("delay", 0.5, "7d", low=0, high=64, width=1),
        "last": agg.last("delay"),
    },
)
SPEC = VIEW.spec()
LINES = [f"line {at}" for at in range(40)]


def trips(size: int, *, seed: int = 0, days: float = 10.0) -> pa.Table:
    draw = random.Random(seed)
    events = sorted(START + timedelta(days=draw.random() * days) for _ in range(size))
    return pa.table(
        {
            "id": pa.array(range(size)),
            "event_at": pa.array(events, INSTANT),
            "known_at": pa.array([each + timedelta(minutes=draw.randrange(300)) for each in events], INSTANT),
            "line": pa.array([draw.choice(LINES) for _ in range(size)]),
            "delay": pa.array([draw.randrange(-5, 70) for _ in range(size)]),
        }
    )


def offline(rows: pa.Table, at: datetime, view: FeatureView = VIEW) -> Any:
    spine = pa.table({"line": pa.array(LINES), "at": pa.array([at] * len(LINES), INSTANT)})
    features = point_in_time(view, rows, spine)
    return np.column_stack([features.column(name).to_numpy() for name in features.column_names])


def online(store: LmdbOnlineStore, at: datetime) -> Any:
    return store.read([SPEC], {"line": LINES}, to_micros(at))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbOnlineStore]:
    with LmdbOnlineStore(tmp_path / "online") as opened:
        yield opened


READER = """
import json, sys
from pathlib import Path
import msgspec
from noria.features.declarations import ViewSpec
from noria.features.backends.lmdb_reading import LmdbFeatureReader
heavy = {"pyarrow", "duckdb", "sqlalchemy", "deltalake", "sklearn", "lightgbm"} & set(sys.modules)
spec = msgspec.json.decode(sys.argv[2], type=ViewSpec)
reader = LmdbFeatureReader(Path(sys.argv[1]))
print(json.dumps(sorted(heavy)), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    try:
        found = reader.read([spec], {"line": asked["lines"]}, asked["at"]).tolist()
    except Exception as err:
        found = type(err).__name__
    print(json.dumps([found, reader.position() if isinstance(found, list) else None]), flush=True)
"""


class Reader:
    """A serving worker's view of the store: another process, with only the light imports."""

    def __init__(self, path: Path) -> None:
        import msgspec

        spec = msgspec.json.encode(SPEC).decode()
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, str(path), spec],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.heavy = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, at: datetime, lines: list[str] = LINES) -> tuple[Any, int | None]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"lines": lines, "at": to_micros(at)}) + "\n")
        self.process.stdin.flush()
        found, position = json.loads(self._line())
        return (np.array(found, dtype=float) if isinstance(found, list) else found), position

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def test_another_process_reads_what_was_committed_before_its_call(tmp_path: Path) -> None:
    rows = trips(1_500)
    with LmdbOnlineStore(tmp_path / "online", map_size=1 << 18) as store:  # far too small at first
        store.load(VIEW, rows, before=START + timedelta(days=3))
        reader = Reader(tmp_path / "online")
        assert reader.heavy == []
        prepared = store.prepare(VIEW, rows)
        done = prepared.until(to_micros(START + timedelta(days=3)) - 1)
        for hours in range(72, 220, 9):
            at = START + timedelta(hours=hours)
            stop = prepared.until(to_micros(at))
            store.apply([(SPEC, prepared, done, stop)], position=to_micros(at))
            done = stop
            found, position = reader.ask(at)
            assert position == to_micros(at)
            np.testing.assert_array_equal(found, offline(rows, at))
        # Views that come later, and a map that had to grow, are seen as well.
        store.load(FeatureView("other", source=TRIPS, entity="id", features=VIEW.features), rows)
        assert (tmp_path / "online" / "data.mdb").stat().st_size > 1 << 18
        store.load(VIEW, rows)
        found, _ = reader.ask(START + timedelta(days=11))
        np.testing.assert_array_equal(found, offline(rows, START + timedelta(days=11)))
        reader.close()


def test_a_reader_follows_a_store_that_grew_before_it_first_read(tmp_path: Path) -> None:
    rows, at = trips(500), START + timedelta(days=11)
    path = tmp_path / "online"
    with LmdbOnlineStore(path) as store:
        store.load(FeatureView("small", source=TRIPS, entity="line", features=VIEW.features), rows)
        reader = Reader(path)  # it maps 10 MiB, LMDB's least
        store.load(FeatureView("large", source=TRIPS, entity="id", features=VIEW.features), trips(30_000))
        assert (path / "data.mdb").stat().st_size > 10 << 20
        store.load(VIEW, rows)
        found, _ = reader.ask(at)
        reader.close()
    np.testing.assert_array_equal(found, offline(rows, at))


def test_a_view_that_is_cleared_while_views_are_listed_is_not_damaged(
    store: LmdbOnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FeatureView("other", source=TRIPS, entity="line", features=VIEW.features)
    store.load(VIEW, trips(10))
    store.load(other, trips(10))

    def list_then_clear(txn: Any) -> Any:
        found = list_definitions(txn)
        store.clear(other)
        return found

    monkeypatch.setattr(lmdb_reading, "list_definitions", list_then_clear)
    assert store.specs() == [SPEC]


def test_a_reader_never_sees_half_of_a_load(tmp_path: Path) -> None:
    at = START + timedelta(days=11)
    tables = [trips(300, seed=1), trips(900, seed=2)]
    wanted = [offline(rows, at) for rows in tables]
    with LmdbOnlineStore(tmp_path / "online") as store:
        store.load(VIEW, tables[0])
        reader = Reader(tmp_path / "online")
        assert reader.process.stdin is not None
        question = json.dumps({"lines": LINES, "at": to_micros(at)}) + "\n"
        for turn in range(20):
            reader.process.stdin.write(question * 5)  # answered while the store is loaded
            reader.process.stdin.flush()
            store.load(VIEW, tables[turn % 2])
            for _ in range(5):
                found = np.array(json.loads(reader._line())[0], dtype=float)
                assert any(np.array_equal(found, each, equal_nan=True) for each in wanted)
        reader.close()


WRITER = """
import sys, pickle
from pathlib import Path
from noria.features.backends.lmdb import LmdbOnlineStore
rows, view, since = pickle.load(open(sys.argv[2], "rb"))
store = LmdbOnlineStore(Path(sys.argv[1]))
prepared = store.prepare(view, rows)
start = 0
while start < len(prepared):
    stop = min(start + 3, len(prepared))
    store.apply([(view.spec(), prepared, start, stop)], position=stop)
    if start == 0:
        print("going", flush=True)
    start = stop
"""


def test_a_killed_writer_leaves_whole_changes(tmp_path: Path) -> None:
    import pickle

    rows = trips(6_000, seed=4)
    (tmp_path / "rows").write_bytes(pickle.dumps((rows, VIEW, START)))
    reached = []
    for attempt in range(4):
        path = tmp_path / f"online{attempt}"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(tmp_path / "rows")],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "going\n"
            time.sleep(random.Random(attempt).random() * 0.15)
            writer.send_signal(signal.SIGKILL)
        with LmdbOnlineStore(path) as store:
            count = store.position()
            assert count is not None
            reached.append(count)
            prepared = store.prepare(VIEW, rows)
            known = pa.array(np.isin(np.arange(len(prepared)), np.arange(count)))
            ordered = rows.sort_by([("known_at", "ascending"), ("id", "ascending")])
            at = START + timedelta(days=12)
            np.testing.assert_array_equal(online(store, at), offline(ordered.filter(known), at))
            # Going on from there ends where an undisturbed writer does.
            store.apply([(SPEC, prepared, count, len(prepared))])
            np.testing.assert_array_equal(online(store, at), offline(rows, at))
    assert min(reached) < len(rows)


def test_a_second_writer_learns_who_the_first_is(tmp_path: Path, store: LmdbOnlineStore) -> None:
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        LmdbOnlineStore(tmp_path / "online")
    code = "import sys; from noria.features.backends.lmdb import LmdbOnlineStore as S; S(sys.argv[1])"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "online")], capture_output=True, text=True, check=False
    )
    assert f"LeaseHeld: online store {tmp_path / 'online'} is in use by process {os.getpid()}" in ended.stderr


def _damage(data: bytes, how: str) -> bytes:
    match how:
        case "garbage":
            return bytes(len(data))
        case "cut":
            return data[: len(data) // 2]
        case "pages":
            return data[: 2 * 4096] + b"\xff" * (len(data) - 2 * 4096)
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["garbage", "cut", "pages"])
def test_a_damaged_store_is_a_store_error_and_can_be_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "online"
    with LmdbOnlineStore(path) as store:
        store.load(VIEW, trips(500))
    data = path / "data.mdb"
    data.write_bytes(_damage(data.read_bytes(), how))
    for readonly in (True, False):
        with pytest.raises(StoreError, match="load"), LmdbOnlineStore(path, readonly=readonly) as store:
            store.read([SPEC], {"line": LINES}, to_micros(START))
    data.unlink()
    with LmdbOnlineStore(path) as store:
        store.load(VIEW, trips(500))
        assert store.views() == ["by_line"]


def test_a_store_of_another_format_is_a_store_error(tmp_path: Path) -> None:
    with LmdbOnlineStore(tmp_path / "online") as store:
        store.load(VIEW, trips(5))
        with store._environment.begin(write=True) as txn:
            txn.put(HEAD_KEY, HEAD.pack(HEAD_MAGIC, FORMAT + 1, 0, 0))
    for _ in range(2):  # refused, and not left open
        with pytest.raises(StoreError, match=f"format {FORMAT + 1}"):
            LmdbOnlineStore(tmp_path / "online")


def test_a_damaged_value_is_a_store_error(store: LmdbOnlineStore) -> None:
    store.load(VIEW, trips(500))
    with store._environment.begin(write=True) as txn:
        txn.put(b"=line 1", b"\0" * 24, db=store._databases[SPEC.digest])
    with pytest.raises(StoreError, match="damaged value in view 'by_line'"):
        store.read([SPEC], {"line": LINES}, to_micros(START))


def test_a_reader_notices_that_the_store_is_gone_or_new(tmp_path: Path) -> None:
    path, at = tmp_path / "online", START + timedelta(days=11)
    with LmdbOnlineStore(path) as store:
        store.load(VIEW, trips(500, seed=1))
    reader = Reader(path)
    np.testing.assert_array_equal(reader.ask(at)[0], offline(trips(500, seed=1), at))
    (path / "data.mdb").unlink()
    assert reader.ask(at)[0] == "StoreError"
    with LmdbOnlineStore(path) as store:
        store.load(VIEW, trips(500, seed=2))
        np.testing.assert_array_equal(reader.ask(at)[0], offline(trips(500, seed=2), at))
    reader.close()


def test_reading_where_there_is_no_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no online store"):
        LmdbFeatureReader(tmp_path / "nowhere")


def test_a_process_opens_a_store_once(tmp_path: Path, store: LmdbOnlineStore) -> None:
    store.load(VIEW, trips(10))
    with pytest.raises(StoreError, match="already open in this process"):
        LmdbFeatureReader(tmp_path / "online")


def test_a_store_opened_to_read_is_not_written(tmp_path: Path) -> None:
    with LmdbOnlineStore(tmp_path / "online") as store:
        store.load(VIEW, trips(10))
    with (
        LmdbOnlineStore(tmp_path / "online", readonly=True) as store,
        pytest.raises(StoreError, match="readonly"),
    ):
        store.load(VIEW, trips(10))


def test_a_change_that_fails_leaves_nothing(store: LmdbOnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, at = trips(600), START + timedelta(days=11)
    store.load(VIEW, rows, before=START + timedelta(days=5), position=1)
    prepared = store.prepare(VIEW, rows)
    done = prepared.until(to_micros(START + timedelta(days=5)) - 1)
    store.apply([(SPEC, prepared, done, done + 50)], position=2)
    before = online(store, at)
    with monkeypatch.context() as broken:
        broken.setattr(LmdbOnlineStore, "_set_head", _fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            store.apply([(SPEC, prepared, done + 50, done + 99)], position=3)
    np.testing.assert_array_equal(online(store, at), before)
    store.apply([(SPEC, prepared, done + 50, len(prepared))], position=4)
    np.testing.assert_array_equal(online(store, at), offline(rows, at))


def _fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("in the middle")


def test_prune_removes_entities_that_nothing_can_ask_for(store: LmdbOnlineStore) -> None:
    view = FeatureView("short", source=TRIPS, entity="line", features={"n": agg.count("3d")})
    store.load(view, trips(500))
    store.prune(view, START + timedelta(days=40))
    with store._environment.begin() as txn:
        assert entities_of(txn, store._databases[view.spec().digest]) == []


def test_rows_of_another_definition_are_refused(store: LmdbOnlineStore) -> None:
    other = FeatureView("by_line", source=TRIPS, entity="line", features={"n": agg.count("3d")})
    with pytest.raises(ValueError, match="another definition"):
        store.apply([(SPEC, store.prepare(other, trips(3)), 0, 3)])


def test_readings_name_their_columns(store: LmdbOnlineStore) -> None:
    store.load(VIEW, trips(50))
    assert feature_columns([SPEC])[:2] == ("by_line__n_1d", "by_line__n_30d")
    assert store.read([SPEC], {"line": []}, 0).shape == (0, 5)
    assert store.read([], {}, 0).shape == (0, 0)


def test_integer_entities_are_read_as_numbers_or_text(store: LmdbOnlineStore) -> None:
    view = FeatureView("by_delay", source=TRIPS, entity=("delay", "line"), features={"n": agg.count("30d")})
    rows = trips(2_000)
    store.load(view, rows)
    at = to_micros(START + timedelta(days=11))
    found = store.read(
        [view.spec()], {"delay": [7, "7", 7, None], "line": ["line 1", "line 1", None, "line 1"]}, at
    )
    count = float(sum(row["delay"] == 7 and row["line"] == "line 1" for row in rows.to_pylist()))
    np.testing.assert_array_equal(found[:, 0], [count, count, np.nan, np.nan])


def test_a_store_is_opened_by_its_url(tmp_path: Path) -> None:
    store = open_online_store("lmdb:.noria/online", root=tmp_path)
    store.load(VIEW, trips(5))
    store.close()
    assert (tmp_path / ".noria" / "online" / "data.mdb").exists()
    with pytest.raises(ConfigError, match="lmdb"):
        open_online_store("tape:somewhere", root=tmp_path)


def test_rows_known_before_they_happened_are_refused(store: LmdbOnlineStore) -> None:
    rows = trips(5)
    early = rows.set_column(2, "known_at", pa.array([START] * 5, INSTANT))
    with pytest.raises(SourceError, match="nothing is known before it happens"):
        store.load(VIEW, early)
    with pytest.raises(SourceError, match="nothing is known before it happens"):
        offline(early, START + timedelta(days=11))
