"""Structs grow by fields as tables grow by columns."""

from pathlib import Path

import pyarrow as pa
import pytest

from noria.errors import SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake


def rows(**fields: float) -> pa.Table:
    return pa.table({"id": ["x"], "features": [fields]})


def test_a_new_field_is_added_and_null_in_old_rows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    lake.append("log", rows(b=1.0, c=2.0), batch=1, app_id="a")
    lake.append("log", rows(a=3.0, b=4.0, c=5.0), batch=2, app_id="a")
    lake.append("log", rows(c=6.0), batch=3, app_id="a")
    found = lake.read("log")["features"].to_pylist()
    assert found == [
        {"b": 1.0, "c": 2.0, "a": None},
        {"b": 4.0, "c": 5.0, "a": 3.0},
        {"b": None, "c": 6.0, "a": None},
    ]
    again = Lake(str(tmp_path), ledger=None)
    assert again.read("log")["features"].to_pylist() == found


def test_fields_go_by_name_not_by_place(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    lake.append("log", rows(b=1.0, c=2.0), batch=1, app_id="a")
    lake.append("log", rows(c=3.0, b=4.0), batch=2, app_id="a")
    assert lake.read("log")["features"].to_pylist()[1] == {"b": 4.0, "c": 3.0}


def test_an_ingest_with_unknown_fields_says_so(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    things = Dataset("things", key="id", event_at="known_at")
    lake.ingest(things, rows(b=1.0), batch=1)
    with pytest.raises(SourceError, match="features' has fields its table does not have: z"):
        lake.ingest(things, pa.table({"id": ["y"], "features": [{"b": 1.0, "z": 2.0}]}), batch=2)
