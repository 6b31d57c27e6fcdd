"""Which definitions of views somebody needs online: the project's modules, and the releases that answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria.deploy.releases import read_release, read_route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noria.features.declarations import ViewSpec
    from noria.ledger.store import Ledger
    from noria.records import Pointer
    from noria.workspace.opened import Opened

__all__ = ["declared_specs", "deployed_specs", "needed_specs"]


def declared_specs(project: Opened) -> tuple[ViewSpec, ...]:
    """Give the views that the project declares, by name."""
    return tuple(view.spec() for _, view in sorted(project.declarations.views.items()))


def deployed_specs(ledger: Ledger) -> tuple[ViewSpec, ...]:
    """Give the definitions that releases of the current routes read: as they answer, and as they would again.

    Of each deployment these are the releases of its newest route and of its last stable one, which is where
    a rollback goes.
    """
    found: dict[ViewSpec, None] = {}
    for pointer in _current(ledger.list_pointers()):
        route = read_route(ledger.get_version_by_id(pointer.version))
        for release in route.releases.values():
            found |= dict.fromkeys(read_release(ledger.get_version_by_id(release)).views)
    return tuple(found)


def needed_specs(project: Opened) -> tuple[ViewSpec, ...]:
    """Give all of them, each once."""
    deployed = deployed_specs(project.ledger) if project.has_begun else ()
    return tuple(dict.fromkeys((*declared_specs(project), *deployed)))


def _current(pointers: Iterable[Pointer]) -> Iterable[Pointer]:
    newest: dict[tuple[str, str], Pointer] = {}
    stable: dict[tuple[str, str], Pointer] = {}
    for each in pointers:  # oldest first
        newest[each.environment, each.name] = each
        if each.stable:
            stable[each.environment, each.name] = each
    yield from {each.version: each for each in (*newest.values(), *stable.values())}.values()
