"""LMDB folders, each open once in a process, as it has to be, for however many hold it."""

import os
import threading
from pathlib import Path
from typing import Any

import lmdb

__all__ = ["close_index", "open_index"]

_guard = threading.Lock()
_held: dict[tuple[int, str], tuple[lmdb.Environment, tuple[Any, ...], int]] = {}  # by process and path


def open_index(
    path: Path, *names: bytes, map_bytes: int, databases: int, synchronous: bool
) -> tuple[lmdb.Environment, tuple[Any, ...]]:
    """Open a folder with its databases, or give them as they are open; let go of it by `close_index`.

    The databases are opened here, as opening one waits for whoever writes without letting other threads run.

    Commits do not wait for the disk unless `synchronous`: the system keeps them when the process dies.
    Raises `lmdb.Error`.
    """
    key = os.getpid(), str(path.resolve())
    with _guard:
        environment, opened, count = _held.get(key) or (None, (), 0)
        if environment is None:
            environment = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=databases,
                sync=synchronous,
                metasync=synchronous,
                readahead=False,
            )
            opened = tuple(environment.open_db(each) for each in names)
        _held[key] = environment, opened, count + 1
        return environment, opened


def close_index(path: Path, environment: lmdb.Environment) -> None:
    """Let go of what `open_index` gave for `path`; the last one closes it."""
    key = os.getpid(), str(path.resolve())
    with _guard:
        _, opened, count = _held[key]
        if count > 1:
            _held[key] = environment, opened, count - 1
            return
        del _held[key]
        environment.close()
