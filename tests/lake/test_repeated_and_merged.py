"""What becomes of a row whose key is there already."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from noria.clock import ReplayClock, to_micros
from noria.errors import BatchBlocked
from noria.lake.declarations import Dataset
from noria.lake.rowsql import RowSql
from noria.lake.store import Lake
from noria.ledger.store import Ledger

Day = Callable[..., pa.Table]

FLIGHTS = Dataset(
    "flights", key="flight", event_at="departed_at", known_at="landed_at", max_rejected_share=1.0
)
STATES = Dataset("states", key=("site", "id"), event_at="at", known_at="at", write="merge")


def states(*rows: tuple[str, int, str, int]) -> pa.Table:
    sites, ids, values, instants = zip(*rows, strict=True)
    return pa.table(
        {
            "site": list(sites),
            "id": list(ids),
            "value": list(values),
            "at": pa.array(instants, pa.timestamp("us", "UTC")),
        }
    )


def held(lake: Lake) -> dict[tuple[str, int], str]:
    rows = lake.read("states").to_pylist()
    found = {(each["site"], each["id"]): each["value"] for each in rows}
    assert len(found) == len(rows)
    return found


def test_the_same_rows_from_elsewhere_are_repeated_and_land_once(
    lake: Lake, ledger: Ledger, day: Day
) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1, app="file:aa")
    both = pa.concat_tables([day(1), day(2)])
    done = lake.ingest(FLIGHTS, both, batch=700, app="stream:landings/0")
    assert (done.accepted, done.repeated, done.rejected, done.findings) == (20, 20, 0, ())
    assert lake.read("flights").num_rows == 40
    event = ledger.list_events(verb="dataset.ingested")[-1]
    assert (event.payload["accepted"], event.payload["repeated"]) == (20, 20)
    assert done.version is not None
    assert done.version.facts["repeated"] == 20
    again = lake.ingest(FLIGHTS, both, batch=700, app="stream:landings/0")
    assert (again.state, again.accepted, again.repeated) == ("already", 20, 20)


def test_other_content_under_a_key_is_rejected_by_its_name(
    lake: Lake, reopened: Callable[[], Lake], day: Day
) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    other = pa.concat_tables([day(1).slice(0, 3), day(1, delay=[float("nan")] * 20).slice(3, 2)])
    done = reopened().ingest(FLIGHTS, other, batch=2)
    assert (done.accepted, done.repeated, done.rejected) == (0, 3, 2)
    assert [each.rule for each in done.findings] == ["new_key(flight)"]
    assert set(lake.read("flights__rejected")["reason"].to_pylist()) == {"new_key(flight)"}
    nan = day(3, delay=[float("nan")] * 20)
    assert lake.ingest(FLIGHTS, nan, batch=3).accepted == 20
    assert lake.ingest(FLIGHTS, nan, batch=4).repeated == 20


@pytest.mark.parametrize("write", ["append", "merge"])
def test_hashes_that_collide_change_nothing(
    monkeypatch: pytest.MonkeyPatch, lake: Lake, write: Literal["append", "merge"]
) -> None:
    """Keys share four hashes; they are long, and differ in the middle or at the end; pieces are small."""
    hashes = RowSql.hashes
    monkeypatch.setattr(
        RowSql, "hashes", lambda self, rows, columns: hashes(self, rows, columns) << np.uint64(62)
    )
    monkeypatch.setattr("noria.lake.incoming._ROWS_PER_PIECE", 7)
    drawn = np.random.default_rng(3)
    dataset = replace(STATES, write=write, max_rejected_share=1.0)
    model: dict[tuple[str, int], tuple[str, int]] = {}
    for batch in range(1, 9):
        rows = [
            (f"site-{a % 3}{'x' * 30}{a % 2}", (0, 2**63 - 1, -(2**63))[b], str(v), at)
            for a, b, v, at in drawn.integers(0, (6, 3, 2, 3), (int(drawn.integers(1, 26)), 4)).tolist()
        ]
        counted = {"accepted": 0, "rejected": 0, "repeated": 0}
        came: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for site, number, *content in rows:
            came.setdefault((site, number), []).append((content[0], content[1]))
        for key, found in came.items():
            there = model.get(key)
            if write == "merge":
                newest = max(reversed(found), key=lambda each: each[1])
                if there is None or (newest[1] >= there[1] and newest != there):
                    model[key] = newest
                    counted["accepted"] += 1
                continue
            taken = [found[0]] if there is None else [there]
            counted["accepted"] += there is None
            for each in found[1:] if there is None else found:
                counted["repeated" if each in taken else "rejected"] += 1
            model[key] = taken[0]
        if write == "merge":
            counted["repeated"] = len(rows) - counted["accepted"]
        done = lake.ingest(dataset, states(*rows), batch=batch)
        assert {name: getattr(done, name) for name in counted} == counted
        stored = lake.read("states").to_pylist()
        held_at = {(each["site"], each["id"]): (each["value"], to_micros(each["at"])) for each in stored}
        assert len(held_at) == len(stored)
        assert held_at == model
        if batch % 3 == 0:
            lake.compact("states")
            gone = next(iter(model))
            lake.delete("states", f"site = '{gone[0]}' and id = {gone[1]}", reason="gone")
            del model[gone]


def test_when_the_lake_says_when_rows_were_known_that_is_no_difference(
    lake: Lake, clock: ReplayClock, day: Day
) -> None:
    planes = Dataset("planes", key="flight", event_at="departed_at")
    rows = day(1).drop(["landed_at"])
    lake.ingest(planes, rows, batch=1)
    clock.move_to(datetime(2015, 1, 1, tzinfo=UTC))
    assert lake.ingest(planes, rows, batch=2).repeated == 20
    assert set(lake.read("planes")["known_at"].to_pylist()) == {datetime(2014, 1, 1, tzinfo=UTC)}


def test_nested_columns_take_part_in_what_is_equal(lake: Lake, day: Day) -> None:
    tags: list[list[dict[str, object]]] = [[{"name": "a", "at": each}] for each in range(20)]
    lake.ingest(FLIGHTS, day(1, tags=tags), batch=1)
    tags[4] = [{"name": "a", "at": None}]
    done = lake.ingest(FLIGHTS, day(1, tags=tags), batch=2)
    assert (done.repeated, done.rejected) == (19, 1)


def test_a_newer_row_takes_the_place_of_its_key_in_one_commit(lake: Lake, ledger: Ledger) -> None:
    lake.ingest(STATES, states(("a", 1, "old", 10), ("a", 2, "kept", 10), ("b", 1, "old", 20)), batch=1)
    done = lake.ingest(
        STATES,
        states(("a", 1, "new", 11), ("b", 1, "stale", 19), ("b", 2, "first", 1), ("a", 2, "kept", 10)),
        batch=2,
    )
    assert (done.accepted, done.replaced, done.repeated, done.rejected) == (2, 1, 2, 0)
    assert held(lake) == {("a", 1): "new", ("a", 2): "kept", ("b", 1): "old", ("b", 2): "first"}
    assert lake.read("states", version=1).num_rows == 3
    assert lake.last_batch("states") == 2
    assert done.version is not None
    assert done.version.uri == "delta:states@2"
    assert ledger.list_events(verb="dataset.ingested")[-1].payload["replaced"] == 1


def test_of_rows_that_were_known_at_once_the_last_to_come_stays(lake: Lake) -> None:
    lake.ingest(STATES, states(("a", 1, "one", 5), ("a", 1, "two", 5), ("a", 1, "older", 4)), batch=1)
    assert held(lake) == {("a", 1): "two"}
    lake.ingest(STATES, states(("a", 1, "three", 5)), batch=2)
    assert held(lake) == {("a", 1): "three"}


def test_a_merge_writes_only_the_files_that_hold_its_keys(lake: Lake) -> None:
    for site in "abcdef":
        lake.ingest(STATES, states(*((site, each, "x", 1) for each in range(10))), batch=ord(site))
    before = {each.path for each in lake.reader("states").get_fragments()}
    lake.ingest(STATES, states(("c", 3, "y", 2)), batch=200)
    after = {each.path for each in lake.reader("states").get_fragments()}
    assert len(before - after) == 1
    assert len(after - before) == 2
    assert held(lake)["c", 3] == "y"


def test_a_twin_key_blocks_where_the_contract_says_so(lake: Lake, day: Day) -> None:
    from noria.checks.declarations import unique

    strict = Dataset(
        "flights",
        key="flight",
        event_at="departed_at",
        known_at="landed_at",
        checks=[unique("flight", severity="block")],
    )
    twins = pa.concat_tables([day(1), day(1, delay=[9.0] * 20).slice(0, 1)])
    with pytest.raises(BatchBlocked, match=r"unique\(flight\) fails for 1 of 21 rows, it allows none"):
        lake.ingest(strict, twins, batch=1)
    assert lake.ingest(strict, pa.concat_tables([day(1), day(1)]), batch=1).repeated == 20


TWO_APPS = """
import sys
import pyarrow as pa
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.clock import WallClock
from noria.ledger.store import Ledger

root, app, write = sys.argv[1:]
ledger = Ledger(Database.open(f"sqlite:///{root}/noria.db"), clock=WallClock())
lake = Lake(f"{root}/lake", ledger=ledger)
dataset = Dataset("rows", key="id", event_at="t", known_at="t", max_rejected_share=1.0, write=write)
print("ready", flush=True)
sys.stdin.readline()
came = [0, 0, 0]
for batch in range(1, 13):
    names = [f"both-{batch}-{each}" for each in range(10)] + [f"{app}-{batch}"] + [f"clash-{batch}"]
    marks = ["same"] * 11 + [app]
    rows = pa.table({"id": names, "mark": marks, "t": pa.array([batch] * 12, pa.timestamp("us", "UTC"))})
    done = lake.ingest(dataset, rows, batch=batch, app=app)
    came = [came[0] + done.accepted, came[1] + done.repeated, came[2] + done.rejected]
print(*came)
"""


@pytest.mark.parametrize("write", ["append", "merge"])
def test_two_processes_of_two_apps_never_land_a_key_twice(tmp_path: Path, write: str) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_APPS, str(tmp_path), app, write],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for app in ("one", "two")
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    told = [list(map(int, each.communicate(timeout=120)[0].split())) for each in both]
    assert [each.returncode for each in both] == [0, 0]
    lake = Lake(f"{tmp_path}/lake", ledger=None)
    ids = lake.read("rows")["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 12 * (10 + 2 + 1)
    accepted, repeated, rejected = (sum(each) for each in zip(*told, strict=True))
    assert accepted + repeated + rejected == 2 * 12 * 12
    assert repeated == 12 * 10
    if write == "append":
        assert (accepted, rejected) == (len(ids), 12)
        assert lake.read("rows__rejected").num_rows == 12
    else:
        assert rejected == 0
