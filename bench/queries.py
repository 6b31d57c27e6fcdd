"""SQL over the lake, against DuckDB on the same Parquet files."""

from collections.abc import Iterator
from pathlib import Path

import duckdb

from bench.flights import landings
from bench.measuring import Line, take_turns
from noria.lake.store import Lake
from noria.warehouse.query import query

_BATCHES, _RUNS = 12, 9
_QUERIES = {
    "group by": "select carrier, count(*) as n, avg(late::int) as late from landings group by 1 order by 1",
    "one row": "select * from landings where flight_id = '2013-12-31-UA1545-EWR'",
}


def lines(folder: Path) -> Iterator[Line]:
    rows = landings()
    size = rows.num_rows // _BATCHES + 1
    lake = Lake(str(folder / "lake"), ledger=None)
    for number in range(_BATCHES):
        lake.append("landings", rows.slice(number * size, size), batch=number, app_id="bench")
    files = f"{folder}/lake/landings/**/*.parquet"

    for what, sql in _QUERIES.items():

        def ours(run: int, sql: str = sql) -> int:
            found: int = query(sql, {"landings": lambda: lake.reader("landings")}).num_rows
            return found

        def bare(run: int, sql: str = sql) -> int:
            with duckdb.connect() as connection:
                connection.execute(f"create view landings as from read_parquet('{files}')")
                found: int = connection.sql(sql).to_arrow_table().num_rows
                return found

        assert ours(0) == bare(0)
        figure, floor = take_turns(ours, bare, runs=_RUNS, scale=1e3)
        yield Line(f"query: {what}, {rows.num_rows:,} rows", figure, "ms", "bare DuckDB on the files", floor)
    lake.close()
