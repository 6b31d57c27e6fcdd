import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

import noria
from noria.errors import BatchBlocked, ConfigError, LeaseHeld, NotFound, SourceError
from noria.workspace.project import Project

DECLARED = """
import noria
from noria import check

def upright(rows):
    import pyarrow.compute as pc
    return rows.set_column(rows.column_names.index("x"), "x", pc.abs(rows["x"]))

sales = noria.Dataset(
    "sales", key="id", event_at="at", max_rejected_share=0.9,
    checks=[check.between("x", 0, 10), check.fresh("10d", severity="block")], repair={repair})
shops = noria.Dataset("shops", key="shop", event_at="at")
"""
AT = datetime(2024, 3, 1, tzinfo=UTC)


def declare(folder: Path, repair: str = "None", **changes: str) -> None:
    text = DECLARED.replace("{repair}", repair)
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "shop.py").write_text(text, encoding="utf-8")
    later = datetime.now(UTC).timestamp() + len(text)  # a change is told by the file's time
    os.utime(folder / "shop.py", (later, later))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["shop"]\n')
    declare(tmp_path)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Iterator[Project]:
    with noria.open(folder) as opened:
        yield opened


def sales(ids: list[str], values: list[Any], at: datetime = AT) -> pa.Table:
    kind = pa.timestamp("us", "UTC")
    return pa.table({"id": ids, "at": pa.array([at] * len(ids), kind), "x": pa.array(values, pa.float64())})


def ingest(project: Project, batch: int, ids: list[str], values: list[Any], at: datetime = AT) -> Any:
    return project.lake.ingest(
        project.declarations.dataset("sales"), sales(ids, values, at), batch=batch, at=at + timedelta(hours=1)
    )


def landed(project: Project) -> dict[str, float]:
    found = project.lake.read("sales")
    assert len(set(found["id"].to_pylist())) == found.num_rows
    return dict(zip(found["id"].to_pylist(), found["x"].to_pylist(), strict=True))


def test_rejected_rows_are_listed_until_they_land(project: Project) -> None:
    assert project.rejected("sales").num_rows == 0
    ingest(project, 1, ["a", "b", "c"], [1, 50, None])
    ingest(project, 2, ["d", "e"], [-3, 2])
    found = project.rejected("sales")
    assert found["batch"].to_pylist() == [1, 2]
    assert found["row"].to_pylist() == [1, 0]
    assert project.rejected("sales", batch=2)["payload"].to_pylist()[0].startswith('{"at":"2024-03-01')
    assert project.rejected("sales", reason="between(x").num_rows == 2
    assert project.rejected("sales", reason="it's other").num_rows == 0
    with pytest.raises(NotFound, match="did you mean 'sales'"):
        project.rejected("sale")


def test_after_the_contract_was_changed_rows_that_hold_land_once(folder: Path, project: Project) -> None:
    ingest(project, 1, ["a", "b", "c"], [1, 50, -3])
    assert project.repair("sales").landed == 0
    declare(folder, **{"0, 10": "0, 100"})
    project.refresh()
    done = project.repair("sales")
    assert (done.rows, done.landed, done.open, dict(done.reasons)) == (2, 1, 1, {"between(x, 0, 100)": 1})
    assert landed(project) == {"a": 1, "b": 50}
    assert project.rejected("sales")["payload"].to_pylist()[0].count("-3") == 1
    every = project.rejected("sales", settled=True)
    assert [each is None for each in every["settled_at"].to_pylist()] == [False, True]
    assert project.repair("sales").rows == 1
    assert landed(project) == {"a": 1, "b": 50}
    (event,) = project.ledger.list_events(verb="dataset.ingested", newest_first=True, limit=1)
    assert (event.payload["app"], event.payload["accepted"]) == ("repair", 1)


def test_a_function_of_the_project_repairs(folder: Path, project: Project) -> None:
    ingest(project, 1, ["a", "b", "c"], [1, -2, -300])
    declare(folder, repair="upright")
    project.refresh()
    done = project.repair("sales")
    assert (done.landed, done.open) == (1, 1)
    assert landed(project) == {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match="gave 0 rows for 1"):
        project.repair("sales", using=lambda rows: rows.slice(0, 0))


def test_columns_are_set_by_sql(project: Project) -> None:
    ingest(project, 1, ["a", "b", "c"], [1, -2, 70])
    assert project.repair("sales", batch=1, values={"x": "least(abs(x), 10)"}).landed == 2
    assert landed(project) == {"a": 1, "b": 2, "c": 10}
    with pytest.raises(NotFound, match="no column named 'y'"):
        project.repair("sales", values={"y": "1"})


@pytest.mark.parametrize("sql", ["x +", "nothing", "'text'", "(select 1 from read_csv('/etc/passwd'))"])
def test_sql_that_gives_no_value_is_refused(project: Project, sql: str) -> None:
    ingest(project, 1, ["a", "b"], [1, -2])
    with pytest.raises(ConfigError):
        project.repair("sales", values={"x": sql})
    assert project.rejected("sales").num_rows == 1


def test_an_edited_file_repairs_the_rows_that_it_names(folder: Path, project: Project) -> None:
    from noria.workspace.repairing import rejected_lines

    ingest(project, 1, ["a", "b", "c"], [1, -2, 70])
    lines = rejected_lines(project.rejected("sales"))
    edited = msgspec.json.decode(lines[1])
    edited["payload"]["x"] = 7
    (folder / "edited.jsonl").write_bytes(msgspec.json.encode(edited) + b"\n\n")
    assert project.repair("sales", edited=folder / "edited.jsonl").landed == 1
    assert landed(project) == {"a": 1, "c": 7}
    with pytest.raises(SourceError, match="line 1: no open row is"):
        project.repair("sales", edited=folder / "edited.jsonl")
    (folder / "edited.jsonl").write_text('{"batch": 1}\n')
    with pytest.raises(SourceError, match="line 1: it is no rejected row"):
        project.repair("sales", edited=folder / "edited.jsonl")
    with pytest.raises(ConfigError, match="choose one"):
        project.repair("sales", edited=folder / "edited.jsonl", values={"x": "1"})


def test_an_edit_that_is_no_row_stays_open_with_what_is_wrong(folder: Path, project: Project) -> None:
    from noria.workspace.repairing import rejected_lines

    ingest(project, 1, ["a", "b"], [1, -2])
    line = rejected_lines(project.rejected("sales"))[0].replace("-2.0", '"two"')
    (folder / "edited.jsonl").write_text(line)
    done = project.repair("sales", edited=folder / "edited.jsonl")
    assert (done.landed, done.open) == (0, 1)
    assert dict(done.reasons) == {"column 'x' is 'two', wanted double": 1}


def test_a_row_whose_key_has_come_since_stays_open(project: Project) -> None:
    ingest(project, 1, ["a", "b"], [1, -2])
    ingest(project, 2, ["b"], [5])
    done = project.repair("sales", values={"x": "abs(x)"})
    assert (done.landed, done.open) == (0, 1)
    assert landed(project) == {"a": 1, "b": 5}


def test_a_repair_replaces_nothing_where_the_dataset_merges(folder: Path, project: Project) -> None:
    declare(folder, **{'key="id"': 'key="id", write="merge"'})
    project.refresh()
    ingest(project, 1, ["a", "b"], [1, -2])
    ingest(project, 2, ["b"], [5], AT + timedelta(days=1))
    done = project.repair("sales", values={"x": "abs(x)"})
    assert (done.landed, done.open) == (0, 1)
    assert landed(project) == {"a": 1, "b": 5}


def test_two_repairs_at_once_are_one_after_the_other(project: Project) -> None:
    ingest(project, 1, ["a", "b"], [1, -2])
    held = project.ledger.acquire_lease("repair:sales", ttl_s=60, holder="somebody else")
    with pytest.raises(LeaseHeld):
        project.repair("sales")
    project.ledger.release_lease(held)
    assert project.repair("sales", values={"x": "2"}).landed == 1


def test_rows_of_a_batch_that_never_landed_are_not_repaired(project: Project) -> None:
    from noria.workspace.repairing import list_rejected

    ingest(project, 1, ["a", "b"], [1, -2])
    stray = project.lake.read("sales__rejected").to_pylist()[0] | {"batch": 7}
    schema = project.lake.schema("sales__rejected")
    project.lake.append("sales__rejected", pa.Table.from_pylist([stray], schema=schema), batch=7, app_id="x")
    assert list_rejected(project.lake, "sales", batch=None, reason=None, settled=True).num_rows == 1


KILLED = """
import os, sys, noria
from noria.lake.store import Lake

real, seen = Lake.{verb}, []
def dying(self, *arguments, **named):
    if {before}:
        os.kill(os.getpid(), 9)
    found = real(self, *arguments, **named)
    os.kill(os.getpid(), 9)
Lake.{verb} = dying
noria.open(sys.argv[1]).repair("sales", values={{"x": "abs(x)"}})
"""


@pytest.mark.parametrize("verb", ["append", "ingest"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_step_a_row_lands_exactly_once(
    folder: Path, project: Project, verb: str, before: bool
) -> None:
    ingest(project, 1, ["a", "b", "c"], [1, -2, -3])
    script = KILLED.format(verb=verb, before=before)
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    with noria.open(folder) as again:
        done = again.repair("sales", values={"x": "abs(x)"})
        assert done.landed == (0 if (verb, before) == ("ingest", False) else 2)
        assert landed(again) == {"a": 1, "b": 2, "c": 3}
        assert again.rejected("sales").num_rows == 0
        assert again.rejected("sales", settled=True).num_rows == 2
        assert again.repair("sales").rows == 0


def test_a_blocked_dataset_is_named_until_its_batch_lands(project: Project) -> None:
    assert project.blocked_datasets() == {}
    ingest(project, 1, ["a"], [1])
    with pytest.raises(BatchBlocked):
        ingest(project, 2, ["b", "c"], [99, 99])
    found = project.blocked_datasets()["sales"]
    assert (found.batch, found.source) == (2, "batch")
    assert "2 of 2 rows (100.0%) break the contract" in found.reasons[0]
    project.ingest("sales", sales(["else"], [1]), at=AT)  # from elsewhere: the blocked batch is missing still
    assert project.blocked_datasets()["sales"] == found
    ingest(project, 2, ["b", "c"], [9, 9])
    assert project.blocked_datasets() == {}


def test_a_blocked_dataset_may_be_released_with_a_reason(project: Project) -> None:
    assert project.release("sales", reason="none") is None
    with pytest.raises(BatchBlocked):
        ingest(project, 2, ["b", "c"], [99, 99])
    with pytest.raises(ConfigError, match="needs a reason"):
        project.release("sales", reason=" ")
    with pytest.raises(NotFound, match="did you mean 'sales'"):
        project.release("sale", reason="it was a test")
    gone = project.release("sales", reason="it was a test", actor="person:me")
    assert gone is not None
    assert gone.batch == 2
    assert project.blocked_datasets() == {}
    (event,) = project.ledger.list_events(verb="dataset.released")
    assert (event.actor, event.cause, event.payload["reason"]) == ("person:me", gone.event, "it was a test")
    with pytest.raises(BatchBlocked):
        ingest(project, 3, ["d", "e"], [99, 99])
    assert project.blocked_datasets()["sales"].batch == 3


def test_a_repaired_file_takes_the_place_of_the_blocked_one(folder: Path, project: Project) -> None:
    def write(name: str, *values: int) -> Path:
        lines = (f"{name}{place},{AT.isoformat()},{value}" for place, value in enumerate(values))
        (folder / name).write_text("\n".join(["id,at,x", *lines]))
        return folder / name

    at = AT + timedelta(hours=1)
    with pytest.raises(BatchBlocked):
        project.ingest("sales", write("bad.csv", 99, 99), at=at)
    project.ingest("sales", write("other.csv", 1), at=at)
    assert project.blocked_datasets()["sales"].source == "bad.csv"
    project.ingest("sales", write("bad.csv", 9, 9), at=at)
    assert project.blocked_datasets() == {}


def test_rules_about_the_batch_look_at_what_is_on_record(folder: Path, project: Project) -> None:
    old = project.declarations.dataset("sales")
    with pytest.raises(BatchBlocked, match=r"fresh\(10d\) does not hold: the newest at is 11 days"):
        project.lake.ingest(old, sales(["a"], [1]), batch=1, at=AT + timedelta(days=11))
    declare(folder, **{'check.fresh("10d", severity="block")': 'check.row_count(0.5, 2, against="28d")'})
    project.refresh()
    for day in range(5):
        ingest(project, day + 1, [f"{day}-{each}" for each in range(10)], [1] * 10, AT + timedelta(days=day))
    ingest(project, 6, [f"6-{each}" for each in range(20)], [1] * 20, AT + timedelta(days=6))
    with pytest.raises(
        BatchBlocked, match=r"it has 4 rows, wanted 0\.5 to 2 times 10, the median of 6 batches"
    ):
        ingest(project, 7, ["w", "x", "y", "z"], [1] * 4, AT + timedelta(days=7))
    event = project.ledger.list_events(verb="dataset.blocked", newest_first=True, limit=1)[0]
    assert event.payload["findings"][0]["rule"] == "row_count(0.5, 2, against=28d)"


def test_references_look_into_the_other_dataset(folder: Path, project: Project) -> None:
    change = {'check.between("x", 0, 10)': 'check.references("id", "shops", "shop")'}
    declare(folder, **change)
    project.refresh()
    with pytest.raises(NotFound, match="no table named 'shops'"):
        ingest(project, 1, ["b"], [1])
    shops = pa.table({"shop": ["b", "c"], "at": pa.array([AT, AT], pa.timestamp("us", "UTC"))})
    project.lake.ingest(project.declarations.dataset("shops"), shops, batch=1)
    done = ingest(project, 1, ["b", "z", "c"], [1, 2, 3])
    assert (done.accepted, done.rejected) == (2, 1)
    assert done.findings[0].example == '{"id":"z"}'


def test_the_rejected_share_is_a_metric_of_the_ingest(project: Project) -> None:
    ingest(project, 1, ["a", "b", "c", "d"], [1, 2, 3, 99])
    (run,) = project.ledger.list_runs(kind="ingest")
    assert run.metrics["rejected_share"] == 0.25
    found = project.query("select metrics ->> '$.rejected_share' as share from ledger_runs")
    assert found.to_pylist() == [{"share": "0.25"}]
