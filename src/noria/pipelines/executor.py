"""What runs steps: the contract, and what goes to and comes back from where they run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import msgspec

from noria.errors import ConfigError
from noria.pipelines.declarations import Resources
from noria.pipelines.trees import Tree

__all__ = [
    "Done",
    "Executor",
    "Failure",
    "Lost",
    "Place",
    "Progressed",
    "Report",
    "Started",
    "Work",
    "check_executor",
    "open_executor",
]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a project lives, for a process that runs its steps: everything as text."""

    root: str
    storage: str  # URL
    scratch: str  # a local folder for files on their way
    keep: str | None = None  # URL: where results go, if not into `storage`
    # "module:name" of a class -> "module:function": takes `root`, gives a context manager of an instance
    providers: dict[str, str] = {}
    # "module:function": takes `root`, gives a context manager of (version id, annotation) -> value
    loader: str | None = None
    path: tuple[str, ...] = ()  # of imports


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one step: what to call with what."""

    run: str
    task: str  # as people read it: `weekly/score[3]`
    target: str  # module:name
    arguments: dict[str, Tree]
    split: tuple[str, ...]  # parts of the result ("": the whole) whose items are kept apart
    seed: int
    attempt: int
    log: str  # file that takes what it prints
    timeout_s: float | None = None  # for an executor that is not able to end a step from outside


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    kind: str  # the error's type
    message: str
    trace: str = ""
    is_final: bool = False  # trying again cannot help


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """An attempt that ended by itself, well or not."""

    run: str
    output: Tree | None
    failure: Failure | None
    metrics: dict[str, float]
    cpu_s: float
    wall_s: float
    memory_peak_bytes: int
    bytes_in: int
    bytes_out: int
    modules: dict[str, str] = {}  # source files that its process has loaded since it told last -> sha256


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """An attempt whose process is gone.

    `is_infrastructure`: not for anything that the step did (a node went away), so trying again is no retry.
    `signal`: what ended its process, if that was none of the executor's doing.
    """

    run: str
    reason: str
    is_infrastructure: bool = False
    signal: int | None = None


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far an attempt is."""

    run: str
    done: float
    total: float | None
    note: str


class Started(Progressed, frozen=True, kw_only=True, tag="started"):
    """An attempt that waited in an executor which queues by itself is at work now."""

    done: float = 0.0
    total: float | None = None
    note: str = ""


Report = Done | Lost | Progressed | Started


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an executor has in all; None: it queues by itself."""

    cpus: float | None
    gpus: float | None
    memory_bytes: int | None
    at_once: int | None = None  # how many attempts it takes at a time


class Executor(Protocol):
    """Runs attempts at steps. One thread uses it.

    An attempt ends with exactly one `Done` or `Lost`. Results are in the storage, or inside of the `Done`
    where they are small, before it is reported; what an attempt that was lost has written is never seen.
    """

    name: str

    def capacity(self) -> Capacity:
        """Tell what there is to share among attempts."""
        ...

    def submit(self, work: Work, resources: Resources) -> None:
        """Begin an attempt, or queue it. Raises `ConfigError` if it could never run here."""
        ...

    def poll(self, timeout_s: float) -> list[Report]:
        """Give what was reported; wait at most `timeout_s` for the first."""
        ...

    def cancel(self, run: str, reason: str) -> None:
        """End an attempt, at once if need be; it is then reported as `Lost` with this reason."""
        ...

    def close(self) -> None:
        """End everything that still runs, and let go."""
        ...


Opener = Callable[[str, Place, Mapping[str, Any]], Executor]
_GROUP = "noria.executor"


def open_executor(url: str, place: Place, *, workers: int = 0) -> Executor:
    """Open the executor that a URL names.

    Parameters
    ----------
    url
        `inline`, `processes`, `ray` (a cluster of this machine), `ray://HOST:PORT`.
    workers
        How many CPUs to use; 0: all that this process may use.

    Raises
    ------
    ConfigError
        If there is no such executor, or its library is not installed.
    """
    scheme = url.partition(":")[0]
    try:
        opener = _entry_point(url).load()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"executor {url!r} needs the package {error.name!r}; install noria[{scheme}]"
        ) from error
    executor: Executor = opener(url, place, workers=workers)
    return executor


def check_executor(url: str) -> None:
    """Raise `ConfigError` if there is no executor of that name; nothing is loaded."""
    _entry_point(url)


def _entry_point(url: str) -> EntryPoint:
    found = {each.name: each for each in entry_points(group=_GROUP)}
    scheme = url.partition(":")[0]
    if scheme not in found:
        raise ConfigError(f"there is no executor {url!r}; there is {', '.join(sorted(found))}")
    return found[scheme]


def log_path(scratch: str, run: str) -> str:
    """Give the file that takes what a run prints while it runs."""
    return f"{scratch}/logs/{run}.log"
