"""The online store of a project, brought on with what comes to its tables: by `noria up`, or by a command.

Nothing but the store says how far a view is, and whoever brings it on has the store for himself meanwhile;
so several may be at it, and one that was killed is followed by the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from noria.clock import from_micros, parse_wait, to_micros
from noria.errors import ConfigError, LeaseHeld, NotFound, QueryStopped, SourceError, StoreMissing
from noria.features.following import Brought, Following, HeldUp
from noria.features.online import OnlineStore, open_online_store
from noria.features.standing import Standing
from noria.features.table_changes import TableChanges
from noria.workspace.features.registering import register_views
from noria.workspace.features.sources import FeatureSources, SourceStates, is_table
from noria.workspace.freshness import standing_at
from noria.workspace.transforming import tables_url

if TYPE_CHECKING:
    from noria.features.declarations import ViewSpec
    from noria.workspace.project import Project

__all__ = [
    "Rebuilt",
    "ViewsFollowed",
    "reading_store",
    "record_cleared",
    "record_loaded",
    "record_rebuilt",
    "was_loaded",
    "writing_store",
]

_WAIT_S, _POLL_S = 5.0, 0.02
_VOUCHES = 4  # how often in the time that a view may be old


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """Views that were made anew from the tables, because the online store was damaged, or had lost them."""

    views: tuple[str, ...]
    reason: str


@contextmanager
def writing_store(project: Project, *, wait_s: float = _WAIT_S, anew: bool = False) -> Iterator[OnlineStore]:
    """Open the online store to write; waits a little for another one who is at it, as `noria up` is.

    Raises
    ------
    LeaseHeld
        If another process writes it all the time.
    StoreError
        If it is damaged (`StoreDamaged`) or away.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            with project.online_guard:  # behind who reads it in this process
                store = open_online_store(project.settings.stores.online, root=project.root, anew=anew)
        except LeaseHeld:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_S)
        else:
            break
    with closing(store):
        yield store


@contextmanager
def reading_store(project: Project) -> Iterator[OnlineStore | None]:
    """Open the online store to read; None where there is none yet. Raises `StoreError`."""
    if not project.has_online:
        yield None
        return
    with project.online_guard:
        try:
            store = open_online_store(project.settings.stores.online, root=project.root, readonly=True)
        except StoreMissing:
            yield None
            return
        with closing(store):
            yield store


def record_loaded(project: Project, brought: Brought) -> None:
    """Put on record that the online store keeps a definition from now on, and which one that is."""
    view = project.declarations.views.get(brought.view)
    if view is not None and view.spec().digest == brought.digest:
        register_views(project, [view])
    project.ledger.append(
        "features.loaded",
        subject=brought.view,
        payload={
            "reason": f"{brought.view} was loaded from {brought.rows} rows: {brought.loaded}",
            "digest": brought.digest,
            "rows": brought.rows,
        },
        at=project.clock.now(),
    )


def record_rebuilt(project: Project, told: Rebuilt) -> None:
    """Put on record that views were made anew."""
    project.ledger.append(
        "features.rebuilt",
        subject="online",
        payload={"reason": told.reason, "views": list(told.views)},
        at=project.clock.now(),
    )


def record_cleared(project: Project, spec: ViewSpec) -> None:
    """Put on record that the online store does not keep a definition any more."""
    told = f"{spec.name} as {spec.digest[:12]}: no module declares it, and no deployed release needs it"
    project.ledger.append(
        "features.cleared",
        subject=spec.name,
        payload={"reason": told, "digest": spec.digest},
        at=project.clock.now(),
    )


def was_loaded(project: Project, spec: ViewSpec) -> bool:
    """Say whether the online store ought to keep a definition, by what is on record."""
    said = [
        event
        for verb in ("features.loaded", "features.cleared")
        for event in project.ledger.list_events(verb=verb, subject=spec.name)
        if event.payload.get("digest") == spec.digest
    ]
    return bool(said) and max(said, key=lambda event: event.seq).verb == "features.loaded"


class ViewsFollowed:
    """Views of a project, brought on together. For one thread."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._following = Following(TableChanges(tables_url(project)))
        self._states = SourceStates(project)
        self._later: dict[str, tuple[Standing, int]] = {}  # of queries: when their next row is known
        self._tables: dict[str, bool] = {}
        self._replays = False
        self._allowed_us: int | None = None  # to views that declare nothing
        self.follow_limits()

    def follow_limits(self) -> None:
        """Learn how old views may be: what they declare, and what environments allow the others."""
        project = self._project
        allowed = [each.features_max_age_s for each in project.settings.environments.values()]
        self._allowed_us = min((round(each * 1e6) for each in allowed if each), default=None)
        with suppress(ConfigError):  # a module cannot be loaded just now: they are as they were
            declared = {
                view.name: round(parse_wait(view.freshness).total_seconds() * 1e6)
                for view in project.declarations.views.values()
                if view.freshness is not None
            }
            self._following.max_age_us = declared

    def is_to_vouch(self, spec: ViewSpec, standing: Standing) -> bool:
        """Say whether it has to be kept that nothing is due, so that who reads the view can tell its age."""
        declared_us = self._following.max_age_us.get(spec.name)
        if standing.max_age_us != declared_us:
            return True
        limit_us = self._allowed_us if declared_us is None else declared_us
        return limit_us is not None and self.now_us() - standing.known_us > limit_us / _VOUCHES

    def vouch(self, store: OnlineStore, standings: Mapping[ViewSpec, Standing], *, now_us: int) -> None:
        """Keep that nothing was due for views at `now_us`, where they stand as they did."""
        kept = []
        for spec, standing in standings.items():
            if store.standing(spec) != standing:
                continue  # somebody else brought it on
            after = self._following.vouch(spec, standing, now_us=now_us)
            known = self._later.get(spec.digest)
            if known is not None and known[0] == standing:
                self._later[spec.digest] = after, known[1]
            kept.append((spec, after))
        store.apply([], standings=kept)

    def now_us(self) -> int:
        """Give the instant up to which rows count: now, or where the project's replay stands."""
        with suppress(ConfigError):  # a module cannot be loaded just now: it is as it was
            self._replays = bool(self._project.declarations.replays)
        return to_micros(standing_at(self._project) if self._replays else self._project.clock.now())

    def is_due(self, spec: ViewSpec, standing: Standing | None) -> bool:
        """Say whether there may be something to count. Raises `NotFound`, `SourceError`, `ConfigError`."""
        now_us = self.now_us()
        if self._is_table(spec):
            return self._following.is_due(spec, standing, now_us=now_us)
        known = self._later.get(spec.digest)
        if standing is None or known is None or known[0] != standing or known[1] <= now_us:
            return True
        return self._states.of(spec) != standing.table

    def is_there(self, spec: ViewSpec) -> bool:
        """Say whether there is anything to count: a table that nothing has landed in is not there yet."""
        return not self._is_table(spec) or self._following.is_there(spec)

    def is_other_source(self, spec: ViewSpec, standing: Standing) -> bool:
        """Say whether the source is another table than was counted. Raises `NotFound` if there is none."""
        return self._is_table(spec) and self._following.is_other_table(spec, standing)

    def behind_since_us(self, spec: ViewSpec, standing: Standing | None) -> int | None:
        """Give since when something waits to be counted; None if nothing does, or it is not known."""
        if standing is None:
            return None
        if self._is_table(spec):
            return self._following.behind_since_us(spec, standing, now_us=self.now_us())
        return standing.at_us if self._states.of(spec) != standing.table else None

    def bring(self, store: OnlineStore, specs: Sequence[ViewSpec]) -> list[Brought | HeldUp]:
        """Bring views on, each as far as it can be. Raises `StoreError` of the online store alone."""
        done = self._following.bring(
            store, [spec for spec in specs if self._is_table(spec)], now_us=self.now_us()
        )
        for spec in specs:
            if not self._is_table(spec):
                is_new = store.standing(spec) is None
                why = "it was not in the online store" if is_new else "its query was asked again"
                try:
                    done.append(self._load_query(store, spec, why=why))
                except (ConfigError, NotFound, QueryStopped, SourceError) as error:
                    done.append(HeldUp(view=spec.name, digest=spec.digest, reason=str(error)))
        return done

    def load(self, store: OnlineStore, spec: ViewSpec, *, why: str) -> Brought:
        """Load a view whole. Raises what reading its source raises, and `StoreError`."""
        if not self._is_table(spec):
            return self._load_query(store, spec, why=why)
        import pyarrow.dataset as ds

        with FeatureSources(self._project, [spec]) as sources:  # it says best what is wrong with a source
            sources(spec.source, columns=spec.source_columns, where=ds.scalar(False))
        return self._following.load(store, spec, now_us=self.now_us(), why=why)

    def _load_query(self, store: OnlineStore, spec: ViewSpec, *, why: str) -> Brought:
        from noria.features.columns import instants

        now_us, token = self.now_us(), self._states.of(spec)
        with FeatureSources(self._project, [spec]) as sources:
            rows = sources.all_of(spec)
        standing = Standing(table=token or "", version=0, known_us=now_us, at_us=time.time_ns() // 1_000)
        standing = self._following.limited(standing, spec)
        store.load(spec, rows, before=from_micros(now_us + 1), standing=standing)
        known = instants(rows, spec.known_at)
        later, counted = known[known > now_us], known[known <= now_us]
        self._later[spec.digest] = standing, int(later.min()) if len(later) else 2**62
        return Brought(
            view=spec.name,
            digest=spec.digest,
            rows=len(counted),
            newest_us=int(counted.max()) if len(counted) else None,
            standing=standing,
            loaded=why,
        )

    def _is_table(self, spec: ViewSpec) -> bool:
        if spec.digest not in self._tables:
            self._tables[spec.digest] = is_table(self._project, spec)
        return self._tables[spec.digest]
