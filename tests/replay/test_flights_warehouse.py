"""What the demo leaves behind builds its warehouse and its page, and agrees with the raw rows."""

from pathlib import Path

import pytest
from tests.replay.flights_slice import timed_demo

import noria

SLICE = "2013-04-04"  # the quarter before, and three days


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warehouse") / "flights"
    timed_demo(folder, until=SLICE)
    return folder


def test_the_weather_came_as_a_stream_each_hour_once(lived: Path) -> None:
    with noria.open(lived) as project:
        (standing,) = project.streams()
        (partition,) = standing.partitions
        assert (standing.name, partition.lag_events) == ("weather", 0)
        came = project.query("""
            select count(*) as rows, count(distinct (origin, hour_at)) as hours,
                   count(*) filter (known_at >= timestamptz '2013-04-01') as streamed
            from weather""").to_pylist()
        assert came[0]["rows"] == came[0]["hours"]
        assert partition.committed is not None
        assert came[0]["streamed"] == partition.committed + 1 > 200
        assert project.lake.last_batch("weather", "stream:weather/0") == partition.committed


def test_every_dataset_has_a_contract(lived: Path) -> None:
    with noria.open(lived) as project:
        assert [name for name, each in project.declarations.datasets.items() if not each.checks] == []


def test_models_agree_with_the_raw_rows(lived: Path) -> None:
    with noria.open(lived) as project:
        result = project.transform()
        assert [each.state for each in result.models if each.state not in ("built", "view")] == []
        assert len(result.models) >= 7
        totals = project.query("""
            select (select count(*) from landings) as landed, (select count(*) from flown) as flown,
                   (select sum(flights)::bigint from daily_carrier) as by_carrier,
                   (select sum(flights)::bigint from daily_route) as by_route,
                   (select sum(flights)::bigint from daily_airport) as by_airport,
                   (select sum(flights)::bigint from weather_delay) as by_weather""").to_pylist()[0]
        assert len(set(totals.values())) == 1
        again = project.transform()
        assert {each.state for each in again.models} <= {"unchanged", "view"}
        late = project.query("""
            select max(abs(one.share_late - raw.share_late)) as off from daily_carrier as one join (
              select carrier, cast(timezone('America/New_York', departed_at) as date) as day,
                     avg(late::int) as share_late from landings group by all) as raw using (carrier, day)""")
        assert late["off"][0].as_py() < 1e-12


def test_the_page_is_built_from_versions_on_record(lived: Path) -> None:
    with noria.open(lived) as project:
        project.transform()
        built = project.build_dashboard("punctuality")
        assert built.failed == {}
        (page,) = built.files
        assert "Punctuality out of New York" in page.read_text(encoding="utf-8")
        edges = project.ledger.list_edges(run=built.run)
        read = {project.ledger.get_version_by_id(each.version).name for each in edges if each.role == "input"}
    assert {"daily_carrier", "daily_route", "daily_airport", "flown", "weather_delay"} <= read
