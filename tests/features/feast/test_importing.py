"""Feast repositories as modules of noria: what is read, what is told, and the same values."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.features.feast.rides import write_rides

import noria
from noria.errors import ConfigError, NotFound, SourceError
from noria.features.feast import Imported, Note, import_feast

START = datetime(2024, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


def stats(rows: list[tuple[int, int, int, float | None]]) -> pa.Table:
    """Give rows of drivers: who, minutes until the event, minutes until it was created, rate."""
    happened = [START + timedelta(minutes=each[1]) for each in rows]
    return pa.table(
        {
            "driver_id": pa.array([each[0] for each in rows], pa.int64()),
            "event_timestamp": pa.array(happened, INSTANT),
            "created": pa.array(
                [at + timedelta(minutes=each[2]) for at, each in zip(happened, rows, strict=True)],
                INSTANT,
            ),
            "conv_rate": pa.array([each[3] for each in rows], pa.float32()),
            "trips": pa.array([each[1] for each in rows], pa.int64()),
            "car": [f"car {each[1] % 3}" for each in rows],
            "config": ["{}"] * len(rows),
            "vector": pa.array([[float(each[1]), 0.0, 1.0] for each in rows], pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = write_rides(tmp_path / "feast_repo")
    pq.write_table(
        stats([(1, 0, 5, 0.5), (1, 60, 5, 0.7), (2, 30, 5, None)]), folder / "data/driver_stats.parquet"
    )
    zones = pa.table({"z": ["n"], "ts": pa.array([START], pa.timestamp("us")), "t": [3.5], "sky": ["clear"]})
    pq.write_table(zones, folder / "data" / "zones.parquet")
    return folder


@pytest.fixture
def imported(repository: Path) -> Imported:
    return import_feast(repository, root=repository.parent)


@pytest.fixture
def project(imported: Imported, tmp_path: Path) -> Iterator[noria.Project]:
    name = f"rides_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "rides"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(imported.module)
    with noria.open(tmp_path) as opened:
        yield opened


def told(imported: Imported, what: str) -> Note:
    (found,) = [each for each in imported.notes if each.what == what]
    return found


def test_views_sources_and_services_are_read(imported: Imported) -> None:
    assert imported.project == "rides"
    assert imported.views == ("paid", "driver_hourly_stats", "ever", "zone_weather")
    assert imported.datasets == ("payments", "driver_stats_source", "zones")
    assert imported.streams == ("payments",)
    assert imported.services == ("service",)


def test_the_module_loads_and_says_what_feast_said(project: noria.Project) -> None:
    views, datasets = project.declarations.views, project.declarations.datasets
    hourly = views["driver_hourly_stats"]
    assert (hourly.owner, hourly.description, hourly.ttl) == ("ada@example.org", "How drivers did", "1d")
    assert hourly.tags == ("team:rides", "beta")
    assert hourly.description_of("conv_rate") == 'Accepted of "offered"'
    assert [each.name for each in hourly.spec().features] == ["conv_rate", "trips", "car", "vector"]
    assert views["ever"].ttl is None
    assert views["zone_weather"].ttl == "14d"
    assert views["zone_weather"].spec().entity == ("z",)  # as the file has it
    assert [each.name for each in views["zone_weather"].spec().features] == ["temperature", "sky"]
    source = datasets["driver_stats_source"]
    assert (source.keys, source.known_at) == (("driver_id", "event_timestamp", "created"), "created")
    assert source.files == "feast_repo/data/driver_stats.parquet"
    assert datasets["zones"].known_at == "ts"
    paid = {each.name: each.aggregation for each in views["paid"].spec().features}
    assert (paid["sum_euros_129600s"].kind, paid["sum_euros_129600s"].window_s) == ("sum", 36 * 3_600)
    assert (paid["payments_7d"].kind, paid["payments_7d"].window_s) == ("count", 7 * 86_400)
    assert project.declarations.streams["payments"].into is datasets["payments"]


def test_the_module_is_clean(imported: Imported, tmp_path: Path) -> None:
    path = tmp_path / "clean.py"
    path.write_text(imported.module)
    for command in (["check", "--isolated", "--select", "E4,E7,E9,F,I"], ["format", "--isolated", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_does_not_map_is_told_with_its_line(imported: Imported, repository: Path) -> None:
    for note in imported.notes:
        assert note.why
        assert note.instead
        assert len((repository / note.file).read_text().splitlines()) >= note.line
    lines = (repository / "views.py").read_text().splitlines()
    assert 'Field(name="config"' in lines[told(imported, "field config").line - 1]
    assert "for name in" in lines[told(imported, "what this `for` makes").line - 1]
    demand = told(imported, "on-demand view surged")
    assert (demand.kind, 'inputs=[hourly, "surge"], outputs=["rate"]' in demand.instead) == ("left out", True)
    assert told(imported, "surged in service activity").kind == "left out"
    assert told(imported, "driver_hourly_stats in service activity").kind == "differs"
    assert told(imported, "zone__weather").instead == "it is called zone_weather"
    assert told(imported, "entity zone_id").why == "the source calls it z"
    assert told(imported, "view doubled").kind == "left out"
    assert "Table" in told(imported, "view doubled").instead
    assert "median" in told(imported, "aggregation median of euros").what
    assert "kafka://broker:9092" in told(imported, "stream payments").instead
    assert "proj.data.payments" in told(imported, "rows of payments").why
    assert told(imported, "push source driver_push").kind == "differs"
    assert "redis://" in told(imported, "online store redis").instead
    assert told(imported, "online store redis").line == 5
    assert "old" not in {each.file.partition("/")[0] for each in imported.notes}


def expected(rows: pa.Table, driver: int, at: datetime, ttl: timedelta | None) -> float:
    """Give what Feast's documentation says: the newest row up to then, by creation of one instant."""
    known = [
        (row["event_timestamp"], row["created"], row["conv_rate"])
        for row in rows.to_pylist()
        if row["driver_id"] == driver
        and row["event_timestamp"] <= at
        and (ttl is None or row["event_timestamp"] >= at - ttl)
    ]
    found = max(known, default=None, key=lambda each: each[:2])
    return np.nan if found is None or found[2] is None else found[2]


minutes = st.integers(0, 4_000)
row = st.tuples(
    st.integers(1, 3),
    minutes,
    st.integers(0, 30),
    st.none() | st.floats(0, 1, width=32, allow_subnormal=False),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(row, min_size=1, max_size=25, unique_by=lambda each: each[:3]),
    asked=st.lists(st.tuples(st.integers(1, 4), st.integers(-100, 6_000)), min_size=1, max_size=15),
)
def test_historical_features_are_those_of_feast(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int, float | None]],
    asked: list[tuple[int, int]],
) -> None:
    root = tmp_path_factory.mktemp("rides")
    table = stats(rows)
    repository = write_rides(root / "feast_repo")
    pq.write_table(table, repository / "data" / "driver_stats.parquet")
    name = f"rides_{root.name.replace('-', '_')}"
    (root / "noria.toml").write_text(f'[project]\nname = "rides"\nmodules = ["{name}"]\n')
    (root / f"{name}.py").write_text(import_feast(repository, root=root, known_at="event").module)
    edges = [(each[0], each[1] + 1_440) for each in rows]  # the last minute of the ttl
    wanted = [*asked, *edges]
    instants = [START + timedelta(minutes=each[1]) for each in wanted]
    spine = pa.table(
        {
            "driver_id": pa.array([each[0] for each in wanted], pa.int64()),
            "at": pa.array(instants, INSTANT),
        }
    )
    with noria.open(root) as project:
        (landed,) = project.ingest("driver_stats_source")
        assert landed.rejected == 0
        made = project.features.training_set(spine, ["driver_hourly_stats", "ever"])
    for column, ttl in (("driver_hourly_stats", timedelta(days=1)), ("ever", None)):
        right = [expected(table, each[0], at, ttl) for each, at in zip(wanted, instants, strict=True)]
        np.testing.assert_array_equal(made.column(f"{column}__conv_rate"), right)


def test_instants_of_a_load_are_told(repository: Path) -> None:
    late: list[tuple[int, int, int, float | None]] = [(1, each, 60 * 24 * 90, 0.5) for each in range(5)]
    pq.write_table(stats(late), repository / "data" / "driver_stats.parquet")
    note = told(import_feast(repository, root=repository), "known_at of driver_stats_source")
    assert "half of the rows came 90 days late" in note.why
    early: list[tuple[int, int, int, float | None]] = [(1, each, -5, 0.5) for each in range(5)]
    pq.write_table(stats(early), repository / "data" / "driver_stats.parquet")
    found = import_feast(repository, root=repository)
    assert (
        "5 of the first 5 rows have created before event_timestamp"
        in told(found, "known_at of driver_stats_source").why
    )
    assert 'known_at="created"' not in found.module


def test_rows_of_one_key_are_merged_and_told(repository: Path) -> None:
    pq.write_table(stats([(1, 0, 5, 0.5), (1, 0, 5, 0.7)]), repository / "data" / "driver_stats.parquet")
    found = import_feast(repository, root=repository)
    assert 'write="merge"' in found.module
    assert "1 of the first 2 rows" in told(found, "dataset driver_stats_source").why


def test_files_elsewhere_are_named(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    found = import_feast(repository, root=other)
    assert "files=" not in found.module
    assert "noria ingest driver_stats_source" in told(found, "rows of driver_stats_source").instead


@pytest.mark.parametrize(
    ("code", "what", "why"),
    [
        ("FeatureView(name='v', entities=[], source=S, schema=[F])", "view v", "it has no entity"),
        ("FeatureView(name='v', entities=['x'], source=S, schema=[F])", "view v", "there is no entity 'x'"),
        ("FeatureView(name='v', entities=[d], source=make(), schema=[F])", "view v", "code that is not run"),
        ("FeatureView(name='v', entities=[d], source=[S], schema=[F])", "view v", "made of other views"),
        ("FeatureView(name='v', entities=[d], source=S, schema=[])", "view v", "its rows are not at hand"),
        (
            "FeatureView(name='v', entities=[d], source=S, schema=[F], ttl=timedelta(days=days))",
            "ttl of v",
            "not known without running",
        ),
        (
            "FeatureView(name='v', entities=[d], schema=[F], source=FileSource(path=os.environ['X'],"
            " timestamp_field='t'))",
            "path of v_source",
            "os.environ['X']",
        ),
        (
            "FeatureView(name='v', entities=[d], schema=[F], source=FileSource(path='x.parquet'))",
            "source FileSource",
            "it names no timestamp_field",
        ),
        ("LabelView(name='l', entities=[d], source=S, schema=[F])", "LabelView l", "outcomes of predictions"),
        ("lonely = FileSource(path='y.parquet', timestamp_field='t')", "source lonely", "no view"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, code: str, what: str, why: str) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    (tmp_path / "views.py").write_text(
        "import os\nfrom datetime import timedelta\n"
        "from feast import Entity, FeatureView, Field, FileSource, LabelView\n"
        "from feast.types import Float32\n"
        "d = Entity(name='d')\nF = Field(name='x', dtype=Float32)\n"
        "S = FileSource(path='z.parquet', timestamp_field='t')\n"
        "kept = FeatureView(name='kept', entities=[d], source=S, schema=[F])\n" + code + "\n"
    )
    found = import_feast(tmp_path, root=tmp_path)
    assert "kept" in found.views
    notes = [each for each in found.notes if each.line >= 9]
    assert any(why in each.why for each in notes), notes
    assert any(each.what.startswith(what.split(" ", maxsplit=1)[0]) for each in notes), notes


def test_a_source_with_the_name_of_a_view_is_called_otherwise(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    (tmp_path / "views.py").write_text(
        "from feast import BigQuerySource, Entity, FeatureView, Field\nfrom feast.types import Float32\n"
        "d, x = Entity(name='d'), Field(name='x', dtype=Float32)\n"
        "trips = FeatureView(name='trips', entities=[d], schema=[x],\n"
        "  source=BigQuerySource(table='p.q.trips', timestamp_field='t'))\n"
    )
    found = import_feast(tmp_path, root=tmp_path)
    assert (found.views, found.datasets) == (("trips",), ("trips_rows",))


def test_modules_may_import_each_other(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from .keys import *\n")
    (tmp_path / "parts" / "keys.py").write_text(
        "import parts\nimport feast as f\nKEY: str = 'k' + 'ey'\nd = f.Entity(name='d', join_keys=[KEY])\n"
    )
    (tmp_path / "views.py").write_text(
        "import parts\nfrom feast import *\nimport feast\n"
        "v = feast.FeatureView(name=f'{parts.KEY}s', entities=[parts.d],\n"
        "  schema=[*[feast.Field(name='x', dtype=feast.types.Float32)]],\n"
        "  source=feast.FileSource(path='z.parquet', timestamp_field='t'))\n"
    )
    found = import_feast(tmp_path, root=tmp_path)
    assert found.views == ("keys",)
    assert 'entity="key"' in found.module


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no Feast repository named"):
        import_feast(tmp_path, root=tmp_path)
    write_rides(tmp_path / "r")
    with pytest.raises(ConfigError, match="choose 'created' or 'event'"):
        import_feast(tmp_path / "r", root=tmp_path, known_at="then")  # type: ignore[arg-type]
    (tmp_path / "r" / "wrong.py").write_text("def f(:\n")
    with pytest.raises(SourceError, match=r"wrong\.py, line 1: no Python"):
        import_feast(tmp_path / "r", root=tmp_path)
