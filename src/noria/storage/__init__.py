"""Bytes by their digest: in a local folder, or in an object store."""

from noria.storage.contract import Storage
from noria.storage.opening import open_storage

__all__ = ["Storage", "open_storage"]
