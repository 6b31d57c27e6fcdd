"""CPU seconds, medians of several runs; ours and the floor take turns, so that both see the same machine."""

import gc
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["Line", "cpu_of_process", "cpu_of_tree", "processes_below", "run_child", "take_turns"]

_PROCESS_CPU = 2  # of clockid_t in Linux: all threads, user and system


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Parameters
    ----------
    what
        What was done, per what.
    figure
        noria's, in `unit`.
    unit
        `s`, `ms`, `us` of CPU, or `MB`.
    floor
        What is compared with.
    floor_figure
        Its figure; None where there is none to compare with.
    at_most
        The goal for `figure`.
    ratio_at_most
        The goal for `ratio`.
    paired
        The median ratio of runs that followed each other, which a machine whose speed drifts does not move;
        None: `ratio` is that of the two figures.
    """

    what: str
    figure: float
    unit: str
    floor: str = ""
    floor_figure: float | None = None
    at_most: float | None = None
    ratio_at_most: float | None = None
    paired: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.paired is not None:
            return self.paired
        return None if self.floor_figure is None else self.figure / self.floor_figure

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}"
        return "" if self.ratio_at_most is None else f"<= {self.ratio_at_most:g} x"

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.at_most is not None:
            return self.figure <= self.at_most
        if self.ratio_at_most is None or self.ratio is None:
            return None
        return self.ratio <= self.ratio_at_most


def take_turns(*works: Callable[[int], object], runs: int, per: int = 1, scale: float = 1.0) -> list[float]:
    """Give the median CPU of each work, one run of each after the other; each is told the run's number.

    Parameters
    ----------
    per
        How many units one run does.
    scale
        1e3 for milliseconds, 1e6 for microseconds.
    """
    taken: list[list[float]] = [[] for _ in works]
    for number in range(runs):
        for work, figures in zip(works, taken, strict=True):
            gc.collect()
            before = time.process_time()
            work(number)
            figures.append((time.process_time() - before) / per * scale)
    return [median(each) for each in taken]


def cpu_of_process(pid: int) -> float:
    """Give the CPU seconds of a living process, to the nanosecond: /proc counts in ticks of 10 ms."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CPU)


def processes_below(pid: int) -> list[int]:
    """Give a process and all that live below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return []
    return [pid, *(below for child in children for below in processes_below(child))]


def cpu_of_tree(pid: int) -> float:
    """Give the CPU seconds of a living process and of all that live below it."""
    return sum(map(cpu_of_process, processes_below(pid)))


def run_child(command: Sequence[str], *, environment: dict[str, str]) -> float:
    """Give the CPU seconds of a child process from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], list(command), environment, file_actions=silent)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
