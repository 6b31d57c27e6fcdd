"""How a pointer moves: asked for, served, moved, under one key; and the nouns of that.

A move is three steps under one key: the request is recorded (`route.requested`, which fixes the route), the
target serves the route, the pointer moves. The pointer is the truth and moves last, so that whatever it names
has answered. Killed anywhere, the same call with the same key goes on where it stopped: the request is found,
serving the same route again is free of effect, and the pointer moves once. A target that fails is recorded
(`route.failed`) and the pointer stays.

No process is started here: a `Target` is whoever does that.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from noria.deploy.history import Action
from noria.deploy.releases import Release, serve_route
from noria.errors import Conflict, NoriaError
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Pointer, Version, VersionId
from noria.serving.records import Route, Samples

__all__ = ["Ask", "Choice", "Deployment", "Move", "Target", "move"]

Choice = tuple[Version, EventId | None]  # a route, and the event that let its release in
_LEASE_S = 120.0  # longer than a server takes to start; a dead holder's lease is taken over at once


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
    trusts
        Tells whether a model, by its name, may run code as it is loaded.
    """

    ledger: Ledger
    _: KW_ONLY
    environment: str
    name: str
    fetch: Callable[[str], Path]
    samples: Callable[[Release], Samples]
    target: Target | None = None
    gated: bool = True
    trusts: Callable[[str], bool] = lambda _: False

    def route(self, version: Version) -> Route:
        """Give a version of kind `route` as a worker reads it; raises like `serve_route`."""
        return serve_route(self.ledger, version, fetch=self.fetch, samples=self.samples, trusts=self.trusts)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a verb was called with."""

    action: Action
    release: VersionId | None
    key: str
    reason: str
    cause: EventId | None
    at: datetime | None


def move(deployment: Deployment, ask: Ask, choose: Callable[[], Choice]) -> Move:
    """Move a deployment's pointer to the route that `choose` gives, which is called once for each key.

    Raises
    ------
    DeploymentError
        If the target does not serve it. The pointer is where it was.
    Conflict
        If the key belongs to another move, or other moves came after this one was requested.
    LeaseHeld
        If another process moves this deployment right now.
    """
    ledger = deployment.ledger
    lease = ledger.acquire_lease(f"route:{deployment.subject}", ttl_s=_LEASE_S)
    try:
        request = _request(deployment, ask, choose)
        version = ledger.get_version_by_id(request.payload["route"])
        route = deployment.route(version)
        pointer = _complete(deployment, ask, request, route)
    finally:
        ledger.release_lease(lease)
    return Move(action=ask.action, route=route, version=version, pointer=pointer, request=request)


def _request(deployment: Deployment, ask: Ask, choose: Callable[[], Choice]) -> Event:
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
            "stable": ask.action not in (Action.CANARY, Action.SHADOW, Action.TEST),
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


def _complete(deployment: Deployment, ask: Ask, request: Event, route: Route) -> Pointer:
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


def _swap(deployment: Deployment, ask: Ask, request: Event, route: Route) -> None:
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
