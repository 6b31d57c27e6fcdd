"""From the URL in the settings to an opened storage."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from noria.errors import ConfigError
from noria.storage.contract import Storage
from noria.storage.local import LocalStorage

__all__ = ["open_storage"]

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})


def open_storage(url: str, *, options: Mapping[str, str] | None = None, cache: Path | None = None) -> Storage:
    """Open the storage that a URL names.

    Parameters
    ----------
    url
        A path or `file://` URL of a local folder (made if it is not there), or `s3://BUCKET/PREFIX`,
        `gs://…`, `az://…`.
    options
        For object stores: settings such as `{"endpoint": …, "region": …, "allow_http": "true"}`, beside
        those that the environment gives.
    cache
        For object stores: the local folder that keeps fetched blobs; None: a temporary one.

    Raises
    ------
    ConfigError
        If the URL names no kind of storage that noria knows, or an option is unknown.
    StoreError
        If the folder cannot be made or written.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    if parts.scheme in _OBJECT_STORES:
        from noria.storage.objects import ObjectStorage

        return ObjectStorage.open(url, options=options or {}, cache=cache)
    if "://" in url:
        known = ", ".join(sorted(f"{scheme}://" for scheme in _OBJECT_STORES))
        raise ConfigError(f"storage {url!r} is of no known kind; give a folder, file:// or one of {known}")
    return LocalStorage(Path(url))
