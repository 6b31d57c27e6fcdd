"""Models read the files of tables as they are; they see these files and no others."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.warehouse.small_project import SmallProject, orders

from noria.lake.files import open_files
from noria.lake.tables import Tables
from noria.warehouse.session import BuildFailed, Session
from noria.warehouse.snapshots import snapshot_of

NAN, INF = float("nan"), float("inf")
REALS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path / "shop")


def links(shop: SmallProject) -> list[Path]:
    return [each for each in (shop.root / ".noria" / "warehouse").rglob("*.parquet") if each.is_file()]


def test_a_nan_is_the_greatest_number_in_models_and_in_queries(shop: SmallProject) -> None:
    shop.add(pa.table({"x": [1.0, 2.0, NAN]}), "numbers")
    shop.add(pa.table({"x": [3.0]}), "numbers")
    shop.models(large="select count(*) as n from numbers where x > 5")
    shop.transform()
    assert shop.rows("large") == [{"n": 1}]
    with shop.open() as project:
        assert project.query("select x from numbers where x > 5").num_rows == 1


@given(batches=st.lists(st.lists(REALS, min_size=1, max_size=5), min_size=1, max_size=3), low=REALS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_give_the_rows_that_arrow_gives(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[float | None]], low: float | None
) -> None:
    root = tmp_path_factory.mktemp("lake")
    files = open_files(str(root / "tables"))
    tables = Tables(files)
    schema = pa.schema([("x", pa.float64()), ("n", pa.int64())])
    table = tables.create("numbers", schema)
    for number, values in enumerate(batches):
        rows = pa.table({"x": pa.array(values, pa.float64()), "n": range(len(values))}, schema=schema)
        assert (
            table.append(rows, app_id="t", batch=number, after=table.transaction("t"), facts={}) is not None
        )
    bound = "null" if low is None else f"'{low}'::double"
    sql = f"select x::varchar, n from numbers where x >= {bound} order by all"
    found = []
    with Session(spill=root / "spill") as session:
        session.offer("numbers", snapshot_of(table))
        found.append(session.run(sql))
        session.forget()
        session._connection.register("numbers", table.dataset())
        found.append(session.run(sql))
    assert found[0] == found[1]


def test_columns_that_came_later_are_null_in_older_files(shop: SmallProject) -> None:
    shop.add(pa.table({"x": pa.array([1], pa.int32())}), "numbers")
    tables = Tables(open_files(str(shop.root / ".noria" / "storage" / "tables")))
    assert tables.get("numbers").widen(pa.schema([("more", pa.string())]))
    shop.models(all_of_it="select x, more from numbers")
    shop.transform()
    assert shop.rows("all_of_it") == [{"x": 1, "more": None}]


def test_nothing_is_left_in_the_folder_that_models_may_read(shop: SmallProject) -> None:
    shop.add(orders((0, "a", 10)))
    shop.models(fine="select * from orders", wrong="select 1 // (amount - 10) as n from orders")
    assert shop.transform()["fine"] == "built"
    assert links(shop) == []


def test_a_session_reads_no_file_but_those_that_it_was_given(tmp_path: Path) -> None:
    tables = Tables(open_files(str(tmp_path / "tables")))
    for name in ("mine", "other"):
        table = tables.create(name, pa.schema([("x", pa.int64())]))
        assert table.append(pa.table({"x": [1]}), app_id="t", batch=1, after=None, facts={}) is not None
    other = tables.get("other")
    (path,) = other.local_paths(other.files) or []
    with Session(spill=tmp_path / "spill") as session:
        session.begin("model")
        session.offer("mine", snapshot_of(tables.get("mine")))
        assert session.run("select x from mine") == [(1,)]
        for reached in (path, tmp_path / "spill" / "read" / ".." / ".." / path.relative_to(tmp_path)):
            with pytest.raises(BuildFailed, match="reaches for something outside of the lake"):
                session.run(f"select * from read_parquet('{reached}')")
        session.forget()
        session.offer("other", snapshot_of(other))
        assert session.run("select x from other") == [(1,)]


def test_where_files_cannot_be_linked_they_come_through_arrow(
    shop: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pa.table({"n": range(200_000), "word": [f"w{each % 77}" for each in range(200_000)]})
    shop.add(many, "numbers")
    shop.models(plain="select * from numbers where n % 7 > 0")
    shop.transform()
    with shop.open() as project:
        before = project.lake.version_digest("plain")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    real = os.link
    monkeypatch.setattr(
        "noria.warehouse.session.os.link", lambda *a: refuse() if "spill" in str(a[1]) else real(*a)
    )
    with shop.open() as project:
        project.transform(full=True)
        assert project.lake.version_digest("plain") == before


def test_a_file_that_is_damaged_is_told_by_its_own_name(shop: SmallProject) -> None:
    shop.add(orders((0, "a", 10)))
    shop.models(plain="select * from orders")
    (file,) = (shop.root / ".noria" / "storage" / "tables" / "orders").glob("*.parquet")
    file.write_bytes(b"no parquet at all")
    told = shop.reasons()["plain"]
    assert file.name in told
    assert "spill" not in told


def test_a_transform_loads_no_more_than_it_needs(shop: SmallProject) -> None:
    shop.add(orders((0, "a", 10), (1, "b", 5)))
    shop.models(plain="-- test: amount > 0\nselect * from orders", total="select sum(amount) as n from plain")
    shop.transform()
    script = (
        "import sys; from noria.cli.entry import main; "
        f"assert main(['transform', '--full', '--project', {str(shop.root)!r}]) == 0; "
        "print(sorted({'pandas', 'pyarrow.dataset', 'sqlglot', 'rich', 'noria.features.declarations'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
