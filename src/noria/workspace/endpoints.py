"""Wiring of deployments: a folder, a worker process that is started when first needed, and its files."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from noria.config import EnvironmentSettings
from noria.deploy.collecting import collect_predictions
from noria.deploy.environments import Deployment
from noria.deploy.model_releases import served_outputs, signature_of
from noria.deploy.releases import Release
from noria.deploy.supervisor import Supervisor
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import Version
from noria.registry.folders.trust import PickleTrust
from noria.registry.matrix import column_floats, encode
from noria.registry.records import Signature
from noria.registry.rows import column_values, encode_rows
from noria.registry.store import Registry
from noria.replay.serving_day import RequestColumns
from noria.serving.records import SCORE, Limits, LogRules, Route, Samples, WorkerConfig
from noria.storage.contract import Storage
from noria.training.declarations import Training
from noria.training.records import TrainingSet

__all__ = [
    "ProcessTarget",
    "make_deployment",
    "make_probe",
    "make_supervisor",
    "release_samples",
    "samples_as_served",
    "stored_samples",
]

NO_TRUST = PickleTrust()

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
    root: Path,
    environment: str,
    online: str,
    port: int | None = None,
) -> Supervisor:
    """Set up the server of an environment; nothing is started yet.

    Parameters
    ----------
    folder
        Where it and its deployments keep their files.
    root
        Where relative paths of the settings start.
    """

    def located(given: str) -> str:
        return str(root / given) if given else ""

    config = WorkerConfig(
        environment=environment,
        online=online,
        host=settings.host,
        port=settings.port if port is None else port,
        clock=settings.clock,
        workers=settings.workers,
        limits=Limits(
            max_body_bytes=settings.max_body_bytes,
            max_header_bytes=settings.max_header_bytes,
            max_rows=settings.max_rows,
            request_timeout_s=settings.request_timeout_s,
            shed_after_s=settings.shed_after_s,
            read_timeout_s=settings.read_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            max_connections=settings.max_connections,
            drain_s=settings.drain_s,
            features_timeout_s=settings.features_timeout_s,
            max_explained_rows=settings.max_explained_rows,
            explain_share=settings.explain_share,
            explain_timeout_s=settings.explain_timeout_s,
        ),
        log=LogRules(
            sample=settings.log.sample,
            redact=settings.log.redact,
            synchronous=settings.log.synchronous,
            max_spool_bytes=settings.log.max_spool_bytes,
        ),
        tls_certificate=located(settings.tls_certificate),
        tls_key=located(settings.tls_key),
        proxies=settings.proxies,
        keys=located(settings.keys),
        without_key=settings.without_key,
        strangers=settings.strangers,
        features=settings.features,
        features_max_age_s=settings.features_max_age_s,
        hang_s=settings.hang_s,
        idle_stop_s=settings.idle_stop_s,
        memory_mb=settings.memory_mb,
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
    gated: bool = True,
    trust: PickleTrust = NO_TRUST,
    artifact: Callable[[str], Path] | None = None,
) -> Deployment:
    """Give a deployment whose worker verifies each model on the rows stored with its version.

    Parameters
    ----------
    gated
        Whether a release has to have passed the environment's gate.
    trust
        What may run code as it is loaded.
    artifact
        Gives a local file of the project's artifacts by its sha256: files of folders of MLflow are these.
    """

    def fetch(sha256: str) -> Path:
        if artifact is None or storage.exists(sha256):
            return storage.fetch(sha256)
        return artifact(sha256)

    def samples(release: Release) -> Samples:
        return release_samples(registry, ledger, storage, release)

    return Deployment(
        ledger,
        environment=environment,
        name=name,
        fetch=fetch,
        samples=samples,
        target=None if supervisor is None else ProcessTarget(supervisor),
        gated=gated,
        trusts=trust.covers,
    )


def release_samples(registry: Registry, ledger: Ledger, storage: Storage, release: Release) -> Samples:
    """Give the rows that are stored with a release, or with its model version, as a worker scores them."""
    if release.samples is None:
        return stored_samples(registry, ledger.get_version_by_id(release.model))
    table = pa.ipc.open_stream(storage.get(release.samples)).read_all()
    return samples_as_served(signature_of(release), table)


def samples_as_served(signature: Signature, table: pa.Table) -> Samples:
    """Give rows with what a model gives for them, in the columns of its outputs, as a worker reads them."""
    matrix, strings = encode_rows(signature, table)
    given = {each.name: column_values(each.name, table[each.name]) for each in signature.given}
    scores = np.full(table.num_rows, np.nan)
    if served_outputs(signature) == (SCORE,):
        scores = np.asarray(given.pop(signature.output), dtype="<f8")
    return Samples(
        matrix=np.ascontiguousarray(matrix, dtype="<f8").tobytes(),
        scores=scores.tobytes(),
        strings=strings,
        outputs={
            name: values if isinstance(values, list) else np.ascontiguousarray(values, dtype="<f8").tobytes()
            for name, values in given.items()
        },
    )


def stored_samples(registry: Registry, version: Version) -> Samples:
    """Give the rows that are stored with a model version as a worker scores them."""
    signature = registry.read_manifest(version).signature
    if signature.is_as_given:
        return samples_as_served(signature, registry.read_samples(version))
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
    supervisor: Supervisor, lake: Lake, *, deployment: str
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
        collect_predictions(supervisor, deployment, lake)
        return times

    return probe


def _as_spine(training: Training, rows: pa.Table) -> list[str]:
    """Name the columns of feature rows as the spine names them."""
    return [training.spine.id if name == "id" else name for name in rows.column_names]
