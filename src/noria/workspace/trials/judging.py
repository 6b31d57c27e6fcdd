"""A look at what is on trial at a deployment: judged by what is known now, moved where its rule says so."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.bandit_moves import BanditState, bandit_state, conclude_bandit, shift_bandit
from noria.deploy.canary import CanaryDecision, CanaryVerdict, record_verdict, verdict_at_any_time
from noria.deploy.declarations import ABTest
from noria.deploy.experiments import (
    ABDecision,
    ABVerdict,
    ab_verdict,
    conclude_test,
    counted_moments,
)
from noria.deploy.history import Action
from noria.deploy.trials import Trial, end_canary, find_trial
from noria.workspace.trials.rows import arms_of, pairs_of
from noria.workspace.trials.rules import canary_of, declared_of

if TYPE_CHECKING:
    from noria.deploy.environments import Deployment, Move
    from noria.serving.counts import RouteCounts
    from noria.workspace.project import Project

__all__ = [
    "judge_trial",
    "look_at_bandit",
    "look_at_canary",
    "look_at_test",
]

_OF_COUNTS = ("error_rate", "latency_ms")
_DAY = timedelta(days=1)


def judge_trial(
    project: "Project", environment: str, name: str, *, counts: "RouteCounts | None", now: datetime
) -> "Move | None":
    """Look at what is on trial, put on record what was found, and move where the rule of the trial says so.

    Killed anywhere, the next look ends what was begun. Where the same is found as in the last look nothing is
    put on record: a look is, when the rows have doubled or a day is over, and when it ends a trial.

    Parameters
    ----------
    counts
        Of the server, where it runs in this process: what some tests are of.
    now
        By the environment's clock.

    Returns
    -------
    Move or None
        What was moved.

    Raises
    ------
    ConfigError
        If outcomes, scores or the log are not what the trial is judged by.
    Conflict
        If somebody else ended it meanwhile.
    LeaseHeld
        If another process moves this deployment right now: ask again.
    """
    trial = find_trial(project.ledger, environment=environment, deployment=name)
    if trial is None:
        return None
    place = project.deployment(environment, name, gated=project.environment(environment).gate is not None)
    match trial.action:
        case Action.CANARY:
            return _judge_canary(project, place, trial, now=now)
        case Action.TEST:
            declared = declared_of(trial)
            if isinstance(declared, Bandit):
                return _judge_bandit(project, place, trial, declared, now=now)
            return _judge_test(project, place, trial, declared, counts=counts, now=now)
        case _:
            return None  # a shadow answers nobody, and people say when it has been seen enough


def look_at_canary(project: "Project", trial: Trial, *, now: datetime) -> CanaryVerdict:
    """Say what outcomes tell of a canary so far. Raises `ConfigError` if its metric is not of such."""
    canary = canary_of(project, trial.pointer.environment)
    scored = pairs_of(project, trial, next(iter(trial.tried)), metric=canary.metric)
    return verdict_at_any_time(
        canary,
        y=scored.y,
        champion=scored.champion,
        challenger=scored.challenger,
        at=scored.at,
        started_at=trial.pointer.at,
        now=now,
    )


def look_at_test(
    project: "Project", trial: Trial, test: ABTest, *, counts: "RouteCounts | None", now: datetime
) -> ABVerdict | None:
    """Say what is known of a test so far; None where it is of counts and this process has none."""
    if test.metric in _OF_COUNTS:
        if counts is None or counts.route != trial.route.number:
            return None
        arms = counted_moments(test, counts)
    else:
        arms = arms_of(project, trial, test, since=trial.pointer.at)
    days = (now - trial.pointer.at) / _DAY
    return ab_verdict(test, arms, first=trial.stable.ref, days=days)


def look_at_bandit(project: "Project", trial: Trial, bandit: Bandit) -> BanditState:
    """Say what is known of a bandit's releases, since it began."""
    assert trial.began is not None
    weights = {each.release: each.weight for each in trial.content.entries}
    arms = arms_of(project, trial, bandit, since=trial.began.at)
    return bandit_state(bandit, arms, weights=weights, seed=trial.pointer.number)


def _judge_canary(project: "Project", place: "Deployment", trial: Trial, *, now: datetime) -> "Move | None":
    ledger, key = project.ledger, trial.key
    event = ledger.find_event(key=f"{key}:verdict")
    if event is None:
        found = look_at_canary(project, trial, now=now)
        goes_on = found.decision is CanaryDecision.CONTINUE
        if goes_on and not found.rows and found.days < 1:
            return None
        event = record_verdict(
            ledger,
            found,
            challenger=ledger.get_version_by_id(next(iter(trial.tried.values()))),
            environment=place.environment,
            deployment=place.name,
            cause=trial.pointer.event,
            key=f"{key}:{_seen(found.rows, found.days)}" if goes_on else f"{key}:verdict",
            at=now,
        )
    return end_canary(place, event, trial=trial.pointer, key=key, at=now)


def _judge_test(
    project: "Project",
    place: "Deployment",
    trial: Trial,
    test: ABTest,
    *,
    counts: "RouteCounts | None",
    now: datetime,
) -> "Move | None":
    ledger, key = project.ledger, trial.key
    known = ledger.find_event(key=f"{key}:verdict")
    if known is not None:
        found: ABVerdict | None = msgspec.convert(known.payload, ABVerdict)
    else:
        found = look_at_test(project, trial, test, counts=counts, now=now)
    if found is None:
        return None
    if found.decision is not ABDecision.CONTINUE:
        return conclude_test(place, found, key=key, at=now)
    units = found.first.units + sum(each.units for each in found.others)
    if units or found.days >= 1:
        _record_test(project, trial, msgspec.to_builtins(found), seen=_seen(units, found.days), now=now)
    return None


def _judge_bandit(
    project: "Project", place: "Deployment", trial: Trial, bandit: Bandit, *, now: datetime
) -> "Move | None":
    assert trial.began is not None
    known = any(project.ledger.find_event(key=f"{trial.key}:{each}") for each in ("verdict", "shares:found"))
    is_over = now - trial.began.at >= bandit.max_days * _DAY
    if not known and not is_over and now - trial.pointer.at < bandit.period:
        return None
    found = look_at_bandit(project, trial, bandit)
    ended = conclude_bandit(place, bandit, trial, found, at=now)
    if ended is not None:
        return ended
    return shift_bandit(place, bandit, trial, found, at=now)


def _record_test(
    project: "Project", trial: Trial, payload: dict[str, Any], *, seen: str, now: datetime
) -> None:
    project.ledger.append(
        "test.continued",
        subject=f"{trial.pointer.environment}/{trial.pointer.name}",
        payload={
            "environment": trial.pointer.environment,
            "deployment": trial.pointer.name,
            "route": trial.route.id,
            **payload,
        },
        cause=trial.pointer.event,
        key=f"{trial.key}:{seen}",
        at=now,
    )


def _seen(rows: int, days: float) -> str:
    """Name a look, so that few are put on record: one whenever the rows have doubled, or a day is over."""
    return f"seen:{int(days)}:{rows.bit_length()}"
