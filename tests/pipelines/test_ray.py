"""Steps on a real Ray cluster of two nodes with one CPU each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import msgspec
import psutil
import pytest
from tests.pipelines.conftest import MakeProject
from tests.pipelines.ray_jobs import JOBS, PATIENCE_S, Runner
from tests.servers.ray_cluster import (
    SETTINGS,
    RayCluster,
    freeze_node,
    kill_node,
    ray_cluster,
    steps_of,
)

import noria
from noria.errors import ConfigError
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Place, Progressed, Started, open_executor

if find_spec("ray") is None:
    pytest.skip("needs the extra noria[ray]", allow_module_level=True)

from noria.pipelines.backends import ray as backend

__all__ = ["ray_cluster"]

_TOLD_S = 3.0  # by then the executor knows where a step is at work


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


@pytest.fixture
def node(ray_cluster: RayCluster, nodes: list[int]) -> Iterator[int]:
    """Give a node that the test takes away."""
    if not nodes:
        nodes.append(ray_cluster.add_node())
    yield nodes[-1]
    ray_cluster.forget_node(nodes.pop())


def _kill_a_step(raylet: int) -> None:
    steps_of(raylet)[0].kill()


def _kill_steps_first(raylet: int) -> None:
    """Let a node go down as one that is shut down: a step ends, it is told of, and then the rest ends."""
    _kill_a_step(raylet)
    time.sleep(0.5)
    kill_node(raylet)


def _kill_raylet(raylet: int) -> None:
    psutil.Process(raylet).kill()


@pytest.mark.parametrize(
    ("end_node", "after"),
    [
        (kill_node, 3),
        (freeze_node, 3),
        (_kill_steps_first, 6),  # when none waits that would take the killed one's place
    ],
)
def test_steps_of_a_lost_node_run_again_and_no_others(
    end_node: Callable[[int], None], after: int, ray_cluster: RayCluster, node: int, make_project: MakeProject
) -> None:
    root = make_project({"jobs.py": JOBS})
    with ThreadPoolExecutor(1) as beside, noria.open(root) as project:
        ended = beside.submit(_end_in_midst, end_node, node, root, after)
        result = project.run_pipeline("slowly", {"numbers": list(range(6))}, executor=ray_cluster.url)
        lost = ended.result()
    begun = [int(line) for line in (root / "begun").read_text().split()]
    assert result.value == list(range(6))
    assert sorted(begun) == sorted([*range(6), lost])


def _end_in_midst(end_node: Callable[[int], None], raylet: int, root: Path, after: int) -> int:
    """End a node while it holds a step, once as many have begun; give the step's number."""
    ends = time.monotonic() + PATIENCE_S
    hold = root / "hold"
    try:
        while time.monotonic() < ends:
            time.sleep(0.05)
            if not hold.exists() and _count_begun(root) >= after:
                hold.touch()
            pids = {each.pid for each in steps_of(raylet)} if hold.exists() else set()
            for each in root.glob("held-*") if pids else ():
                if int(each.read_text() or 0) in pids:
                    time.sleep(_TOLD_S)
                    end_node(raylet)
                    return int(each.name.removeprefix("held-"))
        raise AssertionError(f"no step ran on the node; {_count_begun(root)} had begun")
    finally:
        hold.unlink(missing_ok=True)


def _count_begun(root: Path) -> int:
    begun = root / "begun"
    return len(begun.read_text().split()) if begun.exists() else 0


@contextmanager
def _two_at_work(cluster: RayCluster, place: Place, settle_s: float = 2.0) -> Iterator[Runner]:
    """Give an executor that runs a step on each of two nodes."""
    executor = backend.RayExecutor(place, address=cluster.address, settle_s=settle_s)
    try:
        runner = Runner(executor, Path(place.root))
        for run in [runner.begin("nap", seconds=300.0) for _ in range(2)]:
            runner.until(run, Started)
            runner.until_begun(run)
        yield runner
    finally:
        executor.close()


@pytest.mark.parametrize("end_node", [kill_node, freeze_node, _kill_raylet])
def test_a_step_that_is_killed_before_its_node_goes_away_is_lost_with_it(
    end_node: Callable[[int], None], ray_cluster: RayCluster, node: int, place: Place
) -> None:
    with _two_at_work(ray_cluster, place, settle_s=10.0) as runner:
        _kill_a_step(node)
        assert runner.ended_within(2.0) == []
        end_node(node)
        lost = runner.next_end()
    assert (lost.is_infrastructure, lost.reason[:18]) == (True, "its node went away")


def test_a_step_that_is_killed_on_a_node_that_goes_on_has_crashed(
    ray_cluster: RayCluster, node: int, place: Place
) -> None:
    with _two_at_work(ray_cluster, place) as runner:
        began = time.monotonic()
        _kill_a_step(node)
        lost = runner.next_end()
        assert time.monotonic() - began < 15
        assert runner.ended_within(1.0) == []
    told = "its process was ended by SIGKILL (the machine may have run out of memory)"
    assert (lost.reason, lost.is_infrastructure) == (told, False)


def test_a_step_that_crashes_by_itself_has_at_once(ray_cluster: RayCluster, place: Place) -> None:
    executor = backend.RayExecutor(place, address=ray_cluster.address, settle_s=2 * PATIENCE_S)
    try:
        runner = Runner(executor, Path(place.root))
        lost = runner.end(runner.begin("abort"))  # sooner than any node is asked
    finally:
        executor.close()
    assert (lost.reason, lost.is_infrastructure) == ("its process was ended by SIGABRT", False)


def test_a_killed_step_whose_end_is_held_back_can_be_cancelled(
    ray_cluster: RayCluster, node: int, place: Place
) -> None:
    with _two_at_work(ray_cluster, place, settle_s=2 * PATIENCE_S) as runner:
        _kill_a_step(node)
        assert runner.ended_within(2.0) == []
        for run in runner.reports:
            runner.executor.cancel(run, "enough")
        assert [runner.end(run).reason for run in runner.reports] == ["enough"] * 2


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
