"""What a query must not do, tried."""

import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from noria.errors import ConfigError, NoriaError, NotFound, QueryStopped
from noria.lake.store import Lake
from noria.warehouse.query import Limits, answering, query

SECRET = "do not tell"
HIDDEN = pa.table({"x": [SECRET]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"), ledger=None)
    made.append("flights", pa.table({"id": [1, 2]}), batch=1, app_id="test")
    made.append("crews", pa.table({"name": [SECRET]}), batch=1, app_id="test")
    return made


def ask(lake: Lake, sql: str) -> pa.Table:
    return query(sql, {name: partial(lake.reader, name) for name in lake.names()})


READING = [
    "read_csv('{file}')",
    "read_csv_auto('{file}')",
    "read_text('{file}')",
    "read_blob('{file}')",
    "read_json('{file}')",
    "read_parquet('{crews}')",
    "parquet_scan('{crews}')",
    "parquet_metadata('{crews}')",
    "read_duckdb('{file}')",
    "sniff_csv('{file}')",
    "glob('{folder}/*')",
    "arrow_scan(1, 2, 3)",
    "pandas_scan(1)",
    "python_map_function(1)",
    "query('select 1')",
    "query_table('crews')",
    "json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "duckdb_settings()",
    "duckdb_secrets()",
    "pragma_database_size()",
    "enable_logging()",
    "create_external_resource('x')",
]


@pytest.mark.parametrize("call", READING)
@pytest.mark.parametrize(
    "sql",
    [
        "select * from {call}",
        "select (select count(*) from {call})",
        "with a as (from {call}) select * from a",
        "select * from flights, {call}",
        "summarize (from {call})",
        "pivot (from {call}) on x using count(*)",
        "explain analyze select * from {call}",
    ],
)
def test_functions_that_reach_out_of_the_project_are_refused_by_name(
    call: str, sql: str, lake: Lake, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(f"x\n{SECRET}\n")
    crews = lake.reader("crews").files[0]
    filled = sql.format(call=call.format(file=secret, folder=tmp_path, crews=crews))
    with pytest.raises(ConfigError) as refused:
        ask(lake, filled)
    assert call.partition("(")[0] in str(refused.value) and "beyond" in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from '{file}'",
        'select * from "{file}"',
        "select * from '{crews}'",
        "select getenv('HOME')",
        "select * from hidden",
        "select * from HIDDEN",
        "select * from duckdb_tables",
        "select * from sqlite_master",
        "select * from other.main.flights",
        "copy flights to '{folder}/out.csv'",
        "copy (from flights) to '{flights}' (format parquet)",
        "export database '{folder}/out'",
        "attach '{folder}/x.db'",
        "install httpfs",
        "load '{file}'",
        "set memory_limit = '1TB'",
        "reset threads",
        "pragma database_list",
        "create table x as from flights",
        "delete from flights",
        "update flights set id = 3",
        "with a as (select 1) delete from flights",
        "create macro m() as 1",
        "prepare p as select 1",
        "begin",
        "checkpoint",
        "vacuum",
        "use memory",
        "import database '{folder}'",
        "select 1; attach '{folder}/x.db'",
        "/* select */ set threads = 1",
        "copy (pivot flights on id using count(*)) to '{folder}/out.csv'",
        "create table y as pivot flights on id using count(*)",
        "select * from pg_catalog.pg_settings; select 1",
    ],
)
def test_whatever_else_does_not_read_is_refused_and_leaves_nothing(
    sql: str, lake: Lake, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(f"x\n{SECRET}\n")
    hidden = HIDDEN
    before = _files(tmp_path)
    paths = {"file": secret, "folder": tmp_path}
    paths |= {name: lake.reader(name).files[0] for name in ("crews", "flights")}
    with pytest.raises(NoriaError) as refused:
        ask(lake, sql.format(**paths))
    assert isinstance(refused.value, ConfigError | NotFound)
    assert SECRET not in str(refused.value)
    assert _files(tmp_path) == before and hidden.num_rows == 1


def _files(folder: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_only_files_of_tables_that_the_query_names_are_open_to_the_engine(lake: Lake, tmp_path: Path) -> None:
    """The first wall is taken away: the engine refuses by itself."""
    import duckdb

    from noria.warehouse import query as module
    from noria.warehouse.query_tables import allowed_files

    connection = duckdb.connect(":memory:")
    opened = lake.reader("flights")
    connection.execute("set allowed_paths = $1", [allowed_files([opened])])
    connection.execute(module._LOCK)
    assert connection.sql(f"from read_parquet('{opened.files[0]}')").fetchall() == [(1,), (2,)]
    for sql in (
        f"from read_parquet('{lake.reader('crews').files[0]}')",
        "from read_text('/etc/hostname')",
        "from glob('/etc/*')",
        f"copy (select 1) to '{tmp_path / 'never.csv'}'",
        f"attach '{tmp_path / 'never.db'}'",
        "set enable_external_access = true",
        "set allowed_paths = ['/etc/hostname']",
        "load httpfs",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql).fetchall()
    assert not list(tmp_path.glob("never.*"))


def test_a_recursion_without_end_is_stopped() -> None:
    endless = "with recursive r as (select 1 as x union all select x + 1 from r) select count(*) from r"
    began = time.monotonic()
    with pytest.raises(QueryStopped, match=r"longer than the 0\.2 s"):
        query(endless, {}, limits=Limits(timeout=timedelta(seconds=0.2)))
    assert time.monotonic() - began < 20


def test_an_answer_that_is_read_in_batches_is_stopped_as_well() -> None:
    wide = "select a.range + b.range as n from range(10_000_000) a, range(10_000_000) b"
    limits = Limits(timeout=timedelta(seconds=0.2))
    with pytest.raises(QueryStopped), answering(wide, {}, limits=limits) as answer:
        for _ in answer:
            pass


def test_a_query_that_eats_memory_is_stopped() -> None:
    hungry = "select list(a.range * b.range) as all_of_them from range(100_000) a, range(100_000) b"
    with pytest.raises(QueryStopped, match="100MB of memory"):
        query(hungry, {}, limits=Limits(memory="100MB"))


def test_what_does_not_fit_into_memory_is_spilled_to_a_folder_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[int] = []
    sql = "select hash(range) as h, repeat(range::varchar, 9) as t from range(3_000_000) order by h"
    with answering(sql, {}, limits=Limits(memory="150MB", threads=1)) as answer:
        rows = 0
        for batch in answer:
            seen = seen or [each.stat().st_size for each in tmp_path.rglob("*.tmp")]
            rows += batch.num_rows
    assert rows == 3_000_000 and sum(seen) > 50_000_000
    assert list(tmp_path.iterdir()) == []


def test_nested_statements_neither_crash_nor_pass() -> None:
    deep = "select " + "(" * 400 + "1" + ")" * 400
    wide = "select " + "+".join(["1"] * 5_000)
    for sql in (deep, wide, "select * from " + "(from " * 300 + "x" + ")" * 300):
        try:
            query(sql, {})
        except (ConfigError, NotFound):
            continue


def test_ctrl_c_ends_a_query_at_once(tmp_path: Path) -> None:
    """In a process of its own, since the signal is for the whole of it."""
    script = """
import os, signal, threading
from noria.warehouse.query import query
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    query("select count(*) from range(10000000) a, range(10000000) b where a.range * b.range % 7 = 3", {})
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.stdout == "stopped\n", done.stderr


def test_a_folder_whose_name_is_a_pattern_is_read_all_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / f"[{name}]"
        pads.write_dataset(pa.table({"x": [name]}), folder, format="parquet")
        assert query("from t", {"t": partial(pads.dataset, folder)}).to_pylist() == [{"x": name}]
