"""Views of an online store follow their tables, and give what offline gives, whatever happened on the way."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from tests.features.redis_trips import END, INSTANT, LINES, SPEC, START, TRIPS, offline, online, trips

from noria.clock import to_micros
from noria.features import FeatureView, agg
from noria.features import following as following_module
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.following import Brought, Following, HeldUp
from noria.features.offline import point_in_time
from noria.features.table_changes import TableChanges
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

MERGED = Dataset("trips", key="id", event_at="event_at", known_at="known_at", write="merge")
OTHER = FeatureView("by_line", source=TRIPS, entity="line", features={"n": agg.count("2d")}).spec()


class World:
    """A lake with one table, a store, and somebody who follows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = Lake(str(folder / "lake"), ledger=None)
        self.store = LmdbOnlineStore(folder / "online", map_size=1 << 20)
        self.batch = 0
        self.start()

    def start(self) -> None:
        """Begin as a new process does, which knows nothing."""
        self.following = Following(TableChanges(str(self.folder / "lake")), wall_ns=lambda: 7_000)

    def close(self) -> None:
        self.store.close()
        self.lake.close()

    def append(self, rows: pa.Table, *, name: str = "trips") -> None:
        self.batch += 1
        self.lake.append(name, rows, batch=self.batch, app_id="test")

    def bring(self, at: datetime = END, *specs: Any) -> list[Any]:
        return self.following.bring(self.store, specs or [SPEC], now_us=to_micros(at))

    def is_due(self, at: datetime = END) -> bool:
        return self.following.is_due(SPEC, self.store.standing(SPEC), now_us=to_micros(at))

    def check(self, at: datetime = END) -> None:
        np.testing.assert_array_equal(online(self.store, at), offline(self.lake.read("trips"), at))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_view_is_loaded_and_then_counts_what_commits_add(world: World) -> None:
    rows = trips(400)
    world.append(rows.slice(0, 300))
    assert world.is_due()
    (brought,) = world.bring()
    assert isinstance(brought, Brought)
    assert (brought.rows, brought.loaded is not None) == (300, True)
    assert world.store.standing(SPEC) == brought.standing
    assert (brought.standing.known_us, brought.standing.at_us) == (to_micros(END), 7)
    world.check()
    assert not world.is_due()
    for start in range(300, 400, 20):
        world.append(rows.slice(start, 20))
        assert world.is_due()
        (counted,) = world.bring()
        assert (counted.rows, counted.loaded) == (20, None)
        assert counted.committed_ms > 1_700_000_000_000
        assert not world.is_due()
    world.check()


def test_only_the_files_that_came_are_read(world: World) -> None:
    world.append(trips(300))
    world.bring()
    old = set((world.folder / "lake" / "trips").glob("*.parquet"))
    world.append(trips(340).slice(300))
    for each in old:
        each.write_bytes(b"nobody looks at me")
    world.following._next.clear()  # as a new process: what waits is told by statistics alone
    (counted,) = world.bring()
    assert (counted.rows, counted.loaded) == (40, None)


def test_rows_known_later_wait_and_are_found_again_by_another_process(world: World) -> None:
    rows = trips(300)
    world.append(rows)
    for hours in range(6, 9 * 24, 31):
        at = START + timedelta(hours=hours)
        assert world.is_due(at)
        world.bring(at)
        assert not world.is_due(at)
        world.check(at)
        if hours % 2:
            world.start()
    assert world.is_due(END)
    (counted,) = world.bring(END)
    assert counted.loaded is None
    world.check()


def test_rows_that_come_early_and_late_are_counted_when_they_are_known(world: World) -> None:
    rows = trips(300)
    world.append(rows.slice(0, 100))
    middle = START + timedelta(days=5)
    world.bring(middle)
    world.append(rows.slice(100))
    (counted,) = world.bring(middle)
    known = pc.sum(pc.less_equal(rows["known_at"].slice(100), pa.scalar(middle, INSTANT))).as_py()
    assert counted.rows == known
    world.check(middle)
    world.bring(END)
    world.check(END)


def test_a_compaction_is_no_change(world: World) -> None:
    rows = trips(300)
    for start in range(0, 300, 30):
        world.append(rows.slice(start, 30))
    world.bring(START + timedelta(days=6))
    world.append(trips(320).slice(300))
    assert world.lake.compact("trips") > 0
    (counted,) = world.bring(START + timedelta(days=6))
    assert counted.loaded is None
    world.check(START + timedelta(days=6))
    world.start()
    (counted,) = world.bring(END)
    assert counted.loaded is None
    world.check()


def test_where_rows_are_replaced_or_taken_out_the_view_is_loaded_whole(world: World) -> None:
    rows = trips(200)
    world.lake.ingest(MERGED, rows, batch=1)
    world.bring()
    changed = rows.slice(0, 20).set_column(4, "delay", pa.array([7] * 20))
    world.lake.ingest(MERGED, changed, batch=2)
    (loaded,) = world.bring()
    assert "replaced" in loaded.loaded
    world.check()
    world.lake.delete("trips", "line = 'line 2'", reason="test")
    (loaded,) = world.bring()
    assert "taken out" in loaded.loaded
    world.check()


def test_a_correction_counts_when_it_is_known_and_not_when_it_lands(world: World) -> None:
    rows = trips(200)
    world.lake.ingest(MERGED, rows, batch=1)
    world.bring()
    place = rows.column_names.index("known_at")
    later = pa.array([END + timedelta(days=1)] * 20, INSTANT)
    changed = (
        rows.slice(0, 20).set_column(4, "delay", pa.array([7] * 20)).set_column(place, "known_at", later)
    )
    world.lake.ingest(MERGED, changed, batch=2)
    for _ in range(2):  # another process finds again what it waits for
        world.bring()
        np.testing.assert_array_equal(online(world.store, END), offline(rows, END))
        assert not world.is_due()
        world.start()
    at = END + timedelta(days=2)
    assert world.is_due(at)
    (loaded,) = world.bring(at)
    assert "what is known" in loaded.loaded
    np.testing.assert_array_equal(online(world.store, at), offline(world.lake.read("trips"), at))
    assert not world.is_due(at)


def test_many_rows_at_once_are_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "_LOADED_ROWS", 50)
    rows = trips(300)
    world.append(rows.slice(0, 100))
    world.bring()
    world.append(rows.slice(100, 200))
    (loaded,) = world.bring()
    assert "200 rows came" in loaded.loaded
    world.check()


def test_a_dropped_table_leaves_the_view_as_it_was_and_one_made_anew_is_loaded(world: World) -> None:
    world.append(trips(200))
    world.bring()
    before = online(world.store)
    shutil.rmtree(world.folder / "lake" / "trips")
    world.start()
    (held,) = world.bring()
    assert isinstance(held, HeldUp)
    assert "no table named 'trips'" in held.reason
    np.testing.assert_array_equal(online(world.store), before)
    world.lake = Lake(str(world.folder / "lake"), ledger=None)
    for seed in (4, 5, 6):
        world.append(trips(50, seed=seed).set_column(0, "id", pa.array([f"{seed}-{n}" for n in range(50)])))
    (loaded,) = world.bring()
    assert "made anew" in loaded.loaded
    world.check()


def test_a_source_that_lost_a_column_holds_up_its_view_alone(world: World) -> None:
    world.append(trips(100))
    world.bring(END, SPEC, OTHER)
    shutil.rmtree(world.folder / "lake" / "trips")
    world.lake = Lake(str(world.folder / "lake"), ledger=None)
    world.append(trips(100).drop_columns(["delay"]))
    world.start()
    held, loaded = world.bring(END, SPEC, OTHER)
    assert isinstance(held, HeldUp)
    assert "'delay'" in held.reason
    assert (held.digest, loaded.digest) == (SPEC.digest, OTHER.digest)
    assert isinstance(loaded, Brought)


def test_a_row_known_before_it_happened_holds_the_view_up_and_is_said(world: World) -> None:
    rows = trips(100)
    world.append(rows.slice(0, 90))
    world.bring()
    world.append(rows.slice(90).set_column(2, "known_at", pa.array([START] * 10, INSTANT)))
    before = world.store.standing(SPEC)
    (held,) = world.bring()
    assert "before" in held.reason
    assert world.store.standing(SPEC) == before
    world.lake.delete("trips", f"known_at = timestamptz '{START.isoformat()}'", reason="repaired")
    (loaded,) = world.bring()
    assert isinstance(loaded, Brought)
    world.check()


def test_a_clock_that_is_set_back_a_little_takes_nothing_back(world: World) -> None:
    rows = trips(200)
    world.append(rows.slice(0, 150))
    world.bring(END)
    world.append(rows.slice(150))
    (counted,) = world.bring(END - timedelta(seconds=30))
    assert (counted.loaded, counted.standing.known_us) == (None, to_micros(END))
    world.check()


def test_a_clock_that_is_set_back_far_gives_what_was_known_then(world: World) -> None:
    world.append(trips(300))
    world.bring(END)
    then = START + timedelta(days=4)
    assert world.is_due(then)
    (loaded,) = world.bring(then)
    assert "clock" in loaded.loaded
    world.check(then)


def test_views_that_stand_at_different_places_of_one_table(world: World) -> None:
    rows = trips(200)
    world.append(rows.slice(0, 100))
    world.bring()
    world.append(rows.slice(100, 50))
    world.bring(END, OTHER)
    world.append(rows.slice(150))
    done = world.bring(END, SPEC, OTHER)
    assert sorted(each.rows for each in done) == [50, 100]
    world.check()
    spine = pa.table({"line": pa.array(LINES), "at": pa.array([END] * len(LINES), INSTANT)})
    found = world.store.read([OTHER], {"line": LINES}, to_micros(END))
    wanted = point_in_time(OTHER, world.lake.read("trips"), spine)
    np.testing.assert_array_equal(found[:, 0], wanted["by_line__n"].to_numpy())


def test_a_table_without_rows(world: World) -> None:
    world.append(trips(1).slice(0, 0))
    (loaded,) = world.bring()
    assert loaded.rows == 0
    assert not world.is_due()
    world.append(trips(10))
    (counted,) = world.bring()
    assert (counted.rows, counted.loaded) == (10, None)
    world.check()


def test_a_file_of_foreign_make_is_counted_too(world: World) -> None:
    from deltalake import write_deltalake

    world.append(trips(50))
    world.bring()
    rows = world.lake.read("trips").slice(0, 5).set_column(0, "id", pa.array([f"x{n}" for n in range(5)]))
    write_deltalake(str(world.folder / "lake" / "trips"), rows, mode="append")
    (counted,) = world.bring()
    assert (counted.rows, counted.loaded) == (5, None)
    world.check()
    assert pq.read_metadata(next((world.folder / "lake" / "trips").glob("*.parquet"))).num_rows


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_gives_what_offline_gives(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    world = World(tmp_path_factory.mktemp("any"))
    rows, done, at = trips(160, seed=data.draw(st.integers(0, 9))), 0, START + timedelta(days=1)
    try:
        world.append(rows.slice(0, 1))
        done = 1
        for _ in range(12):
            match data.draw(
                st.sampled_from(("append", "append", "bring", "wait", "compact", "restart", "delete"))
            ):
                case "append":
                    size = data.draw(st.integers(0, 30))
                    if done < rows.num_rows:
                        world.append(rows.slice(done, size))
                    done += size
                case "wait":
                    at += timedelta(hours=data.draw(st.integers(0, 60)))
                case "compact":
                    world.lake.compact("trips")
                case "restart":
                    world.start()
                case "delete":
                    world.lake.delete("trips", f"id = '{data.draw(st.integers(0, 159)):05d}'", reason="test")
                case "bring":
                    world.bring(at)
                    world.check(at)
        world.bring(at)
        world.check(at)
        assert not world.is_due(at)
    finally:
        world.close()
