"""How long which model answered where: the moves of deployments, read by model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from noria.deploy.history import PastMove, list_moves
from noria.deploy.releases import read_release, read_route
from noria.ledger.store import Ledger
from noria.records import VersionId

__all__ = ["Stay", "list_stays"]

_Entry = tuple[VersionId, str, float, Literal["answer", "shadow"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A while in which a model version had one share of a deployment's traffic.

    Attributes
    ----------
    since, until
        By the clock of the environment; `until` is None while it lasts.
    share, mode
        Of the requests; `shadow` scores and does not answer.
    stable
        Whether the route was one that rollbacks go back to; else it was a trial.
    move
        What began it.
    ended_by
        What ended it; None while it lasts.
    """

    model: VersionId
    release: str
    environment: str
    deployment: str
    since: datetime
    until: datetime | None
    share: float
    mode: Literal["answer", "shadow"]
    stable: bool
    move: PastMove
    ended_by: PastMove | None


def list_stays(
    ledger: Ledger,
    *,
    environment: str | None = None,
    deployment: str | None = None,
    model: VersionId | None = None,
    at: datetime | None = None,
) -> list[Stay]:
    """List who answered where, by environment and deployment, oldest first.

    A stay ends when a move gives the model another share or mode, begins or ends a trial, or takes it out.
    What a later move undid at the same instant, or at an earlier one of that clock, is left out.

    Parameters
    ----------
    model
        Only the stays of this version.
    at
        Only those that were under way at this instant of the environment's clock.
    """
    pointers = ledger.list_pointers(environment=environment, name=deployment)
    places = sorted({(each.environment, each.name) for each in pointers})
    found: list[Stay] = []
    for where, name in places:
        moves = list_moves(ledger, environment=where, deployment=name)
        found += (each for each in _stays(ledger, moves) if model in (None, each.model))
    if at is None:
        return found
    return [each for each in found if each.since <= at and (each.until is None or at < each.until)]


def _stays(ledger: Ledger, moves: Sequence[PastMove]) -> Iterator[Stay]:
    lasting: dict[_Entry, PastMove] = {}
    done: list[Stay] = []
    for move in _lasting(moves):
        entries = _entries(ledger, move)
        stable = move.pointer.stable
        for entry, began in list(lasting.items()):
            if entry not in entries or began.pointer.stable != stable:
                done.append(_stay(entry, began, move))
                del lasting[entry]
        for entry in entries:
            if entry not in lasting:
                lasting[entry] = _resumed(done, entry, move) or move
    done += (_stay(entry, began, None) for entry, began in lasting.items())
    done.sort(key=lambda each: (each.since, each.move.pointer.number))
    yield from (each for each in done if each.until is None or each.since < each.until)


def _lasting(moves: Sequence[PastMove]) -> list[PastMove]:
    """Leave out moves before which a later one is dated: a person may act while a replay is within a day."""
    kept: list[PastMove] = []
    for move in moves:
        while kept and kept[-1].pointer.at > move.pointer.at:
            kept.pop()
        kept.append(move)
    return kept


def _resumed(done: list[Stay], entry: _Entry, move: PastMove) -> PastMove | None:
    """Give what began a stay that ended at this very instant and goes on now; it is not done then."""
    for place, each in reversed(list(enumerate(done))):
        if (each.model, each.release, each.share, each.mode) == entry and each.until == move.pointer.at:
            if each.stable == move.pointer.stable and each.since < each.until:
                return done.pop(place).move
            if each.stable == move.pointer.stable:
                return each.move
    return None


def _stay(entry: _Entry, began: PastMove, ended: PastMove | None) -> Stay:
    model, release, share, mode = entry
    return Stay(
        model=model,
        release=release,
        environment=began.pointer.environment,
        deployment=began.pointer.name,
        since=began.pointer.at,
        until=None if ended is None else ended.pointer.at,
        share=share,
        mode=mode,
        stable=began.pointer.stable,
        move=began,
        ended_by=ended,
    )


def _entries(ledger: Ledger, move: PastMove) -> list[_Entry]:
    content = read_route(ledger.get_version_by_id(move.pointer.version))
    found: list[_Entry] = []
    for each in content.entries:
        release = ledger.get_version_by_id(content.releases[each.release])
        found.append((read_release(release).model, each.release, each.weight, each.mode))
    return found
