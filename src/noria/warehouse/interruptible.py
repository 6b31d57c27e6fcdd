"""Work of an engine in a thread, so that the main one hears Ctrl-C: DuckDB itself does so only by chance."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import duckdb

__all__ = ["interruptible", "interruptible_in", "worker"]

T = TypeVar("T")


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Give what `work` gives. Raises what it raises.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once the connection has come to rest.
    """
    with worker() as thread:
        return interruptible_in(thread, connection, work)


def worker() -> ThreadPoolExecutor:
    """Give a thread for work of an engine, to be closed by `with` or `shutdown`."""
    return ThreadPoolExecutor(1, thread_name_prefix="noria-duckdb")


def interruptible_in(
    thread: ThreadPoolExecutor, connection: duckdb.DuckDBPyConnection, work: Callable[[], T]
) -> T:
    """Do as `interruptible`, in a thread that is kept for more work: one of its own costs 0.2 ms."""
    done = thread.submit(work)
    try:
        return done.result()
    except KeyboardInterrupt:
        connection.interrupt()
        wait([done])
        raise
