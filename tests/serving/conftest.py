"""Real models, real worker processes on free loopback ports."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from noria.deploy.supervisor import Supervisor
from noria.features import FeatureView, ViewSpec, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.lake.declarations import Dataset
from noria.serving.records import Input, Limits, Route, RouteEntry, Samples, ServedModel, WorkerConfig

NOW = datetime(2013, 6, 1, 12, tzinfo=UTC)
CARRIERS = ("AA", "DL", "UA")
FLIGHTS = Dataset("flights", key="flight_id", event_at="departed_at", known_at="landed_at")
VIEW = FeatureView(
    "carrier",
    source=FLIGHTS,
    entity="carrier",
    features={"flights_1d": agg.count(window="1d"), "delay_7d": agg.mean("delay", window="7d")},
)
INPUTS = (
    Input(name="distance", kind="number"),
    Input(name="carrier", kind="category", categories=CARRIERS),
    Input(name="carrier__flights_1d", kind="feature"),
    Input(name="carrier__delay_7d", kind="feature"),
)


@dataclass(frozen=True)
class Trained:
    """A LightGBM model with what a worker needs of it."""

    booster: lgb.Booster
    path: Path
    samples: Samples

    def served(
        self, version: int, *, inputs: Sequence[Input] = INPUTS, views: Sequence[ViewSpec] = (VIEW.spec(),)
    ) -> ServedModel:
        return ServedModel(
            release=f"late_arrival:{version}",
            model="late_arrival",
            version=version,
            digest=hashlib.sha256(self.path.read_bytes()).hexdigest(),
            path=str(self.path),
            inputs=tuple(inputs),
            views=tuple(views),
            samples=self.samples,
        )


def train(path: Path, *, seed: int, columns: int = 4) -> Trained:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(800, columns)) * [900, *[2] * (columns - 1)] + [900, *[2] * (columns - 1)]
    if columns > 1:
        matrix[:, 1] = rng.integers(0, 3, size=800)
    labels = (matrix[:, 0] / 900 + matrix[:, -1] + rng.normal(size=800) > 3).astype(float)
    params = {
        "objective": "binary",
        "num_leaves": 7,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
        "deterministic": True,
    }
    booster = lgb.train(params, lgb.Dataset(matrix, labels, params={"verbosity": -1}), 20)
    path.write_text(booster.model_to_string())
    rows = matrix[:16].copy()
    rows[3, 0] = np.nan
    scores = booster.predict(rows, num_threads=1)
    return Trained(booster, path, Samples(matrix=rows.tobytes(), scores=np.asarray(scores).tobytes()))


def route(
    number: int,
    *models: ServedModel,
    weights: Sequence[float] | None = None,
    modes: Sequence[str] | None = None,
) -> Route:
    return Route(
        environment="production",
        deployment="late",
        number=number,
        id=f"route-{number}",
        entries=tuple(
            RouteEntry(
                release=model.release,
                weight=weights[place] if weights else 1.0,
                mode=modes[place] if modes else "answer",  # type: ignore[arg-type]
            )
            for place, model in enumerate(models)
        ),
        models=models,
    )


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("models") / "first.txt", seed=1)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("models") / "second.txt", seed=2)


def landed() -> pa.Table:
    """Give the rows that the online store is loaded with."""
    instants = [NOW - timedelta(hours=hour) for hour in range(1, 60)]
    return pa.table(
        {
            "flight_id": [f"f{number:03d}" for number in range(len(instants))],
            "departed_at": pa.array(
                [each - timedelta(hours=2) for each in instants], pa.timestamp("us", "UTC")
            ),
            "landed_at": pa.array(instants, pa.timestamp("us", "UTC")),
            "carrier": [CARRIERS[number % 2] for number in range(len(instants))],
            "delay": [number % 17 for number in range(len(instants))],
        }
    )


@pytest.fixture(scope="session")
def online(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("online") / "store"
    with LmdbOnlineStore(folder) as store:
        store.load(VIEW, landed())
    return folder


@pytest.fixture(scope="session")
def worker_config(online: Path) -> WorkerConfig:
    return WorkerConfig(
        environment="production",
        online=str(online),
        clock="replay",
        limits=Limits(max_body_bytes=100_000),
    )


@pytest.fixture
def supervise(tmp_path: Path, worker_config: WorkerConfig) -> Iterator[Callable[..., Supervisor]]:
    """Make supervisors that are stopped at the end."""
    made: list[Supervisor] = []

    def make(*, using: WorkerConfig = worker_config, folder: Path = tmp_path / "production") -> Supervisor:
        made.append(Supervisor(folder, using))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture(scope="module")
def module_supervisor(
    tmp_path_factory: pytest.TempPathFactory, worker_config: WorkerConfig, first: Trained, second: Trained
) -> Iterator[Supervisor]:
    """One worker for all tests of a module that leave it as it was: a route with two versions."""
    with Supervisor(tmp_path_factory.mktemp("worker") / "production", worker_config) as supervisor:
        supervisor.start(route(1, first.served(1), second.served(2), weights=[0.8, 0.2]))
        yield supervisor


def rotated(supervisor: Supervisor) -> int:
    """Close the log of the only worker; give the number of its last closed segment."""
    ((_, segment),) = supervisor.rotate("late")
    return segment


def process_is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
