"""Dashboards: read, asked, recorded, drawn."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

import noria
from noria.errors import ConfigError, NotFound, StoreError
from noria.records import RunState
from noria.warehouse.dashboards.charts import spec_of
from noria.warehouse.dashboards.content import Column, PanelContent, read_content
from noria.warehouse.dashboards.declared import read_dashboard
from noria.warehouse.dashboards.pictures import read_engine

Run = Callable[..., subprocess.CompletedProcess[str]]
TRIPS = pa.table(
    {
        "day": ["2024-03-01", "2024-03-02", "2024-03-03"] * 2,
        "line": ["U1"] * 3 + ["U2"] * 3,
        "riders": [120, 80, 95, 40, 60, 55],
    }
)
SHARES = """
title = "Ridership"
description = "Who rides <when> & where."
rows = [["total", "lines"], ["by_day"], ["note", "best"]]

[parameters]
least = 50

[panels.total]
kind = "number"
title = "Riders"
unit = "people"
sql = "select sum(riders) as riders, count(*) as days from trips where riders >= $least"

[panels.lines]
kind = "number"
digits = 2
sql = "select avg(riders) as mean from trips"

[panels.by_day]
title = "By day"
sql = "select day, line, riders from trips"
[panels.by_day.chart]
mark = "bar"
[panels.by_day.chart.encoding]
x = { field = "day", type = "temporal", timeUnit = "yearmonthdate" }
y = { field = "riders", type = "quantitative" }
color = { field = "line", type = "nominal" }

[panels.best]
width = 2
limit = 2
sql = "select line, max(riders) as riders from trips group by 1 order by 2 desc"

[panels.note]
text = '''
Counted at the gates.

<script>alert("no")</script>
'''
"""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the script of charts, which takes seconds to make."""
    made = tmp_path_factory.mktemp("engine") / "engine"
    assert "vegaEmbed" in read_engine(made)
    return made


@pytest.fixture
def folder(tmp_path: Path, engine: Path) -> Path:
    shutil.copytree(engine, tmp_path / ".noria" / "dashboards" / "engine")
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "noria.toml").write_text('[project]\nname = "metro"\n')
    (tmp_path / "dashboards" / "ridership.toml").write_text(SHARES)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Iterator[noria.Project]:
    with noria.open(folder) as opened:
        opened.lake.append("trips", TRIPS, batch=1, app_id="test")
        yield opened


def write(project: noria.Project, name: str, text: str) -> Path:
    path = project.root / "dashboards" / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_build_is_a_report_with_what_it_read(project: noria.Project) -> None:
    built = project.build_dashboard("ridership")
    assert (built.report.kind, built.report.ref, built.failed) == ("report", "ridership:1", {})
    assert built.run is not None
    edges = {each.role: each.version for each in project.ledger.list_edges(run=built.run)}
    read = project.ledger.get_version_by_id(edges["input"])
    assert (read.name, read.uri) == ("trips", "delta:trips@1")
    assert read.sha256 == project.lake.version_digest("trips")
    assert edges["output"] == built.report.id
    assert project.ledger.get_run(built.run).state is RunState.FINISHED
    content = read_content(project.storage.get(built.report.sha256))
    assert content.panels["total"].rows == [[410, 5]]
    assert [(each.table, each.ref) for each in content.sources] == [("trips", "trips:1")]
    assert project.ledger.verify().ok


def test_unchanged_data_and_definition_are_the_same_version(project: noria.Project) -> None:
    first = project.build_dashboard("ridership").report
    assert project.build_dashboard("ridership").report == first
    assert project.build_dashboard("ridership", {"least": 60}).report.number == 2
    project.lake.append("trips", TRIPS.slice(0, 1), batch=2, app_id="test")
    third = project.build_dashboard("ridership")
    assert third.report.number == 3
    write(project, "ridership", SHARES.replace("Ridership", "Riders of the metro"))
    assert project.build_dashboard("ridership").report.number == 4


def test_an_older_report_is_drawn_as_it_was(project: noria.Project, tmp_path: Path) -> None:
    built = project.build_dashboard("ridership", output=tmp_path / "now")
    before = built.files[0].read_bytes()
    project.lake.append("trips", TRIPS, batch=2, app_id="test")
    project.build_dashboard("ridership", output=tmp_path / "now")
    again = project.build_dashboard("ridership:1", output=tmp_path / "then")
    assert again.run is None and again.report == built.report
    assert again.files[0].read_bytes() == before != built.files[0].read_bytes()


def test_what_was_read_as_it_was_is_named_by_its_version(project: noria.Project) -> None:
    project.ledger.list_versions()
    first = project.lake.record_version("trips", kind="table")
    project.lake.append("trips", TRIPS, batch=2, app_id="test")
    write(project, "grown", """
[panels.growth]
kind = "number"
sql = "select (select count(*) from trips) - (select count(*) from trips for version as of 1) as n"
""")  # fmt: skip
    built = project.build_dashboard("grown")
    read = {each.version for each in project.ledger.list_edges(run=built.run) if each.role == "input"}
    assert read == {first.id, project.ledger.get_version("table", "trips", 2).id}
    assert read_content(project.storage.get(built.report.sha256)).panels["growth"].rows == [[6]]


def test_a_panel_that_fails_shows_why_and_the_rest_goes_on(project: noria.Project) -> None:
    write(project, "partly", """
[panels.gone]
sql = "select * from trams"
[panels.wrong]
sql = "select raiders from trips"
[panels.reaching]
sql = "select * from read_text('/etc/hostname')"
[panels.several]
kind = "number"
sql = "select riders from trips"
[panels.fine]
kind = "number"
sql = "select count(*) as n from trips"
""")  # fmt: skip
    built = project.build_dashboard("partly")
    assert set(built.failed) == {"gone", "wrong", "reaching", "several"}
    assert "no table named 'trams'" in built.failed["gone"]
    assert "a number is one row, the query gives 6" in built.failed["several"]
    page = built.files[0].read_text()
    assert page.count('role="alert"') == 4 and '<p class="figure">6</p>' in page
    assert project.ledger.get_run(built.run or "").metrics["failed_panels"] == 4


def test_a_table_that_was_not_built_is_told_by_what_makes_it(project: noria.Project) -> None:
    write(project, "early", """
[panels.daily]
sql = "select * from Daily_Riders"
[panels.seen]
sql = "select * from seen"
[panels.twice]
sql = "select * from twice"
[panels.trip_days]
sql = "select * from main.trip_days"
[panels.elsewhere]
sql = "select * from other.daily_riders"
[panels.dated]
sql = "select * from daily_riders for version as of 1"
""")  # fmt: skip
    models = project.root / "models" / "riding"
    models.mkdir(parents=True)
    (models / "daily_riders.sql").write_text("select sum(riders) as riders from trips")
    (models / "seen.sql").write_text("-- materialize: view\nselect riders from daily_riders")
    (models / "twice.sql").write_text("-- materialize: view\nselect n from once")
    (models / "once.sql").write_text("-- materialize: view\nselect n from twice")
    (models / "trip_days.sql").write_text("-- materialise: view\nselect day from trips")
    made = "no table named '{}'; models/riding/daily_riders.sql makes it: run `noria transform daily_riders`"
    failed = dict(project.build_dashboard("early").failed)
    assert "did you mean 'materialize'?" in failed.pop("trip_days")
    assert failed.pop("elsewhere").startswith("no table named 'other.daily_riders'; there is ")
    assert failed == {
        "daily": made.format("Daily_Riders"),
        "seen": made.format("daily_riders"),
        "dated": made.format("daily_riders"),
        "twice": "no table named 'twice'; models/riding/twice.sql is a view that cannot be read: "
        "`noria transform --plan` says why",
    }
    project.transform("daily_riders")
    assert set(project.build_dashboard("early").failed) == {"twice", "trip_days", "elsewhere"}


def test_a_page_holds_everything_and_asks_for_nothing(project: noria.Project) -> None:
    page = project.build_dashboard("ridership").files[0].read_text()
    policy = page.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src &#39;none&#39;" in policy and "connect-src &#39;none&#39;" in policy
    assert "unsafe-eval" not in policy and "script-src &#39;unsafe-inline" not in policy
    head = page.split("<script>")[0]
    assert "src=" not in head and 'href="http' not in head
    assert "&lt;script&gt;alert" in page and '<script>alert("no")' not in page
    assert "Who rides &lt;when&gt; &amp; where." in page
    assert "2 of 2 rows" not in page and "<td" in page


def test_values_cannot_leave_their_places(project: noria.Project) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    project.lake.append("said", pa.table({"what": [evil], "n": [1]}), batch=1, app_id="test")
    write(project, "said", """
[panels.chart]
sql = "from said"
chart = { mark = "bar", encoding = { x = { field = "what", type = "nominal" } } }
[panels.table]
sql = "from said"
""")  # fmt: skip
    page = project.build_dashboard("said").files[0].read_text()
    assert evil not in page and "<img" not in page.split("<script>")[0]
    stored = page.split('<script type="application/json" id="charts">')[1].split("</script>")[0]
    assert json.loads(stored)["charts"]["chart"]["rows"] == [[evil, 1]]


def test_every_chart_is_a_picture_too(project: noria.Project, tmp_path: Path) -> None:
    built = project.build_dashboard("ridership", output=tmp_path, formats=["png", "svg"])
    assert [each.name for each in built.files] == ["ridership-by_day.png", "ridership-by_day.svg"]
    png, svg = (each.read_bytes() for each in built.files)
    assert png.startswith(b"\x89PNG") and len(png) > 5_000
    assert svg.startswith(b"<svg") and b"By day" in svg and b"U2" in svg
    again = project.build_dashboard("ridership", output=tmp_path, formats=["svg"])
    assert again.files[0].read_bytes() == svg


def test_pictures_show_instants_in_utc(project: noria.Project) -> None:
    from noria.warehouse.dashboards.charts import spec_of

    content = read_content(project.storage.get(project.build_dashboard("ridership").report.sha256))
    x = spec_of(content.panels["by_day"])["encoding"]["x"]
    assert (x["timeUnit"], x["scale"]) == ("utcyearmonthdate", {"type": "utc"})


def test_without_the_extra_tables_and_numbers_are_built_and_charts_say_what_is_missing(
    project: noria.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    real = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *rest: None if name == "vl_convert" else real(name, *rest)
    )
    with pytest.raises(ConfigError, match=r"install noria\[dashboards\]"):
        project.build_dashboard("ridership")
    write(project, "plain", '[panels.n]\nkind = "number"\nsql = "select 1 as n"\n')
    assert b"<script" not in project.build_dashboard("plain").files[0].read_bytes()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "missing required field `panels`"),
        ("[panels]", "there is no panel"),
        ("panels = 3", "Expected `object`, got `int`"),
        ("[panels.a", "not valid TOML"),
        ("[panels.a]\nsq = 'select 1'", "panels.*unknown field `sq`"),
        ("[panels.a]\nsq = 'select 1'", "panels.a: .*did you mean 'sql'"),
        (
            "[panels.b]\ntext = 'x'\n[panels.a]\nkind = 'pie'",
            "panels.a.kind: Invalid enum value 'pie'; there is chart, table, number, text",
        ),
        ("[panels.a]\nkind = 'table'", "panels.a: a table needs `sql`"),
        ("[panels.a]\nkind = 'chart'\nsql = 'select 1'", "a chart needs `chart`"),
        ("[panels.a]\ntext = 'x'\nsql = 'select 1'", "a text has no `sql`"),
        ("[panels.a]\nsql = 'select 1'\nchart = {}", "has a `mark`"),
        ("[panels.a]\nsql = 'select 1'\nchart = 'no.json'", "no.json cannot be read"),
        ("[panels.a]\nsql = 'select 1'\nchart = '../noria.toml'", "is outside of"),
        (
            "[panels.a]\nsql = 'select 1'\nchart = {mark = 'bar', layer = [{data = {url = 'http://x'}}]}",
            r"panels.a.chart.layer\[0\].data.url: a chart's data come from its `sql`",
        ),
        ("rows = [['a', 'b']]\n[panels.a]\ntext = 'x'", "no panel named 'b'"),
        ("rows = [['a'], ['a']]\n[panels.a]\ntext = 'x'", "placed more than once"),
        ("rows = [['a']]\n[panels.a]\ntext = 'x'\n[panels.b]\ntext = 'y'", "placed nowhere"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(folder: Path, text: str, match: str) -> None:
    path = folder / "dashboards" / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match) as told:
        read_dashboard(path.parent, "wrong")
    assert "wrong.toml" in str(told.value)


def test_a_chart_that_names_no_column_of_its_query_is_a_panel_that_failed(project: noria.Project) -> None:
    write(project, "ridership", SHARES.replace('y = { field = "riders"', 'y = { field = "Rider"'))
    (told,) = project.build_dashboard("ridership").failed.items()
    assert told == (
        "by_day",
        "the chart's encoding.y names the field 'Rider', which its sql does not give; did you mean 'riders'?",
    )


def test_a_parameter_that_the_dashboard_lacks_is_told_where_to_add_it(project: noria.Project) -> None:
    write(project, "ridership", SHARES.replace("$least", "$most"))
    (why,) = project.build_dashboard("ridership").failed.values()
    assert (
        why == "the query names $most, and the dashboard's [parameters] do not; add it there with a default"
    )


def test_a_page_that_cannot_be_written_is_told(project: noria.Project, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="taken is a file, wanted is a folder"):
        project.build_dashboard("ridership", output=tmp_path / "taken")
    with pytest.raises(StoreError, match="inside cannot be made: Not a directory; name another"):
        project.build_dashboard("ridership", output=tmp_path / "taken" / "inside")


def test_a_chart_with_a_step_for_each_value_is_as_high_as_they_need() -> None:
    columns = [Column("line", "text"), Column("riders", "number")]
    encoding = {"y": {"field": "line", "type": "nominal"}, "x": {"field": "riders", "type": "quantitative"}}
    chart = {"mark": "bar", "encoding": encoding}
    rows = [["U1", 3], ["U2", 4], ["U1", 5]]
    panel = PanelContent(kind="chart", title="x", chart=chart, columns=columns, rows=rows)
    assert spec_of(panel)["height"] == 40
    stepped = {**chart, "height": {"step": 30}}
    assert spec_of(msgspec.structs.replace(panel, chart=stepped))["height"] == 60
    assert spec_of(msgspec.structs.replace(panel, chart={**chart, "height": 90}))["height"] == 90
    folded = {**chart, "transform": [{"fold": ["riders"]}]}
    assert "height" not in spec_of(msgspec.structs.replace(panel, chart=folded))


def test_panels_without_rows_find_their_places(folder: Path) -> None:
    path = folder / "dashboards" / "plain.toml"
    number = "kind = 'number'\nsql = 'select 1'"
    path.write_text(f"[panels.t]\ntext = 'x'\n[panels.a]\n{number}\n[panels.b]\n{number}\n")
    assert read_dashboard(path.parent, "plain").rows == [["a", "b"], ["t"]]


def test_charts_of_files_beside_count_as_written(project: noria.Project) -> None:
    beside = project.root / "dashboards" / "bars.vl.json"
    beside.write_text('{"mark": "bar", "encoding": {"x": {"field": "day", "type": "ordinal"}}}')
    write(project, "bars", "[panels.a]\nsql = 'from trips'\nchart = 'bars.vl.json'")
    before = project.build_dashboard("bars").report
    beside.write_text('{"mark": "point", "encoding": {"x": {"field": "day", "type": "ordinal"}}}')
    assert project.build_dashboard("bars").report.number == before.number + 1


@pytest.mark.parametrize(
    ("name", "params", "error", "match"),
    [
        ("riders", {}, NotFound, "did you mean 'ridership'"),
        ("../noria", {}, NotFound, "no dashboard named"),
        ("ridership:9", {}, NotFound, "ridership:9"),
        ("ridership:x", {}, ConfigError, "no reference"),
        ("ridership", {"most": 1}, NotFound, "no parameter named 'most'"),
    ],
)
def test_what_is_not_there_is_told(
    project: noria.Project, name: str, params: dict[str, Any], error: type[Exception], match: str
) -> None:
    project.build_dashboard("ridership")
    with pytest.raises(error, match=match):
        project.build_dashboard(name, params)


def test_the_commands_list_and_build(project: noria.Project, noria: Run, tmp_path: Path) -> None:
    at = ("--project", project.root)
    assert noria("dashboard", "list", *at).stdout.splitlines()[1].split()[:3] == ["ridership", "5", "-"]
    done = noria("dashboard", "build", "ridership", "--param", "least=60", "--output", tmp_path / "out", *at)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ridership: report ridership:1\n  {tmp_path / 'out' / 'ridership.html'}\n"
    write(project, "broken", "[panels.a]\nsql = 'from nothing'")
    every = noria("dashboard", "build", "--json", *at)
    told = msgspec.json.decode(every.stdout)
    assert every.returncode == 1
    assert [(each["name"], bool(each["failed"])) for each in told] == [("broken", True), ("ridership", False)]
    listed = msgspec.json.decode(noria("dashboard", "list", "--json", *at).stdout)
    assert [(each["name"], each["report"]) for each in listed] == [
        ("broken", "broken:1"),
        ("ridership", "ridership:2"),
    ]
