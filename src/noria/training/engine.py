"""Training, run: the declared function on a training set, as a tracked run that registers a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from noria.features.registering import record_on_demand, record_view
from noria.ledger.store import Ledger
from noria.profiles.records import Profile
from noria.records import Run, RunId, Version, VersionId
from noria.registry.store import Registry
from noria.tracking.records import DEFAULT_EXPERIMENT
from noria.tracking.runs import tracked_run
from noria.training.declarations import Training
from noria.training.explanations import record_explanation
from noria.training.fitting import FittedModel, fit_model
from noria.training.sets import TrainingData, build_training_set
from noria.training.settings import lightgbm_params
from noria.training.statistics import record_statistics

__all__ = ["Computed", "Fitted", "TrainingData", "build_training_set", "fit", "lightgbm_params"]


@dataclass(frozen=True, slots=True)
class Computed:
    """A model that a step of a pipeline has fitted, and the run of that step."""

    fitted: FittedModel
    run: RunId


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
    compute: Callable[[], Computed] | None = None,
) -> Fitted:
    """Fit and register a model as a tracked run of kind `train`, explained and with statistics.

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
    compute : callable, optional
        Fits the model elsewhere, as a step of a pipeline, from the same rows; without it, it is done here.

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
        if compute is None:
            fitted = fit_model(
                training,
                data,
                threads=threads,
                window_rows=window_rows,
                shuffle_labels_seed=shuffle_labels_seed,
            )
        else:
            computed = compute()
            fitted = computed.fitted
            tracked.log_param("step_run", computed.run)
        views = [record_view(ledger, each, cause=cause, at=at) for each in training.views]
        views += [
            record_on_demand(ledger, each, code=fitted.code_digests[each.name], cause=cause, at=at)
            for each in training.on_demand
        ]
        for each in (*inputs, *views, _record_set(fitted, training.name, ledger, at=at)):
            tracked.add_input(each)
        tracked.log_params(fitted.params)
        for name, step, value in fitted.points:
            tracked.log_metric(name, value, step=step)
        if fitted.metrics:
            tracked.log_metrics(fitted.metrics)
        version = registry.register(
            training.name,
            model_bytes=fitted.model,
            format=fitted.format,
            signature=fitted.signature,
            profile=msgspec.json.decode(fitted.profile, type=Profile),
            samples=fitted.samples,
            metrics=fitted.metrics,
            run=tracked.id,
            parents=parents,
            facts=facts,
            code=fitted.code,
            at=at,
        )
        record_statistics(
            training,
            data,
            version,
            digest=fitted.set_digest,
            run=tracked.id,
            ledger=ledger,
            registry=registry,
            cause=cause,
            at=at,
        )
        record_explanation(
            data,
            version,
            format=fitted.format,
            model_bytes=fitted.model,
            run=tracked.id,
            ledger=ledger,
            registry=registry,
            cause=cause,
            at=at,
        )
    return Fitted(tracked.run, version, fitted.metrics)


def _output(ledger: Ledger, run: Run) -> Version:
    """Give the model that a finished run made."""
    edges = ledger.list_edges(run=run.id)
    made = (ledger.get_version_by_id(edge.version) for edge in edges if edge.role == "output")
    return next(each for each in made if each.kind == "model")


def _record_set(fitted: FittedModel, name: str, ledger: Ledger, *, at: datetime | None) -> Version:
    return ledger.record_version(
        "training_set",
        name,
        sha256=fitted.set_digest,
        uri=f"recipe:training_set/{name}",  # made again from the run's other inputs by these facts
        facts=fitted.facts,
        at=at,
    )
