"""LMDB passes the contract suite that ships."""

from pathlib import Path

from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.online import OnlineStore
from noria.testing.online_store import OnlineStoreContract


class TestLmdbOnlineStore(OnlineStoreContract):
    def open_store(self, location: Path, *, readonly: bool = False) -> OnlineStore:
        return LmdbOnlineStore(location, readonly=readonly, map_size=1 << 20)
