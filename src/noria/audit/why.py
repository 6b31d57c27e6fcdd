"""Why a model is where it is: the chain of causes behind the last stable move of a deployment's pointer."""

from collections.abc import Iterable, Sequence

from noria.audit.links import causes, link_of
from noria.audit.records import Branch, Chain, Link, Placement
from noria.deploy.history import Action, PastMove, list_moves
from noria.deploy.releases import read_release, read_route
from noria.errors import NotFound
from noria.ledger.store import Ledger
from noria.records import Event, Version

__all__ = ["Chain", "why"]

_BRINGING = {Action.DEPLOY, Action.PROMOTE}


def why(ledger: Ledger, *, environment: str, deployment: str) -> Chain:
    """Tell what put the model of a deployment where it is.

    The chain begins with the move of the pointer to the last stable route and follows causes only, so that
    every link is the cause of the one before it. After a rollback or a restore, `origin` tells the same of
    the move that first brought this route. Models that the chain speaks of have their making told in
    `branches`: each begins with the version and ends at an event of the chain.

    Raises
    ------
    NotFound
        If the deployment never pointed to anything; says which ones did.
    """
    moves = list_moves(ledger, environment=environment, deployment=deployment)
    stable = [move for move in moves if move.pointer.stable]
    if not stable:
        known = {f"{each.name}@{each.environment}" for each in ledger.list_pointers() if each.stable}
        raise NotFound("deployment", f"{deployment}@{environment}", known)
    current = stable[-1]
    links, gap = _follow(ledger, ledger.get_event(current.pointer.event))
    origin: tuple[Link, ...] = ()
    if current.action not in _BRINGING:
        first = _brought_by(stable, current)
        if first is not None:
            origin, origin_gap = _follow(ledger, ledger.get_event(first.pointer.event))
            gap = gap or origin_gap
    branches = []
    told = {link.event for link in (*links, *origin)}
    for version in _models(ledger, (*links, *origin)):
        branch, branch_gap = _branch(ledger, version, told)
        gap = gap or branch_gap
        if branch is not None:
            branches.append(branch)
    everything = (*links, *origin, *(link for branch in branches for link in branch.links))
    return Chain(
        environment=environment,
        deployment=deployment,
        now=_placement(ledger, moves, current),
        before=_before(ledger, moves, stable),
        on_trial=None if moves[-1].pointer.stable else _placement(ledger, moves, moves[-1]),
        links=links,
        origin=origin,
        branches=tuple(branches),
        human=any(link.verb.startswith("person.") for link in everything),
        gap=gap,
    )


def _follow(ledger: Ledger, event: Event) -> tuple[tuple[Link, ...], str | None]:
    """Follow causes to the first one; also give the id of a cause that is not there."""
    links: list[Link] = []
    for each in causes(ledger, event):
        if isinstance(each, str):
            return tuple(links), each
        links.append(link_of(each))
    return tuple(links), None


def _brought_by(stable: Sequence[PastMove], current: PastMove) -> PastMove | None:
    """Find the newest move that brought the present route anew, rather than went back to it."""
    same = (
        move
        for move in reversed(stable)
        if move.pointer.version == current.pointer.version and move.action in _BRINGING
    )
    return next(same, None)


def _branch(ledger: Ledger, version: Version, chain: set[str]) -> tuple[Branch | None, str | None]:
    """Tell how a model came about, up to an event of the chain; also give a cause that is not there."""
    recorded = ledger.list_events(verb="version.recorded", subject=version.id, limit=1)
    if not recorded:
        return None, None
    links: list[Link] = []
    joins, gap = None, None
    for each in causes(ledger, recorded[0]):
        if isinstance(each, str):
            gap = each
        elif each.id in chain:
            joins = each.id
            break
        else:
            links.append(link_of(each))
    return Branch(model=version.ref, version=version.id, links=tuple(links), joins=joins), gap


def _models(ledger: Ledger, links: Iterable[Link]) -> list[Version]:
    """Give the model versions that the links speak of, newest first."""
    found: dict[str, Version] = {}
    for link in links:
        payload = ledger.get_event(link.event).payload
        named = [payload["version"]] if link.verb.startswith("gate.") else []
        if link.verb == "pointer.moved":
            named = [each.id for each in _models_of_route(ledger, payload["version"])]
        for each in named:
            version = ledger.get_version_by_id(each)
            found[version.id] = version
            found |= {parent: ledger.get_version_by_id(parent) for parent in version.facts.get("parents", ())}
    return sorted(found.values(), key=lambda each: -each.number)


def _models_of_route(ledger: Ledger, route: str) -> list[Version]:
    content = read_route(ledger.get_version_by_id(route))
    releases = [ledger.get_version_by_id(each) for each in content.releases.values()]
    return [ledger.get_version_by_id(read_release(each).model) for each in releases]


def _before(ledger: Ledger, moves: Sequence[PastMove], stable: Sequence[PastMove]) -> Placement | None:
    """Tell which other stable route answered before the present one."""
    current = stable[-1].pointer.version
    earlier = next((move for move in reversed(stable) if move.pointer.version != current), None)
    return None if earlier is None else _placement(ledger, moves, earlier)


def _placement(ledger: Ledger, moves: Sequence[PastMove], move: PastMove) -> Placement:
    route = ledger.get_version_by_id(move.pointer.version)
    content = read_route(route)
    stable_models = "; ".join(
        f"{read_release(ledger.get_version_by_id(content.releases[entry.release])).model_ref}"
        + ("" if entry.weight == 1 and entry.mode == "answer" else f" ({entry.mode}, {entry.weight:.0%})")
        for entry in content.entries
    )
    stays = move.pointer.stable
    after = (
        each.pointer.at
        for each in moves
        if each.pointer.number > move.pointer.number
        and (each.pointer.stable or not stays)
        and each.pointer.version != move.pointer.version
    )
    return Placement(
        route=route.ref,
        release=", ".join(content.releases),
        model=stable_models,
        since=move.pointer.at,
        until=next(after, None),
        reason=move.reason,
    )
