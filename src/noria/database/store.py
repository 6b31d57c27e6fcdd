"""An opened database: one writer at a time, readers that never wait."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, Executable, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from noria.database.driving import run_one
from noria.database.faults import is_busy, translated_faults
from noria.database.revisions import current_revision, newest_revision, upgrade_tables
from noria.errors import ConfigError, DiskFull, StoreError

__all__ = ["Database"]

_BUSY_S = 60.0  # how long one attempt waits for another writer
_PATIENCE_S = 240.0  # how long all attempts together do
_CACHE_KIB = 6_000  # of pages, for each connection of SQLite: what 100 runs of a page have logged is in less
_READERS_S = 2.0  # how long a scrub waits for those that read an older state
_WRITER_KEY = 0x6E6F726961  # "noria": PostgreSQL's advisory lock that makes writers queue
_REPEATABLE_READ = 3  # as `psycopg.IsolationLevel` has it
_MOST_CLOSED = 4
_CLOSED: dict[
    URL, Engine
] = {}  # without connections; statements are compiled, which takes longer than they do
_FORGOTTEN: list["_Opened"] = []  # of the parent process: closing its connections here would harm it


class Database:
    """One relational database, SQLite or PostgreSQL, with all tables in place.

    Safe to use from many threads, and in a forked child (which gets connections of its own); a spawned
    child opens it again by `url`. SQLite runs in WAL mode: readers see the state of their first read and
    never wait, writers queue, also over processes. What was committed survives a kill; `synchronous=NORMAL`
    means that a power loss may take the last moments, never the consistency.
    """

    def __init__(self, url: URL, *, location: str) -> None:
        self.url = url.render_as_string(hide_password=False)
        self.location = location
        self._url = url
        self._opened = _Opened(url)
        self._renewing = threading.Lock()

    @classmethod
    def open(cls, url: str, *, are_tables_made: bool = True) -> Self:
        """Open a database, make it if it is not there, and bring its tables up to date.

        Parameters
        ----------
        url
            `sqlite:///RELATIVE/PATH.db`, `sqlite:////ABSOLUTE/PATH.db` or `postgresql://…`.
        are_tables_made
            Whether its tables are looked at: else whoever opens it makes them, as a restore does.

        Raises
        ------
        ConfigError
            If the URL cannot be read or names no kind of database that noria knows.
        DiskFull, StoreError
            If it cannot be read or written, is none, or was written by a newer noria.
        """
        parsed = _read_url(url)
        location = parsed.render_as_string(hide_password=True)
        if _is_sqlite(parsed):
            location = str(Path(parsed.database or "").absolute())  # the process may change its folder later
            parsed = parsed.set(database=location)
            try:
                Path(location).parent.mkdir(parents=True, exist_ok=True)
            except OSError as err:
                if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DiskFull(location) from err
                raise StoreError(
                    f"the folder of {location} cannot be made: {err.strerror}; name another"
                ) from err
        try:
            database = cls(parsed, location=location)
        except ModuleNotFoundError as err:
            raise ConfigError(f"database {location} needs the package {err.name}; install it") from err
        try:
            if are_tables_made:
                database._bring_up_to_date()
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give the connection of a transaction that alone may write: committed, or rolled back on an error.

        Inside another `write` of the same thread it joins that one: all of it is committed, or nothing. If
        the inner block ends with an error, the outer one cannot be committed any more.
        """
        opened = self._here()
        local = opened.local
        if local.writing is not None:
            try:
                yield local.writing
            except BaseException:
                local.spoiled = True
                raise
            return
        with translated_faults(self.location), opened.turn, _begun(opened.writer) as connection:
            local.writing, local.spoiled = connection, False
            try:
                yield connection
                if local.spoiled:
                    raise RuntimeError(
                        "a joined write failed and its error was swallowed; nothing is committed"
                    )
                connection.commit()
            except BaseException:
                local.after.clear()
                raise
            finally:
                local.writing = None
        told, local.after = local.after, []
        for tell in told:
            tell()

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Call `tell` once what is being written is committed; at once outside of a write."""
        local = self._here().local
        if local.writing is None:
            tell()
        else:
            local.after.append(tell)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database throughout; inside a `write`, that one's."""
        opened = self._here()
        if opened.local.writing is not None:
            yield opened.local.writing
            return
        with translated_faults(self.location), opened.reader.connect() as connection:
            yield connection
            if not _is_sqlite(self._url):
                connection.commit()  # nothing; but psycopg forgets at a rollback what it has prepared

    def look(self, statement: Executable, parameters: Mapping[str, object]) -> Any:
        """Give the first value of one statement's first row, None if there is none; no transaction is begun.

        A third cheaper than `read`, where one statement is all.
        """
        opened = self._here()
        if opened.local.writing is not None:
            return opened.local.writing.execute(statement, parameters).scalar()
        with translated_faults(self.location), opened.looker.connect() as connection:
            found = connection.execute(statement, parameters).scalar()
            connection.commit()
            return found

    def scrub(self) -> bool:
        """Write SQLite's file anew, so that no byte is left of what was deleted; nobody is kept from reading.

        PostgreSQL does so by itself as its tables are vacuumed: nothing is done.

        Returns
        -------
        bool
            Whether it is done: while somebody reads an older state, what was deleted stays in the file
            beside it that later goes.

        Raises
        ------
        DiskFull, StoreError
            If it cannot be; all is as it was.
        """
        if not _is_sqlite(self._url):
            return False
        opened = self._here()
        with translated_faults(self.location), opened.turn, opened.looker.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_READERS_S * 1_000)}")
            try:
                is_held_up, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_BUSY_S * 1_000)}")
        return not is_held_up

    def close(self) -> None:
        """Close the connections of this process."""
        self._here().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bring_up_to_date(self) -> None:
        with self.read() as connection:
            is_current = current_revision(connection) == newest_revision()
        if not is_current:
            with self.write() as connection:
                upgrade_tables(connection, location=self.location)

    def _here(self) -> "_Opened":
        """Give what is open in this very process: a forked child must not touch its parent's connections."""
        if self._opened.pid != os.getpid():
            with self._renewing:
                if self._opened.pid != os.getpid():
                    _FORGOTTEN.append(self._opened)
                    self._opened = _Opened(self._url)
        return self._opened


class _Local(threading.local):
    """What one thread is in the middle of."""

    writing: Connection | None = None
    spoiled: bool = False

    def __init__(self) -> None:
        self.after: list[Callable[[], None]] = []  # once it is committed


class _Opened:
    """The connections of one process."""

    def __init__(self, url: URL) -> None:
        self.pid = os.getpid()
        self.local = _Local()
        self.turn = threading.Lock()  # threads of one process queue here, fairly and without polling
        self._url, self._is_closed = url, False
        closed = _CLOSED.pop(url, None)
        self.engine = _new_engine(url) if closed is None else closed
        self.reader = self.engine.execution_options(noria_writes=False)
        self.writer = self.engine.execution_options(noria_writes=True)
        self.looker = self.engine.execution_options(noria_writes=None)

    def close(self) -> None:
        """Close the connections, and leave the engine to whoever opens the same database next."""
        self.engine.dispose()
        if not self._is_closed:
            self._is_closed = True
            _CLOSED[self._url] = self.engine
            for each in list(_CLOSED)[:-_MOST_CLOSED]:
                _CLOSED.pop(each, None)


def _new_engine(url: URL) -> Engine:
    # pool_size 0: as many connections as there are threads at it, kept open for the next time; the one
    # that was used last goes first, which has statements prepared and pages at hand
    engine = create_engine(url, poolclass=QueuePool, pool_size=0, pool_use_lifo=True)
    if _is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "close", _let_go_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "begin", _begin_sqlite if _is_sqlite(url) else _begin_postgresql)
    return engine


@contextmanager
def _begun(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a begun transaction, however long other writers take."""
    patience_ends = time.monotonic() + _PATIENCE_S
    with engine.connect() as connection:
        while True:
            try:
                connection.begin()
                break
            except OperationalError as err:
                connection.rollback()
                if not is_busy(err) or time.monotonic() > patience_ends:
                    raise
                time.sleep(0.01)
        yield connection


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
    _set_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Keep to one process of the server: a page is found sooner than further ones have started."""
    connection.execute("SET max_parallel_workers_per_gather = 0")
    connection.commit()


def _let_go_sqlite(connection: Any, _record: object) -> None:
    """End what Ctrl-C has cut off: closing alone keeps the lock while a traceback holds a statement."""
    connection.rollback()


def _set_wal(connection: Any) -> None:
    """Turn on WAL, which stays on in the file. Of two that do so at once, one is refused without waiting."""
    import sqlite3

    patience_ends = time.monotonic() + _BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as err:
            if not err.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > patience_ends:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    is_writer = connection.get_execution_options().get("noria_writes", True)
    if is_writer is not None:
        run_one(connection, "BEGIN IMMEDIATE" if is_writer else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    is_writer = connection.get_execution_options().get("noria_writes", True)
    driver: Any = connection.connection.driver_connection
    is_reader = is_writer is False
    if driver.read_only is not (is_reader or None):  # goes with the BEGIN; a SET would be asked by itself
        driver.isolation_level = _REPEATABLE_READ if is_reader else None
        driver.read_only = is_reader or None
    if is_writer:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_KEY})")


def _read_url(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as err:
        raise ConfigError(
            f"database {url!r} cannot be read: {err}; write sqlite:///PATH or postgresql://…"
        ) from err
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(
            f"database {url!r} is neither SQLite nor PostgreSQL; write sqlite:///PATH or postgresql://…"
        )
    if _is_sqlite(parsed) and parsed.database in {None, "", ":memory:"}:
        raise ConfigError(
            f"database {url!r} names no file, so no other process could open it; write sqlite:///PATH"
        )
    return parsed


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"
