"""Moving the pointers of environments: deploy, try, promote, roll back, restore.

A move is three steps under one key: the request is recorded (`route.requested`, which fixes the route), the
target serves the route, the pointer moves. The pointer is the truth and moves last, so that whatever it names
has answered. Killed anywhere, the same call with the same key goes on where it stopped: the request is found,
serving the same route again is free of effect, and the pointer moves once. A target that fails is recorded
(`route.failed`) and the pointer stays.

No process is started here: a `Target` is whoever does that.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from noria.deploy.admission import require_admission
from noria.deploy.history import Action, list_moves, stable_routes
from noria.deploy.releases import (
    Release,
    find_standing,
    read_release,
    read_route,
    record_route,
    serve_route,
)
from noria.errors import Conflict, NoriaError, NotFound
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Pointer, Version, VersionId
from noria.serving.records import Route, Samples

__all__ = [
    "Deployment",
    "Move",
    "Target",
    "deploy",
    "promote",
    "restore",
    "rollback",
    "start_canary",
]

_LEASE_S = 120.0  # longer than a server takes to start; a dead holder's lease is taken over at once
_Entries = Sequence[tuple[Version, float, Literal["answer", "shadow"]]]
_Choice = tuple[Version, EventId | None]  # a route, and the event that let its release in


class Target(Protocol):
    """Whoever serves a deployment."""

    def swap(self, route: Route) -> None:
        """Answer by `route`; return once it does. The route that answers already is free of effect.

        Raises `DeploymentError` (or another `NoriaError`) if it cannot; the former route then goes on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Deployment:
    """A named endpoint in an environment, and what it takes to move it.

    Parameters
    ----------
    ledger
        Holds the pointer.
    environment, name
        Which endpoint.
    fetch
        Gives a verified local file by its sha256, such as `Storage.fetch`.
    samples
        Gives the stored rows that a worker scores before it answers with a model.
    target
        Serves the routes, or None where nothing runs.
    gated
        Whether a release has to have passed the environment's gate.
    """

    ledger: Ledger
    _: KW_ONLY
    environment: str
    name: str
    fetch: Callable[[str], Path]
    samples: Callable[[Release], Samples]
    target: Target | None = None
    gated: bool = True

    @property
    def subject(self) -> str:
        """`environment/name`, as events name it."""
        return f"{self.environment}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move that was made: what answers now, and where that is written."""

    action: Action
    route: Route
    version: Version  # of kind route
    pointer: Pointer
    request: Event


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

    def choose() -> _Choice:
        admission = _admission(deployment, release, on_trial=False)
        return _one(deployment, release, cause=cause, at=at), admission

    ask = _Ask(
        action=Action.DEPLOY,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers all traffic of {deployment.subject}",
        cause=cause,
        at=at,
    )
    return _move(deployment, ask, choose)


def start_canary(
    deployment: Deployment,
    release: Version,
    *,
    share: float,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let `release` answer a share of the traffic beside the stable release; both score every row.

    The route is on trial, not stable: `promote` or `rollback` ends it.

    Raises
    ------
    NotFound
        If nothing is stable yet: there is nothing to try it against, `deploy` it.
    GateRefused, DeploymentError, Conflict, LeaseHeld
        As for `deploy`.
    """

    def choose() -> _Choice:
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
        return _route(deployment, entries, cause=cause, at=at), admission

    ask = _Ask(
        action=Action.CANARY,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers {share:.0%} of {deployment.subject} on trial",
        cause=cause,
        at=at,
    )
    return _move(deployment, ask, choose)


def promote(
    deployment: Deployment,
    release: Version,
    *,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let the release on trial answer everything, as a stable route.

    Raises
    ------
    Conflict
        If `release` is not on trial; see also `deploy`.
    DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> _Choice:
        pointer = deployment.ledger.find_pointer(deployment.environment, deployment.name)
        answering = _releases(deployment, pointer.version) if pointer else {}
        if release.id not in answering.values():
            named = ", ".join(answering) or "nothing"
            raise Conflict(
                f"{_told(release)} is not on trial at {deployment.subject} ({named} is); "
                "start a canary with it or deploy it"
            )
        return _one(deployment, release, cause=cause, at=at), None

    ask = _Ask(
        action=Action.PROMOTE,
        release=release.id,
        key=key,
        reason=reason or f"{_told(release)} answers all traffic of {deployment.subject}",
        cause=cause,
        at=at,
    )
    return _move(deployment, ask, choose)


def rollback(
    deployment: Deployment,
    *,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Go back to the last stable route.

    A trial ends: the stable route that it was started beside answers everything again. Without a trial, the
    stable route before the present one does; rolling back again goes one further back. `restore` undoes it.

    Raises
    ------
    NotFound
        If there is no earlier stable route.
    DeploymentError, LeaseHeld
        As for `deploy`.
    """

    def choose() -> _Choice:
        moves = list_moves(deployment.ledger, environment=deployment.environment, deployment=deployment.name)
        past, _ = stable_routes(moves)
        on_trial = bool(moves) and not moves[-1].pointer.stable
        earlier = past if on_trial else past[:-1]
        if not earlier:
            raise NotFound("earlier stable route", deployment.subject, ())
        return deployment.ledger.get_version_by_id(earlier[-1]), None

    ask = _Ask(
        action=Action.ROLLBACK,
        release=None,
        key=key,
        reason=reason or f"{deployment.subject} goes back to its last stable route",
        cause=cause,
        at=at,
    )
    return _move(deployment, ask, choose)


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

    def choose() -> _Choice:
        moves = list_moves(deployment.ledger, environment=deployment.environment, deployment=deployment.name)
        _, undone = stable_routes(moves)
        if not undone:
            raise NotFound("route that was rolled back", deployment.subject, ())
        return deployment.ledger.get_version_by_id(undone[-1]), None

    ask = _Ask(
        action=Action.RESTORE,
        release=None,
        key=key,
        reason=reason or f"{deployment.subject} takes back its last rollback",
        cause=cause,
        at=at,
    )
    return _move(deployment, ask, choose)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """What a verb was called with."""

    action: Action
    release: VersionId | None
    key: str
    reason: str
    cause: EventId | None
    at: datetime | None


def _move(deployment: Deployment, ask: _Ask, choose: Callable[[], _Choice]) -> Move:
    ledger = deployment.ledger
    lease = ledger.acquire_lease(f"route:{deployment.subject}", ttl_s=_LEASE_S)
    try:
        request = _request(deployment, ask, choose)
        version = ledger.get_version_by_id(request.payload["route"])
        route = serve_route(ledger, version, fetch=deployment.fetch, samples=deployment.samples)
        pointer = _complete(deployment, ask, request, route)
    finally:
        ledger.release_lease(lease)
    return Move(action=ask.action, route=route, version=version, pointer=pointer, request=request)


def _request(deployment: Deployment, ask: _Ask, choose: Callable[[], _Choice]) -> Event:
    """Record what is asked for, or find it: the first request of a key fixes the route."""
    ledger, key = deployment.ledger, f"{ask.key}:request"
    found = ledger.find_event(key=key)
    if found is None:
        before = ledger.find_pointer(deployment.environment, deployment.name)
        route, admission = choose()
        payload: dict[str, Any] = {
            "action": ask.action.value,
            "environment": deployment.environment,
            "deployment": deployment.name,
            "release": ask.release,
            "route": route.id,
            "stable": ask.action is not Action.CANARY,
            "from": before.version if before else None,
            "after": before.number if before else 0,
            "reason": ask.reason,
        }
        found = ledger.append(
            "route.requested",
            subject=deployment.subject,
            payload=payload,
            cause=ask.cause or admission,
            key=key,
            at=ask.at,
        )
    asked = (found.subject, found.payload["action"], found.payload["release"])
    if asked != (deployment.subject, ask.action.value, ask.release):
        raise Conflict(
            f"key {ask.key!r} is that of another move ({asked[1]} of {asked[2]} at {asked[0]}); "
            "give each move its own"
        )
    return found


def _complete(deployment: Deployment, ask: _Ask, request: Event, route: Route) -> Pointer:
    """Serve the route and move the pointer, unless that has been done."""
    ledger, environment, name = deployment.ledger, deployment.environment, deployment.name
    current = ledger.find_pointer(environment, name)
    moved = ledger.find_event(key=ask.key)
    if moved is not None:
        pointers = ledger.list_pointers(environment=environment, name=name)
        pointer = next(each for each in pointers if each.event == moved.id)
        if pointer == current:  # else later moves stand, and this one is history
            _swap(deployment, ask, request, route)
        return pointer
    if (current.number if current else 0) != request.payload["after"]:
        raise Conflict(
            f"{ask.action} at {deployment.subject} was requested before its latest moves and never finished; "
            "ask again under a new key if it is still wanted"
        )
    _swap(deployment, ask, request, route)
    return ledger.move_pointer(
        environment,
        name,
        request.payload["route"],
        stable=request.payload["stable"],
        reason=request.payload["reason"],
        cause=request.id,
        key=ask.key,
        at=ask.at,
    )


def _swap(deployment: Deployment, ask: _Ask, request: Event, route: Route) -> None:
    if deployment.target is None:
        return
    try:
        deployment.target.swap(route)
    except NoriaError as error:
        payload = {
            "action": ask.action.value,
            "environment": deployment.environment,
            "deployment": deployment.name,
            "route": request.payload["route"],
            "error": str(error),
            "reason": f"{ask.action} at {deployment.subject} failed, its pointer stays: {error}",
        }
        deployment.ledger.append(
            "route.failed",
            subject=deployment.subject,
            payload=payload,
            cause=request.id,
            key=f"{ask.key}:failed",
            at=ask.at,
        )
        raise


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


def _releases(deployment: Deployment, route: VersionId) -> dict[str, VersionId]:
    return read_route(deployment.ledger.get_version_by_id(route)).releases


def _told(release: Version) -> str:
    return f"release {release.ref} (model {read_release(release).model_ref})"
