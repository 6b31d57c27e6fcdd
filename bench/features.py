"""Ten million rows joined to a million instants, against DuckDB's ASOF joins and window passes."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa

from bench.measuring import Line
from noria.agg import Aggregation, Grouped
from noria.features import FeatureView, agg
from noria.features.offline import point_in_time
from noria.features.views_at_once import features_of_views
from noria.lake.declarations import Dataset

ROWS, SPINE, DAYS = 10_000_000, 1_000_000, 90
_DAY, _START = 86_400_000_000, 1_600_000_000_000_000
_WINDOWS = ("1h", "6h", "1d", "7d", "30d")
_SOURCE = Dataset("source", key="id", event_at="event_at", known_at="event_at")
_WHO = ("who", "where", "what")  # the entities of three views, some of them missing
_LAST: dict[str, Aggregation | Grouped] = {name: agg.last(name, max_age="7d") for name in ("a", "x", "y")}


def lines(folder: Path) -> Iterator[Line]:
    for entities in (10_000, 1_000_000):
        ours, theirs = _measured("last", "asof", entities=entities)
        what = f"features: {SPINE:,} x 3 views x {ROWS:,}, {entities:,}"
        yield Line(f"{what}, wall", ours[1], "s", "DuckDB ASOF JOIN, wall", theirs[1], ratio_at_most=1.2)
        yield Line(f"{what}, CPU", ours[0], "s", "DuckDB ASOF JOIN, CPU", theirs[0])
        yield Line(f"{what}, peak", ours[2], "MB", "DuckDB, peak", theirs[2], at_most=2_500)
    ours, theirs = _measured("windows", "pass", entities=10_000, runs=1)  # it takes its time
    what = f"features: 5 windows x 6 of {ROWS:,}, CPU"
    yield Line(what, ours[0], "s", "DuckDB, one window pass", theirs[0], ratio_at_most=3)
    yield Line("  peak memory", ours[2], "MB", "DuckDB, peak", theirs[2])


def _measured(*ways: str, entities: int, runs: int = 3) -> list[tuple[float, ...]]:
    """Give CPU, wall and peak memory of each way in processes of their own, without making the rows.

    The ways take turns, so that both see the same machine.
    """
    told: dict[str, list[str]] = {way: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            command = [sys.executable, "-m", "bench.features", way, str(entities)]
            told[way].append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [
        tuple(median(map(float, each)) for each in zip(*map(str.split, told[way]), strict=True))
        for way in ways
    ]


def made(entities: int, who: Sequence[str] = _WHO) -> tuple[pa.Table, pa.Table]:
    """Give rows at random instants of random entities, and a spine; 1 % of entities are missing."""
    random = np.random.default_rng(20240229)
    kind = pa.timestamp("us", "UTC")

    def instants(size: int) -> pa.Array:
        return pa.array(random.integers(_START, _START + DAYS * _DAY, size)).cast(kind)

    def some(size: int) -> pa.Array:
        return pa.array(random.integers(0, entities, size), mask=random.random(size) < 0.01)

    rows = pa.table({
        "id": np.arange(ROWS), "event_at": instants(ROWS), **{each: some(ROWS) for each in who},
        "a": random.integers(0, 1_000, ROWS), "x": random.random(ROWS),
        "y": pa.array(random.random(ROWS), mask=random.random(ROWS) < 0.1),
    })  # fmt: skip
    return rows, pa.table({"at": instants(SPINE), **{each: some(SPINE) for each in who}})


def windows() -> dict[str, Aggregation | Grouped]:
    """Give six aggregates over five windows."""
    made: dict[str, Aggregation | Grouped] = {}
    for window in _WINDOWS:
        made[f"n_{window}"] = agg.count(window)
        for make in (agg.sum, agg.mean, agg.std, agg.min, agg.max):
            made[f"{make.__name__}_{window}"] = make("a", window)
    return made


def work(what: str, rows: pa.Table, spine: pa.Table) -> int:
    """Do it one way, and give the rows that came out."""
    if what == "last":
        views = [FeatureView(each, source=_SOURCE, entity=each, features=_LAST).spec() for each in _WHO]
        made = features_of_views(views, {_SOURCE.name: rows}, spine)
        return len(pa.table({name: column for each in made for name, column in _named(each)}))
    if what == "windows":
        view = FeatureView("v", source=_SOURCE, entity="who", features=windows())
        return len(point_in_time(view, rows, spine))
    with duckdb.connect() as connection:
        connection.register("r", rows)
        connection.register("s", spine)
        return len(connection.sql(_asof() if what == "asof" else _PASS).to_arrow_table())


def _named(features: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(features.column_names, features.columns, strict=True)


def _asof() -> str:
    """Give three joins to the last row, each of which counts if it is young enough."""
    columns = [
        f"case when {view}.event_at >= s.at - interval 7 days then {view}.{each} end as {view}_{each}"
        for view in ("r0", "r1", "r2")
        for each in _LAST
    ]
    joins = [
        f'asof left join r as r{place} on s."{who}" = r{place}."{who}" and s.at >= r{place}.event_at'
        for place, who in enumerate(_WHO)
    ]
    return f"select {', '.join(columns)} from s {' '.join(joins)}"


_PASS = """
    select * exclude (who, t, a, asked) from (
      select *, count(a) over w, sum(a) over w, avg(a) over w, stddev(a) over w, min(a) over w, max(a) over w
      from (select who, event_at as t, a, false as asked from r
            union all select who, "at", null, true from s)
      window w as (partition by who order by t range between interval 7 days preceding and current row))
    where asked"""


if __name__ == "__main__":
    table, asked = made(int(sys.argv[2]), _WHO if sys.argv[1] in ("last", "asof") else _WHO[:1])
    began, cpu = time.perf_counter(), time.process_time()
    assert work(sys.argv[1], table, asked) == SPINE
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(time.process_time() - cpu, time.perf_counter() - began, int(peak.split()[1]) / 1_000)
