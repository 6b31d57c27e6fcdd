"""Training sets are made piece by piece: which pieces makes no difference, and all may exceed memory."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.errors import ConfigError, SourceError
from noria.workspace.kept_sets import SetWriter

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="at", known_at="known", max_rejected_share=1.0)
courier = noria.FeatureView("courier", source=trips, entity="courier", features={
    "n": agg.count("7d"), "last": agg.last("minutes"), "most": agg.max("minutes", "2d"),
    "faded": agg.decayed_mean("minutes", "1d"), "kinds": agg.distinct("zone", "7d")})
zone = noria.FeatureView("zone", source=trips, entity=("zone", "courier"), features={"age": agg.age()})
recent = noria.FeatureView("recent", source=trips, entity="zone", features={"n": agg.count("1d")})
"""


def trips(random: Random, rows: int) -> pa.Table:
    at = [START + timedelta(minutes=random.randrange(14 * 24 * 60)) for _ in range(rows)]
    return pa.table(
        {
            "id": list(range(rows)),
            "at": pa.array(at, INSTANT),
            "known": pa.array([each + timedelta(hours=random.choice((0, 1, 30))) for each in at], INSTANT),
            "courier": pa.array([f"c{random.randrange(40)}" for _ in range(rows)]),
            "zone": [random.randrange(12) for _ in range(rows)],
            "minutes": [random.randrange(90) for _ in range(rows)],
        }
    )


def spine(random: Random, rows: int) -> pa.Table:
    at = [START + timedelta(minutes=random.randrange(16 * 24 * 60)) for _ in range(rows)]
    couriers = [random.choice((None, "zoe", f"c{random.randrange(40)}")) for _ in range(rows)]
    return pa.table(
        {
            "courier": pa.array(couriers).dictionary_encode(),
            "zone": pa.array([str(random.randrange(14)) for _ in range(rows)]),  # integers in the source
            "at": pa.array(at, INSTANT),
            "late": pa.array([random.choice((None, True, False)) for _ in range(rows)]),
            "tags": pa.array([["a"] * random.randrange(3) for _ in range(rows)]),
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"large_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=20)))
        opened.ingest("trips", trips(Random(1), 2_000))
        yield opened


VIEWS = ["courier", "zone", "recent"]


def test_pieces_make_no_difference(project: noria.Project) -> None:
    rows = spine(Random(2), 1_000)
    whole = project.features.training_set(rows, VIEWS)
    assert whole.num_rows == 1_000
    assert whole.column("zone__age").null_count == 0
    for many in (1_000, 999, 64, 7):
        made = project.features.training_set(rows, VIEWS, rows_at_once=many)
        assert made.schema.metadata[b"noria.version"] == b"training_set:1"  # the very bytes
    stream = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=13))
    made = project.features.training_set(stream, VIEWS, rows_at_once=50)
    assert made.schema.metadata[b"noria.version"] == b"training_set:1"
    assert len(project.ledger.list_versions(kind="training_set")) == 1


def test_the_bytes_do_not_tell_the_pieces(tmp_path: Path) -> None:
    rows = spine(Random(3), 70_000)
    rows = rows.set_column(0, "courier", rows["courier"].cast(pa.string()))
    found = set()
    for number, pieces in enumerate(([70_000], [65_536, 4_464], [1, 65_535, 4_000, 464], [7] * 10_000)):
        writer = SetWriter(tmp_path / str(number))
        at = 0
        for size in pieces:
            writer.write(rows.slice(at, size))
            at += size
        assert writer.rows == 70_000
        assert writer.close() == (tmp_path / str(number)).stat().st_size
        found.add((tmp_path / str(number)).read_bytes())
    assert len(found) == 1
    read = pa.ipc.open_file(pa.memory_map(str(tmp_path / "0"))).read_all()
    assert read.equals(rows)


@pytest.mark.parametrize("many", [1_000_000, 3])
def test_a_select_or_a_declared_spine_comes_in_pieces_too(project: noria.Project, many: int) -> None:
    sql = 'select courier, zone, "at" from trips order by id'
    asked = project.features.training_set(sql, VIEWS, name="asked", rows_at_once=many + 300)
    declared = noria.Spine(project.declarations.datasets["trips"], id="id", at="at")
    made = project.features.training_set(declared, ["recent"], rows_at_once=many + 300)
    assert made.num_rows == asked.num_rows == 2_000
    assert made["recent__n"].equals(asked["recent__n"])
    for version in project.ledger.list_versions(kind="training_set"):
        edges = project.ledger.list_edges(run=version.run)
        assert "trips:1" in {project.ledger.get_version_by_id(each.version).ref for each in edges}


def test_no_row_is_an_empty_set(project: noria.Project) -> None:
    made = project.features.training_set(spine(Random(4), 0), VIEWS)
    assert made.num_rows == 0
    assert [each for each in made.column_names if "__" in each] == [
        "courier__n", "courier__last", "courier__most", "courier__faded", "courier__kinds", "zone__age",
        "recent__n",
    ]  # fmt: skip
    assert project.features.read_training_set().schema.equals(made.schema)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"rows_at_once": 0}, ConfigError, "rows_at_once is 0"),
        ({"spine": 7}, SourceError, "which is no frame"),
    ],
)
def test_what_cannot_be_is_refused(
    project: noria.Project, given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as refused:
        project.features.training_set(**{"spine": spine(Random(5), 3), "features": VIEWS, **given})
    assert told in str(refused.value)
    assert not list((project.state / "scratch").iterdir())


def test_the_module_s_own_verb_takes_the_project_of_the_folder(
    project: noria.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    rows = spine(Random(6), 20)
    made = noria.training_set(rows, ["recent"], name="here")
    assert made["recent__n"].equals(project.features.training_set(rows, ["recent"], name="here")["recent__n"])
    assert made.schema.metadata[b"noria.version"] == b"here:1"


def test_a_set_that_is_kept_is_rid_of_a_subject_piece_by_piece(project: noria.Project) -> None:
    project.features.training_set(spine(Random(7), 500), VIEWS, name="kept")
    before = project.features.read_training_set("kept")
    assert "c7" in before["courier"].to_pylist()
    project.forget("trips", "courier", ["c7"])
    left = project.features.read_training_set("kept")
    assert left.num_rows < 500
    assert left["courier"].to_pylist() == [each for each in before["courier"].to_pylist() if each != "c7"]
