"""The online store at work: loaded from Parquet, asked for one entity or a hundred, written meanwhile."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measuring import Line
from bench.peers.environments import NotMeasured, printed
from noria.clock import to_micros
from noria.features import FeatureView, agg
from noria.features.online import open_online_store
from noria.features.reading import FeatureReader, open_feature_reader
from noria.lake.declarations import Dataset

_ENTITIES, _FEAST_ENTITIES = 1_000_000, 100_000
_GETS, _WRITES_PER_S, _ROWS_PER_WRITE = 4_000, 100, 50
_START = datetime(2024, 3, 1, tzinfo=UTC)
_NOW_US, _SECOND = to_micros(datetime(2024, 4, 1, tzinfo=UTC)), 1_000_000
_COLUMNS = tuple(f"f{each}" for each in range(10))
_VALUES = Dataset("values", key="who", event_at="event_timestamp", known_at="event_timestamp")
LAST = FeatureView("last", source=_VALUES, entity="who", features={each: agg.last(each) for each in _COLUMNS})
_EVENTS = Dataset("events", key="id", event_at="event_timestamp", known_at="event_timestamp")
WINDOWS = FeatureView("windows", source=_EVENTS, entity="who", features={
    "count_1d": agg.count("1d"), "count_7d": agg.count("7d"), "count_30d": agg.count("30d"),
    "mean_1d": agg.mean("amount", "1d"), "mean_7d": agg.mean("amount", "7d"),
    "mean_30d": agg.mean("amount", "30d"), "sum_7d": agg.sum("amount", "7d"),
    "max_30d": agg.max("amount", "30d"), "last": agg.last("amount"), "age": agg.age(),
})  # fmt: skip


class _OfFeast(msgspec.Struct):
    version: str
    load_us: float
    load_cpu_us: float
    one_us: float
    hundred_us: float


class _Taken(msgspec.Struct):
    """Quantiles of the wall time of a call, in microseconds."""

    p50: float
    p99: float


def lines(folder: Path) -> Iterator[Line]:
    pq.write_table(values(_ENTITIES), folder / "values.parquet")
    pq.write_table(events(_ENTITIES), folder / "events.parquet")
    feast = _feast(folder)

    def line(what: str, figure: float, of_feast: str, goal: float | None = None) -> Line:
        if feast is None:
            return Line(what, figure, "us", "Feast: not measured", at_most=goal)
        peer: float = getattr(feast, of_feast)
        return Line(what, figure, "us", f"Feast {feast.version}, SQLite", peer, at_most=goal)

    load_us, load_cpu_us = _loaded(f"lmdb:{folder / 'online'}", folder)
    yield line("store: load a row of 10 from Parquet, wall", load_us, "load_us", 2)
    yield line("store: load a row of 10 from Parquet, CPU", load_cpu_us, "load_cpu_us")
    with _reader(f"lmdb:{folder / 'online'}") as reader:
        one, hundred = _asked(reader, LAST, 1), _asked(reader, LAST, 100)
        yield line("store: get 10 of one entity, p50", one.p50, "one_us", 15)
        yield line("store: get 10 of 100 entities, p50", hundred.p50, "hundred_us", 300)
        yield Line("store: 10 of windows, one entity, p50", _asked(reader, WINDOWS, 1).p50, "us")
        quiet = _asked(reader, WINDOWS, 100)
        yield Line("store: 10 of windows, 100 entities, p50", quiet.p50, "us")
        written = [_asked_while_written(folder, reader) for _ in range(3)]
        quiet_p99 = sorted(_asked(reader, WINDOWS, 100).p99 for _ in range(3))[1]
        written_p99 = sorted(written)[1]
        what = f"store: the same, p99, {_WRITES_PER_S * _ROWS_PER_WRITE:,} rows/s written"
        yield Line(what, written_p99, "us", "p99, nothing written", quiet_p99, ratio_at_most=2)
    yield from _on_redis(folder)


def _on_redis(folder: Path) -> Iterator[Line]:
    try:
        with _redis(folder) as url:
            load_us, _ = _loaded(url, folder)
            with _reader(url) as reader:
                one, hundred = _asked(reader, LAST, 1), _asked(reader, LAST, 100)
    except NotMeasured as error:
        print(f"Redis is not measured: {error}", file=sys.stderr)
        return
    yield Line("store: load a row of 10, Redis, wall", load_us, "us")
    yield Line("store: get 10 of one entity, Redis, p50", one.p50, "us")
    yield Line("store: get 10 of 100 entities, Redis, p50", hundred.p50, "us")


def values(entities: int) -> pa.Table:
    """Give a row of ten values for each entity."""
    random = np.random.default_rng(10)
    return pa.table(
        {"who": _names(np.arange(entities)), "event_timestamp": _instants(random, entities)}
        | {each: random.random(entities) for each in _COLUMNS}
    )


def events(size: int, *, first: int = 0, since_us: int = 0) -> pa.Table:
    """Give events of a tenth as many entities over thirty days, or from an instant on."""
    random = np.random.default_rng(first)
    at = _instants(random, size) if not since_us else pa.array(
        since_us + np.arange(size)).cast(pa.timestamp("us", "UTC"))  # fmt: skip
    return pa.table({
        "id": np.arange(first, first + size), "event_timestamp": at,
        "who": _names(random.integers(0, _ENTITIES // 10, size)), "amount": random.integers(0, 10_000, size),
    })  # fmt: skip


def _names(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"e{each:06d}" for each in numbers.tolist()])


def _instants(random: np.random.Generator, size: int) -> pa.Array:
    start = to_micros(_START)
    return pa.array(random.integers(start, _NOW_US, size)).cast(pa.timestamp("us", "UTC"))


def _loaded(url: str, folder: Path) -> tuple[float, float]:
    """Load both views, and give wall and CPU of a row of the first."""
    store = open_online_store(url, root=folder)
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        store.load(LAST, pq.read_table(folder / "values.parquet"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        store.load(WINDOWS, pq.read_table(folder / "events.parquet"))
    finally:
        store.close()
    return wall / _ENTITIES * 1e6, cpu / _ENTITIES * 1e6


@contextmanager
def _reader(url: str) -> Iterator[FeatureReader]:
    reader = open_feature_reader(url, root=Path())
    try:
        yield reader
    finally:
        reader.close()


def _asked(reader: FeatureReader, view: FeatureView, entities: int, gets: int = _GETS) -> _Taken:
    """Ask for entities at random, again and again."""
    if entities > 1:
        gets //= 4
    there = _ENTITIES if view is LAST else _ENTITIES // 10
    picked = np.random.default_rng(7).integers(0, there, (gets, entities)).tolist()
    asked = [{"who": [f"e{each:06d}" for each in some]} for some in picked]
    specs, at_us = [view.spec()], _NOW_US + 3600 * _SECOND
    taken = []
    for each in asked:
        began = time.perf_counter_ns()
        reader.read(specs, each, at_us)
        taken.append(time.perf_counter_ns() - began)
    p50, p99 = np.quantile(taken[gets // 10 :], [0.5, 0.99]) / 1e3
    return _Taken(float(p50), float(p99))


def _asked_while_written(folder: Path, reader: FeatureReader) -> float:
    """Give the p99 of a hundred entities while another process counts rows."""
    command = [sys.executable, "-m", "bench.feature_store", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            return _asked(reader, WINDOWS, 100).p99
        finally:
            writer.terminate()


def _write(folder: Path) -> None:
    """Count some rows every hundredth of a second until the process is ended."""
    store = open_online_store(f"lmdb:{folder / 'online'}", root=folder)
    spec, first = WINDOWS.spec(), _ENTITIES
    prepared = store.prepare(WINDOWS, events(200_000, first=first, since_us=_NOW_US))
    print("writing", flush=True)
    due = time.perf_counter()
    for start in range(0, len(prepared), _ROWS_PER_WRITE):
        store.apply([(spec, prepared, start, start + _ROWS_PER_WRITE)])
        due += 1 / _WRITES_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))


def _feast(folder: Path) -> _OfFeast | None:
    home = folder / "feast"
    home.mkdir()
    pq.write_table(values(_FEAST_ENTITIES), home / "values.parquet")
    try:
        told = printed("feast", "online", str(home), str(_FEAST_ENTITIES), folder=folder)
    except NotMeasured as error:
        print(f"Feast is not measured: {error}", file=sys.stderr)
        return None
    return msgspec.json.decode(told, type=_OfFeast)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Start a Redis of our own on a socket. Raises `NotMeasured` if there is none."""
    program = shutil.which("redis-server")
    if program is None:
        raise NotMeasured("redis-server is not installed; `make servers` brings it")
    socket = folder / "redis"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(socket.exists)
            yield f"redis+unix://{socket}"
        finally:
            server.terminate()


def _wait_for(is_there: Callable[[], bool], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > end:
            raise NotMeasured("Redis does not come up")
        time.sleep(0.02)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
