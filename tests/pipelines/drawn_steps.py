"""Steps of all shapes, and how the tests of drawing draw them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from noria.errors import ConfigError
from noria.pipelines.declarations import StepRun, given, pipeline, step
from noria.pipelines.graph import Graph
from noria.pipelines.tracing import draw

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["drawn", "refused"]


class Parts(NamedTuple):
    train: list[int]
    test: str


@dataclass(frozen=True)
class Fit:
    score: float
    rows: list[int]


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Box:
    inside: Any


@step
def number(x: int = 1) -> int:
    return x


@step
def numbers(n: int) -> list[int]:
    return list(range(n))


@step
def text(x: int) -> str:
    return str(x)


@step
def total(xs: list[int]) -> int:
    return sum(xs)


@step
def is_big(x: int) -> bool:
    return x > 10


@step
def parts(x: int) -> Parts:
    return Parts([x], str(x))


@step
def fit(rows: list[int]) -> Fit:
    return Fit(1.0, rows)


@step
def pair(x: int) -> tuple[int, str]:
    return x, str(x)


@step
def anything(a: Any, b: Any = None) -> Any:
    return a, b


@step
def add(a: int, b: int, c: int = 3) -> int:
    return a + b + c


@step
def with_run(x: int, run: StepRun = given) -> int:
    return x + run.attempt


@step
def typed_elsewhere(x: "Decimal") -> "Decimal":
    return x


@step
def table(n: int) -> pa.Table:
    return pa.table({"n": [n]})


@step
def array(n: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.zeros(n)


@step
def wants_table(rows: "pa.Table") -> int:
    return len(rows)


def drawn(function: Callable[..., Any], **params: Any) -> Graph:
    return draw(pipeline(name="shown")(function), params)


def refused(function: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        drawn(function, **params)
    return str(raised.value)
