"""Batch scoring from a Parquet file to a folder, against the model's own predict on a matrix in memory."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import noria
from bench.measuring import Line, take_turns

_FEATURES, _ROWS, _RUNS = 20, 400_000, 3
_NAMES = [f"f{each}" for each in range(_FEATURES)]
_PEAK = """\
import re, sys, noria
from pathlib import Path
with noria.open(sys.argv[1]) as project:
    project.predict("late", sys.argv[2], output=sys.argv[3], executor="inline")
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1_024 / 1e6)
"""


def lines(folder: Path) -> Iterator[Line]:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(_ROWS, _FEATURES))
    booster = _fit(matrix[:20_000], rng)
    root = folder / "project"
    root.mkdir()
    (root / "noria.toml").write_text('[project]\nname = "batches"\n')
    rows = pa.table([pa.array(matrix[:, place]) for place in range(_FEATURES)], names=_NAMES)
    rows = rows.append_column("row_id", pa.array([f"row-{each}" for each in range(_ROWS)]))
    source = root / "rows.parquet"
    pq.write_table(rows, source, row_group_size=131_072)
    with noria.open(root) as project:
        project.models.register(booster, name="late", example=rows.select(_NAMES).slice(0, 100))

        def ours(run: int, *, log: bool = False) -> None:
            output = root / f"out-{run}-{log}"
            project.predict(
                "late", source, output=output, id="row_id", executor="inline", replace=True, log=log
            )

        def logged(run: int) -> None:
            ours(run, log=True)

        def floor(_: int) -> None:
            booster.predict(matrix, num_threads=1)

        ours(-1)  # loads what is loaded once
        plain, with_log, own = take_turns(ours, logged, floor, runs=_RUNS, per=_ROWS, scale=1e6)
    what = "predict: row of a file, 200 trees"
    yield Line(what, plain, "us", "Booster.predict in memory", own, ratio_at_most=1.25)
    yield Line(f"{what}, logged", with_log, "us", "Booster.predict in memory", own)
    command = [sys.executable, "-c", _PEAK, str(root), str(source), str(root / "peak")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = float(done.stdout)
    yield Line(f"predict: peak memory, {_ROWS:,} rows inline", peak, "MB", at_most=500)


def _fit(
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]], rng: np.random.Generator
) -> lightgbm.Booster:
    labels = (matrix[:, 0] + matrix[:, 1] ** 2 + rng.normal(size=len(matrix)) > 1).astype(np.float64)
    settings = {"objective": "binary", "num_leaves": 31, "num_threads": 1, "verbosity": -1}
    return lightgbm.train(settings, lightgbm.Dataset(matrix, labels, feature_name=_NAMES), 200)
