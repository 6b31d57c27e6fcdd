"""SQL over rows in memory: hashes of keys, conditions, and which rows are those of other rows.

One closed-off DuckDB: it reads nothing but what it is handed.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from noria.checks.quoting import quoted
from noria.checks.sql import listed
from noria.errors import ConfigError
from noria.lake.ends import with_ends
from noria.lake.schema import INSTANT, REPLACED_AT

__all__ = ["Flags", "Hashes", "Likeness", "RowSql"]

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

_PLACE = "__place"


class Likeness:
    """What other rows say of each of some rows: whether one has its key, the same content, is newer."""

    def __init__(self, rows: int) -> None:
        self.found: Flags = np.zeros(rows, dtype=bool)
        self.equal: Flags = np.zeros(rows, dtype=bool)
        self.newer: Flags = np.zeros(rows, dtype=bool)


class RowSql:
    """Opened when first needed. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._opened: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Let go of the engine."""
        with self._guard:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def hashes(self, rows: pa.Table, columns: Sequence[str]) -> Hashes:
        """Give a 64-bit hash of `columns` for each row: equal values, equal hashes; in this process only."""
        found = self._numpy(f"select hash({listed(columns)}) as h from part", part=rows)["h"]
        hashes = np.ma.getdata(found).astype(np.uint64, copy=False)
        for each in columns:
            if pa.types.is_string(rows.schema.field(each).type):
                # DuckDB's hash of numbered texts collides now and then; their ends tell those apart
                hashes = with_ends(hashes, rows[each])
        return hashes

    def holds(self, rows: pa.Table, condition: str) -> Flags:
        """Say for each row whether an SQL condition is true of it.

        Raises
        ------
        ConfigError
            If it is no condition over these columns.
        """
        try:
            # within `case` nothing but an expression can stand: no statement of its own
            found = self._numpy(
                f"select case when {condition}\n then true else false end as h from part", part=rows
            )
        except duckdb.Error as err:
            raise ConfigError(
                f"{condition!r} is no condition over {', '.join(rows.column_names)}: "
                f"{str(err).strip().splitlines()[0]}"
            ) from err
        flags = np.ma.getdata(found["h"]).astype(bool)
        if len(flags) != rows.num_rows:
            raise ConfigError(f"{condition!r} is no condition over single rows; write one without aggregates")
        return flags

    def liken(
        self,
        rows: pa.Table,
        others: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        keys: Sequence[str],
        content: Sequence[str],
        newest: str | None = None,
    ) -> Likeness:
        """Compare rows with others of the same key.

        Parameters
        ----------
        others
            Read once, piece by piece; have the columns of `schema`.
        content
            The columns in which a row of equal content agrees.
        newest
            The column whose greater value makes a row the newer one.
        """
        told = Likeness(rows.num_rows)
        numbered = rows.append_column(_PLACE, pa.array(np.arange(rows.num_rows)))
        on = " and ".join(f"r.{quoted(each)} = o.{quoted(each)}" for each in keys)
        same = (
            " and ".join(f"r.{quoted(each)} is not distinct from o.{quoted(each)}" for each in content)
            or "true"
        )
        newer = "false" if newest is None else f"o.{quoted(newest)} > r.{quoted(newest)}"
        sql = (
            f'select r."__place" as place, bool_or({same}) as same, bool_or({newer}) as newer '
            f"from others o join mine r on {on} group by 1"
        )
        reader = pa.RecordBatchReader.from_batches(schema, iter(others))
        found = self._numpy(sql, mine=numbered, others=reader)
        places = np.ma.getdata(found["place"]).astype(np.int64)
        told.found[places] = True
        told.equal[places] = np.ma.getdata(found["same"]).astype(bool)
        told.newer[places] = np.ma.getdata(found["newer"]).astype(bool)
        return told

    def among(self, rows: pa.Table, others: pa.Table, *, keys: Sequence[str]) -> Flags:
        """Say for each row whether `others` have its key."""
        numbered = rows.select(list(keys)).append_column(_PLACE, pa.array(np.arange(rows.num_rows)))
        on = " and ".join(f"r.{quoted(each)} = o.{quoted(each)}" for each in keys)
        found = self._numpy(
            f'select r."__place" as place from mine r semi join others o on {on}',
            mine=numbered,
            others=others.select(list(keys)),
        )
        flags = np.zeros(rows.num_rows, dtype=bool)
        flags[np.ma.getdata(found["place"]).astype(np.int64)] = True
        return flags

    def winners(self, rows: pa.Table, *, keys: Sequence[str], newest: str | None) -> Flags:
        """Flag one row of each key: the newest, of several the last; without `newest` the first."""
        order = f'"{_PLACE}"' if newest is None else f'{quoted(newest)} desc, "{_PLACE}" desc'
        columns = list(dict.fromkeys([*keys, *([newest] if newest else [])]))
        numbered = rows.select(columns).append_column(_PLACE, pa.array(np.arange(rows.num_rows)))
        found = self._numpy(
            f'select "{_PLACE}" as place from mine '
            f"qualify row_number() over (partition by {listed(keys)} order by {order}) = 1",
            mine=numbered,
        )
        flags = np.zeros(rows.num_rows, dtype=bool)
        flags[np.ma.getdata(found["place"]).astype(np.int64)] = True
        return flags

    def until_replaced(
        self, there: pa.Table, here: pa.Table, newest: pa.Table, *, keys: Sequence[str], known_at: str
    ) -> pa.Table:
        """Give the rows of `there` and `here` that newer ones replace, each with the instant when it was.

        Parameters
        ----------
        there
            Rows of a table, one of a key.
        here
            Rows that came later, in their order; one that is older than the one of its key there is left out.
        newest
            Key and `known_at` of the rows that are left in the end.
        """
        known, group = quoted(known_at), listed(keys)
        columns = list(dict.fromkeys([*keys, known_at]))
        rows = pa.concat_tables([there, here])
        places = np.arange(rows.num_rows)
        sql = f"""
            with every as (
                select *, "{_PLACE}" < {there.num_rows} as "__there" from old
                union all by name select *, false as "__there", {rows.num_rows} as "{_PLACE}" from new
            ), known as (
                select *, max({known}) filter ("__there") over (partition by {group}) as "__since" from every
            ), last as (
                select * from known where "__since" is null or {known} >= "__since"
                qualify row_number() over (partition by {group}, {known} order by "{_PLACE}" desc) = 1
            ), next as (
                select *, lead({known}) over (partition by {group} order by {known}) as "__until" from last
            )
            select "{_PLACE}" as place, epoch_us("__until") as until from next
            where place < {rows.num_rows} and until is not null order by place
        """
        old = rows.select(columns).append_column(_PLACE, pa.array(places))
        found = self._numpy(sql, old=old, new=newest.select(columns))
        kept = np.ma.getdata(found["place"]).astype(np.int64)
        until = pa.array(np.ma.getdata(found["until"]).astype(np.int64)).cast(INSTANT)
        return rows.take(pa.array(kept)).append_column(REPLACED_AT, until)

    def _numpy(self, sql: str, **tables: Any) -> Mapping[str, Any]:
        with self._guard:
            connection = self._connection()
            for name, each in tables.items():
                connection.register(name, each)
            try:
                found: Mapping[str, Any] = connection.execute(sql).fetchnumpy()
            finally:
                for name in tables:
                    connection.unregister(name)
        return found

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            self._opened = duckdb.connect(":memory:", config={"threads": 1})
            self._opened.execute("set enable_external_access = false")
            self._opened.execute("set TimeZone = 'UTC'")
            # the rows that were asked about are the side that is held in memory, not the table they meet
            self._opened.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
            self._opened.execute("set lock_configuration = true")
        return self._opened
