"""A worker that reads its features from a shared Redis."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.servers.redis import RedisServer, own_redis
from tests.serving.conftest import NOW, VIEW, Trained, landed, route

from noria.deploy.supervisor import Supervisor
from noria.serving.client import InferError
from noria.serving.records import WorkerConfig

__all__ = ["own_redis"]

Supervise = Callable[..., Supervisor]


def test_a_worker_answers_from_redis_as_from_a_folder_and_is_503_while_it_is_away(
    supervise: Supervise, worker_config: WorkerConfig, own_redis: RedisServer, first: Trained, tmp_path: Path
) -> None:
    from noria.features.backends.redis import RedisOnlineStore

    asked: dict[str, list[object]] = {"carrier": ["AA", "zz", None], "distance": [1, 2, 3]}
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    with supervisor.client() as client:
        wanted = client.infer("late", asked, ids=["a", "b", "c"], at=NOW).scores
    url = f"{own_redis.url}?timeout_ms=500&pause_ms=50"
    shared = supervise(using=msgspec.structs.replace(worker_config, online=url), folder=tmp_path / "shared")
    shared.start(route(1, first.served(1)))
    with shared.client() as client:
        with pytest.raises(InferError, match="features cannot be looked up") as caught:
            client.infer("late", asked, ids=["a", "b", "c"], at=NOW)
        assert caught.value.status == 503
        with RedisOnlineStore(url) as store:
            store.load(VIEW, landed())
        assert client.infer("late", asked, ids=["a", "b", "c"], at=NOW).scores == wanted
        own_redis.kill()
        with pytest.raises(InferError, match="features cannot be looked up") as caught:
            client.infer("late", asked, ids=["d", "e", "f"], at=NOW)
        assert caught.value.status == 503
        own_redis.start()
        time.sleep(0.1)
        assert client.infer("late", asked, ids=["g", "h", "i"], at=NOW).scores == wanted
