"""What `noria.autolog()` adds to a fit and to an iteration, beside the bare framework and MLflow's own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import mkdtemp

import lightgbm
import numpy as np
from sklearn.naive_bayes import GaussianNB

import noria
from bench.measuring import Line, take_turns
from noria.registry.folders.writing import write_model_folder

_RUNS, _FITS, _ROUNDS, _SHORT = 5, 4, 400, 20
_MLFLOW = Path(__file__).parent.parent / ".venv-mlflow" / "bin" / "python"
_PROGRAM = """
import statistics, sys, time
import mlflow, numpy as np
from sklearn.naive_bayes import GaussianNB
mlflow.set_tracking_uri("sqlite:///mlflow.db")
rows = np.random.default_rng(0).normal(size=(500, 8)); late = rows[:, 0] > 0
def fit():
    before = time.process_time(); GaussianNB().fit(rows, late); return time.process_time() - before
bare = statistics.median(fit() for _ in range(9))
mlflow.sklearn.autolog(log_models=False, silent=True)
fit()
print((statistics.median(fit() for _ in range(9)) - bare) * 1e3)
"""


def lines(folder: Path) -> Iterator[Line]:
    (folder / "noria.toml").write_text('[project]\nname = "bench"\n')
    rows = np.random.default_rng(0).normal(size=(500, 8))
    late = rows[:, 0] > 0
    with chdir(folder):
        yield from _fits(folder, rows, late)
        yield from _iterations(rows, late)


def _fits(folder: Path, rows: object, late: object) -> Iterator[Line]:
    def fit(_: int) -> None:
        for _ in range(_FITS):
            GaussianNB().fit(rows, late)

    def fit_logged(number: int, *, log_models: bool) -> None:
        noria.autolog(log_models=log_models)
        fit(number)

    def write(_: int) -> None:
        for _ in range(_FITS):
            write_model_folder(model, Path(mkdtemp(dir=folder)) / "model", example=rows[:5])  # type: ignore[index]

    model = GaussianNB().fit(rows, late)
    fit_logged(0, log_models=True)
    ours, with_model = take_turns(
        lambda number: fit_logged(number, log_models=False),
        lambda number: fit_logged(number, log_models=True),
        runs=_RUNS, per=_FITS, scale=1e3,
    )  # fmt: skip
    noria.autolog(False)
    bare, written = take_turns(fit, write, runs=_RUNS, per=_FITS, scale=1e3)
    theirs = _mlflow(folder)
    what = "mlflow.sklearn.autolog" if theirs is not None else ""
    yield Line("autolog: what it adds to a fit, no model", ours - bare, "ms", what, theirs, at_most=20)
    yield Line(
        "autolog: beside writing the model", with_model - bare - written, "ms",
        "writing the model", written, at_most=20,
    )  # fmt: skip


def _iterations(rows: object, late: object) -> Iterator[Line]:
    params = {"objective": "binary", "metric": "auc", "verbose": -1, "num_threads": 1, "num_leaves": 3}

    def train(_: int, rounds: int) -> None:
        data = lightgbm.Dataset(rows, late)
        lightgbm.train(params, data, rounds, valid_sets=[data])

    def long(number: int) -> None:
        train(number, _ROUNDS)

    def short(number: int) -> None:
        train(number, _SHORT)

    bare_long, bare_short = take_turns(long, short, runs=_RUNS, scale=1e3)
    noria.autolog(log_models=False)
    long(0)
    logged_long, logged_short = take_turns(long, short, runs=_RUNS, scale=1e3)
    noria.autolog(False)
    rounds = _ROUNDS - _SHORT
    bare = (bare_long - bare_short) / rounds
    added = (logged_long - logged_short) / rounds - bare
    yield Line("autolog: an iteration of LightGBM", added, "ms", "the iteration", bare, at_most=0.05)


def _mlflow(folder: Path) -> float | None:
    """Give what MLflow's own adds to the same fit, if it is installed."""
    if not _MLFLOW.exists():
        return None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    silent = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "HOME": str(folder)}
    done = subprocess.run(
        [_MLFLOW, "-W", "ignore", "-c", _PROGRAM],
        cwd=folder,
        env=kept | silent,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])
