"""`noria dataset profile`, `rejected`, `repair`."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from tests.cli.conftest import Said

import noria

DECLARED = """
import noria
from noria import check

sales = noria.Dataset(
    "sales", key="id", event_at="at", max_rejected_share=0.9, checks=[check.between("x", 0, 10)])
"""
AT = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["shop"]\n')
    (tmp_path / "shop.py").write_text(DECLARED)
    rows = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "at": pa.array([AT] * 4, pa.timestamp("us", "UTC")),
            "x": [1, -2, 99, -5],
        }
    )
    with noria.open(tmp_path) as project:
        project.lake.ingest(project.declarations.dataset("sales"), rows, batch=1)
    return tmp_path


def test_rejected_rows_are_counted_then_shown(say: Callable[..., Said], folder: Path) -> None:
    told = say("dataset", "rejected", "sales", "--rows", 2, "--project", folder)
    assert told.code == 0
    assert told.out.splitlines()[1].split(maxsplit=1) == ["3", "between(x, 0, 10)"], told.out
    assert '"x":-2' in "".join(told.out.split())
    assert "3 rows; the last 1 are not shown" in told.out
    found = json.loads(say("dataset", "rejected", "sales", "--json", "--project", folder).out)
    assert [(each["batch"], each["row"], each["settled_at"]) for each in found] == [
        (1, 1, None),
        (1, 2, None),
        (1, 3, None),
    ]
    assert (
        "no row of sales is open"
        in say("dataset", "rejected", "sales", "--batch", 2, "--project", folder).out
    )


def test_columns_are_set_and_rows_land(say: Callable[..., Said], folder: Path) -> None:
    told = say("dataset", "repair", "sales", "--set", "x=abs(x)", "--project", folder)
    assert (told.code, told.err) == (0, "")
    assert "2 of 3 rows landed in sales:2; 1 stay open" in told.out
    assert "between(x, 0, 10)" in told.out
    again = say("dataset", "repair", "sales", "--json", "--project", folder)
    assert (again.code, json.loads(again.out)["open"]) == (1, 1)
    every = json.loads(say("dataset", "rejected", "sales", "--all", "--json", "--project", folder).out)
    assert sum(each["settled_at"] is not None for each in every) == 2
    with noria.open(folder) as project:
        event = project.ledger.list_events(verb="dataset.ingested", newest_first=True, limit=1)[0]
        assert project.ledger.get_event(event.cause or "").payload["verb"] == "repair"


def test_rows_go_out_to_a_file_and_come_back_edited(say: Callable[..., Said], folder: Path) -> None:
    file = folder / "open.jsonl"
    told = say("dataset", "rejected", "sales", "--output", file, "--project", folder)
    assert "edit" in told.out
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["payload"]["x"] = 9
    file.write_text(json.dumps(lines[1]) + "\n")
    assert say("dataset", "repair", "sales", "--from", file, "--project", folder).code == 0
    with noria.open(folder) as project:
        assert sorted(project.lake.read("sales")["x"].to_pylist()) == [1, 9]
    assert say("dataset", "rejected", "sales", "--output", file, "--project", folder).code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["rejected", "sale"], 3, "did you mean 'sales'"),
        (["repair", "sale"], 3, "did you mean 'sales'"),
        (["repair", "sales", "--set", "x"], 2, "write COLUMN=SQL"),
        (["repair", "sales", "--set", "y=1"], 3, "no column named 'y'"),
        (["repair", "sales", "--set", "x=1 +"], 2, "is no SQL"),
        (["profile", "shops"], 3, "no table named 'shops'"),
        (["profile", "shops", "nothing.csv"], 4, "nothing.csv"),
    ],
)
def test_what_cannot_be_is_told(
    say: Callable[..., Said], folder: Path, arguments: list[str], code: int, told: str
) -> None:
    said = say("dataset", *arguments, "--project", folder)
    assert (said.code, told in said.err, "Traceback" in said.err) == (code, True, False), said.err


def test_a_blocked_batch_is_told_with_an_example_and_released(say: Callable[..., Said], folder: Path) -> None:
    files = [folder / "a.csv", folder / "b.csv"]
    for place, file in enumerate(files):
        file.write_text(f"id,at,x\nz{place},{AT.isoformat()},4711\n")
    one, two = (
        say("ingest", "sales", files[0], "--project", folder),
        say("ingest", "sales", *files, "--project", folder),
    )
    for said in (one, two):
        assert (said.code, 'For example: between(x, 0, 10) fails for {"x":4711' in said.err) == (5, True)
    asked = ["dataset", "release", "sales", "--reason", "a test", "--project", folder]
    assert say("dataset", "release", "sales", "--project", folder).code == 2
    assert say(*asked).out == "sales goes on without its batch 1 of b.csv\n"
    assert say(*asked).out == "no batch of sales is blocked\n"
    with noria.open(folder) as project:
        assert "4711" not in str(project.ledger.list_events() + project.ledger.list_runs())


def test_a_contract_is_proposed_for_a_table_and_for_files(say: Callable[..., Said], folder: Path) -> None:
    assert 'check.between("x", 0, 2)' in say("dataset", "profile", "sales", "--project", folder).out
    (folder / "shops.csv").write_text(
        "name,opened\n" + "".join(f"s{each},2024-01-0{each + 1}T10:00:00\n" for each in range(9))
    )
    clocks = say("dataset", "profile", "shops", folder / "shops.csv", "--project", folder)
    assert (clocks.code, "opened shows a clock without a time zone" in clocks.err) == (4, True)
    given = [
        "dataset",
        "profile",
        "shops",
        folder / "shops.csv",
        "--time-zone",
        "Europe/Vienna",
        "--project",
        folder,
    ]
    told = say(*given, "--output", folder / "shops.py")
    assert told.code == 0, told.err
    assert 'key="name"' in (folder / "shops.py").read_text()
    assert say(*given, "--output", folder / "shops.py").code == 4
    (folder / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["shop", "shops"]\n')
    with noria.open(folder) as project:
        done = project.ingest("shops", folder / "shops.csv", reading={"time_zone": "Europe/Vienna"})
        assert [each.rejected for each in done] == [0]
        assert project.lake.read("shops").num_rows == 9


def test_a_proposed_contract_accepts_the_file_it_was_made_from(
    say: Callable[..., Said], folder: Path
) -> None:
    clocks = [f"2024-04-01T{each:02}:28:00" for each in range(20)] + ["2024-03-31T02:28:00", "soon"]
    (folder / "tours.csv").write_text(
        "tour,began,n\n" + "".join(f"t{each},{clock},1\n" for each, clock in enumerate(clocks))
    )
    asked = ["dataset", "profile", "tours", folder / "tours.csv", "--time-zone", "Europe/Vienna"]
    told = say(*asked, "--output", folder / "tours.py", "--project", folder)
    assert (told.code, "could not be read: 2 lines" in told.out) == (0, True), told
    assert "an hour that did not exist on that day in Europe/Vienna" in " ".join(told.out.split())
    proposed = (folder / "tours.py").read_text()
    assert 'reading={"time_zone": "Europe/Vienna"},' in proposed
    (folder / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["tours"]\n')
    done = say("ingest", "tours", folder / "tours.csv", "--json", "--project", folder)
    assert done.code == 0, done
    (answer,) = json.loads(done.out)
    assert (answer["accepted"], answer["rejected"]) == (20, 2)


def test_a_name_that_no_dataset_can_have_is_refused(say: Callable[..., Said], folder: Path) -> None:
    (folder / "tours.csv").write_text("tour,began\nt1,2024-04-01T00:00:00Z\n")
    told = say("dataset", "profile", "Sales-2", folder / "tours.csv", "--project", folder)
    assert (told.code, "'Sales-2' cannot name a dataset" in told.err) == (2, True), told


def test_files_that_cannot_be_read_or_written_are_told(say: Callable[..., Said], folder: Path) -> None:
    nowhere = folder / "nowhere"
    told = say("dataset", "repair", "sales", "--from", nowhere, "--project", folder)
    assert told.code == 2
    assert f"{nowhere} cannot be read: No such file or directory" in told.err
    (folder / "utf16").write_bytes("x".encode("utf-16"))
    assert (
        "is not UTF-8"
        in say("dataset", "repair", "sales", "--from", folder / "utf16", "--project", folder).err
    )
    for typed in (["profile", "sales"], ["rejected", "sales"]):
        told = say("dataset", *typed, "--output", nowhere / "out", "--project", folder)
        assert told.code == 9
        assert f"{nowhere / 'out'} cannot be written: No such file or directory; name another" in told.err
