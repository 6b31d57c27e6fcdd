"""Reads features of entities from Redis; all that a serving worker needs of it.

Imports numpy, msgspec and redis only. A reading is one `MGET` of the head and of a packed value per entity
and view; where something lies beside those values, a second one, which holds if the head is still the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from noria.errors import NotFound, StoreError
from noria.features.backends.redis_connection import AGAIN, Connection
from noria.features.backends.redis_format import Catalogue, Head, KeptView, read_standing, rows_prefix
from noria.features.declarations import ViewSpec
from noria.features.layout import layout_of
from noria.features.plans import Plans
from noria.features.reading import Entity, Floats, entity_column
from noria.features.standing import (
    DEFINITION_KEY,
    STANDING_KEY,
    Standing,
    decode_definition,
    decode_standing,
    lacking,
)
from noria.features.view_plan import PENDING, FeatureValues, ViewPlan

__all__ = ["RedisFeatureReader", "open_redis_reader"]

_T = TypeVar("_T")
_TURNS = 100  # how often a reading begins again because the store changes under it


class RedisFeatureReader:
    """Looks features up while another process writes them; sees what was committed before the call.

    Parameters
    ----------
    connection : Connection
        To Redis; this closes it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head_key = connection.key("head")
        self._standing: tuple[Head, Catalogue] | None = None
        self._plans = Plans(connection.place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._connection.close()

    def position(self) -> int | None:
        """Give the position that the writer last set, `None` if it never did."""
        (raw,) = self._connection.get(self._head_key)
        return Head.decode(raw, self._connection.place).position

    def views(self) -> list[str]:
        """List the views that the store holds."""
        return list(self.definitions())

    def definitions(self) -> dict[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view that the store holds."""
        return read_standing(self._connection)[1].definitions()

    def specs(self) -> list[ViewSpec]:
        """Give the definitions that the store holds."""
        kept, raw = self._beside(lambda catalogue: sorted(catalogue.views.items()), DEFINITION_KEY)
        return [decode_definition(each, view) for (view, _), each in zip(kept, raw, strict=True)]

    def standing(self, spec: ViewSpec) -> Standing | None:
        """Tell how far a view is; None if the store does not hold it, or it was loaded by other means."""
        layout = layout_of(spec)

        def wanted(catalogue: Catalogue) -> list[tuple[str, KeptView]]:
            view = catalogue.find(layout)
            return [] if view is None else [(spec.name, view)]

        _, raw = self._beside(wanted, STANDING_KEY)
        return decode_standing(raw[0], spec.name) if raw else None

    def _beside(
        self, wanted: Callable[[Catalogue], list[tuple[str, KeptView]]], key: bytes
    ) -> tuple[list[tuple[str, KeptView]], list[bytes | None]]:
        """Give views of the catalogue, and what is kept of each by that key, as of one instant."""
        for _ in range(_TURNS):
            head, catalogue = read_standing(self._connection)
            kept = wanted(catalogue)
            keys = [rows_prefix(self._connection, view.rows) + key for _, view in kept]
            now, *raw = self._connection.get(self._head_key, *keys)
            if Head.decode(now, self._connection.place).generation == head.generation:
                return kept, raw  # rows are where the catalogue has them
        raise self._restless()

    def read(self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int) -> Floats:
        """Give the features of several views as of `at_us`, as `FeatureReader.read` does."""
        plans = [self._plans.of(spec) for spec in specs]
        columns = [entity_column(spec, entities) for spec in specs]
        size = len(columns[0]) if columns else 0
        result = np.empty((size, sum(plan.width for plan in plans)))
        left = 0
        for plan, values in zip(plans, self._values(plans, columns, at_us, ViewPlan.read), strict=True):
            if size:
                result[:, left : left + plan.width] = values
            left += plan.width
        return result

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features by column, as `FeatureReader.read_values` does."""
        plans = [self._plans.of(spec) for spec in specs]
        columns = [entity_column(spec, entities) for spec in specs]
        return self._values(plans, columns, at_us, ViewPlan.read_values, keys=ViewPlan.keys_of)

    def _values(
        self,
        plans: Sequence[ViewPlan],
        columns: Sequence[Sequence[bytes | None]],
        at_us: int,
        read: Callable[[ViewPlan, Callable[[bytes], Any], Sequence[bytes | None], int], _T],
        *,
        keys: Callable[[ViewPlan, bytes], tuple[bytes, ...]] = lambda _, entity: (entity,),
    ) -> list[_T]:
        if not plans:
            return []
        wanted: set[bytes] = set()
        generation, fetched = -1, _Fetched(b"", {})
        for _ in range(_TURNS):
            head, prefixes = self._places(plans)
            if head.generation != generation:
                generation, fetched = head.generation, _Fetched(b"", {})
                wanted = {
                    prefix + key
                    for plan, prefix, column in zip(plans, prefixes, columns, strict=True)
                    for entity in column
                    if entity is not None
                    for key in keys(plan, entity)
                }
            missing = wanted - fetched.values.keys()
            now = self._fetch(missing)
            if now.head != fetched.head and len(missing) < len(wanted):
                now = self._fetch(wanted)  # it changed since the rest was fetched: all as of one instant
            else:
                now.values.update(fetched.values)
            if Head.decode(now.head or None, self._connection.place).generation != generation:
                self._standing = None  # rows are elsewhere by now
                generation = -1
                continue
            fetched = now
            values = [
                read(plan, fetched.of(prefix), column, at_us)
                for plan, prefix, column in zip(plans, prefixes, columns, strict=True)
            ]
            if not fetched.asked:
                return values
            wanted |= fetched.asked
            fetched.asked.clear()
        raise self._restless()

    def _places(self, plans: Sequence[ViewPlan]) -> tuple[Head, list[bytes]]:
        """Give where the rows of the views are, looked up again if the views are not as wanted."""
        if self._standing is not None:
            try:
                return self._standing[0], self._prefixes(plans, self._standing[1])
            except NotFound:
                self._standing = None  # it may have been loaded since
        return self._look(plans)

    def _look(self, plans: Sequence[ViewPlan]) -> tuple[Head, list[bytes]]:
        standing = read_standing(self._connection)
        prefixes = self._prefixes(plans, standing[1])
        self._standing = standing
        return standing[0], prefixes

    def _prefixes(self, plans: Sequence[ViewPlan], catalogue: Catalogue) -> list[bytes]:
        prefixes = []
        for plan in plans:
            view = catalogue.find(plan.layout)
            if view is None:
                raise lacking(plan.layout, catalogue.definitions())
            prefixes.append(rows_prefix(self._connection, view.rows))
        return prefixes

    def _restless(self) -> StoreError:
        return StoreError(
            f"the online store {self._connection.place} changed {_TURNS} times during one reading; ask for "
            "fewer entities at once, or let its writer apply more rows at a time"
        )

    def _fetch(self, keys: Iterable[bytes]) -> "_Fetched":
        several = list(keys)
        head, *values = self._connection.get(self._head_key, *several)
        if head is None:
            self._standing = None
            raise StoreError(
                f"the online store {self._connection.place} is empty: Redis was flushed, or started without "
                f"its data; {AGAIN}"
            )
        return _Fetched(head, dict(zip(several, values, strict=True)))


class _Fetched:
    """Values as of one change of the store, and the keys that were asked for beside them."""

    def __init__(self, head: bytes, values: dict[bytes, bytes | None]) -> None:
        self.head, self.values = head, values
        self.asked: set[bytes] = set()

    def of(self, prefix: bytes) -> Callable[[bytes], Any]:
        """Give the function that gives values of one view's rows."""
        values, asked = self.values, self.asked

        def get(key: bytes) -> Any:
            try:
                value = values[prefix + key]
            except KeyError:
                asked.add(prefix + key)
                return PENDING
            return None if value is None else memoryview(value)

        return get


def open_redis_reader(url: str, *, root: Path, timeout_s: float | None = None) -> RedisFeatureReader:
    """Open the store that a `redis://`, `rediss://` or `redis+unix://` URL names."""
    return RedisFeatureReader(Connection(url, most_s=timeout_s))
