"""What an online store must do, and how one is opened by its URL."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from noria.features.columns import Floats
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.prepared import Prepared
from noria.features.reading import no_backend, no_library
from noria.features.standing import Standing
from noria.features.view_plan import FeatureValues

__all__ = ["Change", "OnlineStore", "open_online_store"]

_GROUP = "noria.online_store"

Change = tuple[ViewSpec, Prepared, int, int]  # the rows [start, stop) of prepared ones


class OnlineStore(Protocol):
    """Features as of now, kept up row by row; equal to `point_in_time` exactly.

    One process writes, any number read; a reading sees what was committed before it began, whole changes
    only. It holds what became known up to now, so reading as of an instant before the newest applied row
    was known gives no past value. Raises `LeaseHeld` when opened by a second writer, `StoreError` when it is
    damaged (`StoreDamaged`) or away. One that is open to write is for one thread. Views are kept by name and
    definition: one that changed is loaded beside the one that it was, which is read on by whoever still asks
    for that.
    """

    def prepare(self, view: FeatureView | ViewSpec, rows: pa.Table) -> Prepared:
        """Sort rows by (`known_at`, key) and encode them. Raises `SourceError` if they do not fit."""
        ...

    def load(
        self,
        view: FeatureView | ViewSpec,
        rows: pa.Table,
        *,
        before: datetime | None = None,
        position: int | None = None,
        standing: Standing | None = None,
    ) -> None:
        """Replace the view, all or none, by the rows known before `before` (all rows without).

        `standing` says how far that is; it is kept in the same change.
        """
        ...

    def clear(self, view: FeatureView | ViewSpec) -> None:
        """Forget this definition of the view."""
        ...

    def apply(
        self,
        changes: Iterable[Change],
        *,
        position: int | None = None,
        standings: Sequence[tuple[ViewSpec, Standing]] = (),
    ) -> None:
        """Count rows once each, all changes or none; a view that is not there begins empty.

        `standings` say how far views are then; a view that is counted without one loses what it had.
        """
        ...

    def prune(self, view: FeatureView | ViewSpec, before: datetime) -> None:
        """Drop what no reading at `before` or later needs."""
        ...

    def scrub(self) -> None:
        """Leave no byte behind of what `load`, `clear` or `prune` have replaced."""
        ...

    def position(self) -> int | None:
        """Give the position last set by `load` or `apply`."""
        ...

    def views(self) -> list[str]:
        """List the views that were loaded or begun."""
        ...

    def definitions(self) -> Mapping[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view."""
        ...

    def specs(self) -> list[ViewSpec]:
        """Give the definitions themselves, all of every view."""
        ...

    def standing(self, view: FeatureView | ViewSpec) -> Standing | None:
        """Tell how far a view is; None if it is not kept, or was loaded without saying so."""
        ...

    def read(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | int | None]], at_us: int
    ) -> Floats:
        """Give an array (n, k) of numbers as of an instant. Raises `NotFound` if it lacks a view."""
        ...

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | int | None]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features by column, as `FeatureReader.read_values` does."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_online_store(url: str, *, root: Path, readonly: bool = False, anew: bool = False) -> OnlineStore:
    """Open the store that a URL such as `lmdb:.noria/online` or `redis://cache:6379/0` names.

    Parameters
    ----------
    url : str
        `<backend>:FOLDER`, where a relative path is below `root`, or `<backend>://HOST:PORT/DB`.
    root : Path
        The project's folder.
    readonly : bool
        Only read.
    anew : bool
        Throw away first what is there, as one does with what is damaged.

    Raises
    ------
    ConfigError
        If there is no such backend, or its library is not installed.
    """
    backend, _, where = url.partition(":")
    found = _entry_point(backend)
    if found is None or not where.strip("/"):
        _entry_point.cache_clear()
        raise no_backend(url, _GROUP)
    try:
        opener = found.load()
    except ModuleNotFoundError as err:
        raise no_library(url, err) from err
    if anew:
        return cast("OnlineStore", opener(url, root=root, anew=True))
    return cast("OnlineStore", opener(url, root=root, readonly=readonly))


@cache
def _entry_point(backend: str) -> EntryPoint | None:
    """Find a backend among all that is installed, once: that takes milliseconds."""
    return next(iter(entry_points(group=_GROUP, name=backend)), None)
