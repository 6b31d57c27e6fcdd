"""How old feature views are online, against the limit that each may have: put on record, once a spell."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from noria.clock import parse_wait
from noria.errors import NoriaError
from noria.workspace.features.following import ViewsFollowed

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView, ViewSpec
    from noria.features.standing import Standing
    from noria.workspace.project import Project

__all__ = ["FRESH", "STALE", "FreshnessOfViews", "Stale"]

STALE, FRESH = "features.stale", "features.fresh"


class Stale(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """A view is older than it may be, or is not any more."""

    view: str
    is_stale: bool
    reason: str


class FreshnessOfViews:
    """Looks at the declared views that have a limit. For one thread."""

    def __init__(self, project: Project, followed: ViewsFollowed, tell: Callable[[Stale], None]) -> None:
        self._project, self._followed, self._tell = project, followed, tell
        self._missing_since: dict[str, float] = {}  # by view: a changed definition waits on
        self._stale: dict[str, bool] = {}

    def look(self, views: Mapping[str, FeatureView], standings: Mapping[str, Standing | None]) -> None:
        """Look at each view that has a limit. Raises `StoreError` if the ledger is away."""
        for view in views.values():
            if view.freshness is None:
                continue
            limit, spec = parse_wait(view.freshness).total_seconds(), view.spec()
            try:
                age_s = self._age_s(spec, standings.get(spec.digest))
            except NoriaError:
                continue  # a source that cannot be read is told of where the view is brought on
            self._judge(spec.name, age_s, limit)

    def _age_s(self, spec: ViewSpec, standing: Standing | None) -> float:
        if standing is None:
            if not self._followed.is_there(spec):
                return 0.0
            now = time.time()
            return max(0.0, now - self._missing_since.setdefault(spec.name, now))
        self._missing_since.pop(spec.name, None)
        since_us = self._followed.behind_since_us(spec, standing)
        return 0.0 if since_us is None else max(0.0, time.time() - since_us / 1e6)

    def _judge(self, name: str, age_s: float, limit: float) -> None:
        is_stale = age_s > limit
        if name not in self._stale:
            self._stale[name] = self._was_stale(name)
        if is_stale == self._stale[name]:
            return
        told = f"something waits to be counted for {age_s:.1f} s" if age_s else "all that came is counted"
        state = "stale" if is_stale else "fresh"
        reason = f"feature view {name} is {state}: {told}, allowed are {limit:g} s"
        self._project.ledger.append(
            STALE if is_stale else FRESH,
            subject=name,
            payload={"reason": reason, "age_s": round(age_s, 3), "max_age_s": limit},
            at=self._project.clock.now(),
        )
        self._stale[name] = is_stale
        self._tell(Stale(view=name, is_stale=is_stale, reason=reason))

    def _was_stale(self, name: str) -> bool:
        """Tell what was put on record last."""
        ledger = self._project.ledger
        said = [
            event
            for verb in (STALE, FRESH)
            for event in ledger.list_events(verb=verb, subject=name, newest_first=True, limit=1)
        ]
        return bool(said) and max(said, key=lambda event: event.seq).verb == STALE
