"""Training, run: the declared function on a training set, as a tracked run that registers a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from noria.evaluation.estimates import estimated_auc, estimated_log_loss
from noria.evaluation.scores import evaluate
from noria.ledger.store import Ledger
from noria.profiles.build import build_profile
from noria.profiles.records import Profile
from noria.records import Run, Version, VersionId
from noria.registry.formats import dump_estimator, load_scorer
from noria.registry.matrix import Matrix, column_floats
from noria.registry.records import Signature
from noria.registry.store import Registry
from noria.tracking.records import DEFAULT_EXPERIMENT
from noria.tracking.runs import TrackedRun, tracked_run
from noria.training.declarations import Training
from noria.training.records import TrainingSet
from noria.training.sets import TrainingData, build_training_set, digest_of_set
from noria.training.settings import lightgbm_params

__all__ = ["Fitted", "TrainingData", "build_training_set", "fit", "lightgbm_params"]

_SAMPLE_ROWS = 50
_SCORED_ROWS = 20_000  # of the training rows, for the profile of scores where nothing is held back
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training gave: its closed run, the model's version, and its quality on the holdout if any."""

    run: Run
    version: Version
    metrics: Mapping[str, float]


def fit(
    training: Training,
    data: TrainingData,
    *,
    ledger: Ledger,
    registry: Registry,
    inputs: Sequence[Version | VersionId] = (),
    parents: Sequence[VersionId] = (),
    cause: str | None = None,
    key: str | None = None,
    experiment: str = DEFAULT_EXPERIMENT,
    threads: int = 1,
    window_rows: int | None = None,
    shuffle_labels_seed: int | None = None,
    at: datetime | None = None,
) -> Fitted:
    """Fit and register a model as a tracked run of kind `train`.

    Killed at any instant and called again with the same data and `key`, it gives the same version; when it
    had finished, what it gave then.

    Parameters
    ----------
    training : Training
    data : TrainingData
        Made by `build_training_set`.
    ledger, registry
        Where run and model are recorded.
    inputs : sequence of Version or VersionId
        Versions that `data` was made from; the training set itself is added.
    parents : sequence of VersionId
        Versions the model comes from, such as the gated one of which it is a refit.
    cause : str, optional
        The event that started it.
    key : str, optional
        Names this very training.
    experiment : str
        The folder of the run.
    threads : int
        For the function. One is quicker than two beside a busy process.
    window_rows : int, optional
        Rows of the windows on which the profile's thresholds are calibrated: as many as will be judged at
        once. Without it, a day's.
    shuffle_labels_seed : int, optional
        A drill: train on labels in random order, and say so in the run and the version.
    at : datetime, optional
        The project's instant.

    Raises
    ------
    ConfigError
        If the function gives nothing that can be registered.
    LeaseHeld
        If a living process is at work on the same key.
    """
    params = {**data.facts, "threads": threads}
    facts: dict[str, Any] = {"training": training.name, **data.facts}
    if shuffle_labels_seed is not None:
        drill = {"drill": "shuffled labels", "shuffle_labels_seed": shuffle_labels_seed}
        params |= drill
        facts |= drill
    with tracked_run(
        ledger,
        "train",
        training.name,
        experiment=experiment,
        cause=cause,
        params=params,
        seed=training.seed,
        key=key,
        at=at,
    ) as tracked:
        if tracked.is_done:
            version = _output(ledger, tracked.run)
            return Fitted(tracked.run, version, dict(version.facts["metrics"]))
        for each in (*inputs, _record_set(training, data, ledger, at=at)):
            tracked.add_input(each)
        rows = data.training if shuffle_labels_seed is None else _shuffled(data.training, shuffle_labels_seed)
        estimator = training(rows, _FunctionRun(tracked, training.seed, threads))
        model_format, model_bytes = dump_estimator(estimator)
        score = load_scorer(model_format, model_bytes)
        metrics: dict[str, float] = {}
        if data.holdout is None:
            scores = score(data.training.X[-_SCORED_ROWS:])
        else:
            scores = score(data.holdout.X)
            metrics = evaluate(data.holdout.y, scores)
            metrics["estimated_auc"] = estimated_auc(scores)
            metrics["estimated_log_loss"] = estimated_log_loss(scores)
            tracked.log_metrics(metrics)
        samples = _samples(data.training, data.signature)
        version = registry.register(
            training.name,
            model_bytes=model_bytes,
            format=model_format,
            signature=data.signature,
            profile=_profile(data, scores, window_rows),
            samples=samples.append_column(
                data.signature.output, pa.array(score(_sample_matrix(data.training)))
            ),
            metrics=metrics,
            run=tracked.id,
            parents=parents,
            facts=facts,
            at=at,
        )
    return Fitted(tracked.run, version, metrics)


class _FunctionRun:
    """The run as a training function sees it."""

    def __init__(self, tracked: TrackedRun, seed: int, threads: int) -> None:
        self._tracked = tracked
        self.seed, self.threads = seed, threads

    def lightgbm_params(self, **params: Any) -> dict[str, Any]:
        """Give and log repeatable LightGBM parameters."""
        chosen = lightgbm_params(seed=self.seed, threads=self.threads, **params)
        self._tracked.log_params({f"lightgbm.{name}": value for name, value in chosen.items()})
        return chosen

    def log_param(self, name: str, value: Any) -> None:
        """Keep a parameter with the run."""
        self._tracked.log_param(name, value)

    def log_metric(self, name: str, value: float, *, step: int = 0) -> None:
        """Keep one value of a metric."""
        self._tracked.log_metric(name, value, step=step)


def _output(ledger: Ledger, run: Run) -> Version:
    """Give the model that a finished run made."""
    edges = ledger.list_edges(run=run.id)
    made = (ledger.get_version_by_id(edge.version) for edge in edges if edge.role == "output")
    return next(each for each in made if each.kind == "model")


def _record_set(training: Training, data: TrainingData, ledger: Ledger, *, at: datetime | None) -> Version:
    return ledger.record_version(
        "training_set",
        training.name,
        sha256=digest_of_set(data.training, data.signature),
        uri=f"recipe:training_set/{training.name}",  # made again from the run's other inputs by these facts
        facts=data.facts,
        at=at,
    )


def _shuffled(rows: TrainingSet, seed: int) -> TrainingSet:
    return replace(rows, y=np.random.default_rng(seed).permutation(rows.y))


def _sample_rows(rows: TrainingSet) -> np.ndarray:
    """Give positions of some rows, evenly spread."""
    return np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE_ROWS, len(rows))).astype(np.int64))


def _samples(rows: TrainingSet, signature: Signature) -> pa.Table:
    positions = rows.rows[_sample_rows(rows)]
    return rows.source.select(list(signature.names)).take(pa.array(positions))


def _sample_matrix(rows: TrainingSet) -> Matrix:
    matrix: Matrix = rows.X[_sample_rows(rows)]
    return matrix


def _profile(data: TrainingData, scores: Matrix, window_rows: int | None) -> Profile:
    """Profile the rows before the holdout as they are before encoding, and the scores of rows held back.

    Rows without a label count as well: they are asked about at work as much as the others.
    """
    raw = data.training.source.take(pa.array(data.population))
    columns: dict[str, Any] = {
        each.name: raw.column(each.name).to_pylist()
        if each.kind == "category"
        else column_floats(each.name, raw.column(each.name))
        for each in data.signature.inputs
    }
    window = window_rows or _rows_per_day(data)
    inputs = build_profile(columns, window_rows=window)
    output = build_profile({data.signature.output: scores}, window_rows=window)
    return Profile(rows=inputs.rows, columns=inputs.columns | output.columns)


def _rows_per_day(data: TrainingData) -> int:
    return round(len(data.population) / len(np.unique(data.training.at // _DAY_US)))
