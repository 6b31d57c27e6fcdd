"""Taking in rows: each content once, what one source has wrong does not hold up the others."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

import noria
from noria.errors import BatchBlocked, ConfigError, Conflict, NotFound, SourceError
from noria.workspace.ingesting import take, try_out
from noria.workspace.project import Project
from noria.workspace.source_openings import Request, Sighted

DECLARED = """
import noria
from noria import check

sales = noria.Dataset(
    "sales", key="id", event_at="sold_at", files="data/*.csv", max_rejected_share=0.5,
    checks=[check.between("n", 0, 100)])
"""
HEAD = "id,n,sold_at\n"
ROWS = [{"id": "a", "n": 1, "sold_at": datetime(2024, 1, 1, tzinfo=UTC)}]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["ingest_declared"]\n')
    (tmp_path / "ingest_declared.py").write_text(DECLARED)
    (tmp_path / "data").mkdir()
    with noria.open(tmp_path) as opened:
        yield opened


def put(project: Project, name: str, *ids: str, n: object = 1) -> Path:
    path = project.root / "data" / name
    path.write_text(HEAD + "".join(f"{each},{n},2024-01-01T00:00:00Z\n" for each in ids))
    return path


def ids(project: Project) -> list[str]:
    return sorted(project.lake.read("sales", columns=["id"])["id"].to_pylist())


def test_what_is_new_of_the_declared_files_lands_once(project: Project) -> None:
    assert project.ingest("sales") == []
    put(project, "1.csv", "a", "b")
    put(project, "2.csv", "c")
    assert [each.state for each in project.ingest("sales")] == ["landed", "landed"]
    assert [each.state for each in project.ingest("sales")] == ["already", "already"]
    put(project, "3.csv", "d")
    (project.root / "data" / "1.csv").rename(project.root / "data" / "9.csv")
    assert [each.state for each in project.ingest("sales")] == ["already", "landed", "already"]
    assert ids(project) == ["a", "b", "c", "d"]
    sources = [run.params["source"] for run in project.ledger.list_runs(kind="ingest", newest_first=False)]
    assert sources == ["data/1.csv", "data/2.csv", "data/3.csv"]


def test_files_that_have_landed_are_not_read_again(project: Project) -> None:
    path = put(project, "1.csv", "a")
    before = path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(before, before))
    assert project.ingest("sales")[0].state == "landed"
    told = path.read_bytes()
    path.write_bytes(told.replace(b"a,1", b"b,1"))
    os.utime(path, ns=(before, before))  # by size and instant it is the same
    assert project.ingest("sales")[0].state == "already"
    os.utime(path, ns=(before + 1, before + 1))
    assert project.ingest("sales")[0].state == "landed"
    seen = project.state / "seen" / "sales.json"
    seen.write_bytes(b"damaged")
    assert project.ingest("sales")[0].state == "already"
    assert ids(project) == ["a", "b"]


def test_a_file_that_was_written_just_now_is_read_again(project: Project) -> None:
    path = put(project, "1.csv", "a")
    before = path.stat().st_mtime_ns
    assert project.ingest("sales")[0].state == "landed"
    path.write_bytes(path.read_bytes().replace(b"a,1", b"b,1"))
    os.utime(path, ns=(before, before))
    assert project.ingest("sales")[0].state == "landed"


def test_an_ingest_that_is_killed_is_made_good_by_the_next(project: Project) -> None:
    put(project, "1.csv", *(f"a{each}" for each in range(20_000)))
    put(project, "2.csv", *(f"b{each}" for each in range(20_000)))
    command = [sys.executable, "-m", "noria", "ingest", "sales", "--project", str(project.root)]
    for patience_s in random.Random(7).choices([0.9, 1.2, 1.5, 1.8], k=4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
    project.ingest("sales")
    found = ids(project)
    assert (len(found), len(set(found))) == (40_000, 40_000)
    assert [each.state for each in project.ingest("sales")] == ["already", "already"]
    assert project.ledger.verify().ok


def test_rows_that_cannot_be_read_are_kept_with_their_text(project: Project) -> None:
    path = put(project, "1.csv", "a", "b", "c")
    path.write_text(path.read_text() + "d,many,2024-01-01T00:00:00Z\ne,5\nf,500,2024-01-01T00:00:00Z\n")
    (done,) = project.ingest("sales", path)
    assert (done.accepted, done.rejected) == (3, 3)
    rejected = project.lake.read("sales__rejected").to_pylist()
    assert {each["reason"]: each["payload"] for each in rejected if each["reason"][0] != "b"} == {
        "'n' cannot be read as int64": "d,many,2024-01-01T00:00:00Z",
        "2 fields, wanted 3": "e,5",
    }
    (broken,) = [each["payload"] for each in rejected if each["reason"] == "between(n, 0, 100)"]
    assert '"id":"f"' in broken


def test_one_bad_file_does_not_hold_up_the_others(project: Project) -> None:
    put(project, "1.csv", "a")
    put(project, "2.csv", "b", n=999)
    (project.root / "data" / "3.csv").write_text("id,m\nc,1\n")
    put(project, "4.csv", "d")
    put(project, "5.csv.gz", "e")
    taken = list(take(project, "sales", Request(what=str(project.root / "data" / "*"))))
    assert [type(each.error) for each in taken] == [
        type(None),
        BatchBlocked,
        SourceError,
        type(None),
        type(None),
    ]
    assert ids(project) == ["a", "d", "e"]
    with pytest.raises(BatchBlocked):
        project.ingest("sales")
    put(project, "2.csv", "b", n=99)
    (project.root / "data" / "3.csv").unlink()
    project.ingest("sales")
    assert ids(project) == ["a", "b", "d", "e"]


def test_a_blocked_file_is_named_with_the_line(project: Project) -> None:
    path = put(project, "1.csv", "a", n=999)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    with pytest.raises(BatchBlocked) as caught:
        project.ingest("sales")
    assert str(caught.value) == (
        "data/1.csv, for dataset 'sales', is blocked, nothing of it was written: 1 of 1 rows (100.0%) break "
        "the contract, at most 50.0% may: between(n, 0, 100) fails for 1. Repair the rows and ingest them "
        "again"
    )
    assert caught.value.__notes__ == [
        'For example: between(n, 0, 100) fails for {"n":999}, line 3 of data/1.csv'
    ]
    path.write_text(HEAD + "b,2,2024-01-01T00:00:00Z\na,1\nc\n")
    with pytest.raises(BatchBlocked) as caught:
        project.ingest("sales", path)
    assert caught.value.__notes__[0].endswith(", line 3 of data/1.csv")
    with pytest.raises(BatchBlocked, match=r"^batch 7 of dataset 'sales' is blocked") as caught:
        project.ingest("sales", path, batch=7)
    assert caught.value.__notes__[0].endswith(", line 3 of data/1.csv")
    event = project.ledger.list_events(verb="dataset.blocked")[0]
    assert "999" not in str(event.payload["reasons"])
    path.write_text(
        HEAD + "a,1,2024-01-01T00:00:00Z\nb,999,2024-01-01T00:00:00Z\na,2,2024-01-01T00:00:00Z\n" * 2
    )
    with pytest.raises(BatchBlocked):
        project.ingest("sales")
    path.write_text(
        HEAD + "a,1,2024-01-01T00:00:00Z\nc,3,2024-01-01T00:00:00Z\nb,999,2024-01-01T00:00:00Z\n"
        "a,2,2024-01-01T00:00:00Z\n"
    )
    (done,) = project.ingest("sales")
    assert [(each.rule, each.where) for each in done.findings] == [
        ("between(n, 0, 100)", "line 4"),
        ("unique(id)", "line 5"),
    ]


def test_of_mixed_files_the_readable_ones_are_taken(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, "1.csv", "a")
    (project.root / "data" / "2.xlsx").write_bytes(b"PK\x03\x04 a workbook")
    (project.root / "data" / "3.parquet").write_bytes(b"PAR1 torn")
    (project.root / "data" / "4.csv").write_bytes(b"\x1f\x8b torn")
    (project.root / "data" / "5.jsonl").write_text('{"id": "e", "n": 1, "sold_at": "2024-01-01T00:00:00Z"}\n')
    monkeypatch.setitem(sys.modules, "python_calamine", None)  # as if the extra was not installed
    monkeypatch.delitem(sys.modules, "noria.lake.sources.excel", raising=False)
    with pytest.raises(ConfigError, match="pip install 'noria\\[excel\\]'") as caught:
        project.ingest("sales", project.root / "data" / "*")
    assert ids(project) == ["a", "e"]
    first, *others = caught.value.__notes__
    assert first == "This is data/2.xlsx; of 5 sources 3 could not be taken."
    assert [each.partition(":")[0] for each in others] == ["data/3.parquet", "data/4.csv"]


def test_a_first_file_without_a_column_of_the_contract_does_not_hold_up_the_others(project: Project) -> None:
    (project.root / "data" / "1.csv").write_text("id,m,sold_at\nc,1,2024-01-01T00:00:00Z\n")
    put(project, "2.csv", "a")
    taken = list(take(project, "sales", Request()))
    assert [type(each.error) for each in taken] == [ConfigError, type(None)]
    assert ids(project) == ["a"]


def test_a_row_that_has_landed_is_repeated(project: Project) -> None:
    project.ingest("sales", put(project, "1.csv", "a", "b"))
    (done,) = project.ingest("sales", put(project, "2.csv", "b", "c"))
    assert (done.accepted, done.repeated, done.rejected) == (1, 1, 0)


@pytest.mark.parametrize("kind", ["arrow", "polars", "pandas", "reader", "duckdb"])
def test_frames_land_once_by_their_content(project: Project, kind: str) -> None:
    with closing(duckdb.connect()) as connection:

        def frame() -> object:
            match kind:
                case "arrow":
                    return pa.Table.from_pylist(ROWS)
                case "polars":
                    return pl.DataFrame(ROWS)
                case "pandas":
                    return pd.DataFrame(ROWS)
                case "reader":
                    return pa.Table.from_pylist(ROWS).to_reader()
            return connection.sql(
                "select 'a' as id, 1::bigint as n, timestamptz '2024-01-01 00:00Z' as sold_at"
            )

        assert [each.state for each in project.ingest("sales", frame())] == ["landed"]
        assert [each.state for each in project.ingest("sales", frame())] == ["already"]
    assert ids(project) == ["a"]
    other = pa.Table.from_pylist([{**ROWS[0], "id": "b"}])
    assert [each.state for each in project.ingest("sales", other)] == ["landed"]
    assert not list((project.state / "incoming").glob("*"))


def test_a_batch_may_have_a_number_of_its_own(project: Project) -> None:
    frame = pa.Table.from_pylist(ROWS)
    assert project.ingest("sales", frame, batch=7)[0].state == "landed"
    assert project.ingest("sales", frame, batch=7)[0].state == "already"
    assert project.lake.last_batch("sales") == 7
    with pytest.raises(Conflict):
        project.ingest("sales", pa.concat_tables([frame, frame]), batch=7)
    paths = [put(project, "1.csv", "b"), put(project, "2.csv", "c")]
    with pytest.raises(ConfigError, match="2 files cannot be one batch"):
        project.ingest("sales", paths, batch=8)
    assert project.ingest("sales", paths[0], batch=8)[0].state == "landed"


@pytest.fixture
def till(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "till.db")) as connection:
        connection.execute("create table sold (id text, n integer, sold_at text)")
        connection.executemany(
            "insert into sold values (?, ?, ?)",
            [(f"k{each}", each, "2024-01-01T00:00:00Z") for each in range(5)],
        )
        connection.commit()
        yield connection


def test_what_a_database_has_got_since_is_taken(project: Project, till: sqlite3.Connection) -> None:
    url = f"sqlite:///{project.root}/till.db"
    assert project.ingest("sales", url, table="sold")[0].accepted == 5
    assert project.ingest("sales", url, table="sold")[0].state == "already"
    till.execute(
        "insert into sold values ('k5', 5, '2024-01-02T00:00:00Z'), ('k4b', 4, '2024-01-02T00:00:00Z')"
    )
    till.commit()
    (done,) = project.ingest("sales", url, table="sold", since="n")
    assert (done.accepted, done.repeated) == (2, 1)
    (done,) = project.ingest("sales", url, table="sold", since="n")
    assert (done.accepted, done.repeated) == (0, 1)
    (done,) = project.ingest("sales", url, query="select * from sold", since="n")
    assert (done.state, ids(project)) == ("already", ["k0", "k1", "k2", "k3", "k4", "k4b", "k5"])
    with pytest.raises(NotFound, match="no column named 'nope'"):
        project.ingest("sales", url, table="sold", since="nope")
    assert project.ingest("sales", till, query="select 'z' as id, 1 as n, '2024-01-01T00:00:00Z' as sold_at")


def test_the_same_bad_row_of_a_database_is_one_rejected_row(
    project: Project, till: sqlite3.Connection
) -> None:
    url = f"sqlite:///{project.root}/till.db"
    bad = "('bad', 500, '2024-01-02T00:00:00Z')"
    till.execute(f"insert into sold values {bad}, {bad}")  # two rows that say the same are two
    till.commit()
    first = datetime(2024, 2, 1, tzinfo=UTC)
    for day, more in enumerate(("k5", "k6", "k7")):
        till.execute(f"insert into sold values ('{more}', {5 + day}, '2024-01-02T00:00:00Z')")
        till.commit()
        at = first + timedelta(days=day)
        (done,) = project.ingest("sales", url, table="sold", since="n", at=at)
        assert (done.state, done.rejected) == ("landed", 2)
    raw = project.lake.read("sales__rejected").to_pylist()
    payloads = {each["payload"] for each in raw if "bad" in each["payload"]}
    assert payloads == {'{"id":"bad","n":500,"sold_at":"2024-01-02T00:00:00Z"}'}  # as it came
    found = project.rejected("sales", reason="between")
    assert found["sightings"].to_pylist() == [3, 3]
    assert found["rejected_at"].to_pylist() == [first] * 2
    assert found["last_seen_at"].to_pylist() == [first + timedelta(days=2)] * 2
    project.repair("sales", reason="between", values={"n": "50"})
    assert project.rejected("sales", reason="between").num_rows == 0
    till.execute("insert into sold select 'm' || n, n + 50, sold_at from sold where n < 5")
    till.commit()
    assert project.ingest("sales", url, table="sold", since="n")[0].rejected == 2
    assert project.rejected("sales", reason="between").num_rows == 0  # it has landed, repaired
    (*_, last) = project.rejected("sales", reason="between", settled=True).to_pylist()
    assert last["sightings"] == 4


def test_a_source_that_is_declared_gives_the_rows_where_nothing_is_named(project: Project) -> None:
    rows = pa.table({"id": ["a"], "sold_at": pa.array([datetime(2024, 3, 4, tzinfo=UTC)])})
    asked: list[Path] = []

    def read(folder: Path) -> pa.Table:
        asked.append(folder)
        return rows

    bare = noria.Dataset("bare", key="id", event_at="sold_at", source=read)
    assert [each.state for _ in range(2) for each in project.ingest(bare)] == ["landed", "already"]
    assert asked == [project.root] * 2
    assert project.lake.read("bare")["id"].to_pylist() == ["a"]


def test_what_cannot_be_is_told(project: Project) -> None:
    with pytest.raises(ConfigError) as caught:
        project.ingest("sale", "x.csv")
    assert "did you mean 'sales'?" in str(caught.value)
    assert 'sale = noria.Dataset("sale", key=..., event_at=...)' in str(caught.value)
    assert "noria dataset profile sale" in str(caught.value)
    with pytest.raises(SourceError, match="give one that exists"):
        project.ingest("sales", project.root / "nope.csv")
    with pytest.raises(ConfigError, match="say what to ingest into 'bare'"):
        project.ingest(noria.Dataset("bare", key="id", event_at="sold_at"))
    with pytest.raises(ConfigError, match="'delimeter', which is no way to read"):
        project.ingest("sales", put(project, "1.csv", "a"), reading={"delimeter": ";"})
    with pytest.raises(ConfigError, match="'delimeter', which is no way to read"):
        noria.Dataset("bare", key="id", event_at="sold_at", reading={"delimeter": ";"})


def test_a_trial_writes_nothing(project: Project) -> None:
    put(project, "1.csv", "a")
    project.ingest("sales")
    put(project, "2.csv", "b", "b")
    put(project, "3.csv", "c", n=999)
    (project.root / "data" / "4.csv").write_text("id,m\nc,1\n")
    events = project.ledger.list_events()
    first, second, third, fourth = try_out(project, "sales", Request())
    assert first.landed
    assert (second.accepted, second.repeated, third.accepted, third.rejected) == (1, 1, 0, 1)
    assert dict(third.reasons) == {"between(n, 0, 100)": 1}
    assert isinstance(fourth.error, SourceError)
    assert (project.ledger.list_events(), ids(project)) == (events, ["a"])


def test_a_trial_holds_keys_against_all_that_came_before_in_the_source(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.lake.sources.files.CHUNK_BYTES", 200)
    monkeypatch.setattr("noria.lake.incoming._ROWS_PER_PIECE", 5)
    rows = [(f"k{each % 30}", 1) for each in range(40)] + [(f"k{each}", 2) for each in range(10)]
    lines = "".join(f"{key},{n},2024-01-01T00:00:00Z\n" for key, n in rows)
    (project.root / "data" / "1.csv").write_text(HEAD + lines + "torn\n")
    (trial,) = try_out(project, "sales", Request())
    assert (trial.accepted, trial.repeated, trial.rejected) == (30, 10, 11)
    assert dict(trial.reasons) == {"unique(id)": 10, "1 field, wanted 3": 1}
    assert trial.columns == {"id": "string", "n": "int64", "sold_at": "timestamp[us, tz=UTC]"}
    assert not project.lake.exists("sales")
    assert not list(project.state.glob("storage/tables/*"))
    (done,) = project.ingest("sales")
    assert (done.accepted, done.repeated, done.rejected) == (30, 10, 11)
    (project.root / "data" / "2.csv").write_text(
        HEAD + "k1,1,2024-01-01T00:00:00Z\nk2,7,2024-01-01T00:00:00Z\n"
    )
    _, trial = try_out(project, "sales", Request())
    assert (trial.accepted, trial.repeated, dict(trial.reasons)) == (0, 1, {"new_key(id)": 1})


def test_the_cause_is_asked_for_only_where_something_lands(project: Project) -> None:
    put(project, "1.csv", "a")
    asked = []

    def cause() -> str:
        asked.append(project.ledger.append("person.asked", subject="sales").id)
        return asked[-1]

    for _ in range(2):
        list(take(project, "sales", Request(), cause=cause))
    (run,) = project.ledger.list_runs(kind="ingest")
    assert [run.cause] == asked


def test_progress_is_told(project: Project) -> None:
    path = put(project, "1.csv", *(f"k{each}" for each in range(100)))
    path.write_text(path.read_text() + "bad\n")
    told: list[Sighted] = []
    list(take(project, "sales", Request(what=path), tell=told.append))
    assert told[-1].rows == 101
    assert told[-1].unreadable == 1
    assert told[-1].bytes_read == told[-1].size_bytes == path.stat().st_size


def test_a_file_that_changes_while_it_is_taken_leaves_nothing(project: Project) -> None:
    path = put(project, "1.csv", "a")

    def change(sighted: Sighted) -> None:
        path.write_text(path.read_text() + "b,1,2024-01-01T00:00:00Z\n")

    (taken,) = take(project, "sales", Request(what=path), tell=change)
    assert isinstance(taken.error, SourceError)
    assert not project.lake.exists("sales") or project.lake.read("sales").num_rows == 0
    assert project.ingest("sales")[0].accepted == 2


def test_a_file_of_an_unknown_kind_does_not_hold_up_the_others(project: Project) -> None:
    put(project, "1.csv", "a")
    (project.root / "data" / "2.pdf").write_bytes(b"%PDF-1.7")
    put(project, "3.csv", "b")
    taken = list(take(project, "sales", Request(what=str(project.root / "data" / "*"))))
    assert [each.error is None for each in taken] == [True, False, True]
    assert "2.pdf holds cannot be told by its name" in str(taken[1].error)
    assert ids(project) == ["a", "b"]


def test_a_bound_that_the_database_orders_otherwise_takes_nothing_silently(project: Project) -> None:
    with closing(sqlite3.connect(project.root / "till.db")) as connection, connection:
        connection.execute("create table sold (id text, n text, sold_at text)")
        connection.execute("insert into sold values ('b', '20', '2024-01-02T00:00:00Z')")
    put(project, "1.csv", "a", n=9)
    project.ingest("sales")
    with pytest.raises(SourceError, match="holds texts in the database and numbers in the table"):
        project.ingest("sales", f"sqlite:///{project.root}/till.db", table="sold", since="n")


@pytest.mark.parametrize("rows", [3, 12_000])
def test_a_trial_tells_what_would_be_blocked(project: Project, rows: int) -> None:
    put(project, "1.csv", *(f"a{each}" for each in range(rows)), n=999)
    put(project, "2.csv", "b")
    blocked, held = try_out(project, "sales", Request())
    assert (held.blocked, held.accepted) == ((), 1)
    with pytest.raises(BatchBlocked) as caught:
        project.ingest("sales", project.root / "data" / "1.csv")
    assert blocked.blocked == caught.value.reasons
