"""A worker whose online store hangs, trickles or is gone: a real Redis behind a connection of ours."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, own_redis
from tests.serving.conftest import NOW, VIEW, Trained, landed, route, train

from noria.clock import format_instant
from noria.deploy.shipping import prediction_table
from noria.deploy.supervisor import Address, Supervisor
from noria.serving.logs.log import decode_frame
from noria.serving.records import Input, Limits, Route, RouteEntry, WorkerConfig
from noria.streams.spool import read_spool

__all__ = ["own_redis"]

Supervise = Callable[..., Supervisor]
_DEADLINE_S = 0.2
_ROW = {"carrier": "AA", "distance": 500, "at": format_instant(NOW)}


class Asked:
    """A worker with a deployment that needs features and one that needs none."""

    def __init__(self, supervisor: Supervisor, address: Address) -> None:
        self.supervisor, self._address = supervisor, address

    def predict(self, row: dict[str, Any] = _ROW, name: str = "late") -> tuple[int, dict[str, Any], float]:
        """Give status, answer and seconds."""
        status, body, _, took_s = self.ask(f"models/{name}/predict", row)
        return status, body, took_s

    def ask(self, path: str, body: object) -> tuple[int, Any, dict[str, str], float]:
        request = urllib.request.Request(
            f"{self._address}/{path}", orjson.dumps(body), {"Content-Type": "application/json"}
        )
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                found, status, headers = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as err:
            found, status, headers = err.read(), err.code, err.headers
        took_s = time.perf_counter() - began
        return status, orjson.loads(found), {k.lower(): v for k, v in headers.items()}, took_s

    def defaulted_rows(self) -> float:
        """Give what the metrics count of the view."""
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        wanted = 'noria_defaulted_rows_total{deployment="late",environment="production",view="carrier"} '
        return next((float(each.removeprefix(wanted)) for each in lines if each.startswith(wanted)), 0.0)


@pytest.fixture
def proxy(own_redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(own_redis.port) as between:
        yield between


@pytest.fixture
def serve(
    supervise: Supervise, worker_config: WorkerConfig, proxy: Proxy, own_redis: RedisServer, first: Trained,
    tmp_path: Path,
) -> Callable[..., Asked]:  # fmt: skip
    from noria.features.backends.redis import RedisOnlineStore

    def make(**how: Any) -> Asked:
        with RedisOnlineStore(own_redis.url) as store:
            store.load(VIEW, landed())
        config = msgspec.structs.replace(
            worker_config,
            online=f"redis://127.0.0.1:{proxy.port}/0?pause_ms=1",
            limits=Limits(features_timeout_s=_DEADLINE_S),
            **how,
        )
        plain = train(tmp_path / "plain.txt", seed=3, columns=1)
        model = plain.served(1, inputs=[Input(name="distance", kind="number")], views=[])
        other = Route(
            environment="production", deployment="plain", number=1, id="plain-1",
            entries=(RouteEntry(release=model.release),), models=(model,),
        )  # fmt: skip
        supervisor = supervise(using=config)
        return Asked(supervisor, supervisor.start(route(1, first.served(1)), other))

    return make


def settled(asked: Asked) -> dict[str, Any]:
    """Ask until the store answers again."""
    until = time.monotonic() + 10
    while True:
        status, body, _ = asked.predict()
        if status == 200 and "defaulted" not in body:
            return body
        assert time.monotonic() < until, body
        time.sleep(0.05)


def test_a_store_that_hangs_costs_its_deadline_holds_up_nobody_else_and_is_soon_left_alone(
    serve: Callable[..., Asked], proxy: Proxy
) -> None:
    asked = serve()
    wanted = settled(asked)["score"]
    proxy.does = "hang"
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(asked.predict)
        others = []
        while not waiting.done():
            others.append(asked.predict({"distance": 1, "at": _ROW["at"]}, "plain"))
        status, body, took_s = waiting.result()
    assert (status, body) == (
        503, {"error": "features cannot be looked up now; the server's log says why"}
    )  # fmt: skip
    assert _DEADLINE_S * 0.9 < took_s < _DEADLINE_S + 0.5
    assert {status for status, *_ in others} == {200}
    assert min(took_s for *_, took_s in others) < _DEADLINE_S / 2
    assert len(others) > 2  # the loop answered meanwhile
    costs = [asked.predict() for _ in range(12)]
    assert {status for status, *_ in costs} == {503}
    assert sorted(took_s for *_, took_s in costs)[6] < 0.1  # most are told at once
    proxy.does = "pass"
    assert settled(asked)["score"] == wanted


def test_an_answer_that_trickles_is_waited_for_no_longer(serve: Callable[..., Asked], proxy: Proxy) -> None:
    asked = serve()
    wanted = settled(asked)["score"]
    proxy.does = "trickle"  # each byte within the time-out of the socket
    status, _, took_s = asked.predict()
    assert status == 503
    assert took_s < _DEADLINE_S + 0.5
    proxy.does = "pass"
    assert settled(asked)["score"] == wanted


def test_with_defaults_an_answer_is_given_told_counted_and_logged_as_such(
    serve: Callable[..., Asked], own_redis: RedisServer
) -> None:
    asked = serve(features="fallback")
    wanted = settled(asked)["score"]
    before = asked.defaulted_rows()
    own_redis.kill()
    status, body, _ = asked.predict()
    assert (status, body["defaulted"]) == (200, ["carrier"])
    assert asked.predict({"rows": [{"carrier": "AA", "distance": 1}] * 2, "at": _ROW["at"]})[1][
        "defaulted"
    ] == {"carrier": 2}
    tensors = [
        {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["AA"]},
        {"name": "distance", "datatype": "FP64", "shape": [1], "data": [1.0]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": ["made-up"]},
    ]
    request = {"inputs": tensors, "parameters": {"at": _ROW["at"]}}
    assert asked.ask("v2/models/late/infer", request)[1]["parameters"]["defaulted"] == "carrier=1"
    again = asked.ask("v2/models/late/infer", request)[1]
    assert "defaulted" not in again["parameters"]  # it is the answer that was given before
    assert asked.defaulted_rows() == before + 4
    own_redis.start()
    assert settled(asked)["score"] == wanted
    frames = [decode_frame(each) for _, each in read_spool(asked.supervisor.folder / "late" / "spool")]
    rows = prediction_table(frames).to_pylist()
    told = {row["prediction_id"]: row["fallbacks"] for row in rows}
    assert told["made-up"] == ["carrier"]
    assert sum(map(len, filter(None, told.values()))) >= 4


def test_the_protocols_of_mlflow_and_kserve_tell_it_in_headers(
    serve: Callable[..., Asked], own_redis: RedisServer
) -> None:
    asked = serve(features="fallback", clock="wall")
    rows = [{"carrier": "AA", "distance": 1}]
    requests: dict[str, object] = {
        "invocations?model=late": {"dataframe_records": rows},
        "v1/models/late:predict": {"instances": rows},
    }
    until = time.monotonic() + 10
    while any("x-noria-defaulted" in asked.ask(path, body)[2] for path, body in requests.items()):
        assert time.monotonic() < until
    own_redis.kill()
    for path, body in requests.items():
        status, _, headers, _ = asked.ask(path, body)
        assert (status, headers["x-noria-defaulted"]) == (200, "carrier=1")
