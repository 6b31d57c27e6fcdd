"""What a decision to run sets off: train a challenger, prove it in staging, judge it, try it on real traffic.

Every step bears a key below the challenge's own, so that a challenge that was killed anywhere is taken up by
calling it again, and ends as it would have ended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from noria.clock import parse_duration, parse_instant, to_micros
from noria.deploy.canary import record_verdict, verdict
from noria.deploy.declarations import BeatsProduction, Canary, Gate, Latency
from noria.deploy.environments import Deployment, deploy, start_canary
from noria.deploy.gates import GateEvidence, enter, judge
from noria.deploy.history import Action, list_moves
from noria.deploy.model_releases import release_model
from noria.deploy.releases import find_standing, read_release, read_route
from noria.deploy.trials import end_canary
from noria.errors import ConfigError
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Version
from noria.registry.store import LoadedModel, Registry
from noria.training.declarations import Training
from noria.training.engine import Computed, Fitted, TrainingData, build_training_set, fit
from noria.training.records import TrainingSet
from noria.training.statistics import list_suspicions

__all__ = [
    "Bench",
    "Challenge",
    "Fitter",
    "ScoredPairs",
    "Stage",
    "TrainingRows",
    "challenge",
    "conclude_canary",
]

_DEFAULT_HOLDOUT = "14d"


class Stage(StrEnum):
    """How far a challenger came."""

    REFUSED = "refused"
    TRIED = "on trial"
    DEPLOYED = "deployed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a challenge works with. Workspace opens it.

    Parameters
    ----------
    gates
        By environment: staging's and production's.
    staging, production
        Where a challenger proves itself, and where it is to answer.
    probe
        Asks staging for the answers to some rows and gives the time of each request in milliseconds.
    fitter
        Fits models as steps of pipelines, where the project's steps run; None: in this process.
    """

    ledger: Ledger
    registry: Registry
    threads: int
    staging: Deployment
    staging_gate: Gate
    production: Deployment
    production_gate: Gate
    probe: Callable[[Training, TrainingSet, datetime, str], Sequence[float]]
    fitter: "Fitter | None" = None


class Fitter(Protocol):
    """Fits a model as a step of a pipeline."""

    def __call__(
        self,
        training: Training,
        rows: "TrainingRows",
        recipe: Mapping[str, Any],
        *,
        key: str,
        cause: str | None,
    ) -> Computed:
        """Run the step with rows read from their versions; the same key again gives what it gave."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """The rows that a challenger may learn from, and the versions they come from.

    Parameters
    ----------
    feature_version, label_version
        Those of the tables that `features` and `labels` were read from, for a process that reads them again.
    """

    features: pa.Table
    labels: pa.Table
    versions: Sequence[Version]
    feature_version: Version | None = None
    label_version: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What became of a challenger: the event that says so, and how far it came."""

    stage: Stage
    version: Version
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Rows of a trial: outcome, both scores, instant in microseconds; NaN where one is not known."""

    y: npt.NDArray[np.float64]
    champion: npt.NDArray[np.float64]
    challenger: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]


def challenge(
    bench: Bench,
    training: Training,
    rows: TrainingRows,
    *,
    at: datetime,
    key: str,
    cause: EventId | None = None,
    shuffle_labels_seed: int | None = None,
) -> Challenge:
    """Train a challenger on what is known at `at` and take it as far as it comes.

    It learns from the rows before the holdout, answers in staging, and is judged there; then it has to beat
    production on the held-back rows. Where the gate allows it is refitted on all rows. It then answers a
    share of production's traffic, or all of it where nothing is in production yet.

    Parameters
    ----------
    rows
        Feature rows and labels; later ones than `at` are left out.
    key
        Names this challenge: called again, it goes on where it was.
    cause
        The event that set it off.
    shuffle_labels_seed
        A drill: the labels are put in random order before it learns.

    Raises
    ------
    SourceError
        If there is nothing to learn from.
    DeploymentError
        If a server does not come up.
    """
    holdout = _holdout(bench.production_gate)
    data = build_training_set(training, rows.features, rows.labels, until=at, holdout_from=at - holdout)
    fitted = _fit(
        bench, training, data, rows, at=at, key=f"{key}:fit", cause=cause, shuffle=shuffle_labels_seed
    )
    if data.holdout is None:
        raise ConfigError(
            f"training {training.name!r} has no labelled row in the {holdout.days} days before "
            f"{at:%Y-%m-%d}; "
            "a gate cannot judge without; choose a shorter `on=` or wait for outcomes"
        )
    release = _release(bench, training, fitted.version, at=at, cause=cause)
    entered = _enter_staging(bench, training, data.holdout, fitted, release, at=at, key=key, cause=cause)
    if entered.verb != "gate.passed":
        return Challenge(stage=Stage.REFUSED, version=fitted.version, event=entered)
    judged = _judge(bench, training, data, fitted, release, at=at, key=key, cause=entered.id)
    if judged.verb != "gate.passed":
        return Challenge(stage=Stage.REFUSED, version=fitted.version, event=judged)
    version = fitted.version
    if bench.production_gate.refit:
        whole = build_training_set(training, rows.features, rows.labels, until=at)
        refitted = _fit(
            bench, training, whole, rows, at=at, key=f"{key}:refit", cause=judged.id, parents=(version,)
        )
        release = _release(bench, training, refitted.version, refit_of=version, at=at, cause=judged.id)
        version = refitted.version
    return _put_to_work(bench, version, release, at=at, key=key, cause=judged.id)


def conclude_canary(
    bench: Bench, pairs: Callable[[str, str, datetime], ScoredPairs], *, at: datetime, key: str
) -> Event | None:
    """Judge the trial in production, if one began before `at`, and end it where the verdict says so.

    Parameters
    ----------
    pairs
        Gives the rows scored since an instant by the champion's and the challenger's release.

    Returns
    -------
    Event or None
        The verdict, or None where nothing is on trial.
    """
    place, ledger = bench.production, bench.ledger
    done = ledger.find_event(key=f"{key}:verdict")
    pointer = ledger.find_pointer(place.environment, place.name)
    if done is None and (pointer is None or pointer.stable or pointer.at >= at):
        return None
    if done is None:
        assert pointer is not None
        moves = list_moves(ledger, environment=place.environment, deployment=place.name, until=at)
        if moves[-1].action is not Action.CANARY:
            return None  # a test or a shadow, which somebody else ends
        content = read_route(ledger.get_version_by_id(pointer.version))
        standing = find_standing(ledger, environment=place.environment, deployment=place.name)
        assert standing is not None
        trial = next(each for ref, each in content.releases.items() if ref != standing.release.ref)
        release = ledger.get_version_by_id(trial)
        scored = pairs(standing.release.ref, release.ref, pointer.at)
        found = verdict(
            bench.production_gate.canary or Canary(),
            y=scored.y,
            champion=scored.champion,
            challenger=scored.challenger,
            at=scored.at,
            started_at=pointer.at,
            now=at,
        )
        done = record_verdict(
            ledger,
            found,
            challenger=release,
            environment=place.environment,
            deployment=place.name,
            cause=pointer.event,
            key=f"{key}:verdict",
            at=at,
        )
    end_canary(place, done, key=key, at=at)
    return done


def _holdout(gate: Gate) -> timedelta:
    looks = [parse_duration(each.on) for each in gate.checks if isinstance(each, BeatsProduction)]
    return max(looks, default=parse_duration(_DEFAULT_HOLDOUT))


def _fit(
    bench: Bench,
    training: Training,
    data: TrainingData,
    rows: TrainingRows,
    *,
    at: datetime,
    key: str,
    cause: EventId | None,
    parents: Sequence[Version] = (),
    shuffle: int | None = None,
) -> Fitted:
    compute: Callable[[], Computed] | None = None
    fitter = bench.fitter
    if fitter is not None and rows.feature_version is not None and rows.label_version is not None:
        held_from = data.facts["holdout_from"]
        recipe = {
            "until": at,
            "holdout_from": None if held_from is None else parse_instant(held_from),
            "threads": bench.threads,
            "window_rows": None,
            "shuffle_labels_seed": shuffle,
        }

        def compute() -> Computed:
            return fitter(training, rows, recipe, key=f"{key}:step", cause=cause)

    return fit(
        training,
        data,
        ledger=bench.ledger,
        registry=bench.registry,
        inputs=rows.versions,
        parents=[each.id for each in parents],
        cause=cause,
        key=key,
        experiment=training.name,
        threads=bench.threads,
        shuffle_labels_seed=shuffle,
        at=at,
        compute=compute,
    )


def _release(
    bench: Bench,
    training: Training,
    version: Version,
    *,
    at: datetime,
    cause: EventId | None,
    refit_of: Version | None = None,
) -> Version:
    return release_model(
        bench.ledger, bench.registry, version, training=training, refit_of=refit_of, cause=cause, at=at
    )


def _enter_staging(
    bench: Bench,
    training: Training,
    held: TrainingSet,
    fitted: Fitted,
    release: Version,
    *,
    at: datetime,
    key: str,
    cause: EventId | None,
) -> Event:
    """Let the challenger answer in staging over HTTP, measure it there, and ask staging's gate."""
    known = bench.ledger.find_event(key=f"{key}:staging")
    if known is not None:
        return known
    _serve_in_staging(bench, release, at=at, key=key, cause=cause)
    loaded = bench.registry.load(fitted.version)
    evidence = GateEvidence(
        y=held.y,
        at=held.at,
        challenger=loaded.score(held.X),
        base_rate=_base_rate(fitted.version),
        data_version=_data_version(bench.ledger, fitted),
        latency_ms=list(bench.probe(training, held, at, key)),
        samples_difference=loaded.sample_error(),
        metrics=fitted.metrics,
        suspicions=list_suspicions(bench.ledger, fitted.version),
    )
    return enter(
        bench.ledger,
        bench.staging_gate,
        judge(bench.staging_gate, evidence),
        version=fitted.version,
        environment=bench.staging.environment,
        cause=cause,
        key=f"{key}:staging",
        at=at,
    )


def _serve_in_staging(
    bench: Bench, release: Version, *, at: datetime, key: str, cause: EventId | None
) -> None:
    place = Deployment(
        bench.ledger,
        environment=bench.staging.environment,
        name=bench.staging.name,
        fetch=bench.staging.fetch,
        samples=bench.staging.samples,
        target=bench.staging.target,
        gated=False,  # it answers nobody yet: the gate wants to see it answer
    )
    deploy(place, release, key=f"{key}:staging:serve", cause=cause, at=at)


def _judge(
    bench: Bench,
    training: Training,
    data: TrainingData,
    fitted: Fitted,
    release: Version,
    *,
    at: datetime,
    key: str,
    cause: EventId | None,
) -> Event:
    known = bench.ledger.find_event(key=f"{key}:production")
    if known is not None:
        return known
    held = data.holdout
    assert held is not None
    place = bench.production
    standing = find_standing(bench.ledger, environment=place.environment, deployment=place.name)
    fair = np.ones(len(held), dtype=bool)
    champion: LoadedModel | None = None
    if standing is not None:
        champion = bench.registry.load(standing.model)
        # Rows that production has learned from would flatter it.
        fair = held.at >= to_micros(parse_instant(champion.version.facts["until"]))
        if champion.version.facts.get("holdout_from"):
            fair = held.at >= to_micros(parse_instant(champion.version.facts["holdout_from"]))
    raw = held.source.take(pa.array(held.rows))
    challenger = bench.registry.load(fitted.version)
    times: Sequence[float] | None = None
    if any(isinstance(each, Latency) for each in bench.production_gate.checks):
        _serve_in_staging(bench, release, at=at, key=key, cause=cause)
        times = bench.probe(training, held, at, f"{key}:production")
    evidence = GateEvidence(
        y=held.y[fair],
        at=held.at[fair],
        challenger=challenger.score(held.X)[fair],
        base_rate=_base_rate(fitted.version),
        data_version=_data_version(bench.ledger, fitted),
        production=None if champion is None else _champion_scores(bench, champion, raw)[fair],
        production_version=None if champion is None else champion.version.ref,
        until=to_micros(at),
        latency_ms=times,
        samples_difference=challenger.sample_error(),
        metrics=fitted.metrics,
        suspicions=list_suspicions(bench.ledger, fitted.version),
    )
    return enter(
        bench.ledger,
        bench.production_gate,
        judge(bench.production_gate, evidence),
        version=fitted.version,
        environment=place.environment,
        cause=cause,
        key=f"{key}:production",
        at=at,
    )


def _champion_scores(bench: Bench, champion: LoadedModel, rows: pa.Table) -> npt.NDArray[np.float64]:
    """Score rows as production does: with the code of its own on-demand features."""
    return champion.score_rows(bench.registry.add_on_demand(champion.version, rows))


def _put_to_work(
    bench: Bench, version: Version, release: Version, *, at: datetime, key: str, cause: EventId
) -> Challenge:
    place, canary = bench.production, bench.production_gate.canary
    standing = find_standing(bench.ledger, environment=place.environment, deployment=place.name)
    began = bench.ledger.find_event(key=f"{key}:deploy:request") is not None
    if canary is None or standing is None or began:
        content = read_release(release)
        reason = f"release {release.ref} (model {content.model_ref}) passed its gate"
        if content.refit_of is not None:
            judged = bench.ledger.get_version_by_id(content.refit_of)
            reason = (
                f"release {release.ref} (model {content.model_ref}) is {judged.ref}, which passed its gate, "
                "refitted on all rows"
            )
        if canary is not None:
            reason += "; nothing is in production yet that a canary could compare it with"
        move = deploy(place, release, key=f"{key}:deploy", reason=reason, cause=cause, at=at)
        stage = Stage.DEPLOYED
    else:
        move = start_canary(
            place,
            release,
            share=canary.share,
            unit=canary.sticky,
            by_header=canary.by_header,
            key=f"{key}:canary",
            cause=cause,
            at=at,
        )
        stage = Stage.TRIED
    return Challenge(stage=stage, version=version, event=bench.ledger.get_event(move.pointer.event))


def _base_rate(version: Version) -> float:
    return float(version.facts["positives"]) / float(version.facts["rows"])


def _data_version(ledger: Ledger, fitted: Fitted) -> str:
    """Name the training set that the challenger was made from."""
    edges = ledger.list_edges(run=fitted.run.id)
    read = [ledger.get_version_by_id(edge.version) for edge in edges if edge.role == "input"]
    made = next(each for each in read if each.kind == "training_set")
    return f"training set {made.ref}"
