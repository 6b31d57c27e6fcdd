"""Moving the pointers of environments: deploy, try, promote, roll back, restore.

Each verb chooses a route; `noria.deploy.moving` makes the move.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from noria.deploy.admission import require_admission
from noria.deploy.history import Action, list_moves, stable_routes
from noria.deploy.moving import Ask, Choice, Deployment, Move, Target, move
from noria.deploy.releases import find_standing, read_release, read_route, record_route
from noria.errors import Conflict, NotFound
from noria.records import EventId, Pointer, Version, VersionId
from noria.serving.records import RouteRule

__all__ = [
    "Deployment",
    "Move",
    "Target",
    "deploy",
    "promote",
    "restore",
    "rollback",
    "start_canary",
    "start_test",
]

_Entries = Sequence[tuple[Version, float, Literal["answer", "shadow"]]]


def deploy(
    deployment: Deployment,
    release: Version,
    *,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let `release` answer everything, as a stable route.

    Raises
    ------
    GateRefused
        If its model did not pass the gate of the environment, or is a refit that no canary has judged.
    DeploymentError
        If the target does not serve it. The pointer is where it was.
    Conflict
        If the key belongs to another move, or other moves came after this one was requested.
    LeaseHeld
        If another process moves this deployment right now.
    """

    def choose() -> Choice:
        admission = _admission(deployment, release, on_trial=False)
        return _one(deployment, release, cause=cause, at=at), admission

    ask = Ask(
        action=Action.DEPLOY,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers all traffic of {deployment.subject}",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def start_canary(
    deployment: Deployment,
    release: Version,
    *,
    share: float,
    unit: str = "",
    by_header: Mapping[str, Sequence[str]] | None = None,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let `release` answer a share of the traffic beside the stable release; both score every row.

    The route is on trial, not stable: `promote` or `rollback` ends it. Calling it again with a larger share
    lets the canary grow.

    Parameters
    ----------
    unit
        What is assigned as a whole: a request column, or `header:NAME`. Units that the canary answered stay
        with it while it grows. Empty: each prediction by its id.
    by_header
        Requests with one of these values in the header are always answered by the canary.

    Raises
    ------
    NotFound
        If nothing is stable yet: there is nothing to try it against, `deploy` it.
    GateRefused, DeploymentError, Conflict, LeaseHeld
        As for `deploy`.
    """

    def choose() -> Choice:
        admission = _admission(deployment, release, on_trial=True)
        standing = find_standing(
            deployment.ledger, environment=deployment.environment, deployment=deployment.name
        )
        if standing is None:
            raise NotFound("stable release", deployment.subject, ())
        if standing.release.id == release.id:
            raise Conflict(
                f"{_told(release)} is the stable release of {deployment.subject}; there is nothing to try"
            )
        entries: _Entries = [(standing.release, 1 - share, "answer"), (release, share, "answer")]
        route = record_route(
            deployment.ledger,
            environment=deployment.environment,
            deployment=deployment.name,
            entries=entries,
            unit=unit,
            salt=f"{deployment.subject}/{release.ref}" if unit else "",
            rules=[
                RouteRule(header=header, values=tuple(values), release=release.ref)
                for header, values in (by_header or {}).items()
            ],
            cause=cause,
            at=at,
        )
        return route, admission

    ask = Ask(
        action=Action.CANARY,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers {share:.0%} of {deployment.subject} on trial",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def start_test(
    deployment: Deployment,
    arms: Sequence[tuple[Version, float]],
    *,
    name: str,
    unit: str = "",
    trial: Pointer | None = None,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let several releases answer by weight, to learn which is best; all of them score every row.

    The route is on trial, not stable: `promote` with the winner, or `rollback`, ends it. Calling it again
    with the same arms and other weights moves no more units than it must (see `noria.serving.assignment`).

    Parameters
    ----------
    arms
        Releases with their weights, the stable release first; their order stays while the test lasts.
    name
        Of the test: the salt of its assignment.
    unit
        What is assigned as a whole: a request column, or `header:NAME`; empty: each prediction by its id.
    trial
        Only the weights of this trial are to change: where other moves came after it, nothing is moved.

    Raises
    ------
    Conflict
        If the first arm is not the stable release, there are not two different ones, or `trial` has ended.
    GateRefused, DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> Choice:
        if trial is not None and trial != deployment.ledger.find_pointer(
            deployment.environment, deployment.name
        ):
            raise _ended(deployment, trial)
        admissions = [_admission(deployment, each, on_trial=True) for each, _ in arms[1:]]
        standing = find_standing(
            deployment.ledger, environment=deployment.environment, deployment=deployment.name
        )
        named = [_told(each) for each, _ in arms]
        if standing is None or not arms or arms[0][0].id != standing.release.id:
            stable = "nothing" if standing is None else _told(standing.release)
            raise Conflict(
                f"test {name!r} begins with {named[0] if named else 'no arm'}, and the stable release of "
                f"{deployment.subject} is {stable}; give that first"
            )
        if len(arms) < 2 or len({each.id for each, _ in arms}) < len(arms):
            raise Conflict(f"test {name!r} is of {', '.join(named)}; give two different releases or more")
        route = record_route(
            deployment.ledger,
            environment=deployment.environment,
            deployment=deployment.name,
            entries=[(each, weight, "answer") for each, weight in arms],
            unit=unit,
            salt=f"{deployment.subject}/{name}",
            cause=cause,
            at=at,
        )
        return route, next((each for each in admissions if each is not None), None)

    shares = ", ".join(f"{each.ref} {weight:.0%}" for each, weight in arms)
    ask = Ask(
        action=Action.TEST,
        release=None,
        key=key,
        reason=reason or f"test {name!r} of {deployment.subject}: {shares}",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def promote(
    deployment: Deployment,
    release: Version,
    *,
    trial: Pointer | None = None,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let the release on trial answer everything, as a stable route.

    Parameters
    ----------
    trial
        Only this trial is to end: where other moves came after it, nothing is moved.

    Raises
    ------
    Conflict
        If `release` is not on trial, or `trial` has ended already; see also `deploy`.
    DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> Choice:
        pointer = deployment.ledger.find_pointer(deployment.environment, deployment.name)
        if trial is not None and pointer != trial:
            raise _ended(deployment, trial)
        answering = _releases(deployment, pointer.version) if pointer else {}
        if release.id not in answering.values():
            named = ", ".join(answering) or "nothing"
            raise Conflict(
                f"{_told(release)} is not on trial at {deployment.subject} ({named} is); "
                "start a canary with it or deploy it"
            )
        return _one(deployment, release, cause=cause, at=at), None

    ask = Ask(
        action=Action.PROMOTE,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers all traffic of {deployment.subject}",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def rollback(
    deployment: Deployment,
    *,
    trial: Pointer | None = None,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Go back to the last stable route.

    A trial ends: the stable route that it was started beside answers everything again. Without a trial, the
    stable route before the present one does; rolling back again goes one further back. `restore` undoes it.

    Parameters
    ----------
    trial
        Only this trial is to end: where other moves came after it, nothing is moved.

    Raises
    ------
    NotFound
        If there is no earlier stable route.
    Conflict
        If `trial` has ended already.
    DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> Choice:
        moves = list_moves(deployment.ledger, environment=deployment.environment, deployment=deployment.name)
        if trial is not None and (not moves or moves[-1].pointer != trial):
            raise _ended(deployment, trial)
        past, _ = stable_routes(moves)
        on_trial = bool(moves) and not moves[-1].pointer.stable
        earlier = past if on_trial else past[:-1]
        if not earlier:
            advice = "nothing answered all traffic there before what does now"
            raise NotFound(
                "earlier stable route",
                deployment.subject,
                advice=advice if past else "nothing answers there yet",
            )
        return deployment.ledger.get_version_by_id(earlier[-1]), None

    ask = Ask(
        action=Action.ROLLBACK,
        release=None,
        key=key,
        reason=reason or f"{deployment.subject} goes back to its last stable route",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def restore(
    deployment: Deployment,
    *,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Undo the last rollback from a stable route: that route answers again.

    Raises
    ------
    NotFound
        If no stable route was rolled back since the last deploy or promote.
    DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> Choice:
        moves = list_moves(deployment.ledger, environment=deployment.environment, deployment=deployment.name)
        _, undone = stable_routes(moves)
        if not undone:
            raise NotFound("route that was rolled back", deployment.subject, ())
        return deployment.ledger.get_version_by_id(undone[-1]), None

    ask = Ask(
        action=Action.RESTORE,
        release=None,
        key=key,
        reason=reason or f"{deployment.subject} takes back its last rollback",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)


def _admission(deployment: Deployment, release: Version, *, on_trial: bool) -> EventId | None:
    if not deployment.gated:
        return None
    admission = require_admission(
        deployment.ledger,
        release,
        environment=deployment.environment,
        deployment=deployment.name,
        on_trial=on_trial,
    )
    return admission.id


def _one(deployment: Deployment, release: Version, *, cause: EventId | None, at: datetime | None) -> Version:
    return _route(deployment, [(release, 1.0, "answer")], cause=cause, at=at)


def _route(
    deployment: Deployment, entries: _Entries, *, cause: EventId | None, at: datetime | None
) -> Version:
    return record_route(
        deployment.ledger,
        environment=deployment.environment,
        deployment=deployment.name,
        entries=entries,
        cause=cause,
        at=at,
    )


def _ended(deployment: Deployment, trial: Pointer) -> Conflict:
    return Conflict(
        f"the trial of route {trial.version} at {deployment.subject} has ended; nothing is left to do"
    )


def _releases(deployment: Deployment, route: VersionId) -> dict[str, VersionId]:
    return read_route(deployment.ledger.get_version_by_id(route)).releases


def _told(release: Version) -> str:
    return f"release {release.ref} (model {read_release(release).model_ref})"
