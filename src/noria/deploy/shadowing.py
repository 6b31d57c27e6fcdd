"""A release that scores every row of a deployment and answers none."""

from datetime import datetime

from noria.deploy.admission import require_admission
from noria.deploy.history import Action
from noria.deploy.moving import Ask, Choice, Deployment, Move, move
from noria.deploy.releases import find_standing, read_release, record_route
from noria.errors import Conflict, NotFound
from noria.records import EventId, Version

__all__ = ["start_shadow"]


def start_shadow(
    deployment: Deployment,
    release: Version,
    *,
    key: str,
    reason: str = "",
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let `release` score every row behind the stable release, which answers alone.

    The route is on trial, not stable: `promote` or `rollback` ends it.

    Raises
    ------
    NotFound
        If nothing is stable yet: there is nothing to be the shadow of, `deploy` it.
    Conflict
        If it is the stable release.
    GateRefused, DeploymentError, LeaseHeld
        As for `noria.deploy.environments.deploy`.
    """
    ledger, environment, name = deployment.ledger, deployment.environment, deployment.name
    told = f"release {release.ref} (model {read_release(release).model_ref})"

    def choose() -> Choice:
        admission = None
        if deployment.gated:
            admission = require_admission(
                ledger, release, environment=environment, deployment=name, on_trial=True
            ).id
        standing = find_standing(ledger, environment=environment, deployment=name)
        if standing is None:
            raise NotFound("stable release", deployment.subject, ())
        if standing.release.id == release.id:
            raise Conflict(f"{told} is the stable release of {deployment.subject}, and no shadow of itself")
        route = record_route(
            ledger,
            environment=environment,
            deployment=name,
            entries=[(standing.release, 1.0, "answer"), (release, 1.0, "shadow")],
            cause=cause,
            at=at,
        )
        return route, admission

    ask = Ask(
        action=Action.SHADOW,
        release=release.id,
        key=key,
        reason=reason or f"{told} scores all rows of {deployment.subject} as a shadow",
        cause=cause,
        at=at,
    )
    return move(deployment, ask, choose)
