"""Training sets of a project, from its lake to a kept version: all flights, and what Feast does of them."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import noria
from bench.flights import landings, schedule
from bench.measuring import Line
from bench.peers.environments import NotMeasured, printed

_ENTITIES, _COLUMNS, _AT = ("carrier", "dest", "tailnum"), ("arr_delay", "dep_delay"), "event_timestamp"
_FEAST_ROWS = 50_000  # it joins on the entity alone: twice as many take twice the time, and 8 GB
_DECLARED = """
import noria
from noria import agg

rows = noria.Dataset("rows", key="flight_id", event_at="event_timestamp", known_at="event_timestamp")
last = {each: agg.last(each, max_age="7d") for each in ("arr_delay", "dep_delay")}
carrier = noria.FeatureView("carrier", source=rows, entity="carrier", features=last)
dest = noria.FeatureView("dest", source=rows, entity="dest", features=last)
tailnum = noria.FeatureView("tailnum", source=rows, entity="tailnum", features=last)
"""


class _OfFeast(msgspec.Struct):
    version: str
    wall_s: float
    cpu_s: float
    rows: int


def lines(folder: Path) -> Iterator[Line]:
    rows, spine = _rows(), _spine()
    for name, table in (("rows", rows), ("spine", spine)):
        pq.write_table(table, folder / f"{name}.parquet")
    project_folder = folder / "project"
    project_folder.mkdir()
    (project_folder / "noria.toml").write_text('[project]\nname = "bench"\nmodules = ["sets_declared"]\n')
    (project_folder / "sets_declared.py").write_text(_DECLARED)
    with noria.open(project_folder) as project:
        project.ingest("rows", rows)
        made: list[int] = []

        def make(asked: pa.Table) -> Callable[[], None]:
            def work() -> None:
                made.append(len(project.features.training_set(asked, _ENTITIES, at=_AT)))
                assert made[-1] == len(asked)  # never a row fewer

            return work

        ours, theirs = _taken(make(spine), lambda: _asof(folder))
        ((part_s, _),) = _taken(make(spine.slice(0, _FEAST_ROWS)))
    what = f"training set: {len(spine):,} x 3 views"
    yield Line(f"{what}, wall", ours[0], "s", "DuckDB ASOF, Parquet, wall", theirs[0], at_most=0.8)
    yield Line(f"{what}, CPU", ours[1], "s", "DuckDB ASOF, Parquet, CPU", theirs[1])
    what = f"training set: {_FEAST_ROWS:,} x 3 views, wall"
    try:
        told = printed("feast", "sets", str(folder), str(_FEAST_ROWS), folder=folder)
    except NotMeasured as error:
        print(f"Feast is not measured: {error}", file=sys.stderr)
        yield Line(what, part_s, "s", "Feast: not measured")
        return
    feast = msgspec.json.decode(told, type=_OfFeast)
    short = "" if feast.rows == _FEAST_ROWS else f" gave {feast.rows:,}"
    yield Line(what, part_s, "s", f"Feast {feast.version}, DuckDB{short}", feast.wall_s, ratio_at_most=0.01)


def _rows() -> pa.Table:
    from_lake = landings()
    named = {each: from_lake[each] for each in ("flight_id", *_ENTITIES)}
    return pa.table(
        named
        | {_AT: from_lake["landed_at"]}
        | {each: from_lake[each].cast(pa.float64()) for each in _COLUMNS}
    )


def _spine() -> pa.Table:
    """Give the flights in no order."""
    flights = schedule()
    order = np.random.default_rng(336_776).permutation(len(flights))
    return pa.table({each: flights[each] for each in _ENTITIES} | {_AT: flights["at"]}).take(order)


def _asof(folder: Path) -> None:
    columns = [
        f"case when {entity}_.{_AT} >= s.{_AT} - interval 7 days then {entity}_.{each} end as {entity}_{each}"
        for entity in _ENTITIES
        for each in _COLUMNS
    ]
    joins = [
        f"asof left join '{folder}/rows.parquet' as {each}_ on s.{each} = {each}_.{each} "
        f"and s.{_AT} >= {each}_.{_AT}"
        for each in _ENTITIES
    ]
    with duckdb.connect() as connection:
        sql = f"select s.*, {', '.join(columns)} from '{folder}/spine.parquet' as s {' '.join(joins)}"
        pq.write_table(connection.sql(sql).to_arrow_table(), folder / "joined.parquet")


def _taken(*works: Callable[[], None], runs: int = 5) -> list[tuple[float, float]]:
    """Give the medians of wall and CPU of each; they take turns."""
    walls: list[list[float]] = [[] for _ in works]
    cpus: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for at, work in enumerate(works):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls[at].append(time.perf_counter() - wall)
            cpus[at].append(time.process_time() - cpu)
    return [(median(wall), median(cpu)) for wall, cpu in zip(walls, cpus, strict=True)]
