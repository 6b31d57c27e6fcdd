"""Scoring compiled pipelines of scikit-learn: one row, and 1,000, against the pipeline on a DataFrame."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.measuring import Line, take_turns
from noria.serving.compiled import compile_to_bytes, describe, load_compiled
from noria.serving.formats.booster import Booster
from noria.serving.rows import Rows

_ROWS = 4_000
_MANY = 1_000
_NUMBERS = [f"n{each}" for each in range(6)]
_TEXTS = ["c0", "c1", "c2"]
_CALLS = 300
_RUNS = 5
_MEMORY = (  # what ru_maxrss says is the parent's where that has more
    "import re, sys\nfrom pathlib import Path\n{load}\n"
    "print(re.search(r'VmRSS:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
)
_COMPILED = (
    "from noria.serving.compiled.scoring import load_compiled\nload_compiled(open(sys.argv[1], 'rb').read())"
)
_ORIGINAL = (
    "import pandas\nfrom noria.registry.skops_archives import load_archive\n"
    "load_archive(open(sys.argv[1], 'rb').read())"
)


def lines(folder: Path) -> Iterator[Line]:
    table, target = _table()
    with threadpool_limits(1):  # threads of its own that wait for each other would count
        yield from _pipelines(table, target)
    yield from _memory(_fitted(HistGradientBoostingClassifier(max_iter=200), table, target), folder)
    yield from _single_row(table, target)


def _pipelines(table: pd.DataFrame, target: Any) -> Iterator[Line]:
    for name, last in (
        ("HistGradientBoosting 200", HistGradientBoostingClassifier(max_iter=200, random_state=0)),
        ("RandomForest 100", RandomForestClassifier(100, min_samples_leaf=2, random_state=0)),
        ("LogisticRegression", LogisticRegression(max_iter=500)),
    ):
        yield from _pipeline(name, _fitted(last, table, target), table)


def _pipeline(name: str, fitted: Any, table: pd.DataFrame) -> Iterator[Line]:
    data = compile_to_bytes(fitted, *describe(fitted))
    assert isinstance(data, bytes), data
    scorer = load_compiled(data)
    rows = _rows(table)
    gap = np.abs(np.asarray(scorer.predict(rows)[0]) - fitted.predict_proba(table)[:, 1]).max()
    assert gap < 1e-9, gap
    one, first = _rows(table.head(1)), table.head(1)
    (ours,) = take_turns(
        lambda _: _repeat(lambda: scorer.predict(one), _CALLS), runs=_RUNS, per=_CALLS, scale=1e6
    )
    (floor,) = take_turns(
        lambda _: _repeat(lambda: fitted.predict_proba(first), 5), runs=_RUNS, per=5, scale=1e6
    )
    yield Line(
        what=f"{name}, one row",
        figure=ours,
        unit="us",
        floor="pipeline on a DataFrame",
        floor_figure=floor,
        at_most=60,
    )
    many, some = _rows(table.head(_MANY)), table.head(_MANY)
    ours, floor = take_turns(
        lambda _: scorer.predict(many), lambda _: fitted.predict_proba(some), runs=_RUNS, scale=1e3
    )
    yield Line(
        what=f"{name}, 1,000 rows",
        figure=ours,
        unit="ms",
        floor="pipeline on a DataFrame",
        floor_figure=floor,
        ratio_at_most=None if "Forest" in name else 1 / 3,  # large trees wait for memory wherever they are
    )
    if "Hist" in name:
        (ours,) = take_turns(
            lambda _: _repeat(lambda: scorer.encode(one.matrix, one.strings), _CALLS),
            runs=_RUNS, per=_CALLS, scale=1e6,
        )  # fmt: skip
        yield Line(what="its encoder, one row", figure=ours, unit="us", at_most=12)


def _memory(fitted: Any, folder: Path) -> Iterator[Line]:
    from noria.registry.skops_archives import dump_archive

    data = compile_to_bytes(fitted, *describe(fitted))
    assert isinstance(data, bytes), data
    (folder / "plan").write_bytes(data)
    (folder / "skops").write_bytes(dump_archive(fitted)[0])
    ours, floor = (
        float(
            subprocess.run(
                [sys.executable, "-c", _MEMORY.format(load=load), str(folder / name)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        / 1024
        for load, name in ((_COMPILED, "plan"), (_ORIGINAL, "skops"))
    )
    yield Line(
        what="a process that holds the pipeline",
        figure=ours,
        unit="MB",
        floor="scikit-learn",
        floor_figure=floor,
    )


def _single_row(table: pd.DataFrame, target: Any) -> Iterator[Line]:
    matrix = table[_NUMBERS].to_numpy()
    trained = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1}, lightgbm.Dataset(matrix, target), 200
    )
    booster = Booster(trained.model_to_string().encode())
    row = np.ascontiguousarray(matrix[:1])
    ours, floor = take_turns(
        lambda _: _repeat(lambda: booster.predict(row), _CALLS),
        lambda _: _repeat(lambda: trained.predict(row, num_threads=1), _CALLS),
        runs=_RUNS, per=_CALLS, scale=1e6,
    )  # fmt: skip
    yield Line(
        what="LightGBM 200 trees, one row",
        figure=ours,
        unit="us",
        floor="Booster.predict(numpy)",
        floor_figure=floor,
        ratio_at_most=0.5,
    )


def _repeat(call: Any, times: int) -> None:
    for _ in range(times):
        call()


def _table() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(size=_ROWS) for name in _NUMBERS})
    for place, name in enumerate(_TEXTS):
        table[name] = rng.choice([f"v{each}" for each in range(10 * (place + 1))], _ROWS)
    target = (table["n0"] + table["n1"] * table["n2"] + (table["c0"] == "v1") > 0).astype(int)
    return table.mask(rng.random(table.shape) < 0.05), target


def _fitted(last: Any, table: pd.DataFrame, target: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", numbers, _NUMBERS), ("texts", texts, _TEXTS)])
    return make_pipeline(columns, last).fit(table, target)


def _rows(table: pd.DataFrame) -> Rows:
    strings = {name: [each if isinstance(each, str) else None for each in table[name]] for name in _TEXTS}
    return Rows(np.ascontiguousarray(table[_NUMBERS].to_numpy(dtype=np.float64)), strings)
