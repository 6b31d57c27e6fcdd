"""The online store as a worker sees it: opened when first needed, so that it may come after the worker.

A store that is asked over a connection may hang: `noria.serving.features.patience` says how long to wait.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.features.declarations import ViewSpec
from noria.features.reading import FeatureReader, is_remote, open_feature_reader
from noria.features.view_plan import FeatureValues
from noria.serving.features.patience import Patience

__all__ = ["OnlineFeatures"]

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.1  # at how far views are

T = TypeVar("T")


class OnlineFeatures:
    """Features by entity and instant from an online store. Threads may share it.

    Parameters
    ----------
    url
        The store's URL, or the folder of an LMDB store. It need not be there yet.
    root
        A relative path is below it.
    timeout_s
        How long a store that is asked over a connection may take; None: as long as its URL says.
    max_age_s
        How old views that do not say it themselves may be; 0: any.
    with_defaults
        Whether the views' defaults stand in where the store cannot be asked; else requests are refused.

    Attributes
    ----------
    is_remote
        Whether the store is asked over a connection, so that callers may have to wait.
    """

    def __init__(
        self,
        url: str,
        *,
        root: Path,
        timeout_s: float | None = None,
        max_age_s: float = 0.0,
        with_defaults: bool = False,
    ) -> None:
        self.with_defaults = with_defaults
        self._url, self._root, self._timeout_s = url, root, timeout_s
        self._max_age_us = round(max_age_s * 1e6)
        self._reader: FeatureReader | None = None
        self._opening = threading.Lock()
        self.is_remote = is_remote(url)
        self._patience = Patience(timeout_s) if self.is_remote and timeout_s is not None else None
        self._views: dict[int, _Ages] = {}
        self._ages_s: dict[str, float] = {}

    def read(
        self, views: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | None]], at_us: int
    ) -> NDArray[np.float64]:
        """Give the features of the views at an instant, float64 of shape (rows, features).

        Raises
        ------
        NoriaError
            As `FeatureReader.read`; `StoreError` also where it does not answer in time.
        """
        return self._asked(lambda reader: reader.read(views, entities, at_us))

    def read_values(
        self, views: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | None]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features of the views, texts and vectors too; raises as `read` does."""
        return self._asked(lambda reader: reader.read_values(views, entities, at_us))

    def position(self) -> int | None:
        """Give the instant the store stands at, None where its writer said none."""
        return self._asked(lambda reader: reader.position())

    def stale(self, views: Sequence[ViewSpec], at_us: int) -> Mapping[int, int]:
        """Give those of the views that are older at an instant than they may be: place and age in seconds.

        How far the store is, is looked up every now and then. The age of a view is how long before the
        instant everything was counted that was known; where nobody said that, it has none.
        """
        ages = self._views.get(id(views))
        if ages is None or ages.views is not views:
            ages = self._views[id(views)] = _Ages(views, self._max_age_us)
        if time.monotonic() >= ages.look_at:
            self._look(ages, at_us)
        return ages.stale(at_us) if ages.is_limited else _NONE

    def ages_s(self) -> Mapping[str, float]:
        """Give how old each view was that was asked for, when that was looked at last."""
        return dict(self._ages_s)

    def forget(self) -> None:
        """Keep nothing of views: they may not be asked for any more."""
        self._views.clear()

    def close(self) -> None:
        """Let go of the store; it is opened again where it is asked for again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _look(self, ages: "_Ages", at_us: int) -> None:
        ages.look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            ages.known = self._asked(ages.read)
        except (NoriaError, OSError) as err:
            _LOG.warning("how old features are cannot be looked up, they count as before: %s", err)
            return
        ages.learn()
        for view, (known_us, _) in zip(ages.views, ages.known, strict=True):
            if known_us is not None:
                self._ages_s[view.name] = max(0.0, (at_us - known_us) / 1e6)

    def _asked(self, ask: Callable[[FeatureReader], T]) -> T:
        if self._patience is None:
            return ask(self._opened())
        reader = self._opened()  # which loads the store's library, and asks for nothing yet
        return self._patience.ask(lambda: ask(reader))

    def _opened(self) -> FeatureReader:
        if self._reader is None:
            with self._opening:
                if self._reader is None:
                    self._reader = open_feature_reader(self._url, root=self._root, timeout_s=self._timeout_s)
        return self._reader


_NONE: Mapping[int, int] = {}


class _Ages:
    """How far views are, and how old they may be."""

    def __init__(self, views: Sequence[ViewSpec], max_age_us: int) -> None:
        self.views, self._max_age_us = views, max_age_us
        self.known: Sequence[tuple[int | None, int]] = ()
        self.look_at = 0.0
        self._limits: list[tuple[int, int, int]] = []

    @property
    def is_limited(self) -> bool:
        """Whether any of them may be too old."""
        return bool(self._limits)

    def read(self, reader: FeatureReader) -> list[tuple[int | None, int]]:
        """Look up of each view up to when it counts everything, and how old it may be (0: any)."""
        found: list[tuple[int | None, int]] = []
        position: int | None = None
        is_asked = False
        for view in self.views:
            standing = reader.standing(view)
            if standing is not None:
                limit = standing.max_age_us
                found.append((standing.known_us, self._max_age_us if limit is None else limit))
                continue
            if not is_asked:
                position, is_asked = reader.position(), True
            found.append((position, self._max_age_us))
        return found

    def learn(self) -> None:
        self._limits = [
            (place, known_us, limit_us)
            for place, (known_us, limit_us) in enumerate(self.known)
            if limit_us and known_us is not None
        ]

    def stale(self, at_us: int) -> dict[int, int]:
        return {
            place: (at_us - known_us) // 1_000_000
            for place, known_us, limit_us in self._limits
            if at_us - known_us > limit_us
        }
