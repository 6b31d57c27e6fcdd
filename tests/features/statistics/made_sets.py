"""Sets with and without a leak."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from noria.features.statistics.columns import Column
from noria.features.statistics.computing import statistics_of
from noria.features.statistics.records import SetStatistics

Floats = npt.NDArray[np.float64]
HOUR_US = 3_600_000_000
START_US = 1_600_000_000_000_000


def number(name: str, values: npt.ArrayLike) -> Column:
    made = np.asarray(values, dtype=np.float64)
    return Column(name, "number", lambda: made)


def category(name: str, codes: npt.ArrayLike, size: int) -> Column:
    made = np.asarray(codes, dtype=np.float64)
    return Column(name, "category", lambda: made, tuple(f"kind {each}" for each in range(size)))


def hourly(rows: int) -> npt.NDArray[np.int64]:
    return START_US + np.arange(rows) * HOUR_US


def honest(seed: int, *, rows: int | None = None) -> tuple[Floats, dict[str, Any]]:
    """Give a label and features of all sorts, of which none is a leak and some tell a good deal."""
    rng = np.random.default_rng(seed)
    size = rows or int(rng.integers(20, 1_500))
    y = (rng.random(size) < rng.choice([0.5, 0.2, 0.03])).astype(np.float64)
    if y.min() == y.max():
        y[0] = 1 - y[0]
    features: dict[str, Any] = {
        "noise": rng.normal(size=size),
        "heavy": rng.standard_cauchy(size) * 1e6,
        "count": rng.poisson(1.5, size).astype(float),
        "good": rng.normal(size=size) + 1.6 * y,  # AUC 0.87
        "fair": rng.normal(size=size) + 0.5 * y,
        "constant": np.ones(size),
        "empty": np.full(size, np.nan),
        "id": rng.permutation(size).astype(float),
    }
    features["alike"] = features["good"] * 3 + 1
    holes = np.where(rng.random(size) < 0.4, np.nan, rng.normal(size=size))
    features["holes"] = holes
    # Missing a little more often where the label is 1, as honest data do.
    features["leaning"] = np.where(rng.random(size) < 0.2 + 0.3 * y, np.nan, rng.normal(size=size))
    return y, features


def columns(features: Mapping[str, npt.ArrayLike]) -> list[Column]:
    return [number(name, values) for name, values in features.items()]


def statistics(
    y: npt.ArrayLike, features: list[Column], *, seed: int = 1, timed: bool = True
) -> SetStatistics:
    label = number("label", y)
    at = hourly(len(label.load())) if timed else None
    return statistics_of(features, label, at=at, seed=seed)


def suspected(y: npt.ArrayLike, features: list[Column], **named: Any) -> set[tuple[str, str]]:
    return {(each.feature, each.rule) for each in statistics(y, features, **named).suspicions}
