"""Features of every flight of the year by point in time, against DuckDB's windows with bounds per row."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from bench.flights import declared, landings, schedule
from bench.measuring import Line, take_turns
from noria.features.declarations import Aggregation, AggregationKind, FeatureView
from noria.features.offline import point_in_time

_VIEWS = ("carrier", "origin", "dest", "tail")


def lines(folder: Path) -> Iterator[Line]:
    rows, spine = landings(), schedule()
    views = [getattr(declared(), name) for name in _VIEWS]
    ours: list[pa.Table] = []
    theirs: list[pa.Table] = []

    def compute(run: int) -> None:
        ours[:] = [point_in_time(view, rows, spine) for view in views]

    def bare(run: int) -> None:
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.register("rows", rows)
            connection.register("spine", spine.append_column("row", pa.array(range(spine.num_rows))))
            theirs[:] = [connection.sql(_sql(view)).to_arrow_table() for view in views]

    (figure,) = take_turns(compute, runs=3)
    (floor,) = take_turns(bare, runs=1)  # it takes its time
    for one, other in zip(ours, theirs, strict=True):
        for mine, column in zip(one.columns, other.columns, strict=True):
            same = np.isclose(mine.to_numpy(), column.to_numpy().astype(float), rtol=1e-12, equal_nan=True)
            assert same.mean() > 0.99  # which row is the last of an instant is left open in the SQL
    columns = sum(each.num_columns for each in ours)
    yield Line(
        f"offline features: {spine.num_rows:,} x {columns}, 4 views",
        figure,
        "s",
        "DuckDB, range windows",
        floor,
        at_most=15,
    )


def _sql(view: FeatureView) -> str:
    """Say the view as one SELECT; where event and knowledge are one instant that is the same."""
    windows: dict[str, str] = {}
    columns = []
    for name, aggregation in ((each.name, each.aggregation) for each in view.spec().features):
        start = _start(aggregation)
        window = windows.setdefault(start, f"w{len(windows)}")
        columns.append(f"{_expression(aggregation, window)} as {name}")
    named = ", ".join(
        f"{name} as (partition by {view.entity} order by ts "
        f"range between ({start}) preceding and current row)"
        for start, name in windows.items()
    )
    return f"""
        with merged as (
          select row, {view.entity}, "at" as ts, null::timestamptz as landed,
                 null::int as late, null::bigint as arr_delay, null::bigint as dep_delay from spine
          union all
          select null, {view.entity}, landed_at, landed_at, late::int, arr_delay, dep_delay from rows),
        seen as (select row, {", ".join(columns)} from merged window {named})
        select * exclude (row) from seen where row is not null order by row"""


def _start(aggregation: Aggregation) -> str:
    span = f"to_seconds({aggregation.window_s or aggregation.max_age_s})"
    if aggregation.tier is None:
        return span
    return f"{span} + (ts - time_bucket(to_seconds({aggregation.tier.seconds}), ts))"


def _expression(aggregation: Aggregation, window: str) -> str:
    column, over = aggregation.column, f"over {window}"
    match aggregation.kind:
        case AggregationKind.COUNT:
            return f"count(landed) {over}"
        case AggregationKind.MEAN:
            return f"avg({column}) {over}"
        case AggregationKind.QUANTILE:
            low, high, width = aggregation.low or 0, aggregation.high or 0, aggregation.width or 1
            lower = f"((least(greatest({column}, {low}), {high - 1}) - {low}) // {width}) * {width} + {low}"
            q = (aggregation.q_millionths or 0) / 1e6
            return f"quantile_disc(case when {column} is not null then {lower} end, {q}) {over}"
        case AggregationKind.LAST:
            return f"last_value({column} ignore nulls) {over}"
        case AggregationKind.AGE:
            return f"date_diff('minute', last_value(landed ignore nulls) {over}, ts)"
    raise ValueError(f"the bench does not say {aggregation.kind} in SQL")
