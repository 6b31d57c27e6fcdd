"""The online store as a worker sees it: opened when first needed, so that it may come after the worker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.features.declarations import ViewSpec
from noria.features.reading import FeatureReader, open_feature_reader
from noria.features.view_plan import FeatureValues

__all__ = ["OnlineFeatures"]


class OnlineFeatures:
    """Features by entity and instant from an online store.

    Parameters
    ----------
    url
        The store's URL, or the folder of an LMDB store. It need not be there yet.
    root
        A relative path is below it.
    """

    def __init__(self, url: str, *, root: Path) -> None:
        self._url, self._root = url, root
        self._reader: FeatureReader | None = None

    def read(
        self, views: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | None]], at_us: int
    ) -> NDArray[np.float64]:
        """Give the features of the views at an instant, float64 of shape (rows, features).

        Raises
        ------
        NoriaError
            As `FeatureReader.read`.
        """
        return self._opened().read(views, entities, at_us)

    def read_values(
        self, views: Sequence[ViewSpec], entities: Mapping[str, Sequence[str | None]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features of the views, texts and vectors too; raises as `read` does."""
        return self._opened().read_values(views, entities, at_us)

    def position(self) -> int | None:
        """Give the instant the store stands at, None where its writer said none."""
        return self._opened().position()

    def _opened(self) -> FeatureReader:
        if self._reader is None:
            self._reader = open_feature_reader(self._url, root=self._root)
        return self._reader
