"""The warehouse: a graph in which nothing is stale, and ten models; a process from its start to its end."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

import noria
from bench.flights import landings, weather
from bench.measuring import Line, run_child
from bench.peers.environments import NotMeasured, Taken, measure

_RUNS = 5
_UNCHANGED = 50
_NORIA = str(Path(sys.executable).with_name("noria"))
_SETTINGS = '[project]\nname = "bench"\n'
_MODELS = {
    "legs": "select *, date_trunc('day', departed_at) as day from {flights} where arr_delay is not null",
    "hours": "select origin, hour_at, temp, wind_speed, visib from {weather} where temp is not null",
    "daily": (
        "select day, count(*) as n, avg(arr_delay) as delay, sum(late::int) as late from {legs} group by day"
    ),
    "by_carrier": "select carrier, count(*) as n, avg(arr_delay) as delay from {legs} group by carrier",
    "by_route": (
        "select origin, dest, count(*) as n, quantile_cont(arr_delay, .9) as p90 from {legs} group by all"
    ),
    "by_tail": "select tailnum, count(*) as n, avg(dep_delay) as delay from {legs} group by tailnum",
    "in_weather": (
        "select l.flight_id, l.carrier, l.late, h.temp, h.wind_speed, h.visib from {legs} l "
        "join {hours} h on l.origin = h.origin and date_trunc('hour', l.departed_at) = h.hour_at"
    ),
    "in_wind": (
        "select round(wind_speed) as wind, avg(late::int) as late, count(*) as n from {in_weather} group by 1"
    ),
    "worst": "select * from {by_route} where n > 100 order by p90 desc, origin, dest limit 20",
    "summary": (
        "select d.day, d.n, d.delay, (select max(p90) from {worst}) as worst, c.carriers from {daily} d "
        "cross join (select count(*) as carriers from {by_carrier}) c"
    ),
}
_PLAIN = """
import sys
from pathlib import Path
import duckdb, sqlglot
from sqlglot import exp
folder = Path(sys.argv[1])
texts = {each.stem: each.read_text() for each in (folder / "models").glob("*.sql")}
reads = {
    name: {t.name for t in sqlglot.parse_one(text, read="duckdb").find_all(exp.Table)} & set(texts)
    for name, text in texts.items()
}
connection = duckdb.connect(str(folder / "plain.duckdb"))
for name in ("flights", "weather"):
    path = folder / f"{name}.parquet"
    connection.execute(f"create or replace view {name} as from read_parquet('{path}')").fetchall()
done = set()
while len(done) < len(texts):
    for name in sorted(set(texts) - done):
        if reads[name] <= done:
            connection.execute(f"create or replace table {name} as {texts[name]}").fetchall()
            done.add(name)
"""


def lines(folder: Path) -> Iterator[Line]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    yield _nothing_stale(folder / "unchanged", environment)
    yield from _ten_models(folder / "ten", environment)


def _nothing_stale(root: Path, environment: dict[str, str]) -> Line:
    (root / "models").mkdir(parents=True)
    (root / "noria.toml").write_text(_SETTINGS)
    for number in range(_UNCHANGED):
        above = "numbers" if number < 5 else f"m{number - 5}"
        (root / "models" / f"m{number}.sql").write_text(
            f"select x + 1 as x, y from {above} where x > {number}\n"
        )
    with noria.open(root) as project:
        rows = pa.table({"x": list(range(1000)), "y": [f"y{each % 7}" for each in range(1000)]})
        project.lake.append("numbers", rows, batch=1, app_id="bench")
        assert project.transform().counts == {"built": _UNCHANGED}
    command = [_NORIA, "transform", "--project", str(root)]
    empty = [_NORIA, "run", "list", "--limit", "1", "--project", str(root)]
    taken = [
        [run_child(each, environment=environment) for each in (command, empty)] for _ in range(_RUNS + 1)
    ]
    figure, floor = (median(each) for each in zip(*taken[1:], strict=True))
    what = f"noria transform: {_UNCHANGED} models, none stale"
    return Line(what, figure, "s", "noria run list", floor, at_most=0.5)


def _ten_models(root: Path, environment: dict[str, str]) -> Iterator[Line]:
    tables = {"flights": landings(), "weather": weather()}
    ours, plain, theirs = root / "noria", root / "plain", root / "dbt"
    for each in (ours, plain):
        (each / "models").mkdir(parents=True)
        names = {name: name for name in (*_MODELS, *tables)}
        for name, text in _MODELS.items():
            (each / "models" / f"{name}.sql").write_text(text.format(**names))
    (ours / "noria.toml").write_text(_SETTINGS)
    for name, table in tables.items():
        pq.write_table(table, plain / f"{name}.parquet")
    (plain / "plain.py").write_text(_PLAIN)
    with noria.open(ours) as project:
        for name, table in tables.items():
            project.lake.append(name, table, batch=1, app_id="bench")
    commands = (
        [_NORIA, "transform", "--full", "--project", str(ours)],
        [sys.executable, str(plain / "plain.py"), str(plain)],
    )
    taken = [[run_child(each, environment=environment) for each in commands] for _ in range(_RUNS + 1)]
    figure, floor = (median(each) for each in zip(*taken[1:], strict=True))
    what = f"noria transform: {len(_MODELS)} models, from start to end"
    yield Line(what, figure, "s", "DuckDB and sqlglot alone", floor, at_most=1.3)
    peer = _dbt(theirs, plain)
    if peer is None:
        yield Line(what, figure, "s", "dbt-duckdb: not measured")
    else:
        yield Line(what, figure, "s", f"dbt-duckdb {peer.version}", peer.cpu_ms / 1e3)


def _dbt(root: Path, plain: Path) -> Taken | None:
    """Run the same models by dbt on the same files; None where it cannot be had."""
    (root / "models").mkdir(parents=True)
    names = {name: f"{{{{ ref('{name}') }}}}" for name in _MODELS}
    names |= {name: f"read_parquet('{plain}/{name}.parquet')" for name in ("flights", "weather")}
    for name, text in _MODELS.items():
        (root / "models" / f"{name}.sql").write_text(text.format(**names))
    (root / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nmodels:\n  +materialized: table\n"
    )
    (root / "profiles.yml").write_text(
        f"bench:\n  target: dev\n  outputs:\n    dev:\n      type: duckdb\n      path: {root}/dbt.duckdb\n"
    )
    try:
        return measure("dbt", str(root), folder=root.parent)
    except NotMeasured as error:
        print(f"dbt-duckdb is not measured: {error}", file=sys.stderr)
        return None
