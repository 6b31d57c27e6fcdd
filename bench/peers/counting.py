"""What a step costs, by difference: wall, and CPU of a process with all below it. Standard library alone."""

import json
import os
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

__all__ = ["cpu_of_tree", "per_step", "tell"]

_TICKS = os.sysconf("SC_CLK_TCK")


def tell(
    distribution: str, run: Callable[[int], object], *, few: int, many: int, is_served: bool = False
) -> None:
    """Print, as `bench.peers.environments.Taken`, what a step costs the peer that is installed here."""
    cpu_ms, wall_ms = per_step(run, few=few, many=many, is_served=is_served)
    print(json.dumps({"version": version(distribution), "cpu_ms": cpu_ms, "wall_ms": wall_ms}))


def per_step(
    run: Callable[[int], object], *, few: int, many: int, rounds: int = 3, is_served: bool = False
) -> tuple[float, float]:
    """Give the milliseconds of CPU and of the wall that one more step costs: the median over `rounds`.

    Parameters
    ----------
    run
        Is told how many steps to run: `few` and `many` in turns. The difference leaves out what a run costs.
    is_served
        Whether a server goes on writing records after the answer; the CPU until it is quiet counts.
    """
    _taken(run, few, is_served)  # warms up
    taken = [(_taken(run, few, is_served), _taken(run, many, is_served)) for _ in range(rounds)]
    cpu, wall = (
        median((more[which] - less[which]) / (many - few) * 1e3 for less, more in taken) for which in (0, 1)
    )
    return cpu, wall


def _taken(run: Callable[[int], object], steps: int, is_served: bool) -> tuple[float, float]:
    cpu, wall = cpu_of_tree(), time.monotonic()
    run(steps)
    wall = time.monotonic() - wall
    if is_served:
        _wait_until_quiet()
    return cpu_of_tree() - cpu, wall


def _wait_until_quiet(*, window_s: float = 1.5, busy: float = 0.15, windows: int = 60) -> None:
    for _ in range(windows):
        before = cpu_of_tree()
        time.sleep(window_s)
        if cpu_of_tree() - before < busy * window_s:
            return


def cpu_of_tree() -> float:
    """Give the CPU seconds of this process, of its children that ended, and of all that live below it."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_below, _children(os.getpid())))


def _below(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it ended meanwhile, and is counted as such next time
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(_below, _children(pid)))


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
