"""Brings views of an online store from where they stand to the newest version of their tables.

A view stands at a version of its table and an instant: the rows of that version which were known by then are
counted. So what is to be counted next are the rows of files that commits have added since, and rows that were
there and have become known since. Both follow from what is kept with the counts in one change of the store,
so nothing is counted twice, and nothing is missed, whoever is killed when. Where a commit took rows away or
put others in their place, the view is loaded whole; whoever reads has the old values until then.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from noria.clock import from_micros
from noria.errors import NotFound, SourceError
from noria.features.columns import Ints, instants
from noria.features.declarations import ViewSpec
from noria.features.online import Change, OnlineStore
from noria.features.replaced import known_rows
from noria.features.standing import Standing
from noria.features.table_changes import Growth, TableChanges

__all__ = ["Brought", "Following", "HeldUp"]

_NEVER = 2**62  # microseconds
_CLOCK_SLIP_US = 60_000_000  # a clock that is set back less is waited for
# Counting rows one by one costs so many times what loading them does.
_LOADED_ROWS, _LOADED_SHARE = 20_000, 8


class Brought(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """A view that was brought on.

    Attributes
    ----------
    rows
        That were counted, or loaded.
    loaded
        Why it was loaded whole; None if rows were added to what was there.
    committed_ms
        The wall's instant of the oldest commit that is counted since; None if none is.
    newest_us
        When the newest row of a view that was loaded whole became known.
    """

    view: str
    digest: str
    rows: int
    standing: Standing
    loaded: str | None = None
    committed_ms: int | None = None
    newest_us: int | None = None

    @property
    def newest_at(self) -> datetime | None:
        """When the newest row of a view that was loaded whole became known."""
        return None if self.newest_us is None else from_micros(self.newest_us)


class HeldUp(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """A view that could not be brought on, and stays as it is."""

    view: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Views that stand at the same place of the same table."""

    source: str
    known_at: str
    standing: Standing | None


class Following:
    """Follows the tables of views. For one thread.

    Parameters
    ----------
    wall_ns
        The wall, for when a view was brought somewhere.

    Attributes
    ----------
    max_age_us
        By view, how old it may be: it is kept with where the view stands, for whoever reads it.
    """

    def __init__(self, changes: TableChanges, *, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._changes, self._wall_ns = changes, wall_ns
        self.max_age_us: Mapping[str, int] = {}
        # By definition: where it stood, and when the next of its rows becomes known.
        self._next: dict[str, tuple[Standing, int]] = {}

    def is_due(self, spec: ViewSpec, standing: Standing | None, *, now_us: int) -> bool:
        """Say whether there may be something to count; a look at a file's name, or two."""
        if standing is None or standing.known_us > now_us + _CLOCK_SLIP_US:
            return True
        standing = standing.plain
        waiting_us = self._waiting_us(standing, spec)
        self._next[spec.digest] = standing, waiting_us
        return waiting_us <= now_us or self._changes.has_moved(spec.source, since=standing.version)

    def is_there(self, spec: ViewSpec) -> bool:
        """Say whether there is a table."""
        return self._changes.exists(spec.source)

    def is_other_table(self, spec: ViewSpec, standing: Standing) -> bool:
        """Say whether the source is not the table any more that was counted. Raises `NotFound`."""
        return self._changes.table_id(spec.source) != standing.table

    def behind_since_us(self, spec: ViewSpec, standing: Standing | None, *, now_us: int) -> int | None:
        """Give since when something waits to be counted; None if nothing does, or nothing is known of it."""
        if standing is None:
            return None
        growth = self._changes.growth(spec.source, since=standing.version)
        waits = [] if growth is None or growth.since_ms is None else [growth.since_ms * 1_000]
        known = self._next.get(spec.digest)
        if known is not None and known[0] == standing.plain and known[1] <= now_us:
            waits.append(known[1])
        return min(waits, default=None)

    def bring(self, store: OnlineStore, specs: Iterable[ViewSpec], *, now_us: int) -> list[Brought | HeldUp]:
        """Count what came to the tables of these views since, as far as it is known at `now_us`.

        Raises
        ------
        StoreError
            If the online store cannot be written.
        """
        together: dict[_Place, list[ViewSpec]] = {}
        for spec in specs:
            standing = store.standing(spec)
            place = _Place(spec.source, spec.known_at, None if standing is None else standing.plain)
            together.setdefault(place, []).append(spec)
        done: list[Brought | HeldUp] = []
        for place, mine in together.items():
            done += self._bring(store, place, mine, now_us)
        return done

    def vouch(self, spec: ViewSpec, standing: Standing, *, now_us: int) -> Standing:
        """Give where a view stands for which nothing was due at `now_us`, as is to be kept from now on."""
        standing = standing.plain
        after = msgspec.structs.replace(standing, known_us=max(now_us, standing.known_us))
        known = self._next.get(spec.digest)
        if known is not None and known[0] == standing:
            self._next[spec.digest] = after, known[1]
        return self.limited(after, spec)

    def limited(self, standing: Standing, spec: ViewSpec) -> Standing:
        """Give where a view stands with how old it may be."""
        limit_us = self.max_age_us.get(spec.name)
        return standing if limit_us is None else msgspec.structs.replace(standing, max_age_us=limit_us)

    def load(self, store: OnlineStore, spec: ViewSpec, *, now_us: int, why: str) -> Brought:
        """Load a view whole. Raises `NotFound`, `SourceError`, `StoreError`."""
        table = self._changes.table_id(spec.source)
        version, rows = self._changes.read_newest(spec.source, columns=spec.source_columns)
        standing = self._standing(table, version, now_us)
        later_us = _next_after(instants(rows, spec.known_at), now_us)
        rows = known_rows(rows, spec.known_at, _scalar(now_us))
        store.load(spec, rows, standing=self.limited(standing, spec))
        self._next[spec.digest] = standing, later_us
        counted = instants(rows, spec.known_at)
        return Brought(
            view=spec.name,
            digest=spec.digest,
            rows=len(counted),
            newest_us=int(counted.max()) if len(counted) else None,
            standing=standing,
            loaded=why,
        )

    def _bring(
        self, store: OnlineStore, place: _Place, specs: Sequence[ViewSpec], now_us: int
    ) -> list[Brought | HeldUp]:
        try:
            why = self._growth(place, specs, now_us)
            if isinstance(why, Growth) and place.standing is not None:
                known_us = max(now_us, place.standing.known_us)
                columns = sorted({column for spec in specs for column in spec.source_columns})
                try:
                    rows, later_us = self._rows(place, why, specs, columns=columns, known_us=known_us)
                except SourceError as error:
                    why = f"what came to {place.source!r} cannot be read by itself: {error}"
                else:
                    after = self._standing(place.standing.table, why.version, known_us)
                    return self._count(
                        store, specs, rows, after=after, later_us=later_us, since_ms=why.since_ms
                    )
        except (NotFound, SourceError) as error:
            if len(specs) > 1:  # a column that one of them needs
                return [each for spec in specs for each in self._bring(store, place, [spec], now_us)]
            return [_held_up(specs[0], error)]
        done: list[Brought | HeldUp] = []
        for spec in specs:
            try:
                done.append(self.load(store, spec, now_us=now_us, why=str(why)))
            except (NotFound, SourceError) as error:
                done.append(_held_up(spec, error))
        return done

    def _growth(self, place: _Place, specs: Sequence[ViewSpec], now_us: int) -> Growth | str:
        """Tell what came since, or why the views have to be loaded whole."""
        table = self._changes.table_id(place.source)
        standing = place.standing
        if standing is None:
            return "it was not in the online store, or not known how far it was"
        if standing.known_us > now_us + _CLOCK_SLIP_US:
            return "the clock was set back"
        growth = self._changes.growth(place.source, since=standing.version)
        if standing.table != table or growth is None:
            return f"the table {place.source!r} was made anew"
        return self._too_much(place, specs, growth, now_us) or growth

    def _too_much(self, place: _Place, specs: Sequence[ViewSpec], growth: Growth, now_us: int) -> str:
        """Say why what came cannot, or need not, be counted row by row; nothing if it can."""
        standing = place.standing
        assert standing is not None
        if growth.is_rewritten:
            return f"rows of {place.source!r} were replaced or taken out"
        if self._changes.keeps_replaced(place.source) and any(
            self._waiting_us(standing, spec) <= now_us for spec in specs
        ):
            return f"what is known of rows of {place.source!r} has changed"
        if growth.rows > max(_LOADED_ROWS, self._changes.rows(place.source) // _LOADED_SHARE):
            return f"{growth.rows} rows came to {place.source!r} at once"
        return ""

    def _count(
        self,
        store: OnlineStore,
        specs: Sequence[ViewSpec],
        rows: pa.Table,
        *,
        after: Standing,
        later_us: int,
        since_ms: int | None,
    ) -> list[Brought | HeldUp]:
        done: list[Brought | HeldUp] = []
        changes: list[Change] = []
        for spec in specs:
            try:
                prepared = store.prepare(spec, rows)
            except SourceError as error:
                done.append(_held_up(spec, error))
            else:
                changes.append((spec, prepared, 0, prepared.until(after.known_us)))
        if changes:
            store.apply(changes, standings=[(spec, self.limited(after, spec)) for spec, *_ in changes])
        for spec, _, _, stop in changes:
            self._next[spec.digest] = after, later_us
            brought = Brought(
                view=spec.name, digest=spec.digest, rows=stop, standing=after, committed_ms=since_ms
            )
            done.append(brought)
        return done

    def _rows(
        self,
        place: _Place,
        growth: Growth,
        specs: Sequence[ViewSpec],
        *,
        columns: Sequence[str],
        known_us: int,
    ) -> tuple[pa.Table, int]:
        """Give the rows that are counted next, with some that are known later, and when the next is known."""
        assert place.standing is not None
        waiting_us = min(self._waiting_us(place.standing, spec) for spec in specs)
        pieces = [self._changes.read_files(place.source, growth.paths, columns=columns)]
        later_us = _next_after(instants(pieces[0], place.known_at), known_us)
        if waiting_us <= known_us:
            where = ds.field(place.known_at) > _scalar(place.standing.known_us)
            waited = self._changes.read_at(place.source, place.standing.version, columns=columns, where=where)
            known = instants(waited, place.known_at)
            waiting_us = _next_after(known, known_us)
            pieces.append(waited.filter(pa.array(known <= known_us)))
        return pa.concat_tables(pieces), min(later_us, waiting_us)

    def _waiting_us(self, standing: Standing, spec: ViewSpec) -> int:
        """Give when the next row becomes known of those that were there."""
        known = self._next.get(spec.digest)
        if known is not None and known[0] == standing:
            return known[1]
        where = ds.field(spec.known_at) > _scalar(standing.known_us)
        waited = self._changes.read_at(spec.source, standing.version, columns=[spec.known_at], where=where)
        return _next_after(instants(waited, spec.known_at), standing.known_us)

    def _standing(self, table: str, version: int, known_us: int) -> Standing:
        return Standing(table=table, version=version, known_us=known_us, at_us=self._wall_ns() // 1_000)


def _held_up(spec: ViewSpec, error: NotFound | SourceError) -> HeldUp:
    return HeldUp(view=spec.name, digest=spec.digest, reason=str(error))


def _next_after(known: Ints, at_us: int) -> int:
    """Give the first instant after another one."""
    later = known[known > at_us]
    return int(later.min()) if len(later) else _NEVER


def _scalar(at_us: int) -> pa.Scalar:
    return pa.scalar(at_us, pa.timestamp("us", tz="UTC"))
