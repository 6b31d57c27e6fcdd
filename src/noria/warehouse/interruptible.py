"""Work of an engine in a thread, so that the main one hears Ctrl-C: DuckDB itself does so only by chance."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import duckdb

__all__ = ["interruptible"]

T = TypeVar("T")


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Give what `work` gives. Raises what it raises.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once the connection has come to rest.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="noria-duckdb") as thread:
        done = thread.submit(work)
        try:
            return done.result()
        except KeyboardInterrupt:
            connection.interrupt()
            wait([done])
            raise
