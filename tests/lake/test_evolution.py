"""Tables get other columns as their dataset declares, and in no other way."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from noria.errors import ConfigError, SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

SCHEMA = {"id": "string", "small": "int32", "real": "float", "t": "timestamp[us, tz=UTC]"}


def things(schema: dict[str, str] | None = None, **more: Any) -> Dataset:
    return Dataset("things", key="id", event_at="t", known_at="t", schema=schema or SCHEMA, **more)


def rows(*names: str, **columns: Any) -> pa.Table:
    many = len(names)
    made = {
        "id": list(names),
        "small": pa.array(range(many), pa.int32()),
        "real": pa.array([0.5] * many, pa.float32()),
        "t": pa.array([1] * many, pa.timestamp("us", "UTC")),
    }
    return pa.table({**made, **columns})


def test_new_columns_are_null_before_and_the_change_is_an_event(lake: Lake, ledger: Ledger) -> None:
    cause = ledger.append("person.asked")
    lake.ingest(things(), rows("a"), batch=1)
    wider = things({**SCHEMA, "wind": "double", "local": "timestamp[us]"})
    local = pa.array([5], pa.timestamp("us"))
    lake.ingest(wider, rows("b", wind=[2.0], local=local), batch=2, cause=cause.id)
    assert lake.read("things")["wind"].to_pylist() == [None, 2.0]
    (event,) = ledger.list_events(verb="dataset.evolved")
    assert event.payload == {
        "added": {"wind": "double", "local": "timestamp[us]"},
        "renamed": {},
        "retyped": {},
    }
    assert (event.subject, event.cause) == ("things", cause.id)
    lake.ingest(wider, rows("c", wind=[2.0], local=local), batch=3)
    assert len(ledger.list_events(verb="dataset.evolved")) == 1
    assert lake.read("things", version=1).column_names == list(SCHEMA)


def test_columns_are_renamed_and_retyped_in_one_commit(
    lake: Lake, ledger: Ledger, reopened: Callable[[], Lake]
) -> None:
    lake.ingest(things(), rows("a", "b"), batch=1)
    schema = {"id": "string", "count": "int64", "real": "double", "t": "timestamp[us, tz=UTC]"}
    changed = things(schema, renamed={"small": "count"})
    new = pa.table(
        {"id": ["c"], "count": [2**40], "real": [0.1], "t": pa.array([2], pa.timestamp("us", "UTC"))}
    )
    lake.ingest(changed, new, batch=2)
    for each in (lake, reopened()):
        found = each.read("things")
        assert found["count"].to_pylist() == [0, 1, 2**40]
        assert [str(field.type) for field in found.schema] == list(schema.values())
        assert each.read("things", version=1).column_names == list(SCHEMA)
    (event,) = ledger.list_events(verb="dataset.evolved")
    assert event.payload["renamed"] == {"small": "count"}
    assert event.payload["retyped"] == {"count": ["int32", "int64"], "real": ["float", "double"]}
    assert lake.ingest(changed, new, batch=3).repeated == 1
    assert lake.statistics("things").columns["count"].high == 2**40


def test_a_key_that_is_renamed_is_still_the_key(lake: Lake) -> None:
    lake.ingest(things(), rows("a", "b"), batch=1)
    schema = {"name": "string", **{name: kind for name, kind in SCHEMA.items() if name != "id"}}
    named = Dataset("things", key="name", event_at="t", known_at="t", schema=schema, renamed={"id": "name"})
    again = rows("a", "b").rename_columns(["name", "small", "real", "t"])
    assert lake.ingest(named, again, batch=2).repeated == 2
    assert lake.read("things").column_names == ["name", "small", "real", "t"]


def test_an_integer_becomes_a_double_where_no_value_is_lost(lake: Lake) -> None:
    wide = {**SCHEMA, "small": "int64"}
    lake.ingest(things(wide), rows("a", small=[2**53 + 1]), batch=1)
    with pytest.raises(SourceError, match="column 'small' is int64, wanted double, which cannot hold all"):
        lake.ingest(things({**SCHEMA, "small": "double"}), rows("b"), batch=2)
    assert lake.schema("things").field("small").type == pa.int64()
    lake.delete("things", "id = 'a'", reason="too large")
    assert lake.ingest(things({**SCHEMA, "small": "double"}), rows("b"), batch=2).accepted == 1


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"id": "string", "small": "int32", "t": SCHEMA["t"]}, "does not declare real, which its table has"),
        ({**SCHEMA, "small": "int16"}, "declares 'small' as int16, its table has int32"),
        ({**SCHEMA, "small": "string"}, "declares 'small' as string, its table has int32"),
        ({**SCHEMA, "real": "int64"}, "declares 'real' as int64, its table has float"),
    ],
)
def test_what_would_lose_something_is_refused(lake: Lake, schema: dict[str, str], told: str) -> None:
    lake.ingest(things(), rows("a"), batch=1)
    with pytest.raises(ConfigError, match=told):
        lake.ingest(things(schema), rows("b"), batch=2)
    assert lake.read("things").num_rows == 1
    assert lake.schema("things") == rows("a").schema


def test_a_name_that_is_taken_is_no_new_name(lake: Lake) -> None:
    lake.ingest(things(), rows("a"), batch=1)
    with pytest.raises(ConfigError, match="'small' is to be called 'real', but its table has both"):
        lake.ingest(things(renamed={"small": "real"}), rows("b"), batch=2)


def test_without_a_schema_columns_are_renamed_too(lake: Lake) -> None:
    lake.ingest(Dataset("things", key="id", event_at="t", known_at="t"), rows("a"), batch=1)
    renamed = Dataset("things", key="id", event_at="t", known_at="t", renamed={"small": "count"})
    lake.ingest(renamed, rows("b").rename_columns(["id", "count", "real", "t"]), batch=2)
    assert lake.read("things")["count"].to_pylist() == [0, 0]


KILLED = """
import os, signal, sys
import pyarrow as pa
import noria.lake.recording as recording
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

root = sys.argv[1]
ledger = Ledger(Database.open(f"sqlite:///{root}/noria.db"), clock=WallClock())
lake = Lake(f"{root}/lake", ledger=ledger)
t = pa.array([1], pa.timestamp("us", "UTC"))
first = Dataset("things", key="id", event_at="t", known_at="t")
lake.ingest(first, pa.table({"id": ["a"], "x": [1], "t": t}), batch=1)
recording.IngestRecords.evolved = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
renamed = Dataset("things", key="id", event_at="t", known_at="t", renamed={"x": "y"})
lake.ingest(renamed, pa.table({"id": ["b"], "y": [1], "t": t}), batch=2)
"""


def test_a_kill_between_the_change_and_its_record_is_made_good(
    tmp_path: Path, lake: Lake, ledger: Ledger
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert lake.schema("things").names == ["id", "y", "t"]
    assert ledger.list_events(verb="dataset.evolved") == []
    renamed = Dataset("things", key="id", event_at="t", known_at="t", renamed={"x": "y"})
    t = pa.array([1], pa.timestamp("us", "UTC"))
    assert lake.ingest(renamed, pa.table({"id": ["b"], "y": [1], "t": t}), batch=2).accepted == 1
    (event,) = ledger.list_events(verb="dataset.evolved")
    assert event.payload["renamed"] == {"x": "y"}
