"""`noria ingest` and `noria dataset`, as typed."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Said

Say = Callable[..., Said]

DECLARED = """
import noria
from noria import check

sales = noria.Dataset(
    "sales", key="id", event_at="sold_at", files="data/*.csv", max_rejected_share=0.5,
    checks=[check.between("n", 0, 100)], owner="ann", description="What was sold, by whom.", tags=("money",))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["lake_commands_declared"]\n')
    (tmp_path / "lake_commands_declared.py").write_text(DECLARED)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.csv").write_text(
        "id,n,sold_at\na,1,2024-01-01T00:00:00Z\nb,2,2024-01-01T00:00:00Z\nc,999,2024-01-01T00:00:00Z\n"
    )
    return tmp_path


def test_new_files_are_taken_and_told(say: Say, shop: Path) -> None:
    told = say("ingest", "sales", "--project", shop)
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[1].split() == ["data/1.csv", "landed", "sales:1", "2", "1", "0"]
    assert "between(n, 0, 100) fails for 1 row, first in line 4" in told.out
    assert "sales__rejected" in told.out
    again = say("ingest", "sales", "--project", shop, "--json")
    (answer,) = json.loads(again.out)
    assert (answer["source"], answer["state"], answer["version"]) == ("data/1.csv", "already", "sales:1")
    events = json.loads(say("query", "select verb from ledger_events", "--project", shop, "--json").out)
    assert [each["verb"] for each in events].count("person.asked") == 1


def test_a_trial_tells_what_would_land(say: Say, shop: Path) -> None:
    told = say("ingest", "sales", "--dry-run", "--project", shop)
    assert told.out.splitlines()[1].split() == ["data/1.csv", "would", "land", "2", "1", "0"]
    assert "1 row: between(n, 0, 100)" in told.out
    (answer,) = json.loads(say("ingest", "sales", "--dry-run", "--json", "--project", shop).out)
    assert (answer["accepted"], answer["rejected"], answer["columns"]["n"]) == (2, 1, "int64")
    assert say("query", "select * from sales", "--project", shop).code == 3


def test_how_a_file_is_read_can_be_typed(say: Say, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shop / "other.txt"
    other.write_text("d|-|2024-01-01 01:00\n")
    monkeypatch.chdir(shop)
    told = say(
        "ingest", "sales", "other.txt", "--format", "csv", "--delimiter", "|", "--no-header", "--names", "id",
        "--names", "n", "--names", "sold_at", "--null", "-", "--time-zone", "Europe/Vienna",
    )  # fmt: skip
    assert (told.code, told.err) == (0, "")
    (row,) = json.loads(say("query", "select id, n, sold_at from sales", "--json").out)
    assert row == {"id": "d", "n": None, "sold_at": "2024-01-01T00:00:00Z"}


def test_what_fails_is_told_and_ends_with_its_code(say: Say, shop: Path) -> None:
    (shop / "data" / "2.csv").write_text("id,m\nd,1\n")
    told = say("ingest", "sales", "--project", shop)
    assert told.code == 4
    assert told.err.startswith("error: data/2.csv: ")
    assert "lacks column 'n'" in told.err
    assert "landed" in told.out
    answer = json.loads(say("ingest", "sales", "--project", shop, "--json").out)
    assert [each["state"] for each in answer] == ["already", "failed"]
    (shop / "data" / "2.csv").write_text("id,n,sold_at\nd,500,2024-01-01T00:00:00Z\n")
    (shop / "data" / "3.xlsx").write_bytes(b"no workbook")
    told = say("ingest", "sales", f"{shop}/data/*", "--project", shop)
    assert told.code == 5
    assert "error: data/2.csv, for dataset 'sales', is blocked" in told.err
    assert ", line 2 of data/2.csv" in told.err
    assert "error: data/3.xlsx: the file" in told.err
    assert "2 of 3 sources could not be taken" in told.err
    assert answer[1]["error"]["kind"] == "SourceError"
    missing = say("ingest", "sale", "--project", shop)
    assert (missing.code, missing.out) == (2, "")
    assert "noria dataset profile sale FILE" in missing.err
    nowhere = say("ingest", "sales", "nope.csv", "--project", shop)
    assert (nowhere.code, "give one that exists" in nowhere.err) == (4, True)


def test_the_catalogue_is_shown(say: Say, shop: Path) -> None:
    listed = say("dataset", "list", "--project", shop)
    assert listed.out.splitlines()[0].split()[:4] == ["dataset", "version", "rows", "rejected"]
    assert say("dataset", "show", "sales", "--project", shop).code == 0
    say("ingest", "sales", "--project", shop)
    listed = say("dataset", "list", "--project", shop)
    assert listed.out.splitlines()[1].split()[:4] == ["sales", "1", "2", "1"]
    (answer,) = json.loads(say("dataset", "list", "--json", "--project", shop).out)
    assert (answer["rows"], answer["rejected"], answer["owner"]) == (2, 1, "ann")
    shown = say("dataset", "show", "sales", "--project", shop)
    for expected in ("What was sold, by whom.", "between(n, 0, 100)", "sales:1", "data/1.csv", "sold_at"):
        assert expected in shown.out
    answer = json.loads(say("dataset", "show", "sales", "--json", "--project", shop).out)
    assert answer["newest_event_at"] == "2024-01-01T00:00:00Z"
    assert say("dataset", "show", "nope", "--project", shop).code == 3


def test_rows_are_read_in_every_format(say: Say, shop: Path) -> None:
    say("ingest", "sales", "--project", shop)
    table = say("dataset", "read", "sales", "--rows", "1", "--project", shop)
    assert [line.split()[:2] for line in table.out.splitlines()] == [["id", "n"], ["a", "1"], ["1", "row"]]
    for name, read in (
        ("out.csv", lambda path: list(csv.DictReader(path.read_text().splitlines()))),
        ("out.json", lambda path: json.loads(path.read_bytes())),
        ("out.jsonl", lambda path: [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]),
        ("out.parquet", lambda path: pq.read_table(path).to_pylist()),
    ):
        path = shop / name
        told = say("dataset", "read", "sales", "--output", path, "--project", shop)
        assert (told.code, told.err) == (0, "")
        assert [each["id"] for each in read(path)] == ["a", "b"]
    assert sorted(each.name for each in shop.glob(".out*")) == []
    assert say("dataset", "read", "sales", "--version", "1", "--project", shop).code == 0
    assert say("dataset", "read", "sales", "--at", "2000-01-01", "--project", shop).code == 3
    refused = say("dataset", "read", "sales", "--format", "table", "--output", "x.csv", "--project", shop)
    assert (refused.code, "a table is for the screen" in refused.err) == (2, True)
    nowhere = say(
        "dataset", "read", "sales", "--format", "csv", "--output", shop / "no" / "x.csv", "--project", shop
    )
    assert (nowhere.code, "cannot be written" in nowhere.err) == (9, True)


def test_rows_go_to_a_pipe(noria: Callable[..., subprocess.CompletedProcess[str]], shop: Path) -> None:
    noria("ingest", "sales", "--project", shop)
    assert noria("dataset", "read", "sales", "--format", "csv", "--project", shop).stdout.splitlines()[1][
        :5
    ] == ('"a",1')
    answer = json.loads(noria("dataset", "read", "sales", "--json", "--project", shop).stdout)
    assert [each["id"] for each in answer] == ["a", "b"]


def test_a_trial_of_what_would_be_blocked_ends_as_the_ingest_would(say: Say, shop: Path) -> None:
    path = shop / "worse.csv"
    path.write_text("id,n,sold_at\n" + "".join(f"z{each},999,2024-01-01T00:00:00Z\n" for each in range(9)))
    told = say("ingest", "sales", path, "--dry-run", "--project", shop)
    assert (told.code, "would be blocked" in told.out, "break the contract" in told.out) == (5, True, True)
    (answer,) = json.loads(say("ingest", "sales", path, "--dry-run", "--json", "--project", shop).out)
    assert (answer["state"], len(answer["blocked"])) == ("would be blocked", 1)
    assert say("ingest", "sales", path, "--project", shop).code == 5


def test_a_file_of_an_unknown_kind_is_told_after_the_others_have_landed(say: Say, shop: Path) -> None:
    (shop / "data" / "0.pdf").write_bytes(b"%PDF-1.7")
    told = say("ingest", "sales", f"{shop}/data/*", "--project", shop)
    assert (told.code, "landed" in told.out, "--format" in told.err) == (4, True, True), told


def test_a_table_that_a_model_built_is_called_a_model(say: Say, shop: Path) -> None:
    (shop / "models").mkdir()
    (shop / "models" / "small.sql").write_text("select id, n from sales")
    say("ingest", "sales", "--project", shop)
    assert say("transform", "--project", shop).code == 0
    say("dataset", "delete", "small", "true", "--reason", "test", "--project", shop)
    lines = say("dataset", "list", "--project", shop).out.splitlines()
    (found,) = [each.split() for each in lines if each.startswith("small ")]
    assert (found[1], found[2], found[-1]) == ("2", "0", "model")


def test_a_table_that_was_not_there_yet_is_told_in_plain_words(say: Say, shop: Path) -> None:
    say("ingest", "sales", "--project", shop)
    told = say("query", "select * from sales for timestamp as of '2020-01-01'", "--project", shop)
    assert told.code == 3
    assert "no version of sales as of 2020-01-01T00:00:00Z; the first is sales:1 of 2" in told.err


def test_a_stale_dataset_is_told_wherever_it_is_shown(say: Say, shop: Path) -> None:
    declared = DECLARED.replace("checks=[", 'checks=[check.fresh("36h", severity="warn"), ')
    (shop / "lake_commands_declared.py").write_text(declared)
    assert say("ingest", "sales", "--project", shop).code == 0
    assert "sales is stale: the newest sold_at is" in say("status", "--project", shop).out.replace("\n", " ")
    assert "stale" in say("dataset", "list", "--project", shop).out
    shown = " ".join(say("dataset", "show", "sales", "--project", shop).out.split())
    assert "wanted at most 1 day, 12:00:00" in shown
    doctor = json.loads(say("doctor", "--json", "--project", shop).out)
    assert [each["health"] for each in doctor["findings"] if each["check"] == "freshness"] == ["warn"]
