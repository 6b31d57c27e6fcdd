"""Models rest where a worker needs more memory than it may, or is asked to let go of them."""

import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from noria.deploy.supervisor import Supervisor
from noria.serving.client import ServingClient
from noria.serving.records import Limits, Route, Samples, ServedModel, WorkerConfig

MakeRoute = Callable[..., Route]
NAMES = ("first", "second", "third")
ROW = {"x": [0.5], "y": [-1.0]}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, served_model: ServedModel) -> ServedModel:
    """Give a model of one large tree, two hundred times."""
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(3_000, 2))
    params = {"num_leaves": 1_500, "min_data_in_leaf": 1, "num_threads": 1, "verbosity": -1}
    data = lgb.Dataset(matrix, rng.normal(size=3_000), params={"verbosity": -1})
    head, rest = lgb.train(params, data, 1).model_to_string().split("\n\nTree=0\n")
    tree, tail = rest.split("\n\n\nend of trees")
    trees = [f"Tree={number}\n{tree}\n\n\n" for number in range(200)]
    head = re.sub("tree_sizes=.*", f"tree_sizes={' '.join(str(len(each)) for each in trees)}", head)
    path = tmp_path_factory.mktemp("models") / "large.txt"
    path.write_text(f"{head}\n\n{''.join(trees)}end of trees{tail}")
    scores = np.asarray(lgb.Booster(model_file=path).predict(matrix[:8], num_threads=1))
    return msgspec.structs.replace(
        served_model,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        samples=Samples(matrix=matrix[:8].tobytes(), scores=scores.tobytes()),
    )


def files_of(model: ServedModel) -> dict[str, object]:
    return {"digest": model.digest, "path": model.path, "samples": model.samples}


def own_mb(server: Supervisor) -> float:
    (pid,) = server.pids
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1_024


@pytest.fixture(scope="module")
def memory_mb(tmp_path_factory: pytest.TempPathFactory, make_route: MakeRoute, large: ServedModel) -> int:
    """Give what two large models need, and a part of a third."""
    config = WorkerConfig(environment="production", memory_mb=10_000)
    with Supervisor(tmp_path_factory.mktemp("measured"), config) as measured:
        measured.start(make_route(1))
        base = own_mb(measured)
        measured.swap(make_route(1, "large", **files_of(large)))
        post(measured, "/v2/repository/models/late/unload")  # freed memory is given back
        return round(base + 2.6 * (own_mb(measured) - base))


@pytest.fixture
def server(tmp_path: Path, make_route: MakeRoute, large: ServedModel, memory_mb: int) -> Iterator[Supervisor]:
    config = WorkerConfig(environment="production", memory_mb=memory_mb)
    with Supervisor(tmp_path / "production", config) as supervisor:
        supervisor.start(*(make_route(1, name, **files_of(large)) for name in NAMES))
        yield supervisor


def resting(server: Supervisor) -> list[str]:
    return [name for name, state in server.status().deployments.items() if state.is_resting]


def post(server: Supervisor, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=20)
    connection.request("POST", path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def score(client: ServingClient, name: str) -> float:
    (found,) = client.infer(name, ROW).scores
    assert found is not None
    return found


def test_what_was_used_the_longest_ago_rests_and_answers_when_asked(server: Supervisor) -> None:
    assert resting(server) == [NAMES[0]]
    with server.client() as client:
        found = {name: score(client, name) for name in NAMES}
        assert len(set(found.values())) == 1
        assert NAMES[2] not in resting(server)
        assert score(client, NAMES[0]) == found[NAMES[0]]
        assert NAMES[0] not in resting(server)
        assert NAMES[1] in resting(server)
        assert {each.state for each in server.status().deployments.values()} == {"ready"}


def test_requests_that_come_while_models_are_loaded_are_all_answered(server: Supervisor) -> None:
    name = resting(server)[0]

    def ask(_: int) -> float:
        with server.client() as client:
            return score(client, name)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(24)))) == 1


def test_a_client_unloads_and_loads(tmp_path: Path, make_route: MakeRoute) -> None:
    with Supervisor(tmp_path / "production", WorkerConfig(environment="production")) as supervisor:
        supervisor.start(make_route(1), make_route(2, "other"))
        for _ in range(2):
            assert post(supervisor, "/v2/repository/models/late/unload")[0] == 200
        assert resting(supervisor) == ["late"]
        entries = json.loads(post(supervisor, "/v2/repository/index")[1])
        assert {(each["name"], each["state"], each["reason"]) for each in entries} == {
            ("late", "READY", "not in memory: the next request loads it"),
            ("other", "READY", ""),
        }
        with supervisor.client() as client:
            assert client.infer("late", ROW, ids=["a"]).versions == [1]
            assert resting(supervisor) == []
            post(supervisor, "/v2/repository/models/late/unload")
            assert post(supervisor, "/v2/repository/models/late/load")[0] == 200
            assert resting(supervisor) == []
            post(supervisor, "/v2/repository/models/late/unload")
            supervisor.swap(make_route(3))
            assert resting(supervisor) == []
            assert client.infer("late", ROW, ids=["b"]).versions == [3]
            assert client.infer("late", ROW, ids=["a"]).versions == [1]  # as it was answered
        assert post(supervisor, "/v2/repository/models/none/unload")[0] == 404


def test_models_that_cannot_be_loaded_again_are_told(
    tmp_path: Path, make_route: MakeRoute, served_model: ServedModel
) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(Path(served_model.path).read_bytes())
    with Supervisor(tmp_path / "production", WorkerConfig(environment="production")) as supervisor:
        supervisor.start(make_route(1, path=str(copy)))
        post(supervisor, "/v2/repository/models/late/unload")
        kept = copy.read_bytes()
        copy.write_bytes(b"damaged")
        status, body = post(supervisor, "/v2/repository/models/late/load")
        assert status == 503
        assert b"changed or damaged" in body
        assert supervisor.status().deployments["late"].state == "refused"
        copy.write_bytes(kept)
        with supervisor.client() as client:
            assert client.infer("late", ROW).versions == [1]
        assert supervisor.status().deployments["late"].state == "ready"


def test_a_model_that_takes_too_long_to_load_refuses_and_answers_later(
    tmp_path: Path, make_route: MakeRoute, large: ServedModel
) -> None:
    limits = Limits(request_timeout_s=0.02)
    with Supervisor(tmp_path / "production", WorkerConfig(environment="production", limits=limits)) as server:
        server.start(make_route(1, **files_of(large)))
        post(server, "/v2/repository/models/late/unload")
        body = json.dumps({"inputs": ROW_TENSORS})
        connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=20)
        statuses: list[int] = []
        while not statuses or statuses[-1] != 200:
            connection.request("POST", "/v2/models/late/infer", body)
            response = connection.getresponse()
            assert b"could not be loaded in time" in response.read() or response.status == 200
            statuses.append(response.status)
            time.sleep(0.01)
        connection.close()
        assert statuses[0] == 503


ROW_TENSORS = [
    {"name": name, "datatype": "FP64", "shape": [1], "data": values} for name, values in ROW.items()
]
