"""SQL over the lake, against DuckDB on the same Parquet files; and a whole process that answers once."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

import noria
from bench.flights import landings
from bench.measuring import Line, run_child, take_turns
from noria.lake.store import Lake
from noria.warehouse.query import query

_BATCHES, _RUNS = 12, 9
_LARGE, _LARGE_BATCHES, _LARGE_RUNS = 10_000_000, 10, 5
_STARTS = 5
_QUERIES = {
    "group by": "select carrier, count(*) as n, avg(late::int) as late from landings group by 1 order by 1",
    "one row": "select * from landings where flight_id = '2013-12-31-UA1545-EWR'",
}
_TEMPLATE = Path(noria.__file__).parent / "workspace" / "templates" / "empty"


def lines(folder: Path) -> Iterator[Line]:
    rows = landings()
    yield from _compared(folder / "year", rows, _BATCHES, _QUERIES, runs=_RUNS)
    many = pa.concat_tables([rows] * (_LARGE // rows.num_rows + 1)).slice(0, _LARGE)
    some = {"group by": _QUERIES["group by"]}
    yield from _compared(folder / "large", many, _LARGE_BATCHES, some, runs=_LARGE_RUNS, at_most=1.2)
    shutil.rmtree(folder / "large")
    yield from _starts(folder / "project")


def _compared(
    folder: Path,
    rows: pa.Table,
    batches: int,
    queries: dict[str, str],
    *,
    runs: int,
    at_most: float | None = None,
) -> Iterator[Line]:
    size = -(-rows.num_rows // batches)
    lake = Lake(str(folder), ledger=None)
    for number in range(batches):
        lake.append("landings", rows.slice(number * size, size), batch=number, app_id="bench")
    files = f"{folder}/landings/*.parquet"

    for what, sql in queries.items():

        def ours(run: int, sql: str = sql) -> int:
            found: int = query(sql, {"landings": lambda: lake.reader("landings")}).num_rows
            return found

        def bare(run: int, sql: str = sql) -> int:
            with duckdb.connect() as connection:
                connection.execute(f"create view landings as from read_parquet('{files}')")
                found: int = connection.sql(sql).to_arrow_table().num_rows
                return found

        assert ours(0) == bare(0)
        figure, floor = take_turns(ours, bare, runs=runs, scale=1e3)
        yield Line(
            f"query: {what}, {rows.num_rows:,} rows",
            figure,
            "ms",
            "bare DuckDB on the files",
            floor,
            ratio_at_most=at_most,
        )
    lake.close()


def _starts(folder: Path) -> Iterator[Line]:
    """Measure `noria query` from the start of its process to its end."""
    shutil.copytree(_TEMPLATE, folder)
    with noria.open(folder) as project:
        project.lake.append("landings", landings(), batch=1, app_id="bench")
    for what, sql in {"select 1": "select 1", "group by": _QUERIES["group by"]}.items():
        command = [sys.executable, "-m", "noria", "query", sql, "--project", str(folder)]
        taken = sorted(run_child(command, environment=dict(os.environ)) for _ in range(_STARTS))
        yield Line(f"noria query, whole process: {what}", taken[_STARTS // 2], "s", at_most=1.5)
