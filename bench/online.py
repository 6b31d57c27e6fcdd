"""Online features: counting new rows and reading entities, against bare LMDB on the same values."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lmdb
import pyarrow.compute as pc

from bench.flights import declared, landings, schedule
from bench.measuring import Line, take_turns
from noria.clock import to_micros
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.backends.lmdb_files import rows_name
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.features.layout import layout_of
from noria.features.online_format import entity_key

_NOW = datetime(2013, 4, 1, tzinfo=UTC)
_DAYS, _ROWS_PER_REQUEST, _REQUESTS = 6, 13, 200


def lines(folder: Path) -> Iterator[Line]:
    flights = declared()
    views = [flights.carrier, flights.origin, flights.dest, flights.tail]
    specs = [view.spec() for view in views]
    rows = landings().filter(pc.field("landed_at") < _NOW + timedelta(days=_DAYS))
    with LmdbOnlineStore(folder / "online") as store:
        for view in views:
            store.load(view, rows, before=_NOW)
        prepared = [store.prepare(view, rows) for view in views]
        days = [
            [each.until(to_micros(_NOW + timedelta(days=day)) - 1) for each in prepared]
            for day in range(_DAYS + 1)
        ]

        def apply(day: int) -> None:
            """Count a day's rows ten at a time: about so many become known in a quarter of an hour."""
            start, end = days[day][0], days[day + 1][0]
            for first in range(start, end, 10):
                stop = min(first + 10, end)
                store.apply([(spec, each, first, stop) for spec, each in zip(specs, prepared, strict=True)])

        per = (days[-1][0] - days[0][0]) // _DAYS * len(views)
        (counting,) = take_turns(apply, runs=_DAYS, per=per, scale=1e6)

    asked = (
        schedule()
        .filter(pc.field("at") >= _NOW + timedelta(days=_DAYS))
        .slice(0, _REQUESTS * _ROWS_PER_REQUEST)
    )
    requests = [
        {
            spec.entity[0]: asked[spec.entity[0]][start : start + _ROWS_PER_REQUEST].to_pylist()
            for spec in specs
        }
        for start in range(0, asked.num_rows, _ROWS_PER_REQUEST)
    ]
    at = to_micros(_NOW + timedelta(days=_DAYS))
    lookups = len(requests) * _ROWS_PER_REQUEST * len(specs)
    with LmdbFeatureReader(folder / "online") as reader:
        (reading,) = take_turns(
            lambda _: [reader.read(specs, each, at) for each in requests], runs=7, per=lookups, scale=1e6
        )

    keys = [
        [(spec.name, entity_key(str(value))) for spec in specs for value in each[spec.entity[0]]]
        for each in requests
    ]
    with lmdb.open(str(folder / "online"), max_dbs=64, map_size=1 << 30, sync=False, metasync=False) as bare:
        named = {spec.name: bare.open_db(rows_name(layout_of(spec))) for spec in specs}

        def get(run: int) -> None:
            for request in keys:
                with bare.begin(buffers=True) as txn:
                    for view, key in request:
                        txn.get(key, db=named[view])

        def put(run: int) -> None:
            for request in keys:
                with bare.begin(write=True) as txn:
                    for view, key in request:
                        value = txn.get(key, db=named[view])
                        if value is not None:
                            txn.put(key, value, db=named[view])

        got, written = take_turns(get, put, runs=7, per=lookups, scale=1e6)
    yield Line("online: count a row in a view", counting, "us", "bare lmdb get + put", written, at_most=10)
    yield Line("online: a view's features of a row", reading, "us", "bare lmdb get", got, at_most=15)
