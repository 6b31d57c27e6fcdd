"""Models out of memory: what stands for them, how much memory a worker has, and how it is given back.

A deployment whose models rest is found by its names, tells its columns and is ready: the next request loads
them again.
"""

import ctypes
import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NoReturn

from noria.errors import ConfigError, DeploymentError
from noria.serving.formats.scorers import Rows, Scorer
from noria.serving.models import LoadedModel, LoadedRoute, bind_route
from noria.serving.records import Output

__all__ = ["give_back", "own_bytes", "prepare", "rested", "settle"]

_STATUS = Path("/proc/self/status")
_OWN = b"RssAnon:"
_ARENAS = -8  # M_ARENA_MAX of malloc.h


class _Resting:
    """Stands for a scorer that was let go of."""

    def __init__(self, scorer: Scorer) -> None:
        self.columns: int | None = scorer.columns
        self.outputs: tuple[Output, ...] = scorer.outputs
        self.is_native: bool = scorer.is_native
        self.tolerance: float = scorer.tolerance
        self.path: str = scorer.path
        self.fallback: str | None = scorer.fallback

    def predict(self, rows: Rows) -> NoReturn:
        raise DeploymentError(f"the model is not in memory and cannot score {rows.count} rows; ask again")


def rested(loaded: LoadedRoute) -> LoadedRoute:
    """Give a route without what scores: its names, columns and versions."""
    models: Mapping[str, LoadedModel] = {
        release: replace(model, scorer=_Resting(model.scorer), on_demand=None)
        for release, model in loaded.models.items()
    }
    return replace(bind_route(loaded.route, models), is_resting=True)


def prepare(memory_mb: int) -> None:
    """Make this process, before it has threads, one whose memory may be limited.

    Raises
    ------
    ConfigError
        If this system does not tell how much memory is used.
    """
    if not memory_mb:
        return
    if not _STATUS.exists():
        raise ConfigError(
            f"memory_mb is {memory_mb}, but this system does not tell what a process uses (there is no "
            f"{_STATUS}); leave it out here"
        )
    setting = _function("mallopt")
    if setting is not None:
        setting(_ARENAS, 1)  # each thread's own would keep a part of what models leave


def own_bytes() -> int:
    """Give the memory of this process alone: what it allocated, without the files that are mapped."""
    for line in _STATUS.read_bytes().splitlines():
        if line.startswith(_OWN):
            return int(line.split()[1]) * 1_024
    raise DeploymentError(f"{_STATUS} of process {os.getpid()} has no line {_OWN.decode()}")


def settle(*, thoroughly: bool) -> None:
    """Let the garbage collector look no more at what lives as long as the route: a request costs 25 us less.

    Parameters
    ----------
    thoroughly
        Look at all once more. What lived long is else freed by its last reference alone, which is enough for
        what has no code of a user in it, and stops the others for a shorter time.
    """
    if thoroughly:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Give freed memory back to the system, where its allocator would keep it."""
    settle(thoroughly=True)
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _function(name: str) -> Callable[..., int] | None:
    """Give a function of the C library, where it is glibc."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found
