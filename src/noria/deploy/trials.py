"""What is on trial at a deployment, and the end of a canary that was judged."""

from dataclasses import dataclass
from datetime import datetime

from noria.deploy.canary import CanaryDecision
from noria.deploy.environments import promote, rollback
from noria.deploy.history import Action
from noria.deploy.moving import Deployment, Move
from noria.deploy.releases import RouteContent, find_standing, read_route
from noria.ledger.store import Ledger
from noria.records import Event, Pointer, Version, VersionId

__all__ = ["Trial", "end_canary", "find_trial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A route that is not stable: what is tried, as what, beside which release.

    Attributes
    ----------
    pointer
        The move to it.
    action
        A canary, a test or a shadow.
    began
        Where it is a test or a bandit: what it is judged by, `test.began`.
    stable
        The release that stands.
    """

    pointer: Pointer
    action: Action
    route: Version
    content: RouteContent
    stable: Version
    began: Event | None

    @property
    def tried(self) -> dict[str, VersionId]:
        """The releases on trial by reference, in the order of the route."""
        return {
            each.release: self.content.releases[each.release]
            for each in self.content.entries
            if each.release != self.stable.ref
        }

    @property
    def key(self) -> str:
        """What verdicts about it, and the moves that end it, are keyed by."""
        return f"trial:{self.pointer.environment}/{self.pointer.name}:{self.pointer.number}"


def find_trial(ledger: Ledger, *, environment: str, deployment: str) -> Trial | None:
    """Find what is on trial at a deployment; None where a stable route answers, or nothing does."""
    pointer = ledger.find_pointer(environment, deployment)
    if pointer is None or pointer.stable:
        return None
    standing = find_standing(ledger, environment=environment, deployment=deployment)
    moved = ledger.get_event(pointer.event)
    if standing is None or moved.cause is None:
        return None  # it was moved by hand, and nobody said what for
    request = ledger.get_event(moved.cause)
    if request.verb != "route.requested":
        return None
    cause = None if request.cause is None else ledger.get_event(request.cause)
    if cause is not None and cause.verb == "bandit.moved":
        cause = ledger.get_event(cause.payload["began"])
    route = ledger.get_version_by_id(pointer.version)
    return Trial(
        pointer=pointer,
        action=Action(request.payload["action"]),
        route=route,
        content=read_route(route),
        stable=standing.release,
        began=cause if cause is not None and cause.verb == "test.began" else None,
    )


def end_canary(
    deployment: Deployment, found: Event, *, trial: Pointer | None = None, key: str, at: datetime
) -> Move | None:
    """Promote or roll back as a recorded verdict says; give None where the trial goes on.

    Parameters
    ----------
    found
        Of `noria.deploy.canary.record_verdict`.
    trial
        Only this trial is to end.

    Raises
    ------
    Conflict
        If `trial` has ended already.
    DeploymentError, LeaseHeld
        As for `noria.deploy.environments.promote`.
    """
    reason = found.payload["reason"]
    match CanaryDecision(found.payload["decision"]):
        case CanaryDecision.PROMOTE:
            release = deployment.ledger.get_version_by_id(found.payload["release"])
            return promote(
                deployment,
                release,
                trial=trial,
                key=f"{key}:promote",
                reason=reason,
                cause=found.id,
                at=at,
            )
        case CanaryDecision.ROLLBACK:
            return rollback(
                deployment, trial=trial, key=f"{key}:rollback", reason=reason, cause=found.id, at=at
            )
        case CanaryDecision.CONTINUE:
            return None
