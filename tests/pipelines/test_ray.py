"""Steps on a real Ray cluster of two nodes with one CPU each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import psutil
import pytest
from tests.pipelines.conftest import MakeProject
from tests.servers.ray_cluster import (
    SETTINGS,
    RayCluster,
    freeze_node,
    kill_node,
    processes_of,
    ray_cluster,
)

import noria
from noria.errors import ConfigError
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import (
    Done,
    Executor,
    Lost,
    Place,
    Progressed,
    Report,
    Started,
    Work,
    open_executor,
)
from noria.pipelines.trees import Stored, Tree
from noria.pipelines.values.codec import dump
from noria.records import new_id

if find_spec("ray") is None:
    pytest.skip("needs the extra noria[ray]", allow_module_level=True)

from noria.pipelines.backends import ray as backend

__all__ = ["ray_cluster"]

_PATIENCE_S = 60.0

JOBS = """
    import ctypes, os, time
    from pathlib import Path
    import pyarrow as pa
    import noria

    @noria.step
    def table(rows: int) -> pa.Table:
        return pa.table({"n": list(range(rows)), "half": [n / 2 for n in range(rows)]})

    @noria.step
    def part(data: pa.Table, number: int, run: noria.StepRun) -> dict[str, float]:
        import random
        return {"sum": sum(data["half"].to_pylist()[number::4]), "draw": random.random(), "seed": run.seed}

    @noria.step
    def report(parts: list[dict[str, float]], data: pa.Table) -> pa.Table:
        return data.append_column("total", [[sum(each["sum"] for each in parts)] * data.num_rows])

    @noria.pipeline
    def weekly(rows: int = 20_000) -> pa.Table:
        data = table(rows)
        return report(part.map(number=[0, 1, 2, 3])(data), data)

    @noria.step
    def slow(number: int) -> int:
        folder = Path(__file__).parent
        with (folder / "begun").open("a") as file:
            file.write(f"{number}\\n")
        (folder / f"at-{number}").write_text(str(os.getpid()))
        time.sleep(1.5)
        (folder / f"at-{number}").unlink()
        return number

    @noria.pipeline
    def slowly(numbers: list[int]) -> list[int]:
        return slow.map(number=numbers)()

    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def leave(code: int) -> int:
        print("about to leave", flush=True)
        os._exit(code)

    def fail(text: str) -> int:
        raise ArithmeticError(text)

    def odd(number: int) -> object:
        return lambda: number

    def eat(size: int) -> int:
        held = [bytearray(os.urandom(1 << 20)) for _ in range(size >> 20)]
        time.sleep(30)
        return len(held)

    def stuck(seconds: int) -> int:
        return ctypes.PyDLL(None).sleep(seconds)  # holds the interpreter's lock all the time

    def tell(steps: int, run: noria.StepRun) -> int:
        print("telling", flush=True)
        for number in range(steps):
            run.progress(number + 1, steps, "half way" if number + 1 == steps // 2 else "")
            time.sleep(0.7)
        return steps
"""


class Runner:
    """Hands steps to an executor, and keeps what it reports."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor, self._folder = executor, folder
        self.reports: dict[str, list[Report]] = {}

    def begin(
        self, target: str, *, needs: Resources | None = None, timeout_s: float | None = None, **arguments: Any
    ) -> str:
        run = new_id()
        given: dict[str, Tree] = {name: _stored(value, self._folder) for name, value in arguments.items()}
        work = Work(
            run=run, task=f"test/{target}", target=f"jobs:{target}", arguments=given, split=(), seed=1,
            attempt=1, log=str(self.log(run)), timeout_s=timeout_s,
        )  # fmt: skip
        self.reports[run] = []
        self.executor.submit(work, needs or Resources())
        return run

    def log(self, run: str) -> Path:
        return self._folder / f"{run}.log"

    def until(self, run: str, kind: type | tuple[type, ...]) -> Any:
        """Wait for a report of a kind."""
        ends = time.monotonic() + _PATIENCE_S
        while time.monotonic() < ends:
            for each in self.reports[run]:
                if isinstance(each, kind):
                    return each
            for report in self.executor.poll(0.5):
                self.reports[report.run].append(report)
        raise AssertionError(f"{run} reported {self.reports[run]}")

    def end(self, run: str) -> Any:
        return self.until(run, (Done, Lost))


def _stored(value: Any, folder: Path) -> Stored:
    payload = dump(value, scratch=folder, where="a test")
    return Stored(payload.format, payload.sha256, payload.size_bytes, str(value), payload.data)


@pytest.fixture(scope="module")
def nodes(ray_cluster: RayCluster) -> list[int]:
    """Give the nodes beside the head: one, unless a test took it away."""
    return [ray_cluster.add_node()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Give a project of functions to run on their own."""
    root = tmp_path_factory.mktemp("jobs")
    (root / "jobs.py").write_text(dedent(JOBS), encoding="utf-8")
    return Place(
        root=str(root),
        storage=str(root / "storage"),
        scratch=str(root / "scratch"),
        path=(str(root), *sys.path),
    )


@pytest.fixture(scope="module")
def runner(ray_cluster: RayCluster, nodes: list[int], place: Place) -> Iterator[Runner]:
    """Give an executor on the cluster."""
    executor = backend.RayExecutor(place, address=ray_cluster.address, patience_s=2.0)
    yield Runner(executor, Path(place.root))
    executor.close()


def test_a_step_that_leaves_its_process_fails_alone_and_its_log_is_kept(runner: Runner) -> None:
    run, other = runner.begin("leave", code=3), runner.begin("nap", seconds=0.1)
    lost = runner.end(run)
    assert (lost.reason, lost.is_infrastructure) == (
        "its process ended with code 3 in the middle of the step",
        False,
    )
    assert runner.end(other).failure is None
    assert runner.log(run).read_text() == "about to leave\n"


def test_an_error_comes_back_with_its_trace(runner: Runner) -> None:
    failure = runner.end(runner.begin("fail", text="no such sum")).failure
    assert (failure.kind, failure.message) == ("ArithmeticError", "no such sum")
    assert "in fail" in failure.trace


def test_what_cannot_be_kept_fails_the_step(runner: Runner) -> None:
    done = runner.end(runner.begin("odd", number=1))
    assert done.output is None
    assert done.failure.is_final


def test_a_step_that_takes_more_memory_than_it_may_is_ended(runner: Runner) -> None:
    needs = Resources(memory_bytes=150 << 20)
    lost = runner.end(runner.begin("eat", size=600 << 20, needs=needs))
    assert "MiB of memory, allowed are 150 MiB" in lost.reason
    assert not lost.is_infrastructure


def test_a_step_that_holds_the_interpreter_is_ended_after_its_timeout(runner: Runner) -> None:
    began = time.monotonic()
    failure = runner.end(runner.begin("stuck", seconds=60, timeout_s=1.0)).failure
    assert (failure.kind, failure.message) == ("TimeoutError", "it did not end within 1 s")
    assert time.monotonic() - began < 20


def test_waiting_for_a_cpu_takes_nothing_from_the_timeout(runner: Runner) -> None:
    runs = [runner.begin("nap", seconds=1.0, timeout_s=3.5) for _ in range(8)]
    assert [runner.end(run).failure for run in runs] == [None] * 8


def test_progress_is_told(runner: Runner) -> None:
    run = runner.begin("tell", steps=4)
    assert runner.end(run).failure is None
    told = runner.reports[run]
    assert isinstance(told[0], Started)
    notes = [(each.done, each.total, each.note) for each in told[1:] if isinstance(each, Progressed)]
    assert (2.0, 4.0, "half way") in notes


def test_what_is_cancelled_is_lost_for_this_reason_at_work_or_in_the_queue(runner: Runner) -> None:
    at_work = runner.begin("nap", seconds=120.0)
    runner.until(at_work, Started)
    other, queued = runner.begin("nap", seconds=120.0), runner.begin("nap", seconds=120.0)
    began = time.monotonic()
    for run in (at_work, other, queued):
        runner.executor.cancel(run, "enough")
    for run in (at_work, other, queued):
        lost = runner.end(run)
        assert (lost.reason, lost.is_infrastructure) == ("enough", False)
    assert time.monotonic() - began < 10


def test_what_no_node_could_hold_is_given_up(runner: Runner) -> None:
    run = runner.begin("nap", seconds=0.1, needs=Resources(cpus=3.0))
    lost = runner.end(run)
    assert lost.reason.startswith("it wants 3 CPUs, and no node has that (2 nodes of 1 CPUs)")
    assert not lost.is_infrastructure


def test_a_log_comes_along_from_a_node_that_does_not_share_the_folder(
    ray_cluster: RayCluster, place: Place
) -> None:
    executor = backend.RayExecutor(place, address=ray_cluster.address)
    Path(executor._marks[0]).unlink()
    far = Runner(executor, Path(place.root))
    run = far.begin("leave", code=1)
    try:
        assert far.end(run).reason.startswith("its process ended with code 1")
        assert far.log(run).read_text() == "about to leave\n"
    finally:
        executor.close()


def test_the_loss_of_the_cluster_is_survived(runner: Runner) -> None:
    run = runner.begin("nap", seconds=60.0)
    runner.until(run, Started)
    assert isinstance(runner.executor, backend.RayExecutor)
    assert runner.executor._driver is not None
    runner.executor._driver.process.kill()  # as Ray does where the head is gone
    lost = runner.end(run)
    assert lost.is_infrastructure
    assert lost.reason.startswith("the Ray cluster is away")
    assert runner.end(runner.begin("nap", seconds=0.1)).failure is None


def test_digests_are_the_same_everywhere(
    ray_cluster: RayCluster, nodes: list[int], make_project: MakeProject
) -> None:
    with noria.open(make_project({"jobs.py": JOBS})) as project:
        results = [
            project.run_pipeline("weekly", executor=executor, force=["table"])
            for executor in ("inline", "processes", ray_cluster.url)
        ]
    inline, processes, on_ray = (each.outputs for each in results)
    assert inline == processes == on_ray
    assert [each.counts for each in results] == [{"ran": 6}] * 3
    assert len({each.value["total"][0].as_py() for each in results}) == 1


@pytest.mark.parametrize("end_node", [kill_node, freeze_node])
def test_steps_of_a_lost_node_run_again_and_no_others(
    end_node: Callable[[int], None], ray_cluster: RayCluster, nodes: list[int], make_project: MakeProject
) -> None:
    root = make_project({"jobs.py": JOBS})
    if not nodes:
        nodes.append(ray_cluster.add_node())
    with ThreadPoolExecutor(1) as beside, noria.open(root) as project:
        ended = beside.submit(_end_in_midst, end_node, nodes[-1], root)
        result = project.run_pipeline("slowly", {"numbers": list(range(6))}, executor=ray_cluster.url)
        lost = ended.result()
    ray_cluster.forget_node(nodes.pop())
    begun = [int(line) for line in (root / "begun").read_text().split()]
    assert result.value == list(range(6))
    assert sorted(begun) == sorted([*range(6), lost])


def _end_in_midst(end_node: Callable[[int], None], raylet: int, root: Path) -> int:
    """End a node while a step runs on it, after others have finished; give the step's number."""
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        is_midst = (root / "begun").exists() and len((root / "begun").read_text().split()) > 2
        pids = {each.pid for each in processes_of(raylet)} if is_midst else set()
        for each in root.glob("at-*") if is_midst else ():
            try:
                at_work = 0.8 < time.time() - each.stat().st_mtime < 1.2 and int(each.read_text()) in pids
            except (FileNotFoundError, ValueError):
                continue
            if at_work:
                end_node(raylet)
                return int(each.name.removeprefix("at-"))
        time.sleep(0.05)
    raise AssertionError("no step ran on the node")


def test_a_cluster_of_its_own_ends_with_its_executor(place: Place) -> None:
    executor = open_executor("ray", place, workers=1)
    runner = Runner(executor, Path(place.root))
    try:
        with pytest.raises(ConfigError, match="wants 2 CPUs, which this machine's cluster does not have"):
            runner.begin("nap", seconds=1.0, needs=Resources(cpus=2.0))
        assert runner.end(runner.begin("nap", seconds=0.1)).failure is None
        at_work = runner.begin("nap", seconds=100.0)
        runner.until(at_work, Started)
        assert isinstance(executor, backend.RayExecutor)
        assert executor._driver is not None
        started = psutil.Process(executor._driver.process.pid).children(recursive=True)
        listening = [
            each.laddr.ip for every in started for each in every.net_connections() if each.status == "LISTEN"
        ]
    finally:
        executor.close()
    assert len(started) > 4
    assert {each.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    _, alive = psutil.wait_procs(started, timeout=10)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_the_cluster_that_a_process_uses_already_is_used_and_goes_on(
    ray_cluster: RayCluster, place: Place, tmp_path: Path
) -> None:
    program = f"""
        import msgspec, ray
        from noria.pipelines.executor import Place, open_executor

        ray.init(address="{ray_cluster.address}", log_to_driver=False)
        place = msgspec.json.decode({msgspec.json.encode(place)!r}, type=Place)
        executor = open_executor("ray", place)
        executor.close()
        print(executor._address, ray.is_initialized(), ray.get(ray.put(1), timeout=30))
        """
    command, environment = [sys.executable, "-c", dedent(program)], os.environ | SETTINGS
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=90
    )
    assert done.stdout.split() == [ray_cluster.address, "True", "1"], done.stderr


def test_an_absent_cluster_is_told_of_in_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_CONNECT_S", 1.0)
    with pytest.raises(
        ConfigError, match=r"no Ray cluster can be reached at 127\.0\.0\.1:1: it did not answer"
    ):
        open_executor("ray://127.0.0.1:1", place)


@pytest.mark.parametrize("url", ["ray://", "ray:somewhere", "ray://host:port", "ray://host:1/path"])
def test_a_url_that_names_no_cluster_is_refused(url: str, place: Place) -> None:
    with pytest.raises(ConfigError, match="names no Ray cluster"):
        open_executor(url, place)


def test_without_ray_the_extra_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "noria.pipelines.backends.ray")
    with pytest.raises(ConfigError, match=r"needs the package 'ray'; install noria\[ray\]"):
        open_executor("ray", place)
