"""Which rows carry a subject's value, whatever the type of the column that has it."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from noria.lake.declarations import Dataset
from noria.lake.finding import Carrying, Orphans
from noria.lake.store import Lake
from noria.ledger.redacted import expected_digest
from noria.ledger.store import Ledger


def flags(column: pa.Array, *values: object, behind_colon: bool = False) -> list[bool]:
    find = Carrying({("c",): values}, behind_colon=behind_colon)
    return [bool(each) for each in find.flags(pa.table({"c": column}))]


def test_a_value_is_found_in_every_type_that_carries_it() -> None:
    assert flags(pa.array(["Zoe ", "zoé", "ZOE", None, "zoe@x"]), "zoe") == [True, False, True, False, False]
    assert flags(pa.array([7, 8, None]), 7) == [True, False, False]
    assert flags(pa.array([7, 8]), "7") == [True, False]
    assert flags(pa.array(["7", "08"]), 7) == [True, False]
    assert flags(pa.array([7.0, 7.5]), 7) == [True, False]
    assert flags(pa.array([[b"x"], None]), "zoe") == [False, False]
    assert flags(pa.array([["ann", "Zoe"], ["zoey"], None, []]), "zoe") == [True, False, False, False]
    assert flags(pa.array([{"who": {"name": "zoe"}}, {"who": {"name": "ann"}}]), "zoe") == [True, False]
    assert flags(pa.array(["probe:7", "7", "probe:17"]), 7, behind_colon=True) == [True, True, False]
    assert flags(pa.array([datetime(2024, 3, 1)]), "zoe") == [False]


def test_a_path_leads_into_structs_and_what_is_not_there_is_no_row() -> None:
    rows = pa.table({"inputs": [{"who": "zoe", "n": 1.0}, {"who": "ann", "n": 2.0}, None]})
    find = Carrying({("inputs", "who"): ["zoe"], ("inputs", "none"): ["zoe"], ("gone",): ["zoe"]})
    assert find.columns(rows.schema) == ["inputs"]
    assert [bool(each) for each in find.flags(rows)] == [True, False, False]
    assert Carrying({("inputs", "none"): ["zoe"]}).columns(rows.schema) == []
    assert Carrying({}).columns(rows.schema) == []


@given(held=st.lists(st.integers(-3, 3)), wanted=st.sets(st.integers(-3, 3)))
def test_exactly_the_rows_of_the_values_are_found(held: list[int], wanted: set[int]) -> None:
    if wanted:
        assert flags(pa.array(held, pa.int64()), *wanted) == [each in wanted for each in held]
        assert flags(pa.array(map(str, held), pa.string()), *wanted) == [each in wanted for each in held]


def test_rows_are_orphans_by_their_whole_identity() -> None:
    rows = pa.table({"app": ["a", "a", "b"], "row": [1, 2, 1]})
    find = Orphans(("app", "row"), frozenset({("a", 1), ("b", 1)}))
    assert np.asarray(find.flags(rows)).tolist() == [False, True, False]
    assert find.columns(pa.schema([("app", pa.string())])) == []


def test_a_table_is_searched_and_rid_of_rows_in_every_version(lake: Lake, ledger: Ledger) -> None:
    people = Dataset("people", key="id", event_at="t", known_at="t", max_rejected_share=1.0)

    def some(first: int, *names: str) -> pa.Table:
        t = pa.array([datetime(2024, 3, 1, tzinfo=UTC)] * len(names), pa.timestamp("us", "UTC"))
        return pa.table({"id": range(first, first + len(names)), "tags": [[each] for each in names], "t": t})

    lake.ingest(people, some(1, "ann", "zoe"), batch=1)
    lake.ingest(people, some(10, "zoe", "ben"), batch=2)
    find = Carrying({("tags",): ["zoe"]})
    held = lake.search("people", find, columns=["id"])
    assert held.found is not None
    assert (held.rows, held.files, [each.number for each in held.versions]) == (2, 2, [1, 2])
    assert sorted(held.found["id"].to_pylist()) == [2, 10]
    done = lake.erase("people", find, reason="asked for", about={"of": "people"})
    assert (done.rows, done.files, [each.number for each in done.versions]) == (2, 2, [1, 2])
    assert lake.read("people", version=1)["id"].to_pylist() == [1]
    assert lake.search("people", find).files == 0
    for version in ledger.list_versions(kind="dataset", name="people"):
        assert lake.version_digest("people", version, verify=True) == expected_digest(ledger, version)


def test_a_table_without_versions_becomes_no_dataset(lake: Lake, ledger: Ledger) -> None:
    lake.append("notes", pa.table({"who": ["ann", "zoe"]}), batch=1, app_id="notes")
    assert lake.erase("notes", Carrying({("who",): ["zoe"]})).rows == 1
    assert lake.read("notes")["who"].to_pylist() == ["ann"]
    assert ledger.list_versions(kind="dataset", name="notes") == []
