"""What `noria query` and `project.query` see of a project that has lived."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import noria
from noria.errors import ConfigError, NotFound, QueryStopped
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.models.records import ModelPoint
from noria.tracking.records import MetricPoint
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

Run = Callable[..., subprocess.CompletedProcess[str]]
ENDLESS = "with recursive r as (select 1 as x union all select x + 1 from r) select count(*) from r"


@pytest.fixture(scope="module")
def project(tiny_lived: Path) -> Iterator[noria.Project]:
    with noria.open(tiny_lived) as opened:
        yield opened


def test_every_kind_of_record_is_a_table(project: noria.Project) -> None:
    names = set(project.query("show tables")["name"].to_pylist())
    assert {"deliveries", "predictions", "outcomes", "late_parcel__features"} <= names
    assert {"ledger_events", "ledger_runs", "ledger_versions", "ledger_edges", "ledger_pointers"} <= names
    assert {"tracking_params", "tracking_metrics", "tracking_tags", "tracking_experiments"} <= names
    assert {"pipeline_results", "tracking_artifacts", "courier", "district"} <= names
    for name in names:
        assert project.query(f'select count(*) as n from "{name}"')["n"][0].as_py() >= 0


def test_metric_points_meet_their_runs(project: noria.Project) -> None:
    joined = project.query("""
        select m.name, count(*) as n, max(m.value) as last, any_value(p.value) as seed
        from tracking_metrics m join ledger_runs r on m.run = r.id left join tracking_params p on p.run = r.id
        where r.kind = 'train' group by all order by 1""").to_pylist()
    assert {"auc", "log_loss"} <= {each["name"] for each in joined}


def test_files_that_runs_logged_are_rows(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    with noria.open(tmp_path) as project:
        store = ArtifactStore(project.ledger.database, project.storage, tmp_path / "staging")
        with store.writing("0/r/artifacts/w.bin") as writer:
            writer.write(b"water")
        put = store.get("0/r/artifacts/w.bin")
        (row,) = project.query("select * from tracking_artifacts").to_pylist()
    assert row == {"path": put.path, "sha256": put.sha256, "size_bytes": 5, "put_at": put.put_at}


def test_models_that_runs_logged_are_rows(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    with noria.open(tmp_path) as project:
        models, run = LoggedModels(project.ledger), RunDesk(project.ledger).start("0").info.id
        made = models.create("0", name="forest", source_run=run)
        point = MetricPoint(name="loss", value=math.nan, step=1, at_us=0)
        models.log_points([ModelPoint(model=made.id, run=run, point=point, dataset_name="held back")])
        TrackingStore(project.ledger.database).log(run, points=[point])
        (row,) = project.query(
            "select id, experiment, name, status, version from tracking_models"
        ).to_pylist()
        measured = "select model, run, step, value, dataset_name from tracking_model_metrics"
        (of_model,) = project.query(measured).to_pylist()
        (of_run,) = project.query("select name, value from tracking_metrics").to_pylist()
    assert row == {"id": made.id, "experiment": "0", "name": "forest", "status": "pending", "version": None}
    assert [str(each) for each in of_model.values()] == [made.id, run, "1", "nan", "held back"]
    assert [str(each) for each in of_run.values()] == ["loss", "nan"]


def test_a_feature_view_holds_the_values_as_of_its_newest_row(project: noria.Project) -> None:
    newest = project.query(
        'select courier, "at", courier__parcels_24h as n from courier order by 1'
    ).to_pylist()
    last = project.lake.read("deliveries")
    spec = project.declarations.views["courier"].spec()
    assert [each["courier"] for each in newest] == sorted(set(last["courier"].to_pylist()))
    assert {each["at"] for each in newest} == {max(last[spec.known_at].to_pylist())}


def test_results_of_steps_that_are_tables_are_read_by_their_names(project: noria.Project) -> None:
    kept = project.query("select name, facts ->> '$.told' as told from ledger_versions where kind = 'output'")
    tables = [each["name"] for each in kept.to_pylist() if each["told"].startswith("table of ")]
    assert tables
    assert project.query(f'select count(*) as n from "{tables[0]}" for version as of 1')["n"][0].as_py() > 0


def test_datasets_travel_in_time(project: noria.Project) -> None:
    versions = project.ledger.list_versions(kind="dataset", name="deliveries")
    first, middle, last = versions[0], versions[len(versions) // 2], versions[-1]
    assert first.at < middle.at < last.at
    for sql, version in (
        (f"select count(*) as n from deliveries for version as of {first.number}", first),
        (f"select count(*) as n from deliveries for timestamp as of '{last.at.isoformat()}'", last),
        (
            f"select count(*) as n from deliveries at (timestamp => '{middle.at.isoformat()}'::timestamptz)",
            middle,
        ),
    ):
        assert project.query(sql)["n"][0].as_py() == project.lake.read("deliveries", version=version).num_rows
    grown = project.query("""
        select (select count(*) from deliveries)
             - (select count(*) from deliveries for version as of 1) as n""")
    assert grown["n"][0].as_py() > 0


@pytest.mark.parametrize(
    ("sql", "error", "match"),
    [
        ("from deliveries for version as of 999", NotFound, "deliveries:999"),
        (
            "from deliveries for timestamp as of '1999-01-01'",
            NotFound,
            "1999-01-01.*the first is deliveries:1 of",
        ),
        ("from ledger_events for version as of 1", ConfigError, "no versions of it are on record"),
        ('from "../noria.toml"', NotFound, "no table named"),
        ('from "deliveries/_delta_log"', NotFound, "no table named"),
    ],
)
def test_what_a_project_does_not_have_is_told(
    project: noria.Project, sql: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        project.query(sql)


def test_time_and_memory_are_limited(project: noria.Project) -> None:
    with pytest.raises(QueryStopped):
        project.query(ENDLESS, timeout="1s")
    with pytest.raises(QueryStopped):
        project.query(ENDLESS, timeout=timedelta(milliseconds=200))
    with pytest.raises(ConfigError, match="'soon' is no duration"):
        project.query("select 1", timeout="soon")


def test_limits_are_settings(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_QUERY__TIMEOUT_S", "1")
    monkeypatch.setenv("NORIA_QUERY__MEMORY", "100MB")
    with noria.open(tiny) as project:
        with pytest.raises(QueryStopped, match="longer than the 1 s"):
            project.query(ENDLESS)
        with pytest.raises(QueryStopped, match="100MB"):
            project.query("select list(a.range * b.range) from range(100_000) a, range(100_000) b")
    monkeypatch.setenv("NORIA_QUERY__MEMORY", "lots")
    with noria.open(tiny) as project, pytest.raises(ConfigError, match="'lots' is no amount of memory"):
        project.query("select 1")


def test_an_answer_is_written_to_a_file(project: noria.Project, tmp_path: Path) -> None:
    count = project.write_answer(
        "select * from deliveries where courier = $c", tmp_path / "ada.parquet", {"c": "ada"}
    )
    assert pq.read_table(tmp_path / "ada.parquet")["courier"].to_pylist() == ["ada"] * count


def test_the_command_writes_every_format(noria: Run, tiny_lived: Path, tmp_path: Path) -> None:
    ask = (
        "query",
        "select courier, count(*) as n from deliveries group by 1 order by 1",
        "--project",
        tiny_lived,
    )
    shown = noria(*ask)
    assert shown.returncode == 0 and shown.stdout.splitlines()[0].split() == ["courier", "n"]
    as_json = json.loads(noria(*ask, "--json").stdout)
    lines = [json.loads(line) for line in noria(*ask, "--format", "jsonl").stdout.splitlines()]
    assert as_json == lines and lines[0]["courier"] == "ada"
    assert noria(*ask, "--format", "csv").stdout.startswith('"courier","n"\n"ada",')
    told = noria(*ask, "--output", tmp_path / "out.parquet")
    assert told.stdout == f"{len(lines)} rows in {tmp_path / 'out.parquet'}\n"
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == lines


def test_the_command_reads_files_standard_input_and_parameters(
    tiny_lived: Path, noria: Run, tmp_path: Path
) -> None:
    asked = tmp_path / "q.sql"
    asked.write_text("\ufeffselect $n + 1 as n, $t as t, $ok as ok, $zip as zip", encoding="utf-8")
    given = ("--param", "n=41", "--param", "t=a=b", "--param", "ok=true", "--param", 'zip="01"')
    found = noria("query", "--file", asked, *given, "--project", tiny_lived, "--json")
    assert json.loads(found.stdout) == [{"n": 42, "t": "a=b", "ok": True, "zip": "01"}]
    piped = subprocess.run(
        [sys.executable, "-m", "noria", "query", "-", "--json", "--project", str(tiny_lived)],
        input="select 2 as two", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert json.loads(piped.stdout) == [{"two": 2}]


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        ([], 2, "`noria query` needs SQL"),
        (["select 1", "--file", "q.sql"], 2, "both SQL and --file are given"),
        (["--file", "nothing.sql"], 2, "cannot be read"),
        (["select $n", "--param", "n"], 2, "no NAME=VALUE"),
        (["select 1", "--output", "answer"], 2, "tells no format"),
        (["select 1", "--output", "no/answer.csv"], 9, "cannot be written"),
        (["select 1", "--output", "a.csv", "--format", "table"], 2, "for the screen"),
        (["from read_csv('/etc/passwd')"], 2, "reaches beyond"),
        (["from nothing"], 3, "no table named 'nothing'"),
        ([ENDLESS, "--timeout", "1s"], 12, "longer than the 1 s"),
    ],
)
def test_the_command_tells_what_is_wrong(
    noria: Run, tiny_lived: Path, tmp_path: Path, arguments: list[str], code: int, match: str
) -> None:
    done = noria("query", *arguments, "--project", tiny_lived, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "") and match in done.stderr
    assert list(tmp_path.iterdir()) == []
