"""Online features in Redis, for machines that share them: one writer, many readers.

What was acknowledged is as durable as Redis is set up to be; everything in the store can be loaded again from
the lake.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from noria.clock import to_micros
from noria.errors import StoreError
from noria.features.backends.redis_connection import AGAIN, Connection, OutOfMemory
from noria.features.backends.redis_format import Catalogue, new_rows, rows_prefix
from noria.features.backends.redis_reading import RedisFeatureReader
from noria.features.backends.redis_writing import Writer
from noria.features.bulk_values import entity_values
from noria.features.columns import Floats, spec_of
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.layout import Layout, layout_of
from noria.features.online import Change
from noria.features.online_format import is_entity
from noria.features.prepared import Prepared, prepare
from noria.features.reading import Entity
from noria.features.standing import (
    DEFINITION_KEY,
    STANDING_KEY,
    Standing,
    encode_definition,
    encode_standing,
    view_id,
)
from noria.features.view_plan import FeatureValues
from noria.features.view_tiles import ViewTiles

__all__ = ["RedisOnlineStore", "open_redis"]

_KEYS_AT_ONCE, _BYTES_AT_ONCE = 1_000, 1 << 20  # of a load: Redis answers nobody else meanwhile
_PRUNED_AT_ONCE = 500  # entities
_REWRITE_S, _POLL_S = 600.0, 0.05
_REWRITING = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


class RedisOnlineStore:
    """The online store of a project, shared; see `noria.features.online.OnlineStore`.

    Parameters
    ----------
    url : str
        Where Redis is, and options: see `noria.features.backends.redis_connection.Options`.
    readonly : bool
        Only read, while another process may write.
    anew : bool
        Throw away what is there first.

    Raises
    ------
    ConfigError
        If the URL cannot be understood.
    LeaseHeld
        If another writer has it open; names that process.
    StoreError
        If Redis does not answer, or may evict values.
    """

    def __init__(self, url: str, *, readonly: bool = False, anew: bool = False) -> None:
        self._connection = Connection(url)
        self._reader = RedisFeatureReader(self._connection)
        self._tiles: dict[str, ViewTiles] = {}
        self._writer: Writer | None = None
        if readonly:
            return
        try:
            self._writer = Writer(self._connection, anew=anew)
            self._writer.sweep()  # rows that a writer left behind
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store and of the right to write it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._reader.close()

    def prepare(self, view: FeatureView | ViewSpec, rows: pa.Table) -> Prepared:
        """Sort and encode rows once, to apply them in slices."""
        return prepare(view, rows)

    def load(
        self,
        view: FeatureView | ViewSpec,
        rows: pa.Table,
        *,
        before: datetime | None = None,
        position: int | None = None,
        standing: Standing | None = None,
    ) -> None:
        """Put what `rows` known before `before` give beside the view, then in its place, in one change."""
        prepared = prepare(view, rows)
        known = len(prepared) if before is None else prepared.until(to_micros(before) - 1)
        items = list(entity_values(prepared, known))
        layout, writer = prepared.layout, self._writing()
        place = new_rows()
        prefix = rows_prefix(self._connection, place)
        items.append((DEFINITION_KEY, encode_definition(layout.spec)))
        if standing is not None:
            items.append((STANDING_KEY, encode_standing(standing)))
        writer.settle()
        writer.commit({}, catalogue=Catalogue(writer.catalogue.views, [*writer.catalogue.apart, place]))
        try:
            for puts in _portions(items, prefix):
                writer.commit(puts)
        except OutOfMemory:
            writer.sweep()  # what there was no room for
            raise
        self._redefine(layout, place, position=position)
        self._tiles[layout.digest] = ViewTiles(layout)

    def clear(self, view: FeatureView | ViewSpec) -> None:
        """Forget this definition of the view."""
        self._redefine(layout_of(spec_of(view)), None, position=None)

    def apply(
        self,
        changes: Iterable[Change],
        *,
        position: int | None = None,
        standings: Sequence[tuple[ViewSpec, Standing]] = (),
    ) -> None:
        """Count slices of prepared rows, all or none."""
        wanted = []
        writer = self._writing()
        self._go_on()
        pending, begun = _Pending(self._connection), _Begun(self._connection, writer.catalogue)
        for spec, prepared, start, stop in changes:
            if spec is not prepared.spec and spec != prepared.spec:
                raise ValueError(f"the rows were prepared for another definition of view {spec.name!r}")
            tiles = self._tiles_of(prepared.layout)
            prefix = begun.prefix(prepared.layout, pending)
            wanted.append((tiles, prefix, prepared, start, stop))
        stand = [(begun.prefix(layout_of(spec), pending), encode_standing(each)) for spec, each in standings]
        with _Forgetting(self._tiles):
            closed = [
                (tiles, prefix, tiles.unopened(prepared, start=start, stop=stop))
                for tiles, prefix, prepared, start, stop in wanted
            ]
            pending.fetch(prefix + key for _, prefix, keys in closed for key in keys)
            pending.fetch(
                prefix + key
                for tiles, prefix, keys in closed
                for key in tiles.open(_Rows(pending, prefix), keys)
            )
            for tiles, prefix, prepared, start, stop in wanted:
                if start < stop:
                    tiles.count(_Rows(pending, prefix), prepared, start=start, stop=stop)
                    pending.changed[prefix + STANDING_KEY] = None  # of whoever counts without one
            pending.changed.update((prefix + STANDING_KEY, raw) for prefix, raw in stand)
            if pending.changed or begun.any or position is not None:
                puts, gone = pending.changes()
                catalogue = begun.catalogue if begun.any else None
                writer.commit(puts, gone, catalogue=catalogue, redefined=begun.any, position=position)

    def prune(self, view: FeatureView | ViewSpec, before: datetime) -> None:
        """Drop what no reading at `before` or later needs, some entities at a time."""
        writer, layout = self._writing(), layout_of(spec_of(view))
        self._go_on()
        tiles, kept = self._tiles_of(layout), writer.catalogue.find(layout)
        if kept is None:
            return
        prefix = rows_prefix(self._connection, kept.rows)
        keys = [key.removeprefix(prefix) for some in writer.scan(kept.rows) for key in some]
        entities = sorted({key for key in keys if is_entity(key)})
        for start in range(0, len(entities), _PRUNED_AT_ONCE):
            some, pending = entities[start : start + _PRUNED_AT_ONCE], _Pending(self._connection)
            with _Forgetting(self._tiles):
                pending.fetch(prefix + key for key in some)
                tiles.prune(_Rows(pending, prefix), some, to_micros(before))
                if pending.changed:
                    writer.commit(*pending.changes())

    def scrub(self) -> None:
        """Let Redis write its files anew, without what was deleted, and wait for it."""
        self._writing().sweep()
        run = self._connection.run
        if run(lambda client: client.info("persistence"))["aof_enabled"]:
            run(lambda client: client.bgrewriteaof())
            self._await_files("aof_last_bgrewrite_status")
        if run(lambda client: client.config_get("save"))["save"]:  # else a snapshot would be one it never had
            run(lambda client: client.bgsave(schedule=True))
            self._await_files("rdb_last_bgsave_status")

    def _await_files(self, status: str) -> None:
        run, deadline = self._connection.run, time.monotonic() + _REWRITE_S
        while any((found := run(lambda client: client.info("persistence")))[name] for name in _REWRITING):
            if time.monotonic() > deadline:
                raise StoreError(f"{self._connection.place} still writes its files; see its log, scrub again")
            time.sleep(_POLL_S)
        if found[status] != "ok":
            raise StoreError(
                f"{self._connection.place} could not write its files anew ({status} {found[status]}); what "
                "was deleted is still in them: see its log, and scrub again"
            )

    def position(self) -> int | None:
        """Give the position last set with a change, `None` if there was none."""
        if self._writer is not None:
            self._writer.settle()
        return self._reader.position()

    def views(self) -> list[str]:
        """List the views that were loaded."""
        return self._reader.views()

    def definitions(self) -> dict[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view."""
        return self._reader.definitions()

    def specs(self) -> list[ViewSpec]:
        """Give the definitions themselves."""
        return self._reader.specs()

    def standing(self, view: FeatureView | ViewSpec) -> Standing | None:
        """Tell how far a view is."""
        if self._writer is not None:
            self._writer.settle()
        return self._reader.standing(spec_of(view))

    def read(self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int) -> Floats:
        """Give features as `FeatureReader.read` does."""
        return self._reader.read(specs, entities, at_us)

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give features as `FeatureReader.read_values` does."""
        return self._reader.read_values(specs, entities, at_us)

    def _redefine(self, layout: Layout, rows: str | None, *, position: int | None) -> None:
        writer = self._writing()
        writer.settle()
        catalogue = writer.catalogue.with_view(layout, rows)
        writer.commit({}, catalogue=catalogue, redefined=True, position=position)
        self._tiles.pop(layout.digest, None)
        writer.strayed.discard(view_id(layout.spec.name, layout.digest))
        writer.sweep()

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(
                f"the online store {self._connection.place} is not open to write; open it without `readonly`"
            )
        return self._writer

    def _go_on(self) -> None:
        """Refuse to count on top of a change whose answer was lost and that was made."""
        if self._writing().settle():
            raise StoreError(
                "the change before, whose answer was lost, was made: the online store "
                f"{self._connection.place} stands at position {self._writing().position}; go on from there"
            )

    def _tiles_of(self, layout: Layout) -> ViewTiles:
        name, writer = layout.spec.name, self._writing()
        if view_id(name, layout.digest) in writer.strayed:
            raise StoreError(
                f"view {name!r} of the online store {self._connection.place} is not as this writer left it: "
                "Redis was flushed, or started from older data; open it again and go on from its position, "
                f"or {AGAIN}"
            )
        tiles = self._tiles.get(layout.digest)
        if tiles is None:
            tiles = self._tiles[layout.digest] = ViewTiles(layout)
        return tiles


class _Begun:
    """The catalogue, with the views that a change begins."""

    def __init__(self, connection: Connection, catalogue: Catalogue) -> None:
        self._connection, self.catalogue = connection, catalogue
        self.any = False

    def prefix(self, layout: Layout, pending: "_Pending") -> bytes:
        """Give what the keys of a definition's rows begin with; one that is not there begins."""
        kept = self.catalogue.find(layout)
        if kept is not None:
            return rows_prefix(self._connection, kept.rows)
        rows, self.any = new_rows(), True
        self.catalogue = self.catalogue.with_view(layout, rows)
        prefix = rows_prefix(self._connection, rows)
        pending.changed[prefix + DEFINITION_KEY] = encode_definition(layout.spec)
        return prefix


class _Pending:
    """What a change has fetched and written so far."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fetched: dict[bytes, bytes | None] = {}
        self.changed: dict[bytes, bytes | None] = {}  # `None`: deleted

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Fetch values at once that will be asked for."""
        several = list(keys)
        if several:
            self._fetched.update(zip(several, self._connection.get(*several), strict=True))

    def get(self, key: bytes) -> bytes | None:
        """Give a value as the change has it."""
        if key in self.changed:
            return self.changed[key]
        if key not in self._fetched:
            self.fetch([key])
        return self._fetched[key]

    def changes(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Give what is to be put, and the keys to delete."""
        puts = {key: value for key, value in self.changed.items() if value is not None}
        return puts, [key for key, value in self.changed.items() if value is None]


class _Rows:
    """A view's keys and values within a change."""

    __slots__ = ("_pending", "_prefix", "get")

    def __init__(self, pending: _Pending, prefix: bytes) -> None:
        self._pending, self._prefix = pending, prefix
        self.get: Callable[[bytes], bytes | None] = lambda key: pending.get(prefix + key)

    def write(self, puts: Sequence[tuple[bytes, bytes]], gone: Sequence[bytes]) -> None:
        """Delete the keys `gone`, then put."""
        changed, prefix = self._pending.changed, self._prefix
        for key in gone:
            changed[prefix + key] = None
        for key, value in puts:
            changed[prefix + key] = value


class _Forgetting:
    """Closes the open entities where a change was not made: what they counted was not kept."""

    def __init__(self, tiles: Mapping[str, ViewTiles]) -> None:
        self._tiles = tiles

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for tiles in self._tiles.values():
                tiles.forget()


def _portions(items: Sequence[tuple[bytes, bytes]], prefix: bytes) -> Iterator[dict[bytes, bytes]]:
    """Split keys and values into portions that keep nobody waiting for long."""
    portion: dict[bytes, bytes] = {}
    size = 0
    for key, value in items:
        portion[prefix + key] = value
        size += len(value)
        if len(portion) >= _KEYS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield portion
            portion, size = {}, 0
    if portion:
        yield portion


def open_redis(url: str, *, root: Path, readonly: bool = False, anew: bool = False) -> RedisOnlineStore:
    """Open the store that a `redis://`, `rediss://` or `redis+unix://` URL names."""
    return RedisOnlineStore(url, readonly=readonly, anew=anew)
