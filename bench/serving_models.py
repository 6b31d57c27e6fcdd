"""The models that servers are compared by, and their rows as each wire takes them."""

import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.lake.declarations import Dataset
from noria.registry.skops_archives import dump_archive
from noria.serving.compiled import describe
from noria.serving.records import Input, Samples, ServedModel

__all__ = ["Boosted", "Pipelined", "boosted", "featured", "pipelined"]

_ROWS, _ASKED = 20_000, 2_000
_WIDTH = 20
_NUMBERS, _TEXTS = [f"n{each}" for each in range(6)], [f"c{each}" for each in range(3)]


@dataclass(frozen=True)
class Boosted:
    """LightGBM, 200 trees of 31 leaves over 20 numbers."""

    path: Path
    served: ServedModel
    rows: NDArray[np.float64]

    def tensor(self, start: int, count: int = 1) -> bytes:
        """Give rows as an infer request of one tensor."""
        part = self.rows[start : start + count]
        tensor = {
            "name": "rows",
            "datatype": "FP64",
            "shape": list(part.shape),
            "data": part.ravel().tolist(),
        }
        return orjson.dumps({"inputs": [tensor]})

    def binary(self, start: int, count: int) -> tuple[bytes, int]:
        """Give rows as an infer request with a binary tensor, and the length of its JSON."""
        part = self.rows[start : start + count]
        tensor = {
            "name": "rows",
            "datatype": "FP64",
            "shape": list(part.shape),
            "parameters": {"binary_data_size": part.nbytes},
        }
        head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        return head + part.tobytes(), len(head)

    def matrix(self, start: int, count: int = 1) -> bytes:
        """Give rows as lists."""
        return orjson.dumps(self.rows[start : start + count].tolist())

    def records(self, start: int, count: int = 1) -> bytes:
        """Give rows as objects."""
        return json.dumps(self._frame(start, count).to_dict("records")).encode()

    def split(self, start: int, count: int = 1) -> bytes:
        """Give rows as MLflow's `dataframe_split`."""
        frame = self._frame(start, count)
        return json.dumps(
            {"dataframe_split": {"columns": list(frame), "data": frame.to_numpy().tolist()}}
        ).encode()

    def _frame(self, start: int, count: int) -> pd.DataFrame:
        return pd.DataFrame(self.rows[start : start + count], columns=[f"x{each}" for each in range(_WIDTH)])


@dataclass(frozen=True)
class Pipelined:
    """scikit-learn: impute and scale 6 numbers, one-hot 3 texts, HistGradientBoosting of 200 trees."""

    served: ServedModel
    pipeline: Any
    rows: pd.DataFrame

    def tensors(self, start: int) -> bytes:
        """Give a row as an infer request of named tensors."""
        part = self._part(start)
        inputs = [
            {"name": name, "datatype": "BYTES" if name in _TEXTS else "FP64", "shape": [1], "data": [value]}
            for name, value in part.items()
        ]
        return orjson.dumps({"inputs": inputs})

    def records(self, start: int) -> bytes:
        """Give a row as a list of one object."""
        return orjson.dumps([self._part(start)])

    def split(self, start: int) -> bytes:
        """Give a row as MLflow's `dataframe_split`."""
        part = self._part(start)
        return orjson.dumps({"dataframe_split": {"columns": list(part), "data": [list(part.values())]}})

    def _part(self, start: int) -> dict[str, Any]:
        (found,) = self.rows[start : start + 1].to_dict("records")
        return {str(key): None if value != value else value for key, value in found.items()}


def boosted(folder: Path) -> Boosted:
    """Train it; peers find `lightgbm.txt` and rows in the folder."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(_ROWS, _WIDTH))
    labels = matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + rng.normal(size=_ROWS) > 0
    params = {"objective": "binary", "num_leaves": 31, "num_threads": 1, "verbosity": -1, "seed": 1}
    model = lightgbm.train(params, lightgbm.Dataset(matrix, labels.astype(float)), 200)
    path = folder / "lightgbm.txt"
    path.write_text(model.model_to_string())
    few = matrix[:16].copy()
    names = [f"x{each}" for each in range(_WIDTH)]
    pd.DataFrame(few, columns=names).to_json(folder / "rows.json", orient="split")
    scores = np.asarray(model.predict(few, num_threads=1))
    served = ServedModel(
        release="boosted:1",
        model="boosted",
        version=1,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        inputs=tuple(Input(name=each, kind="number") for each in names),
        samples=Samples(matrix=few.tobytes(), scores=scores.tobytes()),
    )
    return Boosted(path, served, matrix[:_ASKED])


def pipelined(folder: Path) -> Pipelined:
    """Train it; peers find `pipeline.pickle` and rows in the folder."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({each: rng.normal(size=_ROWS) for each in _NUMBERS})
    frame = frame.mask(rng.random(frame.shape) < 0.05)
    for each in _TEXTS:
        frame[each] = rng.choice([f"{each}-{value}" for value in range(12)], _ROWS).astype(object)
    labels = frame["n0"].fillna(0) + (frame["c0"] < "c0-5") + rng.normal(size=_ROWS) > 0.5
    pipeline = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), _NUMBERS),
                ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), _TEXTS),
            ]
        ),
        HistGradientBoostingClassifier(max_iter=200),
    ).fit(frame, labels.to_numpy().astype(int))
    (folder / "pipeline.pickle").write_bytes(pickle.dumps(pipeline))
    path = folder / "pipeline.skops"
    path.write_bytes(dump_archive(pipeline)[0])
    few = frame[:16]
    few.to_json(folder / "mixed.json", orient="split")
    inputs, outputs = describe(pipeline)
    samples = Samples(
        matrix=np.ascontiguousarray(few[_NUMBERS].to_numpy(dtype=float)).tobytes(),
        scores=np.ascontiguousarray(pipeline.predict_proba(few)[:, 1]).tobytes(),
        strings={each: few[each].tolist() for each in _TEXTS},
    )
    served = ServedModel(
        release="pipelined:1",
        model="pipelined",
        version=1,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        format="skops",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        samples=samples,
    )
    return Pipelined(served, pipeline, frame[:_ASKED])


def featured(model: Boosted, store: Path) -> tuple[ServedModel, Sequence[bytes]]:
    """Give the same model with ten of its numbers from two views online, and requests."""
    windows = ("1h", "6h", "1d", "2d", "7d")
    views = [
        FeatureView(
            entity,
            source=Dataset("rides", key="ride_id", event_at="at", known_at="known_at"),
            entity=entity,
            features={f"paid_{each}": agg.mean("paid", window=each) for each in windows},
        )
        for entity in ("driver", "rider")
    ]
    now = datetime.now(UTC)
    instants = [now - timedelta(minutes=each) for each in range(1, 4_000)]
    rides = pa.table(
        {
            "ride_id": [f"r{each}" for each in range(len(instants))],
            "at": pa.array(instants, pa.timestamp("us", "UTC")),
            "known_at": pa.array(instants, pa.timestamp("us", "UTC")),
            "driver": [f"d{each % 50}" for each in range(len(instants))],
            "rider": [f"p{each % 97}" for each in range(len(instants))],
            "paid": [float(each % 31) for each in range(len(instants))],
        }
    )
    with LmdbOnlineStore(store) as online:
        for view in views:
            online.load(view, rides)
    columns = [name for view in views for name in view.columns]
    inputs = (
        *(Input(name=f"x{each}", kind="number") for each in range(_WIDTH - len(columns))),
        *(Input(name=each, kind="feature") for each in columns),
    )
    served = ServedModel(
        release="featured:1",
        model="featured",
        version=1,
        digest=model.served.digest,
        path=model.served.path,
        inputs=inputs,
        views=tuple(view.spec() for view in views),
        samples=model.served.samples,
    )
    return served, [_keyed(model.rows[row], row) for row in range(256)]


def _keyed(row: NDArray[np.float64], number: int) -> bytes:
    inputs = [
        {"name": f"x{each}", "datatype": "FP64", "shape": [1], "data": [value]}
        for each, value in enumerate(row[:10].tolist())
    ]
    for name, value in (("driver", f"d{number % 50}"), ("rider", f"p{number % 97}")):
        inputs.append({"name": name, "datatype": "BYTES", "shape": [1], "data": [value]})
    return orjson.dumps({"inputs": inputs})
