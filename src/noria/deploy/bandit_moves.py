"""How a bandit begins, moves its shares and ends; `noria.deploy.bandit` says what the shares are.

Killed anywhere, the next call with the same key ends what was begun.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from noria.deploy.bandit import thompson_shares
from noria.deploy.bandit_declarations import Bandit
from noria.deploy.environments import promote, rollback, start_test
from noria.deploy.experiments import record_began
from noria.deploy.moving import Deployment, Move
from noria.deploy.trials import Trial
from noria.errors import Conflict
from noria.evaluation.sequential import Moments
from noria.records import EventId, Version

__all__ = ["BanditState", "bandit_state", "begin_bandit", "conclude_bandit", "shift_bandit"]

_LEAST_MOVE = 0.01  # of a share: a smaller one is not worth a route


class BanditState(msgspec.Struct, frozen=True, kw_only=True):
    """What a bandit knows so far.

    Attributes
    ----------
    units, means
        With an outcome, and their mean, by release.
    chances
        Of each release to be the best.
    shares
        That follow from them; those that are, as long as too little is known.
    is_enough
        Whether each release has the units that it needs.
    """

    units: dict[str, int]
    means: dict[str, float | None]
    chances: dict[str, float]
    shares: dict[str, float]
    is_enough: bool

    @property
    def best(self) -> str:
        """The release with the largest chance."""
        return max(self.chances, key=lambda each: self.chances[each])

    def told(self) -> str:
        """Say it in a sentence."""
        return "; ".join(
            f"{ref} {share:.0%} (best with {self.chances[ref]:.1%}, {self.units[ref]:,} units)"
            for ref, share in self.shares.items()
        )


def bandit_state(
    bandit: Bandit, arms: Mapping[str, Moments], *, weights: Mapping[str, float], seed: int
) -> BanditState:
    """Say what shares follow from what is known of each release.

    Parameters
    ----------
    arms
        Sums by release; see `noria.deploy.experiments.arm_moments`.
    weights
        The shares that are, the stable release first.
    seed
        The same seed and sums give the same shares.

    Examples
    --------
    >>> bandit = Bandit(name="offers", metric="conversion", floor=0.1)
    >>> arms = {"m:1": Moments(500, 50, 50), "m:2": Moments(500, 80, 80)}
    >>> found = bandit_state(bandit, arms, weights={"m:1": 0.5, "m:2": 0.5}, seed=1)
    >>> found.best, round(found.shares["m:2"], 2)
    ('m:2', 0.9)
    """
    known = {ref: arms.get(ref, Moments()) for ref in weights}
    are_rates = bandit.metric == "conversion" and all(
        abs(each.total - each.squares) < 1e-9
        for each in known.values()  # else units have several rows
    )
    chances = thompson_shares(
        known,
        values="rates" if are_rates else "amounts",
        floor=0.0,
        is_less_better=bandit.is_less_better,
        seed=seed,
    )
    is_enough = min(each.n for each in known.values()) >= bandit.min_units
    room = 1 - bandit.floor * len(known)
    return BanditState(
        units={ref: each.n for ref, each in known.items()},
        means={ref: each.mean if each.n else None for ref, each in known.items()},
        chances=chances,
        shares={ref: bandit.floor + room * chances[ref] if is_enough else weights[ref] for ref in known},
        is_enough=is_enough,
    )


def begin_bandit(
    deployment: Deployment,
    bandit: Bandit,
    releases: Sequence[Version],
    *,
    key: str,
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let releases answer by a bandit's first weights, the stable one first; put on record as `test.began`.

    Raises
    ------
    Conflict
        If there are not as many releases as weights; see also `noria.deploy.environments.start_test`.
    """
    if len(releases) != len(bandit.weights):
        raise Conflict(
            f"bandit {bandit.name!r} has {len(bandit.weights)} weights and {len(releases)} releases were "
            "given; give as many, the stable release first"
        )
    arms = list(zip(releases, bandit.shares, strict=True))
    began = record_began(deployment, bandit, arms, key=key, cause=cause, at=at)
    return start_test(deployment, arms, name=bandit.name, unit=bandit.sticky, key=key, cause=began.id, at=at)


def shift_bandit(
    deployment: Deployment, bandit: Bandit, trial: Trial, found: BanditState, *, at: datetime
) -> Move | None:
    """Move the shares to what was found, as `bandit.moved` on record; None where they would hardly change.

    Raises
    ------
    Conflict
        If the trial has ended meanwhile.
    DeploymentError, LeaseHeld
        As for `noria.deploy.environments.start_test`.
    """
    assert trial.began is not None
    ledger, key = deployment.ledger, f"{trial.key}:shares"
    weights = {each.release: each.weight for each in trial.content.entries}
    event = ledger.find_event(key=f"{key}:found")
    if event is None:
        most = max(abs(found.shares[ref] - weight) for ref, weight in weights.items())
        if not found.is_enough or most < _LEAST_MOVE:
            return None
        payload = {
            "environment": deployment.environment,
            "deployment": deployment.name,
            "bandit": bandit.name,
            "began": trial.began.id,
            "before": weights,
            **msgspec.to_builtins(found),
            "reason": f"bandit {bandit.name!r} on {bandit.metric}: {found.told()}",
        }
        event = ledger.append(
            "bandit.moved",
            subject=deployment.subject,
            payload=payload,
            cause=trial.began.id,
            key=f"{key}:found",
            at=at,
        )
    shares: dict[str, float] = event.payload["shares"]
    return start_test(
        deployment,
        [(ledger.get_version_by_id(trial.content.releases[ref]), shares[ref]) for ref in weights],
        name=bandit.name,
        unit=bandit.sticky,
        trial=trial.pointer,
        key=key,
        reason=str(event.payload["reason"]),
        cause=event.id,
        at=at,
    )


def conclude_bandit(
    deployment: Deployment, bandit: Bandit, trial: Trial, found: BanditState, *, at: datetime
) -> Move | None:
    """End a bandit after its `max_days`, as `test.concluded` on record; None while it goes on.

    The best release answers everything, if it is the best with the bandit's confidence; else the stable one.

    Raises
    ------
    Conflict
        If the trial has ended meanwhile.
    DeploymentError, LeaseHeld
        As for `noria.deploy.environments.promote`.
    """
    assert trial.began is not None
    ledger, days = deployment.ledger, (at - trial.began.at).total_seconds() / 86_400
    event = ledger.find_event(key=f"{trial.key}:verdict")
    if event is None:
        if days < bandit.max_days:
            return None
        is_sure = found.is_enough and found.chances[found.best] >= bandit.confidence
        winner = found.best if is_sure else None
        told = f"{winner} is the best" if winner else f"no release is the best with {bandit.confidence:.0%}"
        reason = f"bandit {bandit.name!r} on {bandit.metric} after {days:.3g} days: {found.told()}: {told}"
        payload = {
            "environment": deployment.environment,
            "deployment": deployment.name,
            "route": trial.pointer.version,
            "decision": "winner" if winner else "stopped",
            "winner": winner,
            "promoted": trial.tried.get(winner) if winner else None,
            "metric": bandit.metric,
            "days": days,
            **msgspec.to_builtins(found),
            "reason": reason,
        }
        event = ledger.append(
            "test.concluded",
            subject=deployment.subject,
            payload=payload,
            cause=trial.pointer.event,
            key=f"{trial.key}:verdict",
            at=at,
        )
    key, reason, promoted = f"{trial.key}:end", str(event.payload["reason"]), event.payload["promoted"]
    if promoted is None:
        return rollback(deployment, trial=trial.pointer, key=key, reason=reason, cause=event.id, at=at)
    release = ledger.get_version_by_id(promoted)
    return promote(deployment, release, trial=trial.pointer, key=key, reason=reason, cause=event.id, at=at)
