"""A dataset as a project declares it. Nothing here loads an engine."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from noria.checks.declarations import Rule
from noria.errors import ConfigError
from noria.lake.reading import Reading

__all__ = ["ArrowFrame", "Dataset"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DEFAULT_KNOWN_AT = "known_at"


class ArrowFrame(Protocol):
    """Any frame that speaks the Arrow PyCapsule interface: pandas, Polars, Arrow, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the rows as an Arrow stream."""
        ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows of one kind, in event order, each with a key and two instants.

    Parameters
    ----------
    name
        The table's name, usable in SQL.
    key
        The column, or columns, that name a row. A key comes once in the whole table: the same row again
        is dropped and counted, other content under its key is rejected, or replaces it (see `write`).
    event_at
        The column that says when it happened.
    known_at
        The column that says when it could be used. Without it the lake adds a column `known_at` that
        holds the instant of the ingest.
    checks
        The contract: rules of `noria.check`.
    max_rejected_share
        A batch of which more than this share breaks the contract is blocked as a whole.
    schema
        Column -> Arrow type name (`int64`, `double`, `string`, `bool`, `timestamp[us, tz=UTC]`, ...).
        Without it the first batch decides.
    write
        `append`: a row, once there, is never changed. `merge`: a row whose key is there replaces it; the
        one with the later `known_at` stays, of equal ones the one that came last.
    renamed
        Old name -> new name of columns that the table still has under the old one.
    source
        Gives the whole historical table for the project's folder: to a replay, and to `noria ingest`.
    repair
        Gives a table of rejected rows as they should have been: as many rows, in the same order. Used by
        `noria dataset repair`.
    files
        A pattern of the files that the rows come in, below the project's folder: `data/sales/*.csv`.
        `noria ingest` takes those that are new.
    reading
        How these files are read: `delimiter`, `encoding`, `header`, `names`, `nulls`, `time_zone`, `sheet`.
    owner, description, tags
        For people who look for data.

    Raises
    ------
    ConfigError
        If a name, the key or the share cannot be.

    Examples
    --------
    >>> Dataset("flights", key="flight_id", event_at="departed_at", known_at="landed_at").keys
    ('flight_id',)
    """

    stands_for_version: ClassVar[bool] = True  # to a step it is handed as the rows of its newest version

    name: str
    key: str | tuple[str, ...] = field(kw_only=True)
    event_at: str = field(kw_only=True)
    known_at: str | None = field(default=None, kw_only=True)
    checks: Sequence[Rule] = field(default=(), kw_only=True)
    max_rejected_share: float = field(default=0.01, kw_only=True)
    schema: Mapping[str, str] | None = field(default=None, kw_only=True)
    write: Literal["append", "merge"] = field(default="append", kw_only=True)
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False, kw_only=True)
    source: Callable[[Path], ArrowFrame] | None = field(default=None, kw_only=True)
    repair: Callable[[Any], ArrowFrame] | None = field(default=None, kw_only=True)
    files: str | None = field(default=None, kw_only=True)
    reading: Mapping[str, Any] = field(default_factory=dict, hash=False, kw_only=True)
    owner: str | None = field(default=None, kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or "__" in self.name:
            raise ConfigError(
                f"{self.name!r} cannot name a dataset: use letters, digits and single underscores, "
                "a letter first, so that SQL can say it"
            )
        if not self.keys or not all(self.keys):
            raise ConfigError(
                f"dataset {self.name!r} has no key; name the column or columns that make a row unique"
            )
        if not 0 <= self.max_rejected_share <= 1:
            raise ConfigError(
                f"dataset {self.name!r}: max_rejected_share is {self.max_rejected_share}, "
                "it must be from 0 to 1"
            )
        if self.write not in ("append", "merge"):
            raise ConfigError(f"dataset {self.name!r}: write is {self.write!r}; choose 'append' or 'merge'")
        if not isinstance(self.files, str | None):
            raise ConfigError(
                f"dataset {self.name!r}: files is {self.files!r}; give one pattern as a text, such as "
                "'data/sales/*', which takes files of several formats"
            )
        Reading.of(self.reading)
        for rule in self.checks:
            if not isinstance(rule, Rule):
                raise ConfigError(
                    f"dataset {self.name!r}: {rule!r} looks at no rows; use the checks that do: "
                    "between, not_null, unique, one_of, matches, references, expression and others"
                )
        if self.schema is not None:
            wanted = {*self.keys, self.event_at, *((self.known_at,) if self.known_at else ())}
            missing = sorted(wanted - set(self.schema))
            if missing:
                raise ConfigError(f"dataset {self.name!r}: the schema lacks {', '.join(missing)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's columns, always as a tuple."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def known_at_column(self) -> str:
        """The column that says when a row could be used."""
        return self.known_at or DEFAULT_KNOWN_AT
