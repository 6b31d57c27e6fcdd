"""Three models of the kinds that clients ask, each with rows, and a server of its own for one of them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from noria.deploy.supervisor import Address, Supervisor
from noria.registry.skops_archives import dump_archive
from noria.serving.records import Input, Output, Route, RouteEntry, Samples, ServedModel, WorkerConfig

CARRIERS = ("AA", "DL", "UA")
CITIES = ("Köln", "Oslo", "Zürich")
PLAIN = WorkerConfig(environment="production")
Tensor = tuple[str, list[Any]]  # datatype and values


@dataclass(frozen=True)
class Asked:
    """A model, rows as clients send them, and what it gives for them."""

    name: str
    served: ServedModel
    columns: dict[str, Tensor]
    outputs: dict[str, list[Any]]


@contextmanager
def supervised(*models: Asked, folder: Path, config: WorkerConfig = PLAIN) -> Iterator[Supervisor]:
    """Serve models, each at a deployment of its name."""
    routes = [
        Route(
            environment="production",
            deployment=each.name,
            number=1,
            id=f"route-{each.name}",
            entries=(RouteEntry(release=each.served.release),),
            models=(each.served,),
        )
        for each in models
    ]
    with Supervisor(folder, config) as supervisor:
        supervisor.start(*routes)
        yield supervisor


@contextmanager
def served(*models: Asked, folder: Path) -> Iterator[Address]:
    """Serve models, and give where."""
    with supervised(*models, folder=folder) as supervisor:
        yield supervisor.address


def numeric(folder: Path) -> Asked:
    """Give a LightGBM model of four numbers."""
    matrix = np.random.default_rng(1).normal(size=(400, 4))
    booster = _booster(matrix, matrix[:, 0] + matrix[:, 1] > 0)
    rows = matrix[:5].copy()
    rows[2, 1] = np.nan
    inputs = [Input(name=f"x{each}", kind="number") for each in range(4)]
    columns = {each.name: ("FP64", rows[:, place].tolist()) for place, each in enumerate(inputs)}
    return _lightgbm("numbers", folder, booster, matrix, inputs, columns, rows)


def mixed(folder: Path) -> Asked:
    """Give a LightGBM model of a number and a category."""
    rng = np.random.default_rng(2)
    matrix = np.column_stack([rng.normal(900, 300, 400), rng.integers(0, 3, 400)])
    booster = _booster(matrix, (matrix[:, 0] > 900) ^ (matrix[:, 1] == 1))
    inputs = [
        Input(name="distance", kind="number"),
        Input(name="carrier", kind="category", categories=CARRIERS),
    ]
    carriers = ["AA", "DL", "UA", "XX", "DL"]
    codes = [CARRIERS.index(each) if each in CARRIERS else np.nan for each in carriers]
    rows = np.column_stack([matrix[:5, 0], codes])
    columns = {"distance": ("FP64", rows[:, 0].tolist()), "carrier": ("BYTES", carriers)}
    return _lightgbm("mixed", folder, booster, matrix, inputs, columns, rows)


def strings(folder: Path) -> Asked:
    """Give a scikit-learn pipeline that reads texts and a number, and tells one of three classes."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "city": rng.choice(CITIES, 300),
            "month": rng.choice(["May", "June"], 300),
            "snow": rng.normal(size=300),
        }
    )
    label = np.where(frame["city"] == "Oslo", "cold", np.where(frame["snow"] > 0, "mild", "warm"))
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    pipeline = make_pipeline(
        ColumnTransformer(
            [
                ("texts", texts, ["city", "month"]),
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["snow"]),
            ]
        ),
        LogisticRegression(),
    ).fit(frame, label)
    classes = tuple(map(str, pipeline.classes_))
    inputs = (
        Input(name="city", kind="string"),
        Input(name="month", kind="string"),
        Input(name="snow", kind="number"),
    )
    outputs = (
        Output(name="label", datatype="BYTES"),
        Output(name="probability", width=len(classes), labels=classes),
    )
    few = frame[:16]
    path = folder / "strings.skops"
    path.write_bytes(dump_archive(pipeline)[0])
    samples = Samples(
        matrix=few[["snow"]].to_numpy().tobytes(),
        scores=np.full(len(few), np.nan).tobytes(),
        strings={name: few[name].tolist() for name in ("city", "month")},
        outputs={
            "label": pipeline.predict(few).tolist(),
            "probability": pipeline.predict_proba(few).tobytes(),
        },
    )
    rows = frame[16:21]
    return Asked(
        "strings",
        _served_model("strings", path, inputs, samples, outputs=outputs, format="skops"),
        {
            "city": ("BYTES", rows["city"].tolist()),
            "month": ("BYTES", rows["month"].tolist()),
            "snow": ("FP64", rows["snow"].tolist()),
        },
        {"label": pipeline.predict(rows).tolist(), "probability": pipeline.predict_proba(rows).tolist()},
    )


def _lightgbm(
    name: str,
    folder: Path,
    booster: lgb.Booster,
    matrix: np.ndarray[Any, Any],
    inputs: Sequence[Input],
    columns: dict[str, Tensor],
    rows: np.ndarray[Any, Any],
) -> Asked:
    path = folder / f"{name}.txt"
    path.write_text(booster.model_to_string())
    few = np.ascontiguousarray(matrix[:16])
    scores = np.asarray(booster.predict(few, num_threads=1))
    samples = Samples(matrix=few.tobytes(), scores=scores.tobytes())
    served_model = _served_model(name, path, inputs, samples)
    return Asked(name, served_model, columns, {"score": np.asarray(booster.predict(rows)).tolist()})


def _booster(matrix: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> lgb.Booster:
    params = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbosity": -1, "seed": 1}
    return lgb.train(params, lgb.Dataset(matrix, labels.astype(float), params={"verbosity": -1}), 10)


def _served_model(
    name: str,
    path: Path,
    inputs: Sequence[Input],
    samples: Samples,
    *,
    outputs: tuple[Output, ...] = (Output(name="score"),),
    format: str = "lightgbm",
) -> ServedModel:
    return ServedModel(
        release=f"{name}:1",
        model=name,
        version=1,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        inputs=tuple(inputs),
        samples=samples,
        outputs=outputs,
        format=format,
    )
