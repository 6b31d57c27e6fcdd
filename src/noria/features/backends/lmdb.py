"""Online features in LMDB: one writer, many reading processes, nothing torn by `kill -9`.

Commits are not synced to the disk: the operating system keeps them when the process dies, and everything
in the store can be loaded again from the lake should the machine die.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import msgspec
import pyarrow as pa

from noria.clock import to_micros
from noria.errors import LeaseHeld, StoreError
from noria.features.backends.lmdb_files import (
    HEAD_KEY,
    ViewRecord,
    entities_of,
    open_environment,
    orphaned_rows,
    read_head,
    rows_name,
    store_error,
    view_key,
)
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.features.bulk_values import entity_values
from noria.features.columns import Floats, spec_of
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.layout import Layout, layout_of
from noria.features.online import Change
from noria.features.online_format import pack_head
from noria.features.prepared import Prepared, prepare
from noria.features.reading import Entity
from noria.features.scrubbing import scrub
from noria.features.standing import (
    DEFINITION_KEY,
    STANDING_KEY,
    Standing,
    encode_definition,
    encode_standing,
)
from noria.features.view_plan import FeatureValues
from noria.features.view_tiles import ViewTiles

__all__ = ["LmdbOnlineStore", "open_lmdb"]

_FIRST_MAP_SIZE = 1 << 30  # of address space; the file holds what is used


class _Rows:
    """A view's keys and values within a transaction."""

    __slots__ = ("_database", "_txn", "get")

    def __init__(self, txn: lmdb.Transaction, database: Any) -> None:
        self._txn, self._database = txn, database
        self.get: Callable[[bytes], Any] = partial(txn.get, db=database)

    def write(self, puts: Sequence[tuple[bytes, bytes]], gone: Sequence[bytes]) -> None:
        """Delete the keys `gone`, then put."""
        for key in gone:
            self._txn.delete(key, db=self._database)
        with self._txn.cursor(self._database) as cursor:
            cursor.putmulti(puts)


class LmdbOnlineStore:
    """The online store of a project; see `noria.features.online.OnlineStore`.

    Parameters
    ----------
    path : Path
        Its folder; made if it is not there.
    readonly : bool
        Only read, while another process may write.
    anew : bool
        Throw away what is there first.
    map_size : int
        Bytes of address space to begin with; it doubles when they are full.

    Raises
    ------
    LeaseHeld
        If another writer has it open; names that process.
    StoreError
        If it is damaged, or is not there and `readonly`.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool = False,
        anew: bool = False,
        map_size: int = _FIRST_MAP_SIZE,
    ) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        if readonly:
            self._reader = LmdbFeatureReader(self.path)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        with ExitStack() as opened:  # what was opened is closed again if the next step fails
            opened.callback(os.close, self._lock)
            if anew:
                for name in ("data.mdb", "lock.mdb"):
                    (self.path / name).unlink(missing_ok=True)
            self._environment = open_environment(self.path, map_size=map_size)
            opened.callback(self._environment.close)
            self._reader = LmdbFeatureReader(self.path, environment=self._environment)
            self._reader.position()  # refuses a store of another format
            self._environment.reader_check()  # frees what readers that were killed held
            self._drop_orphans()
            opened.pop_all()
        self._databases: dict[str, Any] = {}  # by the digest of a definition
        self._tiles: dict[str, ViewTiles] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store and of the right to write it."""
        self._reader.close()
        if self._lock is not None:
            self._environment.close()
            os.close(self._lock)
            self._lock = None

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
        """Replace the view by what `rows` known before `before` give, in one transaction."""
        prepared = prepare(view, rows)
        known = len(prepared) if before is None else prepared.until(to_micros(before) - 1)
        items = entity_values(prepared, known)
        layout, database = prepared.layout, self._database(prepared.layout)
        beside = [(DEFINITION_KEY, encode_definition(layout.spec))]
        if standing is not None:
            beside.append((STANDING_KEY, encode_standing(standing)))

        def replace(txn: lmdb.Transaction) -> None:
            txn.drop(database, delete=False)
            self._define(txn, layout)
            with txn.cursor(database) as cursor:
                cursor.putmulti(items, append=True)
                cursor.putmulti(beside, append=True)
            self._set_head(txn, defined=True, position=position)

        self._write(replace)
        self._tiles[layout.digest] = ViewTiles(layout)

    def clear(self, view: FeatureView | ViewSpec) -> None:
        """Forget this definition of the view."""
        layout = layout_of(spec_of(view))
        database = self._database(layout)

        def forget(txn: lmdb.Transaction) -> None:
            txn.drop(database, delete=False)
            txn.delete(view_key(layout))
            self._set_head(txn, defined=True, position=None)

        self._write(forget)
        self._tiles.pop(layout.digest, None)

    def apply(
        self,
        changes: Iterable[Change],
        *,
        position: int | None = None,
        standings: Sequence[tuple[ViewSpec, Standing]] = (),
    ) -> None:
        """Count slices of prepared rows, all or none."""
        wanted = []
        for spec, prepared, start, stop in changes:
            if spec is not prepared.spec and spec != prepared.spec:
                raise ValueError(f"the rows were prepared for another definition of view {spec.name!r}")
            tiles = self._tiles_of(prepared.layout)
            wanted.append((tiles, self._databases[prepared.layout.digest], prepared, start, stop))
        stand = [(layout_of(spec), encode_standing(each)) for spec, each in standings]
        for layout, _ in stand:
            self._database(layout)

        def count(txn: lmdb.Transaction) -> None:
            layouts = [*(tiles.layout for tiles, *_ in wanted), *(layout for layout, _ in stand)]
            begun = [each for each in layouts if txn.get(view_key(each)) is None]
            for layout in begun:
                self._define(txn, layout)
                database = self._database(layout)
                txn.put(DEFINITION_KEY, encode_definition(layout.spec), db=database)
            for tiles, database, prepared, start, stop in wanted:
                if start < stop:
                    tiles.count(_Rows(txn, database), prepared, start=start, stop=stop)
                    txn.delete(STANDING_KEY, db=database)  # of whoever counts without one
            for layout, raw in stand:
                txn.put(STANDING_KEY, raw, db=self._database(layout))
            if begun or position is not None:
                self._set_head(txn, defined=bool(begun), position=position)

        self._write(count)

    def prune(self, view: FeatureView | ViewSpec, before: datetime) -> None:
        """Drop what no reading at `before` or later needs."""
        tiles = self._tiles_of(layout_of(spec_of(view)))
        database, at_us = self._database(tiles.layout), to_micros(before)
        self._write(lambda txn: tiles.prune(_Rows(txn, database), entities_of(txn, database), at_us))

    def scrub(self) -> None:
        """Overwrite what is free in the file."""
        if self._lock is None:
            raise self._no_writer()
        try:
            scrub(self._environment)
        except lmdb.Error as err:
            raise store_error(self.path, err) from err

    def position(self) -> int | None:
        """Give the position last set with a change, `None` if there was none."""
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
        return self._reader.standing(spec_of(view))

    def read(self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int) -> Floats:
        """Give features as `LmdbFeatureReader.read` does."""
        return self._reader.read(specs, entities, at_us)

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give features as `LmdbFeatureReader.read_values` does."""
        return self._reader.read_values(specs, entities, at_us)

    def _database(self, layout: Layout) -> Any:
        if self._lock is None:
            raise self._no_writer()
        if layout.digest not in self._databases:
            try:
                self._databases[layout.digest] = self._environment.open_db(rows_name(layout))
            except lmdb.Error as err:
                raise store_error(self.path, err) from err
        return self._databases[layout.digest]

    def _tiles_of(self, layout: Layout) -> ViewTiles:
        tiles = self._tiles.get(layout.digest)
        if tiles is None:
            self._database(layout)
            tiles = self._tiles[layout.digest] = ViewTiles(layout)
        return tiles

    def _drop_orphans(self) -> None:
        """Let go of the databases of definitions that were cleared; nobody reads them."""
        try:
            with self._environment.begin() as txn:
                orphans = orphaned_rows(txn)
            for name in orphans:
                database = self._environment.open_db(name)
                with self._environment.begin(write=True) as txn:
                    txn.drop(database)
        except lmdb.Error as err:
            raise store_error(self.path, err) from err

    def _define(self, txn: lmdb.Transaction, layout: Layout) -> None:
        record = ViewRecord(layout.spec.name, layout.digest)
        txn.put(view_key(layout), msgspec.json.encode(record))

    def _set_head(self, txn: lmdb.Transaction, *, defined: bool, position: int | None) -> None:
        generation, standing = read_head(txn, self.path)
        head = pack_head(generation + defined, standing if position is None else position)
        txn.put(HEAD_KEY, head)

    def _write(self, body: Callable[[lmdb.Transaction], None]) -> None:
        """Run `body` in one transaction, again in a larger map when this one is full."""
        if self._lock is None:
            raise self._no_writer()
        while True:
            try:
                with self._environment.begin(write=True) as txn:
                    body(txn)
            except BaseException as err:
                for tiles in self._tiles.values():
                    tiles.forget()  # what they counted was not kept
                if isinstance(err, lmdb.MapFullError):
                    self._environment.reader_check()
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                    continue
                if isinstance(err, lmdb.Error):
                    raise store_error(self.path, err) from err
                raise
            return

    def _no_writer(self) -> StoreError:
        return StoreError(f"the online store {self.path} is not open to write; open it without `readonly`")


def open_lmdb(url: str, *, root: Path, readonly: bool = False, anew: bool = False) -> LmdbOnlineStore:
    """Open the store in the folder that `lmdb:FOLDER` names, below `root` if it is relative."""
    return LmdbOnlineStore(root / url.partition(":")[2], readonly=readonly, anew=anew)


def _lock(path: Path) -> int:
    """Take the right to write; it ends with the process."""
    file = os.open(path / "writer", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        holder = os.read(file, 64).decode("ascii", "replace").strip() or "another process"
        os.close(file)
        raise LeaseHeld(f"online store {path}", holder) from err
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()}".encode())
    return file
