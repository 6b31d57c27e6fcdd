# mypy: ignore-errors
"""Ray, plain: tasks that sleep, on two local nodes of one CPU each. `run_ray TASKS SECONDS ROUNDS`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory

import ray
from ray.cluster_utils import Cluster

_LOOPBACK = "127.0.0.1"


@contextmanager
def two_nodes() -> Iterator[str]:
    """Start the cluster, beside any other of this machine, and connect to it; give its address."""
    node = {"num_cpus": 1, "node_ip_address": _LOOPBACK}
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets want short paths
        os.environ["RAY_TMPDIR"] = folder
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            cluster.add_node(**node)
            quiet = {"log_to_driver": False, "logging_level": "ERROR"}
            ray.init(address=cluster.address, _node_ip_address=_LOOPBACK, **quiet)
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def nap(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def wall_s(tasks: int, seconds: float) -> float:
    """Give how long the tasks take, with `two_nodes` up."""
    remote = ray.remote(num_cpus=1)(nap)
    started = time.monotonic()
    assert ray.get([remote.remote(each, seconds) for each in range(tasks)]) == list(range(tasks))
    return time.monotonic() - started


def main(tasks: int, seconds: float, rounds: int) -> None:
    with two_nodes():
        wall_s(8, 0.2)  # starts the workers
        walls = [wall_s(tasks, seconds) for _ in range(rounds)]
    print(json.dumps({"version": ray.__version__, "cpu_ms": 0.0, "wall_ms": median(walls) / tasks * 1e3}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
