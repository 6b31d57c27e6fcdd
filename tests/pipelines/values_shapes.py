"""Classes and values for the tests of values; as a program: prints the digest of each value, as JSON.

Equal values have to come out equal in every process, so what is made here must not depend on the process.
"""

import enum
import json
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from noria.pipelines.values.codec import digest
from noria.records import Version


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclass
class Plan:
    name: str
    tags: set[str] = field(default_factory=set)
    double: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.double = self.name * 2

    @cached_property
    def length(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class Frozen:
    point: Point
    colours: tuple[Colour, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One that cannot be made twice."""

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value + 1)


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    facts: dict[str, Any]


class Plain:
    """A class that only pickle knows."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Locked:
    def __init__(self) -> None:
        self.inner = {"lock": threading.Lock()}


def double(value: int) -> int:
    return value * 2


VERSION = Version(
    id="p/dataset/rides:3",  # type: ignore[arg-type]
    scope="p",
    kind="dataset",
    name="rides",
    number=3,
    sha256="ab" * 32,
    uri="lake:rides",
    run=None,
    facts={"rows": 3, "files": [1, 2]},
    at=datetime(2026, 1, 1, tzinfo=UTC),
    recorded_at=datetime(2026, 1, 1, 2, tzinfo=UTC),
)
TEXTS = [f"text {number}" for number in range(40)]
VALUES: dict[str, Any] = {
    "none": None,
    "ints": [0, -1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**50, True, False],
    "floats": [0.0, -0.0, 1.5, float("inf"), 5e-324],
    "nan": (float("nan"), [float("nan")], complex(float("nan"), -0.0)),
    "texts": ["", "é", "\ud800", "a\0b", b"", b"\xff", bytearray(b"x")],
    "sets": {"a": set(TEXTS), "b": frozenset(TEXTS), "c": {1, "a", None, (2, "b"), 2**70}},
    "dicts": {(1, "a"): {1: "x", None: [], 1.5: {}}, float("inf"): {frozenset(TEXTS): ()}},
    "instants": [
        datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")),
        datetime(2026, 1, 1, 1, 2, 3, 4),
        time(1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=30), "there")),
        date(1, 1, 1),
        timedelta(days=-1, microseconds=1),
    ],
    "numbers": [Decimal("1.00"), Decimal("-0"), Fraction(10**30, 7), 1 - 2j],
    "uuid": UUID(int=7),
    "ranges": [range(3), range(10**30, 0, -2), slice(None, 3), slice("a", None, 2.0), ...],
    "enums": [Colour.RED, Level.LOW, Rights.READ, Rights.READ | Rights.WRITE, {Colour.RED, Colour.BLUE}],
    "tuples": (Point(1), [Point(2, 3.5)], ((),)),
    "dataclasses": [Plan("a", set(TEXTS)), Frozen(Point(1), (Colour.BLUE,)), Setting(1)],
    "structs": [Wire(at=datetime(2026, 1, 1, tzinfo=UTC), facts={"a": {1, 2}}), VERSION],
    "names": [double, len, Plain, int],
    "objects": Plain(texts=set(TEXTS), same=[TEXTS[0], "text " + str(0)], inner=Plain(at=date(2026, 1, 1))),
}


def models() -> dict[str, Callable[[], Any]]:
    """Give fits of models, each the same in every process."""
    import lightgbm
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = np.random.default_rng(7).normal(size=(200, 4))
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    params = {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": 1, "deterministic": True}
    return {
        "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels),
        "forest": lambda: RandomForestClassifier(5, random_state=1).fit(rows, labels),
        "encoder": lambda: OneHotEncoder().fit(np.array([["a"], ["b"]], object)),
        "booster": lambda: lightgbm.train(params, lightgbm.Dataset(rows, labels), 5),
        "wrapped": lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(rows, labels),
    }


def tables() -> dict[str, Any]:
    """Give arrays and tables."""
    import numpy as np
    import pyarrow as pa

    table = pa.table(
        {"n": [1, None], "s": ["a", None], "d": pa.array(["x", "y"]).dictionary_encode(), "l": [[1], None]},
        metadata={"b": "1", "a": "2"},
    )
    return {
        "table": table,
        "batch": table.to_batches()[0],
        "nested": [table, table["s"], np.arange(3.0), np.array([{"a"}, None], object), np.float32(1)],
    }


def main() -> None:
    """Print the digests."""
    warnings.simplefilter("error")
    scratch = Path(tempfile.gettempdir())
    made = {**VALUES, **tables(), **{name: make() for name, make in models().items()}}
    json.dump({name: digest(value, scratch=scratch, where=name) for name, value in made.items()}, sys.stdout)


if __name__ == "__main__":
    from tests.pipelines import values_shapes  # classes of `__main__` are refused

    values_shapes.main()
