"""Which version of a model answered where, from when to when, who put it there, and why."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from noria.audit.links import causes, link_of
from noria.audit.records import Link
from noria.deploy.releases import find_standing
from noria.deploy.stays import Stay, list_stays
from noria.errors import NotFound
from noria.records import Event, Version, VersionId

if TYPE_CHECKING:
    from noria.ledger.store import Ledger
    from noria.workspace.project import Project

__all__ = ["Placed", "PlacedStay", "history_of", "placed_at"]


class PlacedStay(msgspec.Struct, frozen=True, kw_only=True):
    """A while in which a model version had one share of a deployment's traffic.

    Parameters
    ----------
    since, until
        By the environment's clock: that of a replay, or the wall's. `until` is None while it lasts.
    share, mode
        Of the requests; `shadow` scores and does not answer.
    trial
        Whether it was one: a canary was judged meanwhile.
    by, asked_by
        The account whose process moved it, and what began the chain of causes: a person, a replay, a trigger.
    reason
        Of the move.
    gate
        The event by which the gate of the environment let the version in, or that of which it is a refit.
    chain
        The move and its causes, each the cause of the one before.
    ended
        Why it ended.
    """

    model: str
    version: VersionId
    environment: str
    deployment: str
    since: datetime
    until: datetime | None
    share: float
    mode: Literal["answer", "shadow"]
    trial: bool
    action: str
    by: str
    asked_by: str
    reason: str
    gate: Link | None
    chain: tuple[Link, ...]
    ended: str | None


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment had at an instant.

    Parameters
    ----------
    model
        That of its stable release: what a rollback of a trial goes back to.
    stays
        Everybody who had a share, the stable one first.
    """

    at: datetime
    environment: str
    deployment: str
    model: str
    version: VersionId
    stays: tuple[PlacedStay, ...]


def history_of(project: "Project", versions: Sequence[Version]) -> list[PlacedStay]:
    """List the stays of these versions, by environment and deployment, oldest first."""
    known = {each.id: each for each in versions}
    ledger = project.ledger
    return [_placed(ledger, each, known[each.model]) for each in list_stays(ledger) if each.model in known]


def placed_at(project: "Project", environment: str, deployment: str, at: datetime) -> Placed:
    """Tell what a deployment had at an instant of its environment's clock.

    Raises
    ------
    NotFound
        If nothing was there then; says since when something is.
    """
    ledger = project.ledger
    standing = find_standing(ledger, environment=environment, deployment=deployment, at=at)
    if standing is None:
        moves = ledger.list_pointers(environment=environment, name=deployment)
        if not moves:
            raise NotFound(
                "deployment",
                f"{deployment}@{environment}",
                {f"{each.name}@{each.environment}" for each in ledger.list_pointers()},
            )
        first = min(moves, key=lambda each: each.number)
        place = f"{deployment}@{environment}"
        since = f"{place} since {first.at:%Y-%m-%d %H:%M} UTC"
        raise NotFound("deployment", f"{place} at {at:%Y-%m-%d %H:%M} UTC", [since])
    stays = [
        _placed(ledger, each, ledger.get_version_by_id(each.model))
        for each in list_stays(ledger, environment=environment, deployment=deployment, at=at)
    ]
    stays.sort(key=lambda each: (each.version != standing.model.id, -each.share, each.model))
    return Placed(
        at=at,
        environment=environment,
        deployment=deployment,
        model=standing.model.ref,
        version=standing.model.id,
        stays=tuple(stays),
    )


def _placed(ledger: "Ledger", stay: Stay, version: Version) -> PlacedStay:
    moved = ledger.get_event(stay.move.pointer.event)
    chain = tuple(link_of(each) for each in causes(ledger, moved) if isinstance(each, Event))
    parents = [ledger.get_version_by_id(each).ref for each in version.facts.get("parents", ())]
    own = (each for each in chain if each.verb == "gate.passed" and each.subject in {version.ref, *parents})
    gate = next(own, None)  # the chain of a trial names the other one's gate as well
    return PlacedStay(
        model=version.ref,
        version=version.id,
        environment=stay.environment,
        deployment=stay.deployment,
        since=stay.since,
        until=stay.until,
        share=stay.share,
        mode=stay.mode,
        trial=not stay.stable,
        action=stay.move.action.value,
        by=moved.actor,
        asked_by=_asked_by(chain),
        reason=stay.move.reason,
        gate=gate or _admission(ledger, version, stay.environment, before=moved),
        chain=chain,
        ended=None if stay.ended_by is None else stay.ended_by.reason,
    )


def _asked_by(chain: Sequence[Link]) -> str:
    first = chain[-1]
    if first.verb.startswith("person."):
        return first.actor
    return f"{first.verb.replace('.', ' ').replace('_', ' ')} ({first.event})"


def _admission(ledger: "Ledger", version: Version, environment: str, *, before: Event) -> Link | None:
    """Find by which event a version was let in, if the chain of the move does not tell."""
    parents = [ledger.get_version_by_id(each) for each in version.facts.get("parents", ())]
    for each in (version, *parents):
        for event in ledger.list_events(verb="gate.*", subject=each.ref, newest_first=True):
            told = event.payload.get("environment"), event.payload.get("digest")
            if event.seq < before.seq and told == (environment, each.sha256):
                return link_of(event) if event.verb == "gate.passed" else None
    return None
