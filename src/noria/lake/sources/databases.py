"""Rows that a database answers, streamed: through SQLAlchemy, or from a connection of the DB-API."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from noria.checks.verdicts import row_json
from noria.errors import ConfigError, SourceError
from noria.lake.reading import Reading
from noria.lake.sources.contract import Piece, broken, require
from noria.lake.sources.delimited import checked_names
from noria.lake.sources.texts import apart
from noria.lake.sources.values import infer_values, read_values

__all__ = ["DatabaseRows", "is_connection"]

_ROWS = 10_000
_SAMPLE = 100
_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\d(?:(?P<between>[T ])\d\d:\d\d(:\d\d([.,]\d+)?)? ?(?P<offset>Z|[+-]\d\d(:?\d\d)?)?)?"
)
_TEXTS = (
    UUID,
    time,
    timedelta,
    ipaddress.IPv4Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Network,
)


class DatabaseRows:
    """Rows of a query or of a whole table; see `noria.lake.sources.contract.Source`.

    Parameters
    ----------
    place
        A URL of SQLAlchemy, an engine or a connection of it, or a connection of the DB-API.
    query, table
        One of both: a SELECT; a table's name, or `schema.table`.
    since, above
        Only rows whose column `since` is at least `above`; with `above` None all rows, in its order.

    Raises
    ------
    ConfigError
        If the URL is none, its driver is not installed, or not exactly one of `query` and `table` is given.
    """

    def __init__(
        self,
        place: Any,
        reading: Reading,
        *,
        query: str | None = None,
        table: str | None = None,
        since: str | None = None,
        above: Any = None,
    ) -> None:
        if (query is None) == (table is None):
            raise ConfigError(
                "rows of a database need a query or a table: give query='select ...' or table='...' "
                "(--query or --table)"
            )
        self._place: Any = _engine(place) if isinstance(place, str) else place
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError, *_driver_errors(self._place))
        self._reading = reading
        self._query, self._table, self._since, self._above = query, table, since, above
        self.name = f"{_shown(self._place)} {table or _shortened(query or '')}"
        self.size_bytes: int | None = None
        self.bytes_read = 0
        self.digest: str | None = None

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, at most 10,000 at a time; the database keeps the rest."""
        kinds: list[pa.DataType] = []
        begin = 0
        with self._translated(), self._answer() as (found, parts):
            names = checked_names(found, self.name)
            require(names, wanted, self.name)
            for rows in parts:
                columns = [
                    [self._plain(each, name) for each in column]
                    for name, column in zip(names, zip(*rows, strict=True), strict=True)
                ]
                kinds = kinds or [
                    wanted.field(name).type
                    if wanted is not None and name in wanted.names
                    else infer_values(
                        column if any(each is not None for each in column) else self._later(called),
                        time_zone=self._reading.time_zone,
                        expected=self._reading.types.get(name),
                    )
                    for called, name, column in zip(found, names, columns, strict=True)
                ]
                yield from self._read(names, kinds, columns, begin)
                begin += len(rows)

    def where(self, place: int) -> str | None:
        """Rows of an answer have no number."""
        return None

    def _read(
        self, names: Sequence[str], kinds: Sequence[pa.DataType], columns: Sequence[list[Any]], begin: int
    ) -> Iterator[Piece]:
        read = [
            read_values(column, kind, time_zone=self._reading.time_zone)
            for column, kind in zip(columns, kinds, strict=True)
        ]
        batch, wrong = apart(names, read, np.arange(len(columns[0])))
        if batch.num_rows:
            self.bytes_read += batch.nbytes
            yield batch
        if wrong:
            rows = (
                {name: column[place] for name, column in zip(names, columns, strict=True)}
                for place, _ in wrong
            )
            yield [
                broken(reason, row_json(row), begin + place)
                for (place, reason), row in zip(wrong, rows, strict=True)
            ]

    def _later(self, column: str) -> list[Any]:
        """Give values of a column that its first rows lack, as one that a table got later does."""
        if self._table is None or not isinstance(self._place, sa.Engine):
            return []
        quoted = self._quote(column)
        some: sa.Select[Any] = (
            sa.select(sa.literal_column(quoted))
            .select_from(sa.text(self._source()))
            .where(sa.text(f"{quoted} is not null"))
            .limit(_SAMPLE)
        )
        with self._place.connect() as beside:
            return [self._plain(each, column) for each in beside.execute(some).scalars()]

    @contextmanager
    def _answer(self) -> Iterator[tuple[list[str], Iterator[Sequence[Sequence[Any]]]]]:
        """Give the columns' names, and the rows in parts."""
        if is_connection(self._place):
            with closing(self._place.cursor()) as cursor:
                cursor.arraysize = _ROWS
                text, values = self._plain_statement()
                cursor.execute(text, values) if values else cursor.execute(text)
                if cursor.description is None:
                    raise SourceError(f"{self.name} answers no rows; give a SELECT")
                yield [each[0] for each in cursor.description], iter(lambda: cursor.fetchmany(_ROWS), [])
            return
        opened = self._place.connect() if isinstance(self._place, sa.Engine) else self._place
        try:
            above = self._bound(opened)
            streaming = opened.execution_options(stream_results=True, max_row_buffer=_ROWS)
            answer = streaming.execute(self._statement(), {} if above is None else {"above": above})
            yield list(answer.keys()), answer.partitions(_ROWS)
        finally:
            if isinstance(self._place, sa.Engine):
                opened.close()

    def _bound(self, opened: sa.Connection) -> Any:
        """Give the bound as the database's own column would write it.

        Raises
        ------
        SourceError
            If the column is of another kind there: its order would be another one, and rows be missed.
        """
        if self._above is None or self._since is None:
            return None
        column = self._quote(self._since)
        least: sa.Select[Any] = (
            sa.select(sa.literal_column(column))
            .select_from(sa.text(self._source()))
            .where(sa.text(f"{column} is not null"))
            .order_by(sa.text(column))  # where kinds are mixed, the numbers come first
            .limit(1)
        )
        found = opened.execute(least).scalar()
        if found is None or _kind(found) == _kind(self._above):
            return self._above
        bound = None
        if isinstance(found, str) and isinstance(self._above, datetime | date):
            bound = _instant_text(self._above, like=found)
        if bound is not None:
            return bound
        raise SourceError(
            f"{self.name}: column {self._since!r} holds {_kind(found)} in the database and "
            f"{_kind(self._above)} in the table, which are ordered otherwise, so what came since cannot be "
            "told; cast it in a query: query='select cast(... as ...) as "
            f"{self._since}, ... from ...' (--query), or choose another column"
        )

    def _quote(self, name: str) -> str:
        return str(self._place.dialect.identifier_preparer.quote(name))

    def _source(self) -> str:
        if self._table is not None:
            return ".".join(map(self._quote, self._table.split(".")))
        return f"({(self._query or '').strip().rstrip(';')}\n) as noria_rows".replace(":", r"\:")

    def _statement(self) -> sa.TextClause:
        text = f"select * from {self._source()}"
        if self._since is not None:
            column = self._quote(self._since)
            text += f" where {column} >= :above" if self._above is not None else ""
            text += f" order by {column}"
        return sa.text(text)

    def _plain_statement(self) -> tuple[str, list[Any]]:
        """Give the statement for a driver of which nothing is known but the DB-API."""
        if self._since is not None:
            raise ConfigError(
                "since needs a URL or an engine of SQLAlchemy: a bare connection has no one way to quote"
            )
        if self._query is not None:
            return self._query, []
        if not re.fullmatch(r"\w+(\.\w+)?", self._table or ""):
            raise ConfigError(
                f"{self._table!r} is no plain name of a table; give query='select ...' (--query)"
            )
        return f"select * from {self._table}", []

    def _plain(self, value: Any, column: str) -> Any:
        if value is None or isinstance(value, str | int | float | bytes | Decimal | date | datetime):
            return value
        if isinstance(value, memoryview | bytearray):
            return bytes(value)
        if isinstance(value, _TEXTS):
            return str(value)
        if isinstance(value, dict | list):
            return msgspec.json.encode(value, enc_hook=str).decode()
        raise SourceError(
            f"{self.name}: column {column!r} holds a {type(value).__name__}, which a table cannot hold; "
            "cast it to text in the query"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as err:
            told = str(getattr(err, "orig", None) or err).strip().partition("\n")[0]
            raise SourceError(
                f"{self.name} cannot be read: {told}; correct the query, or look after the database"
            ) from err


def _kind(value: Any) -> str:
    """Name the order that values of this kind have."""
    if isinstance(value, str | bytes):
        return "texts" if isinstance(value, str) else "bytes"
    if isinstance(value, date):
        return "instants"  # or days, which databases compare with them
    return "numbers" if isinstance(value, int | float | Decimal) else type(value).__name__


def _instant_text(above: date, *, like: str) -> str | None:
    """Write an instant or a day as a text below which no later one is that is written like `like`.

    Where the one names an offset that the other does not, a day is enough for whatever it may be.
    """
    found = _WRITTEN.fullmatch(like.strip())
    if found is None:
        return None
    between, offset = found["between"], found["offset"]
    if not isinstance(above, datetime):
        return above.isoformat()
    if above.tzinfo is not None and offset in ("Z", "+00:00", "+00", "+0000"):
        above = above.astimezone(UTC)
    elif offset or above.tzinfo is not None:
        return (above.date() - timedelta(days=1)).isoformat()
    return above.strftime(f"%Y-%m-%d{between}%H:%M" if between else "%Y-%m-%d")


def is_connection(value: object) -> bool:
    """Say whether a value is a connection of the DB-API."""
    return (
        not isinstance(value, sa.Connection | sa.Engine)
        and callable(getattr(value, "cursor", None))
        and hasattr(value, "commit")
    )


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
            raise SourceError(f"there is no database {parsed.database}; give the path of one that exists")
        return sa.create_engine(parsed, poolclass=NullPool)
    except NoSuchModuleError as err:
        raise ConfigError(
            f"SQLAlchemy knows no database of the kind {sa.make_url(url).drivername!r}; correct the URL, or "
            "install its driver"
        ) from err
    except ArgumentError as err:
        raise ConfigError(
            f"{url.partition('@')[2] or url!r} is no URL of a database; write for example "
            "postgresql://USER@HOST/NAME or sqlite:///PATH"
        ) from err
    except ModuleNotFoundError as err:
        kind = sa.make_url(url).get_backend_name()
        hint = (
            "the extra `postgres` brings it: pip install 'noria[postgres]'"
            if kind == "postgresql"
            else f"install it, or name another driver that is: {kind}+DRIVER://..."
        )
        raise ConfigError(
            f"the driver {err.name!r} of {sa.make_url(url).drivername} is not installed; {hint}"
        ) from err


def _shown(place: Any) -> str:
    """Name a database without saying who may enter it."""
    url = getattr(place, "url", None) or getattr(getattr(place, "engine", None), "url", None)
    if url is None:
        return type(place).__module__.partition(".")[0]
    return f"{url.get_backend_name()}:{f'//{url.host}/' if url.host else ''}{url.database or ''}"


def _shortened(query: str) -> str:
    words = " ".join(query.split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _driver_errors(place: Any) -> tuple[type[Exception], ...]:
    """Give what a driver's connection raises: the DB-API wants its classes to be there."""
    found = getattr(place, "Error", None) if is_connection(place) else None
    return (found,) if isinstance(found, type) and issubclass(found, Exception) else ()
