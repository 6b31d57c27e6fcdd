"""How feature views stand online: which definitions are kept, up to when rows count, what waits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.clock import from_micros, parse_wait
from noria.errors import NoriaError

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView
    from noria.features.online import OnlineStore
    from noria.workspace.features.following import ViewsFollowed
    from noria.workspace.project import Project

__all__ = ["OnlineState", "online_states"]


class OnlineState(msgspec.Struct, frozen=True, kw_only=True):
    """How one declared view stands online.

    Attributes
    ----------
    view
        Its name.
    online
        `current` if the online store holds it as it is declared, `other` if it holds other definitions only,
        `none` if it does not hold it.
    definitions
        The digests of those that it holds.
    known_until
        Rows that became known by then are counted, of the commits that are; None if that is not known.
    behind_s
        For how long something waits to be counted; 0 if nothing does, None if that is not known.
    max_behind_s
        For how long it may, as the view's `freshness` says.
    """

    view: str
    online: str
    definitions: tuple[str, ...] = ()
    known_until: datetime | None = None
    behind_s: float | None = None
    max_behind_s: float | None = None

    @property
    def is_stale(self) -> bool:
        """Whether something waits for longer than it may."""
        if self.behind_s is None or self.max_behind_s is None:
            return False
        return self.behind_s > self.max_behind_s

    def told(self) -> str:
        """Say how old it is."""
        if self.behind_s is None:
            return "not known how old"
        limit = "" if self.max_behind_s is None else f", {self.max_behind_s:g} s are allowed"
        return f"{self.behind_s:.1f} s behind{limit}" if self.behind_s else f"up to date{limit}"


def online_states(project: Project) -> Mapping[str, OnlineState]:
    """Give how the declared views stand, by name. Raises `StoreError` if the online store cannot be read."""
    from noria.workspace.features.following import ViewsFollowed, reading_store

    with reading_store(project) as store:
        kept = {} if store is None else store.definitions()
        followed = ViewsFollowed(project) if kept else None
        return {
            name: _state(view, kept.get(name, ()), store, followed)
            for name, view in sorted(project.declarations.views.items())
        }


def _state(
    view: FeatureView,
    kept: tuple[str, ...],
    store: OnlineStore | None,
    followed: ViewsFollowed | None,
) -> OnlineState:
    spec = view.spec()
    state = OnlineState(
        view=view.name,
        online="none" if not kept else "current" if spec.digest in kept else "other",
        definitions=tuple(kept),
        max_behind_s=None if view.freshness is None else parse_wait(view.freshness).total_seconds(),
    )
    standing = None if store is None or state.online != "current" else store.standing(spec)
    if standing is None or followed is None:
        return state
    try:
        since_us = followed.behind_since_us(spec, standing)
    except NoriaError:
        behind_s = None  # its source cannot be read
    else:
        behind_s = 0.0 if since_us is None else max(0.0, time.time() - since_us / 1e6)
    return msgspec.structs.replace(state, known_until=from_micros(standing.known_us), behind_s=behind_s)
