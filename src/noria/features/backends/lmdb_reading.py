"""Reads features of entities from LMDB; all that a serving worker needs of it.

Imports numpy, lmdb and msgspec only.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np

from noria.errors import StoreError
from noria.features.backends.lmdb_files import (
    ROWS,
    check_definition,
    is_listed,
    list_definitions,
    open_environment,
    read_head,
    rows_name,
    store_error,
    view_key,
)
from noria.features.declarations import ViewSpec
from noria.features.layout import Layout
from noria.features.plans import Plans
from noria.features.reading import Entity, Floats, entity_column
from noria.features.standing import (
    DEFINITION_KEY,
    STANDING_KEY,
    Standing,
    decode_definition,
    decode_standing,
    digests_of,
    lacking,
    view_id,
)
from noria.features.view_plan import FeatureValues, ViewPlan

__all__ = ["LmdbFeatureReader", "open_lmdb_reader"]


class LmdbFeatureReader:
    """Looks features up while another process writes them; sees what was committed before the call.

    Parameters
    ----------
    path : Path
        The store's folder.
    environment : Environment or None
        The already opened store, where this process writes it; LMDB allows one per process.

    Raises
    ------
    StoreError
        If there is no store or it is damaged.
    """

    def __init__(self, path: Path, *, environment: lmdb.Environment | None = None) -> None:
        self._path = Path(path)
        self._file_path = os.fspath(self._path / "data.mdb")  # made once: it is looked at by each reading
        self._shared = environment is not None
        self._environment = environment or open_environment(self._path, map_size=None)
        self._inode = self._file()
        self._generation = -1
        self._plans = Plans(str(self._path))
        self._databases: dict[str, Any] = {}  # by the digest of a definition

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        if not self._shared:
            self._environment.close()

    def position(self) -> int | None:
        """Give the position that the writer last set, `None` if it never did."""
        try:
            with self._begin() as txn:
                return read_head(txn, self._path)[1]
        except lmdb.Error as err:
            raise store_error(self._path, err) from err

    def read(self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int) -> Floats:
        """Give the features of several views as `noria.features.reading.FeatureReader.read` says."""
        plans = [self._plans.of(spec) for spec in specs]
        columns = [entity_column(spec, entities) for spec in specs]
        self._follow_file()
        try:
            return self._read(plans, columns, at_us)
        except lmdb.Error as err:
            raise store_error(self._path, err) from err

    def _read(
        self, plans: Sequence[ViewPlan], columns: Sequence[Sequence[bytes | None]], at_us: int
    ) -> Floats:
        self._open_databases(plans)
        size = len(columns[0]) if columns else 0
        result = np.empty((size, sum(plan.width for plan in plans)))
        with self._begin() as txn:
            self._check(txn, plans)
            left = 0
            for plan, column in zip(plans, columns, strict=True):
                database = self._databases[plan.layout.digest]
                values = plan.read(partial(txn.get, db=database), column, at_us)
                if size:
                    result[:, left : left + plan.width] = values
                left += plan.width
        return result

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features by column, as `noria.features.reading.FeatureReader.read_values` says."""
        plans = [self._plans.of(spec) for spec in specs]
        columns = [entity_column(spec, entities) for spec in specs]
        self._follow_file()
        made: list[dict[str, FeatureValues]] = []
        try:
            self._open_databases(plans)
            with self._begin() as txn:
                self._check(txn, plans)
                for plan, column in zip(plans, columns, strict=True):
                    database = self._databases[plan.layout.digest]
                    made.append(plan.read_values(partial(txn.get, db=database), column, at_us))
        except lmdb.Error as err:
            raise store_error(self._path, err) from err
        return made

    def _check(self, txn: lmdb.Transaction, plans: Sequence[ViewPlan]) -> None:
        """Look again whether the store keeps the definitions, if it may have changed them."""
        generation, _ = read_head(txn, self._path)
        if generation != self._generation:
            for known in self._plans:
                known.is_checked = False
            self._generation = generation
        for plan in plans:
            if not plan.is_checked:
                check_definition(txn, plan.layout)
                plan.is_checked = True

    def _open_databases(self, plans: Sequence[ViewPlan]) -> None:
        for plan in plans:
            if plan.layout.digest not in self._databases:
                self._databases[plan.layout.digest] = self._database(plan.layout)

    def _database(self, layout: Layout) -> Any:
        """Open a definition's database. Raises `NotFound` if there is none."""
        try:
            return self._open_database(rows_name(layout))
        except (lmdb.NotFoundError, lmdb.ReadonlyError) as err:
            raise lacking(layout, self.definitions()) from err

    def _open_database(self, name: bytes) -> Any:
        with self._begin():  # it takes the size of a map that the writer made larger
            pass
        return self._environment.open_db(name, create=False)

    def views(self) -> list[str]:
        """List the views that the store holds."""
        return list(self.definitions())

    def definitions(self) -> dict[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view that the store holds."""
        try:
            with self._begin() as txn:
                return digests_of((each.name, each.digest) for each in list_definitions(txn))
        except lmdb.Error as err:
            raise store_error(self._path, err) from err

    def specs(self) -> list[ViewSpec]:
        """Give the definitions that the store holds."""
        self._follow_file()
        try:
            with self._begin() as txn:
                kept = [view_id(each.name, each.digest) for each in list_definitions(txn)]
            found = [self._spec(view) for view in kept]
        except lmdb.Error as err:
            raise store_error(self._path, err) from err
        return [spec for spec in found if spec is not None]

    def _spec(self, view: str) -> ViewSpec | None:
        """Give a definition that was listed; None if it was cleared since."""
        try:
            database = self._open_database(ROWS + view.encode())
        except lmdb.NotFoundError:
            with self._begin() as txn:
                if is_listed(txn, view):
                    raise
            return None
        with self._begin() as txn:
            if not is_listed(txn, view):
                return None
            return decode_definition(txn.get(DEFINITION_KEY, db=database), view)

    def standing(self, spec: ViewSpec) -> Standing | None:
        """Tell how far a view is; None if the store does not hold it, or it was loaded by other means."""
        layout = self._plans.of(spec).layout
        self._follow_file()
        try:
            database = self._databases.get(layout.digest) or self._open_database(rows_name(layout))
            with self._begin() as txn:
                if txn.get(view_key(layout)) is None:
                    return None
                return decode_standing(txn.get(STANDING_KEY, db=database), spec.name)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            return None
        except lmdb.Error as err:
            raise store_error(self._path, err) from err

    def _begin(self) -> lmdb.Transaction:
        try:
            return self._environment.begin(buffers=True)
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)  # the writer made it larger: take its size
            return self._environment.begin(buffers=True)

    def _file(self) -> tuple[int, int]:
        try:
            found = os.stat(self._file_path)  # noqa: PTH116
        except FileNotFoundError as err:
            raise StoreError(f"the online store {self._path} is gone; load its views again") from err
        return found.st_dev, found.st_ino

    def _follow_file(self) -> None:
        """Notice that the store was deleted, or replaced by a new one."""
        inode = self._file()
        if inode == self._inode:
            return
        if self._shared:
            raise StoreError(f"the online store {self._path} was replaced under its writer; open it again")
        self._environment.close()
        self._environment = open_environment(self._path, map_size=None)
        self._inode, self._generation = inode, -1
        self._databases.clear()


def open_lmdb_reader(url: str, *, root: Path) -> LmdbFeatureReader:
    """Open the store in the folder that `lmdb:FOLDER` names, below `root` if it is relative."""
    return LmdbFeatureReader(root / url.partition(":")[2])
