"""A real Ray cluster for tests: several nodes on this machine, listening at the loopback address alone.

Ray lives in a process of its own, which does what it is told line by line. A test module imports the fixture.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

SETTINGS = {  # of every process that uses the cluster through Ray
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every server listens at the loopback address
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_HEALTH = {  # a node that does not answer is dead within some seconds
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 4,
}
_PATIENCE_S = 90.0


class RayCluster:
    """A head with one CPU, and nodes of one CPU that come and go."""

    def __init__(self, folder: Path) -> None:
        self._files = Path(tempfile.mkdtemp(prefix="noria-ray-"))  # paths of sockets must be short
        with (folder / "cluster.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | SETTINGS | {"RAY_TMPDIR": str(self._files)},
                start_new_session=True,
            )
        self.address = str(self._ask("start"))

    @property
    def url(self) -> str:
        """The executor's URL."""
        return f"ray://{self.address}"

    def add_node(self) -> int:
        """Start a node; give the process that stands for it."""
        return int(self._ask("add"))

    def forget_node(self, raylet: int) -> None:
        """End what is left of a node."""
        for each in processes_of(raylet):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                each.kill()
        self._ask(f"forget {raylet}")

    def close(self) -> None:
        """End it all."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(_PATIENCE_S)
        finally:
            self._server.kill()
            self._server.wait()
            self._server.stdout.close()
            shutil.rmtree(self._files, ignore_errors=True)

    def _ask(self, command: str) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{command}\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def processes_of(raylet: int) -> list[psutil.Process]:
    """Give the processes of a node, steps that run on it first."""
    try:
        node = psutil.Process(raylet)
        return [*reversed(node.children(recursive=True)), node]
    except psutil.NoSuchProcess:
        return []


def steps_of(raylet: int) -> list[psutil.Process]:
    """Give the processes of a node that run steps."""
    return [each for each in processes_of(raylet) if _runs_steps(each)]


def _runs_steps(process: psutil.Process) -> bool:
    try:
        return any("noria.pipelines.worker" in each for each in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def kill_node(raylet: int) -> None:
    """Let a node go down as if its power had failed: none of its processes sees another one end."""
    freeze_node(raylet)
    for each in processes_of(raylet):
        with suppress(psutil.NoSuchProcess):
            each.kill()


def freeze_node(raylet: int) -> None:
    """Let a node go silent, as behind a cut cable: its connections stay open."""
    for each in reversed(processes_of(raylet)):  # what could start others, or watches them, first
        with suppress(psutil.NoSuchProcess):
            each.suspend()


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Give a cluster; its head has one CPU, and there is no other node yet."""
    cluster = RayCluster(tmp_path_factory.mktemp("ray"))
    try:
        yield cluster
    finally:
        cluster.close()


def _serve() -> None:
    """Do what the lines of the standard input say; answer each with a line of JSON."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = Cluster()
    nodes: dict[int, Any] = {}
    for line in sys.stdin:
        command, *arguments = line.split()
        answer: object = None
        if command == "start":
            cluster.add_node(
                num_cpus=1, include_dashboard=False, no_monitor=True, include_log_monitor=False,
                _system_config=_HEALTH,
            )  # fmt: skip
            answer = cluster.address
        elif command == "add":
            node = cluster.add_node(num_cpus=1)
            raylet: int = node.all_processes["raylet"][0].process.pid
            answer, nodes[raylet] = raylet, node
        elif command == "forget":
            cluster.remove_node(nodes.pop(int(arguments[0])), allow_graceful=False)
        print(json.dumps(answer), file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
