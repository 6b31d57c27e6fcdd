"""Fitting: rows in, a model as bytes out. It records nothing, so it is the same wherever it runs."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import ConfigError
from noria.evaluation.estimates import estimated_auc, estimated_log_loss
from noria.evaluation.scores import evaluate
from noria.features.code_bundle import load_functions, read_bundle
from noria.features.code_bundling import code_digest, make_bundle
from noria.features.on_demand_tables import read_columns
from noria.features.on_demand_values import compute, differing_values
from noria.pipelines.declarations import Step, step
from noria.pipelines.work import find_target
from noria.profiles.build import build_profile
from noria.profiles.records import Profile
from noria.records import canonical_json
from noria.registry.formats import dump_estimator, load_scorer
from noria.registry.matrix import Matrix, column_floats
from noria.registry.records import ModelFormat, Signature
from noria.training.declarations import Training
from noria.training.records import TrainingSet
from noria.training.sets import TrainingData, build_training_set, digest_of_set
from noria.training.settings import lightgbm_params

__all__ = ["FittedModel", "fit_model", "fit_step"]

_SAMPLE_ROWS = 50
_SCORED_ROWS = 20_000  # of the training rows, for the profile of scores where nothing is held back
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted model and all that is registered with it.

    Attributes
    ----------
    format, model
        As `noria.registry.formats.dump_estimator` gives them.
    profile : bytes
        Canonical JSON of the profile of the rows and of the scores.
    samples : pa.Table
        Some rows before encoding, with their scores under the signature's output.
    metrics : dict
        Quality on the rows held back; empty without any.
    set_digest : str
        Of the rows it was fitted on; see `digest_of_set`.
    facts : dict
        The recipe of the training set, and its counts.
    params, points
        What the function logged: parameters, and (metric, step, value).
    code : bytes or None
        Of its on-demand features, by which the samples were computed again.
    code_digests : dict of str to str
        Of the code of each on-demand feature, by its name.
    """

    format: ModelFormat
    model: bytes
    signature: Signature
    profile: bytes
    samples: pa.Table
    metrics: dict[str, float]
    set_digest: str
    facts: dict[str, Any]
    params: dict[str, Any]
    points: list[tuple[str, int, float]]
    code: bytes | None = None
    code_digests: dict[str, str] = field(default_factory=dict)


def fit_model(
    training: Training,
    data: TrainingData,
    *,
    threads: int = 1,
    window_rows: int | None = None,
    shuffle_labels_seed: int | None = None,
) -> FittedModel:
    """Fit a model, measure it, and profile what it has seen. Parameters are those of `training.engine.fit`.

    Raises
    ------
    ConfigError
        If the function gives nothing that can be registered.
    """
    rows = data.training if shuffle_labels_seed is None else _shuffled(data.training, shuffle_labels_seed)
    run = _FunctionRun(training.seed, threads)
    model_format, model_bytes = dump_estimator(training(rows, run))
    score = load_scorer(model_format, model_bytes)
    metrics: dict[str, float] = {}
    if data.holdout is None:
        scores = score(data.training.X[-_SCORED_ROWS:])
    else:
        scores = score(data.holdout.X)
        metrics = {name: float(value) for name, value in evaluate(data.holdout.y, scores).items()}
        metrics["estimated_auc"] = float(estimated_auc(scores))
        metrics["estimated_log_loss"] = float(estimated_log_loss(scores))
    samples = _samples(training, data.training, data.signature)
    profile = _profile(data, scores, window_rows)
    return FittedModel(
        format=model_format,
        model=model_bytes,
        signature=data.signature,
        profile=canonical_json(msgspec.to_builtins(profile, enc_hook=float)),
        samples=samples.append_column(data.signature.output, pa.array(score(_sample_matrix(data.training)))),
        metrics=metrics,
        set_digest=digest_of_set(data.training, data.signature),
        facts=dict(data.facts),
        params=run.params,
        points=run.points,
        code=_code(training, samples),
        code_digests={each.name: code_digest(each) for each in training.on_demand},
    )


def _fit_rows(
    *,
    training: str,
    features: pa.Table,
    labels: pa.Table,
    until: datetime,
    holdout_from: datetime | None,
    threads: int,
    window_rows: int | None,
    shuffle_labels_seed: int | None,
) -> FittedModel:
    """Join rows and labels as of `until`, and fit; `training` is `module:name` of its function."""
    declared = find_target(training)
    if not isinstance(declared, Training):
        raise ConfigError(f"{training} is {type(declared).__name__}, wanted is a function with @noria.train")
    label = declared.label
    known_at = label.source.known_at_column
    cutoff = pa.scalar(until, pa.timestamp("us", "UTC"))
    columns = list(dict.fromkeys([label.on, label.column, known_at]))
    data = build_training_set(
        declared,
        features.filter(pc.field("at") < cutoff),
        labels.select(columns).filter(pc.field(known_at) < cutoff),
        until=until,
        holdout_from=holdout_from,
    )
    return fit_model(
        declared, data, threads=threads, window_rows=window_rows, shuffle_labels_seed=shuffle_labels_seed
    )


fit_rows = step(name="fit")(_fit_rows)


def fit_step(training: Training) -> Step[Any, FittedModel]:
    """Give the step that fits a training: the code of its module, and of on-demand features, counts."""
    functions = (training.function, *(each.function for each in training.on_demand))
    return replace(fit_rows, modules=tuple(dict.fromkeys(each.__module__ for each in functions)))


class _FunctionRun:
    """The run as a training function sees it: what it logs is collected."""

    def __init__(self, seed: int, threads: int) -> None:
        self.seed, self.threads = seed, threads
        self.params: dict[str, Any] = {}
        self.points: list[tuple[str, int, float]] = []

    def lightgbm_params(self, **params: Any) -> dict[str, Any]:
        """Give and log repeatable LightGBM parameters."""
        chosen = lightgbm_params(seed=self.seed, threads=self.threads, **params)
        self.params |= {f"lightgbm.{name}": value for name, value in chosen.items()}
        return chosen

    def log_param(self, name: str, value: Any) -> None:
        """Keep a parameter with the run."""
        self.params[name] = value

    def log_metric(self, name: str, value: float, *, step: int = 0) -> None:
        """Keep one value of a metric."""
        self.points.append((name, step, float(value)))


def _shuffled(rows: TrainingSet, seed: int) -> TrainingSet:
    return replace(rows, y=np.random.default_rng(seed).permutation(rows.y))


def _sample_rows(rows: TrainingSet) -> np.ndarray:
    """Give positions of some rows, evenly spread."""
    return np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE_ROWS, len(rows))).astype(np.int64))


def _samples(training: Training, rows: TrainingSet, signature: Signature) -> pa.Table:
    positions = rows.rows[_sample_rows(rows)]
    specs = [each.spec() for each in training.on_demand]
    names = [*signature.names, *(name for each in specs for name in (*each.inputs, *each.columns))]
    return rows.source.select(list(dict.fromkeys(names))).take(pa.array(positions))


def _code(training: Training, samples: pa.Table) -> bytes | None:
    """Give the code of on-demand features, once it has computed the samples as the project's did."""
    if not training.on_demand:
        return None
    data = make_bundle(training.on_demand)
    for bound in load_functions(read_bundle(data)):
        spec = bound.spec
        found = compute(bound, read_columns(samples, spec), samples.num_rows)
        wanted = np.column_stack([column_floats(name, samples[name]) for name in spec.columns])
        if differing := differing_values(found.values, wanted):
            told = f"; {found.first}" if found.first is not None else ""
            raise ConfigError(
                f"on-demand feature {spec.name!r} gives other values from the code that is kept with the "
                f"model, in {len(differing)} of {samples.num_rows} sample rows{told}. Code that serves has "
                "its modules by import statements, reads no file beside them, and keeps nothing between calls"
            )
    return data


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
        if each.is_text
        else column_floats(each.name, raw.column(each.name))
        for each in data.signature.inputs
    }
    window = window_rows or _rows_per_day(data)
    inputs = build_profile(columns, window_rows=window)
    output = build_profile({data.signature.output: scores}, window_rows=window)
    return Profile(rows=inputs.rows, columns=inputs.columns | output.columns)


def _rows_per_day(data: TrainingData) -> int:
    return round(len(data.population) / len(np.unique(data.training.at // _DAY_US)))
