"""A training set far larger than the memory that making it takes."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

import noria
from bench.measuring import Line

_ROWS, _AT_ONCE, _ENTITIES, _SOURCE_ROWS = 12_000_000, 250_000, 100_000, 1_000_000
_INSTANT, _DAY_US = pa.timestamp("us", "UTC"), 86_400 * 10**6
_DECLARED = """
import noria
from noria import agg

rows = noria.Dataset("rows", key="id", event_at="event_at", known_at="event_at")
view = noria.FeatureView("view", source=rows, entity="who", features={
    "n": agg.count("7d"), "mean": agg.mean("x", "7d"), "most": agg.max("x", "2d"), "last": agg.last("x")})
"""


class _Made(msgspec.Struct):
    cpu_s: float
    peak_mb: float
    set_mb: float


def lines(folder: Path) -> Iterator[Line]:
    (folder / "noria.toml").write_text('[project]\nname = "bench"\nmodules = ["declared"]\n')
    (folder / "declared.py").write_text(_DECLARED)
    with noria.open(folder) as project:
        project.ingest("rows", _source())
    made = msgspec.json.decode(
        subprocess.run([sys.executable, "-m", __spec__.name, folder], check=True, capture_output=True).stdout,
        type=_Made,
    )
    what = f"training set of {_ROWS / 1e6:g}M rows, {made.set_mb:,.0f} MB"
    yield Line(f"{what}: peak memory", made.peak_mb, "MB", "its size", made.set_mb, ratio_at_most=0.8)
    yield Line(f"{what}: CPU", made.cpu_s, "s")


def _source() -> pa.Table:
    random = np.random.default_rng(1)
    return pa.table(
        {
            "id": np.arange(_SOURCE_ROWS),
            "event_at": pa.array(np.sort(random.integers(0, 90 * _DAY_US, _SOURCE_ROWS))).cast(_INSTANT),
            "who": random.integers(0, _ENTITIES, _SOURCE_ROWS),
            "x": random.integers(0, 1_000, _SOURCE_ROWS),
        }
    )


def _spine() -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(2)
    for low in range(0, _ROWS, 100_000):
        at = np.sort(random.integers(low, low + 100_000, 100_000)) * (90 * _DAY_US // _ROWS)
        yield pa.record_batch(
            {
                "who": random.integers(0, _ENTITIES, 100_000),
                "at": pa.array(at).cast(_INSTANT),
                **{f"field_{each}": random.normal(size=100_000) for each in range(6)},
            }
        )


def _make(folder: Path) -> None:
    batches = _spine()
    first = next(batches)

    def every() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    with noria.open(folder) as project:
        spine = pa.RecordBatchReader.from_batches(first.schema, every())
        made = project.features.training_set(spine, ["view"], rows_at_once=_AT_ONCE)
        assert made.num_rows == _ROWS
        size = project.ledger.list_versions(kind="training_set")[-1].facts["size_bytes"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = _Made(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, size / 2**20)
    sys.stdout.write(msgspec.json.encode(told).decode())


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
