"""What becomes of a step that was killed: alone, or as the first process of a node that goes down.

Ray's control store does not know at once. It asks each node again and again, and takes it for dead after so
many answers that did not come; a node that was killed is found by its closed connections, mostly. So the node
is asked itself, by a task that has to run there: an answer is proof that it goes on, and comes within
milliseconds. A node that gives none is dead by the time that the control store says so, or else alive.
"""

import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
from ray._raylet import Config  # type: ignore[attr-defined]  # what the cluster was started with
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RaySystemError,
    RpcError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noria.pipelines.backends.ray_worker import answer
from noria.pipelines.executor import Lost

__all__ = ["NODE_IS_GONE", "Doubt", "ask", "gone", "is_doubtful", "silence_s"]

NODE_IS_GONE = (NodeDiedError, WorkerCrashedError, ObjectLostError, RaySystemError, RpcError)
# What others send. By any other signal a process ends for what it does itself.
_SENT = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
_ANSWER = ray.remote(answer)
_SLACK_S = 5.0  # for a control store that has much to do


@dataclass(slots=True)
class Doubt:
    """The end of an attempt that is held back until it is known whether its node goes on."""

    lost: Lost  # what is told if it does
    asks_at: float
    ends_at: float  # by then the control store knows of a node that fell silent
    task: Any = None  # Ray's reference, once it was asked


def is_doubtful(report: object) -> bool:
    """Tell whether an attempt ended by what a node that goes down does to its processes, too."""
    return isinstance(report, Lost) and report.signal in _SENT


def silence_s() -> float:
    """Give how long a node is silent, at most, before its cluster takes it for dead: by default 65 s."""
    period_s, timeout_s = Config.health_check_period_ms() / 1e3, Config.health_check_timeout_ms() / 1e3
    return float(Config.health_check_failure_threshold() * (period_s + timeout_s) + _SLACK_S)


def ask(node: str, then: Callable[[BaseException | None], None]) -> Any:
    """Have a node do something, without waiting for it; what comes of it is told in another thread."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = _ANSWER.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
    future: Future[None] = task.future()
    future.add_done_callback(lambda result: then(result.exception()))
    return task


def gone(error: BaseException | None) -> bool:
    """Tell whether a node that was asked is gone."""
    return isinstance(error, (*NODE_IS_GONE, TaskUnschedulableError))
