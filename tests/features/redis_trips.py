"""Rows, a view and processes for the tests of the online store on Redis."""

import json
import random
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from noria.clock import to_micros
from noria.features import FeatureView, agg
from noria.features.offline import point_in_time
from noria.lake.declarations import Dataset

START = datetime(2013, 3, 1, tzinfo=UTC)
END = START + timedelta(days=12)
INSTANT = pa.timestamp("us", tz="UTC")
TRIPS = Dataset("trips", key="id", event_at="event_at", known_at="known_at")
VIEW = FeatureView(
    "by_line",
    source=TRIPS,
    entity="line",
    features={
        "n_30d": agg.count("30d"),
        "sum_20h": agg.sum("delay", "20h"),
        "p90_7d": agg.quantile("delay", 0.9, "7d", low=0, high=100, width=1),
        "p50_6h": agg.quantile("delay", 0.5, "6h", low=0, high=100, width=1),
        "first_1d": agg.first("delay", "1d"),
        "last": agg.last("delay"),
    },
)
SPEC = VIEW.spec()
LINES = [f"line {number}" for number in range(7)]


def trips(size: int, *, seed: int = 1, lines: int = 6) -> pa.Table:
    """Rows that become known in an order of their own, all by `END`."""
    made = random.Random(seed)
    events = sorted(START + timedelta(minutes=made.randrange(10 * 24 * 60)) for _ in range(size))
    known = [each + timedelta(minutes=made.randrange(24 * 60)) for each in events]
    return pa.table(
        {
            "id": [f"{number:05d}" for number in range(size)],
            "event_at": pa.array(events, INSTANT),
            "known_at": pa.array(known, INSTANT),
            "line": [f"line {made.randrange(lines)}" for _ in range(size)],
            "delay": [made.randrange(120) for _ in range(size)],
        }
    ).sort_by([("known_at", "ascending"), ("id", "ascending")])


def offline(rows: pa.Table, at: datetime = END) -> Any:
    spine = pa.table({"line": pa.array(LINES), "at": pa.array([at] * len(LINES), INSTANT)})
    features = point_in_time(VIEW, rows, spine)
    return np.column_stack([features.column(name).to_numpy() for name in features.column_names])


def online(store: Any, at: datetime = END) -> Any:
    return store.read([SPEC], {"line": LINES}, to_micros(at))


class Process:
    """Another process that is told what to do, a line at a time, and answers each line with one of JSON."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.first = self.hear()

    def say(self, line: str, *, times: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n" * times)
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, line: str) -> Any:
        self.say(line)
        return self.hear()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


_READER = """
import json, sys
from pathlib import Path
import msgspec
from noria.errors import NoriaError
from noria.features.declarations import ViewSpec
from noria.features.reading import open_feature_reader
spec = msgspec.json.decode(sys.argv[2], type=ViewSpec)
reader = open_feature_reader(sys.argv[1], root=Path())
heavy = {"pyarrow", "duckdb", "sqlalchemy", "deltalake", "sklearn", "lightgbm", "lmdb"} & set(sys.modules)
print(json.dumps(sorted(heavy)), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    try:
        found = reader.read([spec], {"line": asked["lines"]}, asked["at"]).tolist()
    except NoriaError as err:
        found = type(err).__name__ + ": " + str(err)
    print(json.dumps(found), flush=True)
"""


class Reader(Process):
    """A serving worker's view of the store."""

    def __init__(self, url: str) -> None:
        super().__init__(_READER, url, msgspec.json.encode(SPEC).decode())
        self.question = json.dumps({"lines": LINES, "at": to_micros(END)})

    def read(self) -> Any:
        found = self.ask(self.question)
        return found if isinstance(found, str) else np.array(found, dtype=float)


_WRITER = """
import json, sys
from pathlib import Path
from noria.errors import NoriaError
from noria.features.backends.redis import RedisOnlineStore
from tests.features.redis_trips import SPEC, VIEW, trips
store = RedisOnlineStore(sys.argv[1])
prepared = store.prepare(VIEW, trips(int(sys.argv[2])))
done = store.position() or 0
print(json.dumps(done), flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        stop = min(done + 3, len(prepared))
        try:
            store.apply([(SPEC, prepared, done, stop)], position=stop)
        except NoriaError as err:
            print(json.dumps(type(err).__name__ + ": " + str(err)), flush=True)
            break
        done = stop
        print(json.dumps(done), flush=True)
"""


class WriterProcess(Process):
    """A writer that goes on where the store stands, so many changes of three rows as it is told to make."""

    def __init__(self, url: str, rows: int) -> None:
        super().__init__(_WRITER, url, str(rows))

    def close_killed(self) -> None:
        """Clean up after it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.wait(20)
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    @property
    def name(self) -> str:
        return f"process {self.process.pid}"
