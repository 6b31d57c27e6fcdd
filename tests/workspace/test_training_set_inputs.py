"""Training sets of rows that are not as one would have them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.errors import SourceError

START = datetime(1969, 12, 30, tzinfo=UTC)  # a window reaches over 1970
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="at", known_at="known")
features = {"n": agg.count("2d"), "mean": agg.mean("minutes", "2d"), "first": agg.first("minutes", "2d"),
            "last": agg.last("minutes"), "age": agg.age(), "lately": agg.decayed_sum("minutes", "1d")}
courier = noria.FeatureView("courier", source=trips, entity="courier", features=features)
number = noria.FeatureView("number", source=trips, entity="number", features=features)
days = noria.Table("days", key=("courier", "day"), event_at="day", known_at="known")
daily = noria.FeatureView("daily", source=days, entity="courier", features={"minutes": agg.last("minutes")})
"""
DAYS = """
select courier, date_trunc('day', "at") as day, max(known) as known, sum(minutes) as minutes
from trips group by all
"""


def instants(*days: float, zone: str | None = "UTC") -> pa.Array:
    return pa.array([START + timedelta(days=each) for each in days], pa.timestamp("us", "UTC")).cast(
        pa.timestamp("us", zone)
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"inputs_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "days.sql").write_text(DAYS)
    rows = pa.table(
        {
            "id": ["a", "b", "c", "d", "e"],
            "at": instants(1, 1, 1.5, 2, 3),  # two at once
            "known": instants(1, 1, 1.5, 4, 3),
            "courier": ["ada", "ada", "ada", "ada", None],
            "number": [7, 7, 7, 7, None],
            "minutes": [10, 20, 30, 40, 50],
        }
    )
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=9)))
        opened.ingest("trips", rows)
        yield opened


def values(made: pa.Table, view: str) -> list[list[float]]:
    columns = [made[name] for name in made.column_names if name.startswith(f"{view}__")]
    rows: list[list[float]] = np.column_stack([np.asarray(each) for each in columns]).tolist()
    return rows


def test_an_entity_that_is_missing_has_no_value_and_counts_for_nobody(project: noria.Project) -> None:
    spine = pa.table({"courier": pa.array([None, "", "ada"], pa.string()), "at": instants(3, 3, 3)})
    missing, nobody, ada = values(project.features.training_set(spine, ["courier"]), "courier")
    assert np.isnan(missing).all()
    assert nobody[0] == 0 and np.isnan(nobody[1:5]).all()
    assert ada[0] == 3


@pytest.mark.parametrize(
    "entity",
    [pa.array([7.0, np.nan]), pa.array([True, False]), pa.array([[7], [7]])],
)
def test_an_entity_that_is_neither_text_nor_whole_is_refused(
    project: noria.Project, entity: pa.Array
) -> None:
    spine = pa.table({"number": entity, "at": instants(3, 3)})
    with pytest.raises(SourceError, match="an entity or key is text or an integer"):
        project.features.training_set(spine, ["number"])


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.string(), pa.large_string(), pa.string_view()])
def test_an_entity_is_the_same_in_another_type(project: noria.Project, kind: pa.DataType) -> None:
    for many in (1, 1_000_000):  # one row at a time is read by entity
        spine = pa.table({"number": pa.array([7, 8]).cast(pa.string()).cast(kind), "at": instants(3, 3)})
        made = project.features.training_set(spine, ["number"], rows_at_once=many)
        assert [row[0] for row in values(made, "number")] == [3, 0]


def test_of_rows_at_once_the_keys_decide(project: noria.Project) -> None:
    spine = pa.table({"courier": ["ada"] * 2, "at": instants(1, 1.2)})
    made = project.features.training_set(spine, ["courier"])
    assert made["courier__last"].to_pylist() == [20, 20]
    assert made["courier__first"].to_pylist() == [10, 10]


def test_an_instant_before_the_data_begin_knows_nothing(project: noria.Project) -> None:
    spine = pa.table({"courier": ["ada"] * 3, "at": instants(-10_000, 0.999, 1)})
    made = project.features.training_set(spine, ["courier"])
    assert made["courier__n"].to_pylist() == [0, 0, 2]
    assert np.isnan(made["courier__last"].to_numpy()[:2]).all()


@pytest.mark.parametrize("zone", ["Europe/Vienna", "America/New_York", "+05:30"])
@pytest.mark.parametrize("unit", ["s", "ns"])
def test_a_spine_of_another_time_zone_is_the_same_instants(
    project: noria.Project, zone: str, unit: Any
) -> None:
    wanted = project.features.training_set(
        pa.table({"courier": ["ada"] * 3, "at": instants(1.5, 3, 5)}), ["courier"]
    )
    at = instants(1.5, 3, 5).cast(pa.timestamp(unit, zone))
    made = project.features.training_set(pa.table({"courier": ["ada"] * 3, "at": at}), ["courier"])
    assert made["at"].type == at.type
    np.testing.assert_array_equal(values(made, "courier"), values(wanted, "courier"))


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (instants(1, zone=None), "with a time zone"),
        (pa.array(["1970-01-01"]), "with a time zone"),
        (pa.array([None], pa.timestamp("us", "UTC")), "1 missing instants"),
    ],
)
def test_instants_that_are_none_are_refused(project: noria.Project, at: pa.Array, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        project.features.training_set(pa.table({"courier": ["ada"], "at": at}), ["courier"])


def test_a_table_that_has_lost_a_column_says_who_needs_it(project: noria.Project) -> None:
    project.transform()
    spine = pa.table({"courier": ["ada"], "at": instants(5)})
    assert project.features.training_set(spine, ["daily"])["daily__minutes"].to_pylist() == [40]
    (project.root / "models" / "days.sql").write_text(DAYS.replace("sum(minutes) as minutes", "1 as one"))
    project.transform()
    for work in (
        lambda: project.features.training_set(spine, ["daily"]),
        lambda: project.features.show("daily"),
    ):
        with pytest.raises(SourceError, match="'days' has no column 'minutes', which daily needs; there is"):
            work()
