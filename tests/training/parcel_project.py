"""A small project about parcels, to train on; run as a script it trains in children that may be killed."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.features import agg
from noria.features.declarations import FeatureView
from noria.lake.declarations import Dataset
from noria.ledger.store import Ledger
from noria.registry.store import Registry
from noria.storage.opening import open_storage
from noria.training import Label, Spine, Training, TrainingRun, TrainingSet, category, train
from noria.training.engine import Fitted, TrainingData, build_training_set, fit

START = datetime(2013, 1, 1, tzinfo=UTC)
UNTIL, HOLDOUT_FROM = START + timedelta(days=60), START + timedelta(days=50)

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


class Bench:
    """A ledger and a registry in a folder."""

    def __init__(self, folder: Path) -> None:
        database = Database.open(f"sqlite:///{folder / 'noria.db'}")
        self.ledger = Ledger(database, clock=ReplayClock(datetime(2013, 4, 1, tzinfo=UTC)))
        self.registry = Registry(self.ledger, open_storage(str(folder / "storage")))

    def fit(self, training: Training, data: TrainingData, **named: Any) -> Fitted:
        return fit(training, data, ledger=self.ledger, registry=self.registry, **named)


def main(folder: Path, *, kills: int, seed: int) -> None:
    """Train in `folder`/0 undisturbed; in `folder`/1 and on, killed at a random instant, and once more.

    Each training is a forked child of this process, which does the imports once for all.
    """
    chance = random.Random(seed)
    data = build_training_set(declare(), *make_rows(3_000), until=UNTIL, holdout_from=HOLDOUT_FROM)
    for number in range(kills + 1):
        Bench(folder / f"{number}").ledger.database.close()  # tables are made before, not while it is killed
    began = time.monotonic()
    run_child(data, folder / "0")
    took_s = time.monotonic() - began
    for number in range(1, kills + 1):
        run_child(data, folder / f"{number}", patience_s=chance.uniform(0, took_s))
        run_child(data, folder / f"{number}")


def run_child(data: TrainingData, folder: Path, *, patience_s: float = 60.0) -> None:
    """Train in a child, and kill it where patience ends."""
    patience_ends = time.monotonic() + patience_s
    child = os.fork()
    if not child:
        Bench(folder).fit(declare(), data, key="late_parcel/killed")
        os._exit(0)
    while time.monotonic() < patience_ends:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3]))
