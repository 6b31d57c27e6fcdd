"""LMDB and Redis pass the contract suite that ships."""

from pathlib import Path
from typing import Any

import pytest
from tests.servers.redis import redis_server, redis_url

from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.online import OnlineStore
from noria.testing.online_store import OnlineStoreContract

__all__ = ["redis_server", "redis_url"]


class TestLmdbOnlineStore(OnlineStoreContract):
    def open_store(self, location: Path, *, readonly: bool = False, anew: bool = False) -> OnlineStore:
        return LmdbOnlineStore(location, readonly=readonly, anew=anew, map_size=1 << 20)


class TestRedisOnlineStore(OnlineStoreContract):
    @pytest.fixture
    def location(self, redis_url: str) -> Any:
        return redis_url

    def open_store(self, location: str, *, readonly: bool = False, anew: bool = False) -> OnlineStore:
        from noria.features.backends.redis import RedisOnlineStore

        return RedisOnlineStore(location, readonly=readonly, anew=anew)
