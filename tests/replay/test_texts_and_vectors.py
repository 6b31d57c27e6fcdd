"""A model that reads texts and vectors of a view lives through a replay, and another one takes over."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import noria
from noria.audit.trace import trace

_DELIVERED = 'return _table("parcel_id", "courier", "district", "delivered_at", "delay", "late")'
_WITH_ROUTE = """import pyarrow as pa

    rows = _table("parcel_id", "courier", "district", "delivered_at", "delay", "late")
    route = [None if delay % 5 == 0 else [delay % 7, 0.5] for delay in rows["delay"].to_pylist()]
    return rows.append_column("route", pa.array(route, pa.list_(pa.float64())))"""
_LAST = '"last_delay": agg.last("delay"),'
_MORE = """
        "last_district": agg.last_text("district"),
        "late_district": agg.last_text("district", max_age="1d", where=[("late", "==", True)]),
        "route": agg.embedding("route", 2),"""
READ = {
    "courier__last_district": "text",
    "courier__late_district": "text",
    "courier__route_0": "feature",
    "courier__route_1": "feature",
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Path(__file__).parents[1] / "projects" / "tiny"
    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("texts") / "tiny"))
    text = (folder / "tiny.py").read_text()
    assert text.count(_DELIVERED) == text.count(_LAST) == 1
    (folder / "tiny.py").write_text(text.replace(_DELIVERED, _WITH_ROUTE).replace(_LAST, f"{_LAST}{_MORE}"))
    done = subprocess.run(
        [sys.executable, "-m", "noria", "replay", "--project", str(folder)],
        cwd=folder.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_what_was_served_is_what_offline_gives_day_by_day(lived: Path) -> None:
    with noria.open(lived) as project:
        days = project.ledger.list_events(verb="replay.day_done")
        assert sum(each.payload["parity_rows"] for each in days) > 500
        assert [each.payload["parity_differences"] for each in days] == [0] * len(days)
        features = project.lake.read("predictions")["features"].combine_chunks()
    assert features.type.field("courier__last_district").type == pa.string()
    last = features.field("courier__last_district")
    assert last.null_count < len(last) / 10
    assert set(last.drop_null().to_pylist()) == {"docks", "hill", "market", "meadow"}
    assert 0 < pc.count(features.field("courier__route_0"), mode="only_null").as_py() < len(features)


def test_every_model_reads_them_and_is_watched_on_them(lived: Path) -> None:
    with noria.open(lived) as project:
        models = project.ledger.list_versions(kind="model", name="late_parcel")
        assert len(models) > 1  # one was retrained, and judged on rows with texts
        for each in models:
            model = project.registry.load(each)
            kinds = {column.name: column.kind for column in model.signature.inputs}
            assert {name: kinds[name] for name in READ} == READ
            assert {name: model.profile.columns[name].kind for name in READ} == {
                name: "category" if kind == "text" else "number" for name, kind in READ.items()
            }
        told = project.features.statistics(models[-1].ref)
        assert {each.name: each.kind for each in told.features}["courier__last_district"] == "category"


def test_a_prediction_is_traced_to_the_rows_that_made_them(lived: Path) -> None:
    with noria.open(lived) as project:
        log = project.lake.read("predictions")
        filled = pc.is_valid(pc.struct_field(log["features"], "courier__late_district"))
        wanted = log.filter(pc.and_(filled, log["answered"]))["prediction_id"][-1].as_py()
        traced = trace(
            wanted,
            ledger=project.ledger,
            lake=project.lake,
            registry=project.registry,
            trainings=project.declarations.trainings,
        )
    assert READ.keys() <= {each.name for each in traced.features}
    assert [each for each in traced.features if not each.equal] == []
