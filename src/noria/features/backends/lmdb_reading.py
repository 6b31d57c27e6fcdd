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

from noria.errors import NotFound, StoreError
from noria.features.backends.lmdb_files import (
    check_definition,
    list_views,
    open_environment,
    read_head,
    read_record,
    rows_name,
    store_error,
)
from noria.features.declarations import ViewSpec
from noria.features.reading import Entity, Floats, entity_column
from noria.features.view_plan import ViewPlan

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
        self._shared = environment is not None
        self._environment = environment or open_environment(self._path, map_size=None)
        self._inode = self._file()
        self._generation = -1
        self._plans: dict[str, ViewPlan] = {}
        self._databases: dict[str, Any] = {}

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
        plans = [self._plan(spec) for spec in specs]
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
            generation, _ = read_head(txn, self._path)
            if generation != self._generation:
                for known in self._plans.values():
                    known.is_checked = False
                self._generation = generation
            left = 0
            for plan, column in zip(plans, columns, strict=True):
                if not plan.is_checked:
                    check_definition(txn, plan.layout)
                    plan.is_checked = True
                values = plan.read(partial(txn.get, db=self._databases[plan.name]), column, at_us)
                if size:
                    result[:, left : left + plan.width] = values
                left += plan.width
        return result

    def _plan(self, spec: ViewSpec) -> ViewPlan:
        plan = self._plans.get(spec.name)
        if plan is None or (plan.spec is not spec and plan.spec != spec):
            plan = self._plans[spec.name] = ViewPlan(spec, str(self._path))
        return plan

    def _open_databases(self, plans: Sequence[ViewPlan]) -> None:
        for plan in plans:
            if plan.name not in self._databases:
                try:
                    self._databases[plan.name] = self._environment.open_db(rows_name(plan.name), create=False)
                except (lmdb.NotFoundError, lmdb.ReadonlyError) as err:
                    raise NotFound("online feature view", plan.name, self.views()) from err

    def views(self) -> list[str]:
        """List the views that the store holds."""
        try:
            with self._begin() as txn:
                return list_views(txn)
        except lmdb.Error as err:
            raise store_error(self._path, err) from err

    def definitions(self) -> dict[str, str]:
        """Give the digest of the definition of each view that the store holds."""
        try:
            with self._begin() as txn:
                return {name: read_record(txn, name).digest for name in list_views(txn)}
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
            found = os.stat(self._path / "data.mdb")  # noqa: PTH116
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
