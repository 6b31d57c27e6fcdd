"""A subject's rows are taken out everywhere, and what is left stays readable and provable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from noria.checks.declarations import between, matches
from noria.errors import ConfigError, NotFound
from noria.lake.declarations import Dataset
from noria.lake.rows import Broken
from noria.lake.store import Lake
from noria.ledger.store import Ledger

PEOPLE = Dataset(
    "people",
    key="id",
    event_at="t",
    known_at="t",
    checks=[between("age", 0, 150), matches("mail", ".+@.+")],
    max_rejected_share=1.0,
)
MAIL = "zoe.zwingli@example.org"  # sorts last: it is a bound in the log's statistics


def people(first: int, *mails: str, age: int = 30) -> pa.Table:
    many = len(mails)
    return pa.table(
        {
            "id": list(range(first, first + many)),
            "mail": list(mails),
            "age": [age] * many,
            "t": pa.array([first] * many, pa.timestamp("us", "UTC")),
        }
    )


def bytes_below(root: Path) -> str:
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            found.append(str(pq.read_table(path).to_pylist()) + str(pq.read_metadata(path).to_dict()))
        elif path.is_file():
            found.append(path.read_text())
    return "\n".join(found)


@pytest.fixture
def filled(lake: Lake) -> Lake:
    lake.ingest(PEOPLE, people(1, "a@x", MAIL, "b@x"), batch=1)
    lake.ingest(PEOPLE, people(10, "c@x", "d@x"), batch=2)
    lake.ingest(PEOPLE, people(20, MAIL, "e@x", age=200), batch=3)
    lake.ingest(PEOPLE, people(30, MAIL), batch=4)
    lake.compact("people")
    lake.ingest(PEOPLE, people(40, "f@x"), batch=5)
    return lake


def test_no_byte_of_the_subject_is_left_and_every_version_reads_what_is_left(
    filled: Lake, ledger: Ledger, tmp_path: Path, reopened: Callable[[], Lake]
) -> None:
    cause = ledger.append("person.asked")
    assert MAIL in bytes_below(tmp_path / "lake")
    kept = {number: filled.read("people", version=number).num_rows for number in range(1, 5)}
    recorded = {each.number: each for each in ledger.list_versions(kind="dataset", name="people")}
    done = filled.forget("people", "mail", [MAIL], reason="article 17", cause=cause.id)
    assert (done.rows, done.rejected) == (2, 1)
    assert MAIL not in bytes_below(tmp_path / "lake")
    assert MAIL not in str(ledger.list_events())
    assert kept == {1: 3, 2: 5, 3: 6, 4: 7}
    for lake in (filled, reopened()):
        left = {number: lake.read("people", version=number)["mail"].to_pylist() for number in range(1, 5)}
        assert left == {
            1: ["a@x", "b@x"],
            2: ["a@x", "b@x", "c@x", "d@x"],
            3: ["a@x", "b@x", "c@x", "d@x"],
            4: ["a@x", "b@x", "c@x", "d@x", "f@x"],
        }
        for number, version in recorded.items():
            assert lake.version_digest("people", number, verify=True) == lake.expected_digest(version)
    events = {each.payload["ref"]: each.payload for each in ledger.list_events(verb="redacted")}
    assert set(events) == {f"people:{number}" for number in recorded}
    assert events["people:1"]["old"] == recorded[1].sha256
    assert events["people:1"]["new"] == filled.version_digest("people", 1)
    told = ledger.list_events(verb="dataset.forgotten", subject="people")[0]
    assert (told.cause, told.payload["removed"], told.payload["subjects"]) == (cause.id, 2, 1)
    assert ledger.verify().ok
    assert filled.read("people__rejected").num_rows == 1
    assert DeltaTable(tmp_path / "lake" / "people").count() == filled.read("people").num_rows == 5


def test_forgetting_again_changes_nothing_and_the_key_is_free(filled: Lake, ledger: Ledger) -> None:
    filled.forget("people", "mail", [MAIL])
    events = ledger.list_events()
    done = filled.forget("people", "mail", [MAIL])
    assert (done.rows, done.rejected, done.files, done.versions) == (0, 0, 0, ())
    assert ledger.list_events() == events
    assert filled.ingest(PEOPLE, people(2, "new@x"), batch=6).accepted == 1


def test_a_second_subject_of_the_same_files_is_forgotten_too(filled: Lake, ledger: Ledger) -> None:
    filled.forget("people", "mail", [MAIL])
    filled.forget("people", "id", [1, 10, 99])
    assert filled.read("people", version=4)["mail"].to_pylist() == ["b@x", "d@x", "f@x"]
    version = ledger.get_version("dataset", "people", 1)
    assert filled.version_digest("people", 1) == filled.expected_digest(version)
    assert (
        len([each for each in ledger.list_events(verb="redacted") if each.payload["ref"] == "people:1"]) == 2
    )
    assert not filled.vacuum("people").removed


def test_raw_text_that_was_no_row_is_searched_word_by_word(lake: Lake) -> None:
    class Torn:
        name = "torn.csv"

        def pieces(self, wanted: Any) -> Any:
            yield people(1, "a@x").to_batches()[0]
            yield [
                Broken("torn", f"7,{MAIL}", 1),
                Broken("torn", "17,o.zoe.zwingli@example.organic", 2),
                Broken("torn", 'say ""x"",1', 3),
            ]

    lake.ingest(PEOPLE, Torn(), batch=1)
    assert lake.forget("people", "mail", [MAIL, 'x""']).rejected == 2
    assert lake.read("people__rejected")["row"].to_pylist() == [2]
    assert lake.forget("people", "id", [17]).rejected == 1


def test_raw_text_is_searched_as_its_format_reads_it(lake: Lake) -> None:
    class Torn:
        name = "torn.jsonl"

        def pieces(self, wanted: Any) -> Any:
            yield people(1, "a@x").to_batches()[0]
            yield [
                Broken("torn", '{"id":1,"mail":"M\\u00FCller"', 1),
                Broken("no object", '["M\\u00fcller"]', 2),
                Broken("not of the contract", '{"id":"x","mail":"M\\u00fcller"}', 3),
                Broken("no UTF-8", "7;M\\xfcller;", 4),
                Broken("torn", '7,"Eva ""Zoe"" Zwingli', 5),
                Broken("torn", '{"mail":"Eva \\"Zoe\\" Zwingli"', 6),
                Broken("torn", '{"mail":"\\ud83d\\ude00\\/"', 7),
                Broken("torn", '{"id":2,"mail":"\\ud83d M\\u00fclleri"', 8),
            ]

    lake.ingest(PEOPLE, Torn(), batch=1)
    assert lake.forget("people", "mail", ["Müller", 'Eva "Zoe" Zwingli', "\U0001f600/"]).rejected == 7
    assert lake.read("people__rejected")["row"].to_pylist() == [8]


def test_columns_that_were_renamed_are_searched_under_their_old_name(lake: Lake, tmp_path: Path) -> None:
    lake.ingest(PEOPLE, people(1, "a@x", MAIL), batch=1)
    renamed = Dataset(
        "people", key="id", event_at="t", known_at="t", renamed={"mail": "address"}, max_rejected_share=1.0
    )
    lake.ingest(renamed, people(5, "b@x").rename_columns(["id", "address", "age", "t"]), batch=2)
    assert lake.forget("people", "address", [MAIL]).rows == 1
    assert lake.read("people", version=1)["mail"].to_pylist() == ["a@x"]
    assert MAIL not in bytes_below(tmp_path / "lake")


def test_what_cannot_be_forgotten_is_told(filled: Lake) -> None:
    with pytest.raises(NotFound, match="did you mean 'mail'"):
        filled.forget("people", "mial", [MAIL])
    with pytest.raises(NotFound, match="no table named 'persons'"):
        filled.forget("persons", "mail", [MAIL])
    for values in ([], [None]):
        with pytest.raises(ConfigError, match="at least one value"):
            filled.forget("people", "mail", values)
    for wrong in ("100", "no number", 1.5, 2**70):
        with pytest.raises(ConfigError, match="the column is int64"):
            filled.forget("people", "id", [1, wrong])
    with pytest.raises(ConfigError, match="the column is string, and int was given"):
        filled.forget("people", "mail", [100])
    assert filled.forget("people", "id", [100]).rows == 0


def test_others_who_have_the_table_open_go_on(
    filled: Lake, reopened: Callable[[], Lake], tmp_path: Path
) -> None:
    for batch in range(6, 40):
        filled.ingest(PEOPLE, people(100 + batch, f"{batch}@x"), batch=batch)
    other = reopened()
    assert other.read("people").num_rows == filled.read("people").num_rows
    assert other.read("people", version=1).num_rows == 3
    filled.forget("people", "mail", [MAIL])
    assert other.last_batch("people", "nobody") is None
    assert other.read("people", version=1)["mail"].to_pylist() == ["a@x", "b@x"]
    assert other.ingest(PEOPLE, people(900, "z@x"), batch=40).accepted == 1
    assert MAIL not in bytes_below(tmp_path / "lake")
