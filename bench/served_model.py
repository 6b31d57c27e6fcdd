"""A model of the demo's kind, trained on its first quarter, with an online store that stands at its end."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.flights import declared, landings, schedule, weather
from noria.clock import to_micros
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.offline import point_in_time
from noria.serving.records import Input, Samples, ServedModel

__all__ = ["AT", "TrainedModel", "train"]

_NOW = datetime(2013, 4, 1, tzinfo=UTC)
AT = to_micros(_NOW)
_NUMBERS = ("departure_minute", "arrival_minute", "weekday", "distance")
_CATEGORIES = ("carrier", "origin", "dest")
_ROWS = 20_000
Tensor = tuple[str, Sequence[object]]


@dataclass(frozen=True)
class TrainedModel:
    """What a worker needs, and rows to ask it about."""

    path: Path
    served: ServedModel
    asked: pa.Table
    matrix: npt.NDArray[np.float64]  # of `asked`, as the model takes it

    def requests(self, rows: int, count: int) -> Iterator[Mapping[str, Tensor]]:
        """Give the request columns of `count` requests, with their datatype."""
        for start in self._starts(rows, count):
            part = self.asked.slice(start, rows)
            named = dict.fromkeys(
                (*_CATEGORIES, *(name for view in self.served.views for name in view.entity))
            )
            texts = {name: ("BYTES", part[name].to_pylist()) for name in named}
            numbers = {name: ("INT64", part[name].to_pylist()) for name in _NUMBERS}
            yield {**texts, **numbers}

    def matrices(self, rows: int, count: int) -> Iterator[list[list[float]]]:
        """Give the same rows as the model takes them."""
        for start in self._starts(rows, count):
            yield self.matrix[start : start + rows].tolist()

    def _starts(self, rows: int, count: int) -> Iterator[int]:
        return (number * rows % (self.asked.num_rows - rows) for number in range(count))


def train(folder: Path, *, with_features: bool) -> TrainedModel:
    """Train on the end of the quarter; with features: of the demo's views, kept in `folder/online`."""
    flights = declared()
    views = (
        [flights.carrier, flights.origin, flights.dest, flights.tail, flights.sky] if with_features else []
    )
    rows = {"landings": landings(), "weather": weather()} if with_features else {}
    quarter = schedule().filter(pc.field("at") < _NOW)
    quarter = quarter.slice(quarter.num_rows - _ROWS)
    categories = {name: tuple(sorted(pc.unique(quarter[name]).to_pylist())) for name in _CATEGORIES}
    columns = [quarter[name].to_numpy().astype(np.float64) for name in _NUMBERS]
    for name, known in categories.items():
        columns.append(pc.index_in(quarter[name], pa.array(known)).to_numpy().astype(np.float64))
    with LmdbOnlineStore(folder / "online") as store:
        for view in views:
            store.load(view, rows[view.source.name], before=_NOW)
            found = point_in_time(view, rows[view.source.name], quarter)
            columns += [each.to_numpy() for each in found.columns]
    matrix = np.column_stack(columns)
    booster = _fit(matrix, _late(quarter))
    path = folder / "model.txt"
    path.write_text(booster.model_to_string())
    samples = matrix[-16:].copy()
    served = ServedModel(
        release="late_arrival:1",
        model="late_arrival",
        version=1,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        inputs=(
            *(Input(name=name, kind="number") for name in _NUMBERS),
            *(Input(name=name, kind="category", categories=known) for name, known in categories.items()),
            *(Input(name=name, kind="feature") for view in views for name in view.columns),
        ),
        views=tuple(view.spec() for view in views),
        samples=Samples(
            matrix=samples.tobytes(), scores=np.asarray(booster.predict(samples, num_threads=1)).tobytes()
        ),
    )
    return TrainedModel(path, served, quarter, matrix)


def _late(quarter: pa.Table) -> npt.NDArray[np.bool_]:
    """Say of each flight whether it arrived late; one that did not land was not."""
    late = landings().filter(pc.field("late"))
    found: npt.NDArray[np.bool_] = pc.is_in(
        quarter["flight_id"], late["flight_id"].combine_chunks()
    ).to_numpy()
    return found


def _fit(matrix: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> Any:
    params = {
        "objective": "binary",
        "num_leaves": 31,
        "learning_rate": 0.08,
        "num_threads": 1,
        "seed": 7,
        "verbosity": -1,
        "deterministic": True,
    }
    return lightgbm.train(params, lightgbm.Dataset(matrix, labels.astype(np.float64)), 120)
