"""Rows that a merge replaces are kept, with the instant until which they were what was known."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lake.conftest import DAY0

from noria.features.replaced import known_rows
from noria.lake.declarations import Dataset
from noria.lake.delta import Table
from noria.lake.schema import REPLACED_AT
from noria.lake.store import Lake

INSTANT = pa.timestamp("us", "UTC")
STATES = Dataset("states", key="id", event_at="at", known_at="known", write="merge", max_rejected_share=1.0)
Told = tuple[str, int, str]  # id, when known, what


def at(hours: int) -> datetime:
    return DAY0 + timedelta(hours=hours)


def states(*rows: Told) -> pa.Table:
    known = pa.array([at(each[1]) for each in rows], INSTANT)
    return pa.table(
        {
            "id": pa.array([each[0] for each in rows], pa.string()),
            "at": pa.array([DAY0] * len(rows), INSTANT),
            "known": known,
            "what": pa.array([each[2] for each in rows], pa.string()),
        }
    )


def history(lake: Lake, **more: Any) -> pa.Table:
    return lake.history("states", columns=["id", "known", "what"], where=None, **more)


def known(lake: Lake, hours: int, **more: Any) -> dict[str, str]:
    """Give what was known at an instant."""
    found = known_rows(history(lake, **more), "known", pa.scalar(at(hours), INSTANT))
    ids = found["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, found["what"].to_pylist(), strict=True))


def test_what_was_known_before_a_merge_is_kept(lake: Lake) -> None:
    lake.ingest(STATES, states(("a", 1, "first"), ("b", 1, "b")), batch=1)
    assert REPLACED_AT not in history(lake).column_names  # nothing was replaced yet
    lake.ingest(STATES, states(("a", 5, "second")), batch=2)
    lake.ingest(STATES, states(("a", 9, "third"), ("c", 9, "c")), batch=3)
    assert [known(lake, each).get("a") for each in (0, 1, 4, 5, 8, 9)] == [
        None, "first", "first", "second", "second", "third",
    ]  # fmt: skip
    assert known(lake, 9) == {"a": "third", "b": "b", "c": "c"}
    assert lake.read("states").num_rows == 3
    kept = lake.read("states__replaced").sort_by("known")
    assert kept["what"].to_pylist() == ["first", "second"]
    assert kept[REPLACED_AT].to_pylist() == [at(5), at(9)]


def test_a_history_that_comes_at_once_is_kept_too(lake: Lake) -> None:
    lake.ingest(STATES, states(("a", 1, "first"), ("a", 9, "third"), ("a", 5, "second")), batch=1)
    assert [known(lake, each).get("a") for each in (1, 5, 9)] == ["first", "second", "third"]
    lake.ingest(STATES, states(("a", 3, "too late")), batch=2)  # never what was known
    assert [known(lake, each).get("a") for each in (1, 3, 5, 9)] == ["first", "first", "second", "third"]


def test_an_older_version_has_the_history_that_it_had(lake: Lake) -> None:
    lake.ingest(STATES, states(("a", 1, "first")), batch=1)
    second = lake.ingest(STATES, states(("a", 5, "second")), batch=2).version
    lake.ingest(STATES, states(("a", 9, "third")), batch=3)
    assert [known(lake, each, version=second).get("a") for each in (1, 5, 9)] == ["first", "second", "second"]


def test_only_asked_for_rows_are_read(lake: Lake) -> None:
    lake.ingest(STATES, states(("a", 1, "first"), ("b", 1, "first")), batch=1)
    lake.ingest(STATES, states(("a", 5, "second"), ("b", 5, "second")), batch=2)
    found = lake.history("states", columns=["what"], where=ds.field("id") == "b")
    assert sorted(found["what"].to_pylist()) == ["first", "second"]


Batches = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.sampled_from("xyz")), min_size=1, max_size=6
    ),
    min_size=1,
    max_size=5,
)


def expected(batches: list[list[Told]]) -> list[dict[str, str]]:
    """Give what was known at each hour, row by row."""
    now: dict[str, Told] = {}
    ever: list[tuple[Told, int | None]] = []
    for batch in batches:
        for id in {each[0] for each in batch}:
            before = now.get(id)
            mine = [each for each in batch if each[0] == id and (before is None or each[1] >= before[1])]
            by_known = {each[1]: each for each in ([] if before is None else [before]) + mine}
            chain = [by_known[each] for each in sorted(by_known)]
            ever += [(one, other[1]) for one, other in pairwise(chain)]
            now[id] = chain[-1]
    ever += [(each, None) for each in now.values()]
    return [
        {row[0]: row[2] for row, end in ever if row[1] <= hour and (end is None or hour < end)}
        for hour in range(8)
    ]


@settings(max_examples=60, deadline=None)
@given(Batches, st.booleans())
def test_any_batches_give_what_was_known_at_any_instant(batches: list[list[Told]], joined: bool) -> None:
    with TemporaryDirectory() as folder:
        lake = Lake(folder, ledger=None)
        try:
            for number, batch in enumerate(batches):
                lake.ingest(STATES, states(*batch), batch=number + 1)
            if joined and lake.exists("states__replaced"):
                lake.compact("states__replaced")
            assert [known(lake, each) for each in range(8)] == expected(batches)
        finally:
            lake.close()


class Killed(BaseException):
    """Stands for a process that ends there."""


def test_what_a_killed_batch_has_set_aside_does_not_count(
    lake: Lake, reopened: Callable[[], Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.ingest(STATES, states(("a", 1, "first")), batch=1)
    real = Table.commit

    def killed(self: Table, **given: Any) -> bool:
        if self.name == "states":
            raise Killed
        return real(self, **given)

    monkeypatch.setattr(Table, "commit", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            lake.ingest(STATES, states(("a", 5, "second")), batch=2)
    monkeypatch.undo()
    other = reopened()
    assert [known(other, each).get("a") for each in (1, 5)] == ["first", "first"]
    other.ingest(STATES, states(("b", 7, "b")), batch=3)  # another commit takes the number
    assert [known(other, each).get("a") for each in (1, 5, 8)] == ["first"] * 3
    other.ingest(STATES, states(("a", 6, "third")), batch=4)
    assert [known(other, each).get("a") for each in (1, 5, 6)] == ["first", "first", "third"]
    assert other.read("states__replaced")["what"].to_pylist() == ["first"]  # what never counted is gone
    other.close()


CHILD = """
import sys
from tests.lake.test_replaced import STATES, states
from noria.lake.store import Lake

lake = Lake(sys.argv[1], ledger=None)
print("ready", flush=True)
for batch in range(1, 31):
    lake.ingest(STATES, states(*((id, batch, str(batch)) for id in "abc")), batch=batch)
print("done", flush=True)
"""


def test_kill_9_at_any_instant_keeps_each_replaced_row_once(tmp_path: Path) -> None:
    random, kills = Random(20240301), 0
    for _ in range(30):
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            if kills < 6:
                time.sleep(random.uniform(0.0, 0.3))
                os.kill(child.pid, signal.SIGKILL)
            if "done" in child.stdout.read():
                break
            kills += 1
    assert kills >= 3
    lake = Lake(str(tmp_path), ledger=None)
    found = history(lake)
    for id in "abc":
        mine = found.filter(pa.compute.equal(found["id"], id)).sort_by("known")
        assert mine["what"].to_pylist() == [str(batch) for batch in range(1, 31)]
        assert mine[REPLACED_AT].to_pylist() == [*(at(batch) for batch in range(2, 31)), None]
    lake.close()


def test_a_commit_of_another_process_comes_first(lake: Lake, reopened: Callable[[], Lake]) -> None:
    lake.ingest(STATES, states(("a", 1, "first"), ("b", 1, "first")), batch=1)
    other, real = reopened(), Table.commit
    state = {"left": 1}

    def raced(self: Table, **given: Any) -> bool:
        if self.name == "states" and state["left"]:
            state["left"] = 0
            other.ingest(STATES, states(("a", 3, "second"), ("b", 9, "second")), batch=1, app="other")
        return real(self, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "commit", raced)
        lake.ingest(STATES, states(("a", 5, "third"), ("b", 5, "too late")), batch=2)
    for each in (lake, other):
        assert [known(each, hours).get("a") for hours in (1, 3, 5)] == ["first", "second", "third"]
        assert [known(each, hours).get("b") for hours in (1, 5, 9)] == ["first", "first", "second"]
    other.close()


def test_a_subject_is_forgotten_in_what_was_replaced(lake: Lake, tmp_path: Path) -> None:
    lake.ingest(STATES, states(("a", 1, "mine"), ("b", 1, "b")), batch=1)
    lake.ingest(STATES, states(("a", 5, "another's"), ("b", 5, "c")), batch=2)
    held = lake.held("states", "what", ["mine"])
    assert held["states__replaced"].rows == 1
    lake.forget("states", "what", ["mine"])
    assert known(lake, 1) == {"b": "b"}
    assert known(lake, 5) == {"a": "another's", "b": "c"}
    assert not lake.held("states", "what", ["mine"])["states__replaced"].files


def test_columns_that_are_renamed_widened_or_added_are_so_in_what_was_replaced(lake: Lake) -> None:
    kinds = {"id": "string", "at": "timestamp[us, tz=UTC]", "known": "timestamp[us, tz=UTC]"}

    def declared(**more: Any) -> Dataset:
        return Dataset("states", key="id", event_at="at", known_at="known", write="merge", **more)

    def rows(hours: int, **columns: pa.Array) -> pa.Table:
        made = states(("a", hours, "")).drop_columns(["what"])
        for name, column in columns.items():
            made = made.append_column(name, column)
        return made

    first = declared(schema={**kinds, "size": "int32"})
    lake.ingest(first, rows(1, size=pa.array([1], pa.int32())), batch=1)
    lake.ingest(first, rows(3, size=pa.array([3], pa.int32())), batch=2)
    later = declared(schema={**kinds, "length": "int64", "note": "string"}, renamed={"size": "length"})
    lake.ingest(later, rows(5, length=pa.array([2**40]), note=pa.array(["n"])), batch=3)
    lake.ingest(later, rows(7, length=pa.array([2**41]), note=pa.array(["n"])), batch=4)
    found = lake.history("states", columns=["known", "length", "note"], where=None).sort_by("known")
    assert found["length"].to_pylist() == [1, 3, 2**40, 2**41]
    assert found["note"].to_pylist() == [None, None, "n", "n"]


def test_files_that_no_version_needs_are_removed_by_a_vacuum(lake: Lake) -> None:
    for number in range(1, 5):
        lake.ingest(STATES, states(("a", number, str(number))), batch=number)
    assert lake.compact("states__replaced")
    assert lake.vacuum("states__replaced", retention=timedelta(0)).removed
    assert [known(lake, each).get("a") for each in range(5)] == [None, "1", "2", "3", "4"]
