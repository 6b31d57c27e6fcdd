"""Events through the local log into a table, and on into online features; and how soon they count there.

An event goes through tiles of three windows. 50,000 events a second and core are 20 us each, of which the
table's part is the floor. Freshness is that of `noria up`: an event is appended every now and then, and a
reader asks until it counts.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Self

import msgspec

import noria
from bench.measuring import Line, take_turns
from noria.clock import WallClock, to_micros
from noria.database.store import Database
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.features.following import Following
from noria.features.table_changes import TableChanges
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.streams.backends.log import LogStream
from noria.streams.consume import consume
from noria.streams.declarations import Stream

_EVENTS, _BATCH, _RUNS, _SHOPS = 100_000, 10_000, 3, 1_000
_APPENDED, _EVERY_S = 200, 0.1
_SCHEMA = {"id": "string", "shop": "string", "price": "int64", "at": "timestamp[us, tz=UTC]"}
_CLICKS = Dataset("clicks", key="id", event_at="at", schema=_SCHEMA)
_VIEW = FeatureView(
    "shop",
    source=_CLICKS,
    entity="shop",
    features={
        "n_1h": agg.count("1h"),
        "spent_1d": agg.sum("price", "1d"),
        "mean_7d": agg.mean("price", "7d"),
    },
)
_DECLARED = """
import noria
from noria import agg

clicks = noria.Dataset("clicks", key="id", event_at="at", schema={schema!r})
stream = noria.Stream("clicks", into=clicks, every="200ms")
shop = noria.FeatureView("shop", source=stream, entity="shop", features={{
    "n_1h": agg.count("1h"), "spent_1d": agg.sum("price", "1d"), "mean_7d": agg.mean("price", "7d")}})
"""


def lines(folder: Path) -> Iterator[Line]:
    whole, table = _cost(folder)
    yield Line("following: an event, stream to online", whole, "us", "stream to table", table, at_most=20)
    waited = _freshness(folder / "site")
    half, most = median(waited), quantiles(waited, n=100)[98]
    yield Line("following: event to answer, p50, wall", half * 1e3, "ms")
    yield Line("following: event to answer, p99, wall", most * 1e3, "ms", at_most=1_000)


def _cost(folder: Path) -> tuple[float, float]:
    """Give microseconds of CPU per event: from the stream to online features, and to the table."""
    runs = [_events(run) for run in range(_RUNS + 1)]
    with _World(folder / "online") as online, _World(folder / "table") as table:
        online.move(runs[_RUNS], follow=True)  # the view is loaded first
        whole, landed = take_turns(
            lambda run: online.move(runs[run], follow=True),
            lambda run: table.move(runs[run], follow=False),
            runs=_RUNS,
            per=_EVENTS,
            scale=1e6,
        )
    return whole, landed


class _World:
    """A stream, its table, and an online store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._open = ExitStack()
        database = self._open.enter_context(Database.open(f"sqlite:///{folder}/noria.db"))
        self._lake = Lake(str(folder / "lake"), ledger=Ledger(database, clock=WallClock()))
        self._open.callback(self._lake.close)
        self._store = self._open.enter_context(LmdbOnlineStore(folder / "store"))
        self._following = Following(TableChanges(str(folder / "lake")))
        self._log = LogStream(folder / "log", name="clicks")
        self._open.callback(self._log.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def move(self, events: Sequence[bytes], *, follow: bool) -> None:
        """Append events, let them land, and count them where they are to be followed."""
        stream = Stream("clicks", into=_CLICKS, rows=_BATCH)
        for start in range(0, _EVENTS, _BATCH):
            self._log.append(events[start : start + _BATCH])
            stop = threading.Event()
            consume(
                stream, self._log, self._lake, leases=None, tell=lambda _: None, stop=stop, until_empty=True
            )
            if follow:
                self._following.bring(self._store, [_VIEW.spec()], now_us=time.time_ns() // 1_000)


def _events(run: int) -> list[bytes]:
    random, now = Random(run), datetime.now(UTC)
    return [
        msgspec.json.encode(
            {
                "id": f"{run}-{number}",
                "shop": f"shop {random.randrange(_SHOPS)}",
                "price": random.randrange(10_000),
                "at": now - timedelta(seconds=random.random() * 60),
            }
        )
        for number in range(_EVENTS)
    ]


def _freshness(site: Path) -> list[float]:
    """Give seconds from an event that is appended to the answer that counts it, with `noria up` between."""
    site.mkdir()
    (site / "noria.toml").write_text(
        '[project]\nname = "site"\nmodules = ["following_declared"]\n[server]\nport = 0\n'
    )
    (site / "following_declared.py").write_text(_DECLARED.format(schema=_SCHEMA))
    command = [sys.executable, "-m", "noria", "up", "--json"]
    with noria.open(site) as project, subprocess.Popen(command, cwd=site, stdout=subprocess.DEVNULL) as up:
        try:
            _appended(project, 0)
            path = site / ".noria" / "online"
            until = time.monotonic() + 60
            while not (path / "data.mdb").exists() or not _counted(path):
                if time.monotonic() > until:
                    raise RuntimeError("noria up did not come to count anything")
                time.sleep(0.1)
            with LmdbFeatureReader(path) as reader:
                return [_waited(project, reader, number) for number in range(1, _APPENDED + 1)]
        finally:
            up.terminate()


def _appended(project: noria.Project, number: int) -> None:
    event = {"id": str(number), "shop": "one", "price": 1, "at": datetime.now(UTC)}
    project.push("clicks", [event])


def _waited(project: noria.Project, reader: LmdbFeatureReader, number: int) -> float:
    time.sleep(_EVERY_S * Random(number).random())
    began = time.perf_counter()
    _appended(project, number)
    while _asked(reader) <= number:
        time.sleep(0.005)
    return time.perf_counter() - began


def _counted(path: Path) -> bool:
    try:
        with LmdbFeatureReader(path) as reader:
            return _asked(reader) > 0
    except noria.errors.NoriaError:
        return False


def _asked(reader: LmdbFeatureReader) -> float:
    found = reader.read([_VIEW.spec()], {"shop": ["one"]}, to_micros(datetime.now(UTC)))
    return float(found[0, 0])
