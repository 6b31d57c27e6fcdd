"""What a reader of features must do, and how one is opened by its URL; all that a serving worker needs.

Imports no engine: a backend's reader brings the client of its store, and numpy.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from noria.errors import ConfigError, SourceError
from noria.features.declarations import ViewSpec
from noria.features.online_format import entity_key
from noria.features.standing import Standing
from noria.features.view_plan import FeatureValues

__all__ = ["FeatureReader", "feature_columns", "is_remote", "located", "open_feature_reader"]

Floats = npt.NDArray[np.float64]
Entity = str | int | None
_GROUP = "noria.online_reader"


class FeatureReader(Protocol):
    """Looks features up while another process writes them; sees what was committed before the call.

    Whole changes only. Raises `StoreError` where the store is gone, damaged or does not answer.
    """

    def read(self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int) -> Floats:
        """Give the features of several views as of `at_us`.

        Parameters
        ----------
        specs : sequence of ViewSpec
            Which views.
        entities : mapping of str to sequence
            Entity columns by name, all of one length n; `None` is a missing entity.
        at_us : int
            The instant, microseconds since 1970; not before what the store already knows.

        Returns
        -------
        ndarray of shape (n, k)
            Columns as `feature_columns` names them.

        Raises
        ------
        NotFound
            If it does not hold the view, or not this definition of it.
        SourceError
            If an entity column is missing.
        StoreError
            If the store is gone, damaged or does not answer.
        """
        ...

    def read_values(
        self, specs: Sequence[ViewSpec], entities: Mapping[str, Sequence[Entity]], at_us: int
    ) -> list[dict[str, FeatureValues]]:
        """Give all features of several views by column, also those that are no numbers.

        Parameters and errors are those of `read`, which gives numbers only, and is quicker.

        Returns
        -------
        list of dict
            Of each view by `<view>__<feature>`, an entity each: an array of float64, or a list of texts, of
            float32 vectors, or of lists; None where there is no value.
        """
        ...

    def position(self) -> int | None:
        """Give the position that the writer last set, `None` if it never did."""
        ...

    def standing(self, spec: ViewSpec) -> Standing | None:
        """Tell how far a view is; None if the store does not hold it, or it was loaded by other means."""
        ...

    def views(self) -> list[str]:
        """List the views that the store holds."""
        ...

    def definitions(self) -> dict[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view that the store holds."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def located(url: str, *, root: Path) -> str:
    """Give the URL of a store so that it holds in any folder: a path in it is made absolute.

    Examples
    --------
    >>> located("lmdb:.noria/online", root=Path("/srv/flights"))
    'lmdb:/srv/flights/.noria/online'
    >>> located("redis://cache:6379/0", root=Path("/srv/flights"))
    'redis://cache:6379/0'
    """
    backend, _, where = url.partition(":")
    return url if where.startswith("//") else f"{backend}:{root / where}"


def is_remote(url: str) -> bool:
    """Say whether a store is asked over a connection, which may hang: its URL names a place, not a folder.

    Examples
    --------
    >>> is_remote("redis://cache:6379/0"), is_remote("lmdb:.noria/online"), is_remote(".noria/online")
    (True, False, False)
    """
    _, found, where = url.partition(":")
    return bool(found) and where.startswith("//")


def open_feature_reader(url: str, *, root: Path, timeout_s: float | None = None) -> FeatureReader:
    """Open the store that a URL such as `lmdb:.noria/online` or `redis://cache:6379/0` names, to read.

    Parameters
    ----------
    url : str
        As `[stores] online` has it; a plain path is a folder of LMDB.
    root : Path
        A relative path is below it.
    timeout_s : float or None
        How long a store that is asked over a connection may take for one answer; None: as the URL says.

    Raises
    ------
    ConfigError
        If there is no such backend, or its library is not installed.
    """
    backend, found, where = url.partition(":")
    if not found or "/" in backend:
        backend, where = "lmdb", url
        url = f"lmdb:{url}"
    opener = entry_points(group=_GROUP, name=backend)
    if not opener or not where.strip("/"):
        raise no_backend(url, _GROUP)
    try:
        opened = next(iter(opener)).load()
    except ModuleNotFoundError as err:
        raise no_library(url, err) from err
    if timeout_s is not None and is_remote(url):
        return cast("FeatureReader", opened(url, root=root, timeout_s=timeout_s))
    return cast("FeatureReader", opened(url, root=root))


def no_backend(url: str, group: str) -> ConfigError:
    """Give the error that no backend opens the URL."""
    names = ", ".join(sorted(each.name for each in entry_points(group=group)))
    return ConfigError(
        f"no online store for {url!r}; write <backend>:FOLDER or <backend>://HOST:PORT/DB, with one of: "
        f"{names}"
    )


def no_library(url: str, err: ModuleNotFoundError) -> ConfigError:
    """Give the error that the backend's library is missing."""
    return ConfigError(
        f"the online store {url.partition(':')[0]} needs the package {err.name!r}; install noria[redis]"
    )


def feature_columns(specs: Sequence[ViewSpec]) -> tuple[str, ...]:
    """Name the columns that `FeatureReader.read` gives: the features that are numbers."""
    return tuple(name for spec in specs for name in spec.number_columns)


def entity_column(spec: ViewSpec, entities: Mapping[str, Sequence[Entity]]) -> list[bytes | None]:
    """Give the store's keys of a view's entities."""
    parts = []
    for name in spec.entity:
        if name not in entities:
            raise SourceError(
                f"view {spec.name!r} needs the entity column {name!r}; there is "
                f"{', '.join(map(repr, entities)) or 'none'}"
            )
        parts.append(entities[name])
    if len(parts) == 1:
        return [None if each is None else entity_key(str(each)) for each in parts[0]]
    return [_joined(each) for each in zip(*parts, strict=True)]


def _joined(parts: tuple[Entity, ...]) -> bytes | None:
    texts = [str(part) for part in parts if part is not None]
    if len(texts) < len(parts):
        return None
    return entity_key("".join(f"{len(text.encode('utf-8', 'surrogatepass'))}:{text}" for text in texts))
