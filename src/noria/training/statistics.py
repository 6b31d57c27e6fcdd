"""Statistics of what a model learned from: made by every training, kept as a version, asked by gates."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
import numpy as np

from noria.errors import NotFound
from noria.features.columns import Floats
from noria.features.statistics.columns import Column
from noria.features.statistics.computing import statistics_of
from noria.features.statistics.records import SetStatistics, Suspicion
from noria.features.statistics.suspecting import confidence_z, early_outcomes, unready_source
from noria.ledger.store import Ledger
from noria.records import RunId, Version, canonical_json
from noria.registry.matrix import encode
from noria.registry.records import Input, Signature
from noria.registry.store import Registry
from noria.training.declarations import Training
from noria.training.sets import TrainingData

__all__ = [
    "find_report",
    "find_statistics",
    "list_suspicions",
    "read_statistics",
    "record_statistics",
    "told_suspicions",
    "training_statistics",
]

_KIND = "feature_statistics"


def training_statistics(training: Training, data: TrainingData, *, digest: str) -> SetStatistics:
    """Compute the statistics of a training set; rows without a label, which are asked about too, are beside.

    Parameters
    ----------
    digest : str
        Of the set: it seeds which rows are sampled.
    """
    inputs = [_column(each, data) for each in data.signature.inputs]
    labels = np.full(data.training.source.num_rows, np.nan)
    labels[data.training.rows] = data.training.y
    of_population = labels[data.population]
    found = statistics_of(
        inputs,
        Column(training.label.name, "number", lambda: of_population),
        at=data.population_at,
        seed=int(digest[:16], 16),
    )
    own = [*_own_outcomes(training, data, z=confidence_z(len(inputs)))]
    told = sorted([*found.suspicions, *own], key=lambda each: (each.feature, each.rule))
    return msgspec.structs.replace(found, suspicions=tuple(told))


def _column(each: Input, data: TrainingData) -> Column:
    signature = Signature((each,), data.signature.output)

    def load() -> Floats:
        matrix = encode(signature, data.training.source, rows=data.population)
        return np.ascontiguousarray(matrix[:, 0])

    return Column(each.name, "category" if each.is_text else "number", load, each.categories)


def _own_outcomes(training: Training, data: TrainingData, *, z: float) -> Iterator[Suspicion]:
    """Find features of the label's column whose rows are visible before an outcome can be."""
    label, rows = training.label, len(data.training)
    late = int((data.outcome_known > data.training.at).sum())
    label_waits = label.source.known_at_column != label.source.event_at
    for view in training.views:
        spec = view.spec()
        for name, feature in zip(spec.columns, spec.features, strict=True):
            made_from = {feature.aggregation.column, *(each.column for each in feature.aggregation.where)}
            if label.column not in made_from:
                continue
            if spec.source == label.source.name:
                yield from early_outcomes(name, rows - late, rows, z=z)
            elif label_waits and spec.known_at == spec.event_at:
                yield from unready_source(name, label.column, spec.source, late, rows, z=z)


def record_statistics(
    training: Training,
    data: TrainingData,
    model: Version,
    *,
    digest: str,
    run: RunId,
    ledger: Ledger,
    registry: Registry,
    cause: str | None = None,
    at: datetime | None = None,
) -> Version | None:
    """Keep the statistics of a training set as an output of the run that trained `model`.

    Where a feature is suspicious there is an event `features.suspected`. What goes wrong in computing them
    does not take the model away: there is an event `features.unmeasured` with the reason, None is given, and
    a gate that asks `check.no_leakage` refuses. Calling it again for a run that was killed gives the same.

    Parameters
    ----------
    digest : str
        Of the training set.
    """
    try:
        found = training_statistics(training, data, digest=digest)
    except Exception as error:  # noqa: BLE001 - the model is made; what is missing is on record
        reason = f"{type(error).__name__}: {error}"
        payload = {"model": model.id, "training_set": digest, "reason": reason}
        ledger.append(
            "features.unmeasured",
            subject=model.ref,
            payload=payload,
            cause=cause,
            key=f"{run}/unmeasured",
            at=at,
        )
        return None
    version = registry.record_report(
        _KIND,
        training.name,
        canonical_json(found),
        run=run,
        facts={
            "training_set": digest,
            "rows": found.rows,
            "sampled": found.sampled,
            "features": len(found.features),
            "suspicions": msgspec.to_builtins(found.suspicions),
        },
        at=at,
    )
    if found.suspicions:
        payload = {
            "model": model.id,
            "statistics": version.id,
            "suspicions": msgspec.to_builtins(found.suspicions),
            "reason": told_suspicions(found.suspicions),
        }
        ledger.append(
            "features.suspected",
            subject=model.ref,
            payload=payload,
            cause=cause,
            key=f"{run}/suspected",
            at=at,
        )
    return version


def told_suspicions(suspicions: Sequence[Suspicion]) -> str:
    """Say in a sentence what is suspicious."""
    return "; ".join(f"{each.feature}: {each.detail}" for each in suspicions)


def find_statistics(ledger: Ledger, model: Version) -> Version | None:
    """Find the statistics that the training of a model version kept; None if it kept none."""
    return find_report(ledger, model, _KIND)


def find_report(ledger: Ledger, model: Version, kind: str) -> Version | None:
    """Find what the training of a model version kept beside it as a version of `kind`, the newest."""
    # A run that was killed before it kept them has made the model; its next attempt keeps them.
    attempts = [each.run for each in ledger.list_edges(version=model.id) if each.role == "output"]
    for run in reversed(attempts):
        made = (each.version for each in ledger.list_edges(run=run) if each.role == "output")
        found = next((each for each in map(ledger.get_version_by_id, made) if each.kind == kind), None)
        if found is not None:
            return found
    return None


def list_suspicions(ledger: Ledger, model: Version) -> tuple[Suspicion, ...] | None:
    """Give what is suspicious about the features of a model version; None if they were not looked at."""
    found = find_statistics(ledger, model)
    if found is None:
        return None
    return msgspec.convert(found.facts["suspicions"], tuple[Suspicion, ...])


def read_statistics(ledger: Ledger, registry: Registry, model: Version) -> SetStatistics:
    """Give the statistics of the set that a model version learned from, verified.

    Raises
    ------
    NotFound
        If its training kept none; a note says why, if they could not be computed.
    DigestMismatch
        If they are not what was recorded.
    """
    found = find_statistics(ledger, model)
    if found is None:
        there = [each.ref for each in ledger.list_versions(kind=_KIND)]
        error = NotFound("feature statistics", model.ref, there)
        for event in ledger.list_events(verb="features.unmeasured", subject=model.ref):
            error.add_note(f"They could not be computed: {event.payload['reason']}")
        raise error
    return msgspec.json.decode(registry.read_report(found), type=SetStatistics)
