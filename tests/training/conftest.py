from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from noria.features import agg
from noria.features.declarations import FeatureView
from noria.lake.declarations import Dataset
from noria.training import Label, Spine, Training, TrainingRun, TrainingSet, category, train

START = datetime(2013, 1, 1, tzinfo=UTC)

parcels = Dataset("parcels", key="parcel_id", event_at="promised_at")
deliveries = Dataset("deliveries", key="delivery_id", event_at="delivered_at", known_at="scanned_at")
depot = FeatureView(
    "depot", source=deliveries, entity="depot", features={"late_rate": agg.mean("late", window="7d")}
)


def fit_lightgbm(data: TrainingSet, run: TrainingRun) -> Any:
    params = run.lightgbm_params(num_leaves=15, learning_rate=0.2)
    rows = lightgbm.Dataset(
        data.X, data.y, feature_name=list(data.names), categorical_feature=list(data.category_columns)
    )
    return lightgbm.train(params, rows, num_boost_round=12)


def declare(function: Callable[[TrainingSet, TrainingRun], Any] = fit_lightgbm) -> Training:
    return train(
        "late_parcel",
        spine=Spine(parcels, id="parcel_id", at="predict_at"),
        label=Label("late", source=deliveries, column="late", on="parcel"),
        fields=["weight", category("depot")],
        features=[depot],
        seed=7,
    )(function)


def make_rows(size: int, *, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Two parcels an hour, each delivered half a day later; late ones are heavy."""
    rng = np.random.default_rng(seed)
    at = [START + timedelta(minutes=30 * number) for number in range(size)]
    weight = rng.exponential(5, size)
    late = (rng.random(size) < 1 / (1 + np.exp(3 - weight / 3))).astype(np.int64)
    ids = [f"p{number:06}" for number in range(size)]
    order = rng.permutation(size)
    rows = pa.table(
        {
            "parcel_id": ids,
            "predict_at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "weight": weight,
            "depot": rng.choice(["north", "south", "west"], size),
            "depot__late_rate": rng.random(size),
        }
    ).take(order)
    labels = pa.table(
        {
            "delivery_id": [f"d{number}" for number in range(size)],
            "parcel": ids,
            "late": late,
            "scanned_at": pa.array([each + timedelta(hours=12) for each in at], pa.timestamp("us", tz="UTC")),
        }
    )
    return rows, labels


@pytest.fixture(scope="session")
def rows_and_labels() -> tuple[pa.Table, pa.Table]:
    return make_rows(3_000)
