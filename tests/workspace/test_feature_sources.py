"""What feature views are made from: streams, tables and views of the warehouse, queries."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.errors import ConfigError, NotFound, SourceError
from noria.workspace.features.sources import SourceStates, is_table

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", known_at="synced_at")
events = noria.Stream("trip-events", into=trips)
live = noria.FeatureView("live", source=events, entity="courier", features={"n": agg.count("7d")})
days = noria.Table("courier_days", key=("courier", "day"), event_at="day", known_at="closed_at")
daily = noria.FeatureView("daily", source=days, entity="courier", features={"minutes": agg.last("minutes")})
slow = noria.Query(
    "slow_trips", "select id, courier, ended_at, synced_at, minutes from trips where minutes > 30",
    key="id", event_at="ended_at", known_at="synced_at")
slowly = noria.FeatureView("slowly", source=slow, entity="courier", features={
    "n": agg.count("7d"), "most": agg.max("minutes", "7d"), "mean_1d": agg.decayed_mean("minutes", "1d")})
seen = noria.Table("quick_trips", key="id", event_at="ended_at", known_at="synced_at")
quickly = noria.FeatureView("quickly", source=seen, entity="courier", features={"n": agg.count("7d")})
"""
DAYS = """
select courier, date_trunc('day', ended_at) as day, max(synced_at) as closed_at, sum(minutes) as minutes
from trips group by all
"""
QUICK = """-- materialize: view
select * from trips where minutes <= 30
"""


def trips(*rows: tuple[str, float, float, str, int]) -> pa.Table:
    """Give trips: id, days after the start, hours until known, courier, minutes."""
    return pa.table(
        {
            "id": [each[0] for each in rows],
            "ended_at": pa.array([START + timedelta(days=each[1]) for each in rows], INSTANT),
            "synced_at": pa.array([START + timedelta(days=each[1], hours=each[2]) for each in rows], INSTANT),
            "courier": [each[3] for each in rows],
            "minutes": [each[4] for each in rows],
        }
    )


ROWS = trips(
    ("a", 0.5, 1, "ada", 20), ("b", 1.0, 30, "ada", 50), ("c", 1.5, 0, "ben", 31), ("d", 2, 0, "ada", 10)
)
ADA, BEN = ("ada", 2.5), ("ben", 2.5)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], noria.Project]]:
    opened: list[noria.Project] = []

    def made(declared: str) -> noria.Project:
        name = f"sources_{tmp_path.name.replace('-', '_')}_{len(opened)}"
        (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
        (tmp_path / f"{name}.py").write_text(declared)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "courier_days.sql").write_text(DAYS)
        (tmp_path / "models" / "quick_trips.sql").write_text(QUICK)
        opened.append(noria.open(tmp_path))
        opened[-1].follow(ReplayClock(START + timedelta(days=3)))
        return opened[-1]

    yield made
    for each in opened:
        each.close()


@pytest.fixture
def project(make: Callable[[str], noria.Project]) -> noria.Project:
    made = make(DECLARED)
    made.ingest("trips", ROWS)
    return made


def spine(*rows: tuple[str, float]) -> pa.Table:
    return pa.table(
        {
            "courier": [each[0] for each in rows],
            "at": pa.array([START + timedelta(days=each[1]) for each in rows], INSTANT),
        }
    )


def read_by(project: noria.Project, made: pa.Table) -> list[str]:
    """Name the versions that the run of a training set has read."""
    version = project.ledger.list_versions(kind="training_set")[-1]
    assert made.schema.metadata[b"noria.version"].decode() == version.ref
    edges = project.ledger.list_edges(run=version.run)
    read = [project.ledger.get_version_by_id(each.version) for each in edges if each.role == "input"]
    return sorted(each.ref for each in read if each.uri.startswith("delta:"))


def test_a_stream_stands_for_its_dataset(project: noria.Project) -> None:
    made = project.features.training_set(spine(ADA, BEN), ["live"])
    assert made.column("live__n").to_pylist() == [3, 1]
    assert read_by(project, made) == ["trips:1"]
    assert [each.name for each in project.datasets.show("trips").readers if each.kind == "feature view"]


def test_a_table_of_the_warehouse_is_read_at_its_version(project: noria.Project) -> None:
    project.transform()
    made = project.features.training_set(spine(ADA, BEN, ("ada", 1.1)), ["daily"])
    assert made.column("daily__minutes").to_pylist() == [10, 31, 20]  # by when the day was closed
    assert read_by(project, made) == ["courier_days:1"]


def test_a_query_is_read_at_the_versions_of_its_tables(project: noria.Project) -> None:
    made = project.features.training_set(spine(ADA, BEN, ("ada", 2.2)), ["slowly", "live"])
    assert made.column("slowly__n").to_pylist() == [1, 1, 0]  # b was known after 2.25 days
    assert made.column("slowly__most").to_pylist()[:2] == [50, 31]
    assert read_by(project, made) == ["trips:1"]


def test_a_view_of_the_warehouse_is_a_query(project: noria.Project) -> None:
    made = project.features.training_set(spine(ADA, BEN), ["quickly"])
    assert made.column("quickly__n").to_pylist() == [2, 0]
    assert read_by(project, made) == ["trips:1"]


@pytest.mark.parametrize("name", ["live", "daily", "slowly", "quickly"])
def test_every_source_can_be_served_compared_traced_and_shown(project: noria.Project, name: str) -> None:
    project.transform()
    (loaded,) = project.features.materialize([name])
    assert loaded.rows
    compared = project.features.compare(name)
    assert compared.entities and not compared.different
    online = project.features.get([name], {"courier": ["ada", "ben"]})
    assert online.num_rows == 2
    traced = project.features.trace(name, {"courier": "ada"})
    assert traced.rows.num_rows and set(traced.rows["courier"].to_pylist()) == {"ada"}
    shown = project.features.show(name)
    assert shown.entities
    assert project.query(f"select count(*) as n from {name}").to_pylist() == [{"n": shown.entities}]


def test_the_sql_is_part_of_the_definition(
    project: noria.Project, make: Callable[[str], noria.Project]
) -> None:
    digests = {
        make(DECLARED.replace("> 30", limit)).features.view("slowly").spec().digest
        for limit in ("> 30", "> 31")
    }
    assert len(digests) == 2
    assert project.features.view("slowly").spec().digest in digests


def test_a_model_that_is_not_built_says_how_it_is(project: noria.Project) -> None:
    with pytest.raises(NotFound) as refused:
        project.features.training_set(spine(ADA), ["daily"])
    assert "no table named 'courier_days'" in str(refused.value)
    assert refused.value.__notes__ == ["models/courier_days.sql makes it: run `noria transform courier_days`"]


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        (
            "synced_at, minutes from",
            "synced_at from",
            SourceError,
            "'slow_trips' has no column 'minutes', which slowly",
        ),
        (
            "select id, courier, ended_at, synced_at, minutes from trips",
            "delete from trips",
            ConfigError,
            "a query reads",
        ),
        ('"slow_trips"', '"trips"', ConfigError, "has the name of a table"),
        (
            "ended_at, synced_at, minutes",
            "ended_at, synced_at::timestamp as synced_at, minutes",
            SourceError,
            "time zone",
        ),
        ("from trips where minutes > 30", "from tripz where true", NotFound, "did you mean 'trips'"),
    ],
)
def test_a_query_that_will_not_do_is_refused(
    make: Callable[[str], noria.Project], old: str, new: str, error: type[Exception], told: str
) -> None:
    assert old in DECLARED
    project = make(DECLARED.replace(old, new))
    project.ingest("trips", ROWS)
    with pytest.raises(error) as refused:
        project.features.training_set(spine(ADA), ["slowly"])
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: noria.Table("days", key="id", event_at="day"), "no known_at"),
        (lambda: noria.Table("days", key="", event_at="day", known_at="day"), "no key"),
        (lambda: noria.Query("q", "", key="id", event_at="day", known_at="day"), "no SQL"),
        (lambda: noria.Query("q;", "select 1", key="id", event_at="day", known_at="day"), "cannot name"),
        (
            lambda: noria.FeatureView(
                "v",
                source="trips",  # type: ignore[arg-type]
                entity="id",
                features={"n": noria.agg.count("1d")},
            ),
            "give a noria.Dataset, a noria.Stream",
        ),
    ],
)
def test_a_source_says_what_it_needs(made: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        made()
    assert told in str(refused.value)


def test_whether_a_source_has_changed_is_told_without_reading_it(project: noria.Project) -> None:
    states = SourceStates(project)
    table, query, view = (project.features.view(each).spec() for each in ("live", "slowly", "quickly"))
    assert is_table(project, table) and states.of(table) is None
    assert not is_table(project, query) and not is_table(project, view)
    before = [states.of(each) for each in (query, view)]
    assert before == [states.of(each) for each in (query, view)]
    project.ingest("trips", trips(("e", 2.1, 0, "ben", 40)))
    after = [states.of(each) for each in (query, view)]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_forgetting_a_subject_reaches_views_of_what_was_made_from_it(project: noria.Project) -> None:
    project.transform()
    project.features.materialize(["slowly", "quickly", "daily"])
    assert project.features.get(["slowly"], {"courier": ["ada"]}).column("slowly__n").to_pylist() == [1]
    project.forget("trips", "courier", ["ada"])
    assert project.features.get(["slowly"], {"courier": ["ada"]}).column("slowly__n").to_pylist() == [0]
    assert project.features.get(["quickly"], {"courier": ["ada"]}).column("quickly__n").to_pylist() == [0]
