"""Keeps the online store up with its tables for as long as it runs; `noria up` keeps one as a process.

What it does is told; where something is away it tries again, with pauses that grow. A store that was deleted,
emptied or damaged is made anew from the tables, and an event says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from noria.errors import ConfigError, LeaseHeld, NoriaError, StoreDamaged, StoreError
from noria.features.following import Brought, HeldUp
from noria.workspace.features.following import (
    Rebuilt,
    ViewsFollowed,
    reading_store,
    record_loaded,
    record_rebuilt,
    was_loaded,
    writing_store,
)
from noria.workspace.features.freshness import FreshnessOfViews, Stale
from noria.workspace.features.needs import deployed_specs

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView, ViewSpec
    from noria.features.standing import Standing
    from noria.workspace.project import Project

__all__ = ["FeatureFollower", "Told", "Trouble", "bring_on"]

_LOOK_AROUND_S = 1.0  # at the store, at routes, at modules, at freshness
_WAIT_S = 2.0
_RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Trouble(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """What keeps all views from being brought on; None: it is over."""

    reason: str | None


Told = Brought | HeldUp | Rebuilt | Stale | Trouble


@dataclass(frozen=True, slots=True)
class _Held:
    """Why a view is held up, how often that was found, and when to try again."""

    reason: str
    failures: int
    not_before: float


def bring_on(project: Project) -> tuple[Brought | HeldUp, ...]:
    """See `noria.workspace.features.features.Features.follow`."""
    told: list[Told] = []
    FeatureFollower(project, tell=told.append).bring_all()
    return tuple(each for each in told if isinstance(each, Brought | HeldUp))


class FeatureFollower:
    """Brings on the views that the project declares and those that its routes need. For one thread.

    Parameters
    ----------
    tell
        Is called with each thing that happens.
    anew
        Throw the online store away first: reading it has ended a process.
    """

    def __init__(self, project: Project, *, tell: Callable[[Told], None], anew: bool = False) -> None:
        self._project, self._tell = project, tell
        self._followed = ViewsFollowed(project)
        self._freshness = FreshnessOfViews(project, self._followed, tell)
        self._damage = "reading it ended a process" if anew else None
        self._views: Mapping[str, FeatureView] = {}  # as modules declared them when they could be loaded last
        self._deployed: tuple[ViewSpec, ...] = ()  # as the ledger had them last
        self._moved_to = 0  # the last move of a pointer that was read
        self._wanted: tuple[ViewSpec, ...] = ()
        # By digest of a definition:
        self._standings: dict[str, Standing | None] = {}  # as they were seen last
        self._lost: set[str] = set()  # that the store had, and has no more
        self._moved: set[str] = set()  # whose source is another one by now
        self._held: dict[str, _Held] = {}
        self._loaded: list[Brought] = []  # and not on record yet
        self._rebuilt: list[Rebuilt] = []
        self._trouble: str | None = None
        self._failures = 0
        self._around_at = self._refresh_at = self._not_before = 0.0

    def run(self, stop: threading.Event, *, every_s: float) -> None:
        """Follow until `stop` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(every_s)

    def bring_all(self) -> None:
        """Bring everything on once. Raises what keeps it from that."""
        for trouble in self._refresh():
            raise trouble
        try:
            self._look()
        except StoreDamaged as error:
            self._damage = str(error)
            self._look()
        for trouble in self._record():
            raise trouble

    def look(self) -> None:
        """Look once, and bring on what is due."""
        if time.monotonic() < self._not_before:
            return
        troubles: list[NoriaError] = []
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + _LOOK_AROUND_S
            troubles += self._refresh()
        elif self._trouble is not None:
            self._refresh_at = 0.0  # to learn whether it is over
        try:
            self._look()
        except StoreDamaged as error:
            self._damage = str(error)
            self._around_at = 0.0
            return
        except (ConfigError, LeaseHeld, StoreError) as error:
            self._fail(error)
            return
        self._failures = 0
        self._say([*troubles, *self._record()])

    def _refresh(self) -> list[NoriaError]:
        """Learn what is declared and deployed, and how old it is; give what keeps from that.

        Then what was known stays: views are brought on all the same.
        """
        troubles: list[NoriaError] = []
        try:
            self._project.refresh()
            self._followed.follow_limits()
            self._views = dict(self._project.declarations.views)
        except ConfigError as error:
            troubles.append(error)
        try:
            if self._project.has_begun:
                self._follow_routes()
            self._freshness.look(self._views, self._standings)
        except StoreError as error:
            troubles.append(error)
        declared = (view.spec() for _, view in sorted(self._views.items()))
        self._wanted = tuple(dict.fromkeys((*declared, *self._deployed)))
        return troubles

    def _follow_routes(self) -> None:
        moves = self._project.ledger.list_events(verb="pointer.moved", after=self._moved_to)
        if moves:
            self._deployed = deployed_specs(self._project.ledger)
            self._moved_to = moves[-1].seq

    def _look(self) -> None:
        if time.monotonic() >= self._around_at:
            self._look_around()
            self._around_at = time.monotonic() + _LOOK_AROUND_S
        now_us = self._followed.now_us()
        due = [spec for spec in self._wanted if self._is_due(spec)]
        if not due and self._damage is None:
            self._vouch(now_us)
            return
        damage = self._damage
        with writing_store(self._project, wait_s=_WAIT_S, anew=damage is not None) as store:
            if damage is not None:
                due = [spec for spec in self._wanted if self._asked(spec, self._followed.is_there)]
                self._lost |= {spec.digest for spec in due}
            before = {spec.digest: store.standing(spec) for spec in due}
            done = self._followed.bring(store, due)
            self._standings |= {spec.digest: store.standing(spec) for spec in due}
        self._damage = None
        for each in done:
            self._take(each)
            if isinstance(each, Brought) and before[each.digest] is None:
                self._loaded.append(each)
        loaded = [each for each in done if isinstance(each, Brought) and each.digest in self._lost]
        if loaded or damage is not None:
            names = tuple(sorted({each.view for each in loaded}))
            why = damage or "the online store was deleted or emptied"
            told = ", ".join(names) or "no view"
            self._rebuilt.append(Rebuilt(views=names, reason=f"{told} made anew from the tables: {why}"))
        self._lost -= {each.digest for each in loaded}

    def _vouch(self, now_us: int) -> None:
        """Keep that nothing was due, before who reads views takes them for too old."""
        standings = {
            spec: standing
            for spec in self._wanted
            if not self._is_held(spec) and (standing := self._standings.get(spec.digest)) is not None
        }
        if not any(self._followed.is_to_vouch(spec, each) for spec, each in standings.items()):
            return
        with writing_store(self._project, wait_s=_WAIT_S) as store:
            self._followed.vouch(store, standings, now_us=now_us)
            self._standings |= {spec.digest: store.standing(spec) for spec in standings}

    def _look_around(self) -> None:
        """Take over what others did to the store, and look whether sources are still the same."""
        if self._damage is not None:
            return
        with reading_store(self._project) as store:
            kept = set() if store is None else {spec.digest for spec in store.specs()}
            found = {
                spec.digest: store.standing(spec) if store is not None and spec.digest in kept else None
                for spec in self._wanted
            }
        for spec in self._wanted:
            if spec.digest in kept:
                continue
            if spec.digest not in self._standings:
                is_lost = was_loaded(self._project, spec)
            else:
                is_lost = self._standings[spec.digest] is not None
            if is_lost:
                self._lost.add(spec.digest)
        self._standings |= found
        for spec in self._wanted:
            standing = found[spec.digest]
            if standing is not None and self._asked(spec, self._followed.is_other_source, standing):
                self._moved.add(spec.digest)

    def _is_due(self, spec: ViewSpec) -> bool:
        if self._is_held(spec):
            return False
        standing = self._standings.get(spec.digest)
        if standing is None and not self._asked(spec, self._followed.is_there):
            return False  # nothing has come yet
        return spec.digest in self._moved or self._asked(spec, self._followed.is_due, standing)

    def _is_held(self, spec: ViewSpec) -> bool:
        held = self._held.get(spec.digest)
        return held is not None and time.monotonic() < held.not_before

    def _asked(self, spec: ViewSpec, ask: Callable[..., bool], *args: object) -> bool:
        """Ask about a source; one that cannot be read holds its view up, and no other."""
        try:
            return ask(spec, *args)
        except NoriaError as error:
            self._take(HeldUp(view=spec.name, digest=spec.digest, reason=str(error)))
            return False

    def _take(self, told: Brought | HeldUp) -> None:
        """Tell what was done; of what holds a view up only what is new."""
        if isinstance(told, Brought):
            self._held.pop(told.digest, None)
            self._moved.discard(told.digest)
            self._tell(told)
            return
        held = self._held.get(told.digest)
        failures = 0 if held is None else held.failures
        pause_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
        self._held[told.digest] = _Held(told.reason, failures + 1, time.monotonic() + pause_s)
        if held is None or told.reason != held.reason:
            self._tell(told)

    def _fail(self, error: NoriaError) -> None:
        self._not_before = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1
        self._around_at = self._refresh_at = 0.0
        self._say([error])

    def _say(self, troubles: Sequence[NoriaError]) -> None:
        """Tell what is in the way once, and once that it is over."""
        trouble = "; ".join(map(str, troubles)) or None
        if trouble is None and self._refresh_at == 0.0:
            return  # it is not known yet whether that is over
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(Trouble(reason=trouble))

    def _record(self) -> list[NoriaError]:
        """Put on record what is kept from now on, and what was made anew; give what keeps from that."""
        try:
            while self._loaded:
                record_loaded(self._project, self._loaded[0])
                del self._loaded[0]
            while self._rebuilt:
                record_rebuilt(self._project, self._rebuilt[0])
                self._tell(self._rebuilt.pop(0))
        except StoreError as error:
            return [error]
        return []
