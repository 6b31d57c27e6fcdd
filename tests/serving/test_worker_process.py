import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.serving.conftest import INPUTS, NOW, Trained, process_is_gone, route, train

from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError, LeaseHeld, PortInUse
from noria.serving.client import InferError
from noria.serving.counts import RouteCounts
from noria.serving.records import (
    ROUTE_FILE,
    STATUS_FILE,
    DeploymentState,
    Input,
    Route,
    Samples,
    ServedModel,
    ServerStatus,
    WorkerConfig,
    read_record,
    write_record,
)
from noria.streams.spool import Spool

Supervise = Callable[..., Supervisor]
HEAVY = (
    "sqlalchemy",
    "duckdb",
    "deltalake",
    "pyarrow",
    "lightgbm",
    "sklearn",
    "pandas",
    "scipy",
    "starlette",
)


def wait_until(what: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_imports_no_engine(first: Trained) -> None:
    code = (
        "import sys, noria.serving.process.worker\n"
        "from noria.serving.formats.booster import Booster\n"
        f"Booster(open({str(first.path)!r}, 'rb').read())\n"
        f"print([each for each in {HEAVY!r} if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_of_serving_is_light() -> None:
    heavy = ("numpy", "lmdb", "uvicorn")
    code = f"import sys, noria.serving; print([each for each in {heavy!r} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_dies_with_its_parent(tmp_path: Path, worker_config: WorkerConfig, first: Trained) -> None:
    folder = tmp_path / "production"
    folder.mkdir()
    (folder / "parent.json").write_bytes(msgspec.json.encode((worker_config, route(1, first.served(1)))))
    code = (
        "import sys, time, msgspec, pathlib\n"
        "from noria.deploy.supervisor import Supervisor\n"
        "from noria.serving.records import Route, WorkerConfig\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "given = (folder / 'parent.json').read_bytes()\n"
        "config, route = msgspec.json.decode(given, type=tuple[WorkerConfig, Route])\n"
        "supervisor = Supervisor(folder, config)\n"
        "supervisor.start(route)\n"
        "print(*supervisor.pids, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert not process_is_gone(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: process_is_gone(worker))


def test_sigterm_ends_a_worker_with_0(supervise: Supervise, first: Trained) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    supervisor.stop()
    assert read_record(supervisor.folder / STATUS_FILE, ServerStatus).workers == ()
    assert "Traceback" not in (supervisor.folder / "worker.log").read_text()
    assert not supervisor.pids
    with pytest.raises(DeploymentError, match="does not run"):
        supervisor.check()


def test_a_port_in_use_is_told(supervise: Supervise, worker_config: WorkerConfig, first: Trained) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        supervisor = supervise(using=msgspec.structs.replace(worker_config, port=port))
        with pytest.raises(PortInUse, match=f"port {port}"):
            supervisor.start(route(1, first.served(1)))
    supervisor.start(route(1, first.served(1)))
    assert supervisor.address.port == port


def test_a_second_worker_of_a_deployment_waits_for_the_first_or_says_so(
    supervise: Supervise, worker_config: WorkerConfig, tmp_path: Path, first: Trained
) -> None:
    supervisor = supervise(using=msgspec.structs.replace(worker_config, lock_wait_s=0.2))
    with (
        Spool(tmp_path / "production" / "late" / "spool"),
        pytest.raises(LeaseHeld, match="deployment 'late'"),
    ):
        supervisor.start(route(1, first.served(1)))
    supervisor.start(route(1, first.served(1)))


def test_a_missing_online_store_is_503_until_it_is_there(
    supervise: Supervise,
    worker_config: WorkerConfig,
    tmp_path: Path,
    online: Path,
    first: Trained,
    second: Trained,
) -> None:
    store = tmp_path / "online"
    supervisor = supervise(using=msgspec.structs.replace(worker_config, online=str(store)))
    supervisor.start(route(1, first.served(1)))
    with supervisor.client() as client:
        with pytest.raises(InferError, match="features cannot be looked up") as caught:
            client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=["a"], at=NOW)
        assert caught.value.status == 503
        shutil.copytree(online, store)
        assert client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=["a"], at=NOW).logged == 0
        shutil.rmtree(store)
        with pytest.raises(InferError, match="features cannot be looked up"):
            client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=["b"], at=NOW)


def test_a_model_without_views_needs_no_online_store(
    supervise: Supervise, worker_config: WorkerConfig, tmp_path: Path
) -> None:
    plain = train(tmp_path / "plain.txt", seed=3, columns=1)
    model = plain.served(1, inputs=[Input(name="distance", kind="number")], views=[])
    supervisor = supervise(using=msgspec.structs.replace(worker_config, online=None, clock="wall"))
    supervisor.start(route(1, model))
    with supervisor.client() as client:
        scores = client.infer("late", {"distance": [1.0, None]}, ids=["a", "b"]).scores
        assert scores == plain.booster.predict(np.array([[1.0], [np.nan]])).tolist()
        with pytest.raises(InferError, match="only where the environment's clock is 'replay'"):
            client.infer("late", {"distance": [1.0]}, ids=["c"], at=NOW)


def changed(model: ServedModel, **fields: object) -> ServedModel:
    return msgspec.structs.replace(model, **fields)


def with_other_score(model: ServedModel) -> ServedModel:
    scores = np.frombuffer(model.samples.scores).copy()
    scores[5] = np.nextafter(scores[5], 1.0)
    return changed(model, samples=Samples(matrix=model.samples.matrix, scores=scores.tobytes()))


REFUSALS: dict[str, tuple[Callable[[ServedModel], ServedModel], str]] = {
    "other bytes": (lambda model: changed(model, digest="0" * 64), "was changed or damaged"),
    "no file": (lambda model: changed(model, path=model.path + ".gone"), "cannot be read"),
    "one bit of a score": (with_other_score, "1 of 16 sample rows get another score .*row 5"),
    "no samples": (lambda model: changed(model, samples=Samples(matrix=b"", scores=b"")), "do not fit"),
    "fewer columns": (
        lambda model: changed(model, inputs=INPUTS[:3]),
        "takes 4 columns, its signature has 3",
    ),
    "no view": (lambda model: changed(model, views=()), "no view of the model gives its features carrier__"),
    "another format": (lambda model: changed(model, format="pmml"), "format 'pmml'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_route_that_does_not_verify_is_refused_and_the_old_one_goes_on(
    case: str, module_supervisor: Supervisor, first: Trained, second: Trained
) -> None:
    change, message = REFUSALS[case]
    both = (first.served(1), second.served(2))
    with pytest.raises(DeploymentError, match=f"route 9 .* is refused, route 1 goes on: .*{message}"):
        module_supervisor.swap(route(9, first.served(1), change(second.served(3))))
    with module_supervisor.client() as client:
        ready = client.get("/v2/models/late_arrival/ready")
        assert ready["ready"] is True
        assert "late_arrival:3" in ready["error"]
        with pytest.raises(InferError, match="late_arrival:3") as caught:
            client.get("/v2/models/late_arrival/versions/3/ready")
        assert caught.value.status == 503
        assert (
            client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=[f"on-{case}"], at=NOW).route == 1
        )
    status = read_record(module_supervisor.folder / STATUS_FILE, ServerStatus).deployments["late"]
    assert (status.route, status.refusal is not None) == (1, True)
    module_supervisor.swap(route(1, *both, weights=[0.8, 0.2]))


def test_a_damaged_model_file_is_refused_at_the_start(
    supervise: Supervise, first: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "cut.txt"
    path.write_bytes(first.path.read_bytes()[:3_000])
    cut = changed(first.served(1), path=str(path), digest=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DeploymentError, match="cut short"):
        supervise().start(route(1, cut))


def deployed(supervisor: Supervisor) -> DeploymentState:
    return supervisor.status().deployments["late"]


def test_a_route_file_put_there_by_hand_is_noticed(
    supervise: Supervise, first: Trained, second: Trained
) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    write_record(supervisor.folder / "late" / ROUTE_FILE, route(2, second.served(2)))
    wait_until(lambda: deployed(supervisor).route == 2)
    (supervisor.folder / "late" / ROUTE_FILE).write_bytes(b"{")
    wait_until(lambda: deployed(supervisor).error is not None)
    assert "does not hold a Route" in (deployed(supervisor).error or "")
    assert deployed(supervisor).route == 2


def test_a_shadow_scores_and_never_answers(supervise: Supervise, first: Trained, second: Trained) -> None:
    supervisor = supervise()
    shadowed = route(1, first.served(1), second.served(2), weights=[1, 1], modes=["answer", "shadow"])
    supervisor.start(shadowed)
    with supervisor.client() as client:
        ids = [f"s-{row}" for row in range(20)]
        answers = client.infer("late", {"carrier": ["AA"] * 20, "distance": [1] * 20}, ids=ids, at=NOW)
        assert set(answers.versions) == {1}
        wait_until(lambda: "late_arrival:2" in supervisor.counts("late").releases)
        rows = {line for line in metrics(client) if line.startswith("noria_scored_rows_total")}
    assert any('release="late_arrival:2"' in line and line.endswith(" 20.0") for line in rows)


def test_counts_of_a_route_that_answers_again_begin_anew(
    supervise: Supervise, first: Trained, second: Trained
) -> None:
    """A trial of the same releases is the same route: what an ended worker counted in the former is over."""
    supervisor = supervise()
    alone = route(1, first.served(1))
    tried = route(3, first.served(1), second.served(2), weights=[1, 1], modes=["answer", "shadow"])
    supervisor.start(tried)
    with supervisor.client() as client:
        client.infer("late", {"carrier": ["AA"], "distance": [1]}, at=NOW)
    wait_until(lambda: "late_arrival:2" in supervisor.counts("late").releases)
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: supervisor.pids not in ((), (pid,)) and deployed(supervisor).route == 3)
    assert supervisor.counts("late").of("late_arrival:1").requests == 1  # what it had told stays
    supervisor.swap(alone)
    assert supervisor.counts("late").route == 1
    supervisor.swap(tried)
    assert supervisor.counts("late") == RouteCounts(route=3)


def metrics(client: object) -> list[str]:
    import http.client

    from noria.serving.client import ServingClient

    assert isinstance(client, ServingClient)
    connection = http.client.HTTPConnection(client.host, client.port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return lines


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("unknown", "whose model it does not hold"),
        ("silent", "no release of the route answers"),
        ("negative", "negative or no number"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused(
    entries: str, message: str, module_supervisor: Supervisor, first: Trained
) -> None:
    wrong: dict[str, Route] = {
        "unknown": msgspec.structs.replace(route(8, first.served(1)), models=()),
        "silent": route(8, first.served(1), weights=[0.0]),
        "negative": route(8, first.served(1), weights=[-1.0]),
    }
    with pytest.raises(DeploymentError, match=message):
        module_supervisor.swap(wrong[entries])


def test_a_stuck_worker_is_ended(supervise: Supervise, first: Trained) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGSTOP)
    supervisor.stop(within_s=0.3)
    assert process_is_gone(pid)
