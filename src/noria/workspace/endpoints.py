"""Wiring of deployments: a folder, a worker process that is started when first needed, and its files."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from noria.config import EnvironmentSettings
from noria.deploy.environments import Deployment
from noria.deploy.releases import Release
from noria.deploy.shipping import ship_predictions
from noria.deploy.supervisor import Supervisor
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import Version
from noria.registry.matrix import column_floats, encode
from noria.registry.store import Registry
from noria.replay.serving_day import RequestColumns
from noria.serving.records import Route, Samples, WorkerConfig
from noria.storage.contract import Storage
from noria.training.declarations import Training
from noria.training.records import TrainingSet

__all__ = ["ProcessTarget", "make_deployment", "make_probe", "make_supervisor", "stored_samples"]

_PROBE_REQUESTS, _PROBE_ROWS = 24, 8


class ProcessTarget:
    """Serves a deployment by a local process: started by the first route, swapped by the next."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def swap(self, route: Route) -> None:
        """Answer by `route`; return once it does."""
        self._supervisor.start(route)


def make_supervisor(
    folder: Path,
    settings: EnvironmentSettings,
    *,
    environment: str,
    deployment: str,
    online: str,
    port: int | None = None,
) -> Supervisor:
    """Set up the worker of a deployment; nothing is started yet."""
    config = WorkerConfig(
        environment=environment,
        deployment=deployment,
        spool="spool",
        index="index",
        online=online,
        host=settings.host,
        port=settings.port if port is None else port,
        clock=settings.clock,
    )
    return Supervisor(folder, config)


def make_deployment(
    ledger: Ledger,
    registry: Registry,
    storage: Storage,
    *,
    environment: str,
    name: str,
    supervisor: Supervisor | None,
) -> Deployment:
    """Give a deployment whose worker verifies each model on the rows stored with its version."""

    def samples(release: Release) -> Samples:
        return stored_samples(registry, ledger.get_version_by_id(release.model))

    return Deployment(
        ledger,
        environment=environment,
        name=name,
        fetch=storage.fetch,
        samples=samples,
        target=None if supervisor is None else ProcessTarget(supervisor),
    )


def stored_samples(registry: Registry, version: Version) -> Samples:
    """Give the rows that are stored with a model version as a worker scores them."""
    loaded = registry.load(version)
    matrix = np.ascontiguousarray(encode(loaded.signature, loaded.samples), dtype="<f8")
    scores = loaded.samples[loaded.signature.output].to_numpy().astype("<f8")
    numbers: dict[str, bytes] = {}
    texts: dict[str, list[str | None]] = {}
    bundle = registry.read_code(version)
    for spec in () if bundle is None else bundle.on_demand:
        for name in (*spec.numbers, *spec.features, *spec.columns):
            floats = column_floats(name, loaded.samples[name])
            numbers[name] = np.ascontiguousarray(floats, dtype="<f8").tobytes()
        texts |= {name: loaded.samples[name].cast(pa.string()).to_pylist() for name in spec.texts}
    return Samples(matrix=matrix.tobytes(), scores=scores.tobytes(), numbers=numbers, texts=texts)


def make_probe(
    supervisor: Supervisor, lake: Lake, *, app_id: str
) -> Callable[[Training, TrainingSet, datetime, str], Sequence[float]]:
    """Give a function that asks a worker for the newest rows of a set and times each request."""

    def probe(training: Training, rows: TrainingSet, at: datetime, key: str) -> list[float]:
        newest = rows.source.take(pa.array(rows.rows[-_PROBE_REQUESTS * _PROBE_ROWS :]))
        requests = RequestColumns(training, newest.rename_columns(_as_spine(training, newest)))
        times: list[float] = []
        with supervisor.client() as client:
            for start in range(0, newest.num_rows, _PROBE_ROWS):
                columns, ids = requests.slice(start, start + _PROBE_ROWS)
                began = time.perf_counter()
                client.infer(training.name, columns, ids=[f"{key}:{each}" for each in ids], at=at)
                times.append((time.perf_counter() - began) * 1_000)
        ship_predictions(supervisor.spool, lake, app_id=app_id, rotate=supervisor.rotate)
        return times

    return probe


def _as_spine(training: Training, rows: pa.Table) -> list[str]:
    """Name the columns of feature rows as the spine names them."""
    return [training.spine.id if name == "id" else name for name in rows.column_names]
