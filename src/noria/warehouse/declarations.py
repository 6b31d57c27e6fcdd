"""Models that are Python functions, as a project declares them. Nothing here loads an engine."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noria.errors import ConfigError
from noria.warehouse.header import Header, Rule, checked, parse_rule
from noria.warehouse.partitions import parse_partition

__all__ = ["Model", "model"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Model:
    """A function that makes a table from tables. Called on its own it is the plain function."""

    function: Callable[..., Any]
    name: str
    inputs: Mapping[str, str | None]
    header: Header

    def __call__(self, *tables: Any) -> Any:
        """Run the function."""
        return self.function(*tables)


def model(
    name: str,
    *,
    inputs: Sequence[str] | Mapping[str, str | None] = (),
    materialize: Literal["table", "incremental"] = "table",
    partition: str | None = None,
    key: str | Sequence[str] = (),
    tests: Sequence[str] = (),
    warn: Sequence[str] = (),
    description: str = "",
    owner: str = "",
    tags: Sequence[str] = (),
    lookback: str = "",
) -> Callable[[Callable[..., Any]], Model]:
    """Let a function make a table of the warehouse.

    Parameters
    ----------
    name
        The table's name, usable in SQL.
    inputs
        The tables that it is handed, as Arrow tables, in this order. For an incremental model: table -> its
        column of time, where rows of it count in their own partition only; None: any row may count anywhere.
    materialize
        `table`: built as a whole; `incremental`: only partitions whose inputs changed.
    partition
        `day(event_at)`: hour, day, month or year of a column of the result.
    key
        Columns that name a row: not null, and each combination once.
    tests, warn
        `not_null(a)`, `unique(a, b)`, or a boolean SQL expression over a row. A test that fails keeps the old
        table; a warning is told.
    lookback
        How long a row of an input has a part in later rows: `7d`.

    Raises
    ------
    ConfigError
        If these do not go together.

    Examples
    --------
    >>> @model("doubled", inputs=["numbers"], tests=["not_null(x)"])
    ... def doubled(numbers):
    ...     return numbers
    >>> doubled.inputs
    {'numbers': None}
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a model: use letters, digits and underscores, a letter first, so that SQL "
            "can say it"
        )
    named = {
        each.lower(): column
        for each, column in (
            inputs.items() if isinstance(inputs, Mapping) else ((one, None) for one in inputs)
        )
    }
    rules: list[Rule] = [*map(parse_rule, tests), *(parse_rule(each, severity="warn") for each in warn)]
    try:
        if str(materialize) == "view":
            raise ConfigError("a function cannot be a view, for queries could not run it; make it a table")
        header = checked(
            Header(
                materialize=materialize,
                partition=None if partition is None else parse_partition(partition),
                key=(key,) if isinstance(key, str) else tuple(key),
                rules=tuple(rules),
                description=description,
                owner=owner,
                tags=tuple(tags),
                lookback=lookback,
                inputs={each: column for each, column in named.items() if column is not None}
                if materialize == "incremental"
                else {},
            )
        )
    except ConfigError as error:
        raise ConfigError(f"model {name!r}: {error}") from error

    def made(function: Callable[..., Any]) -> Model:
        return Model(function, name, named, header)

    return made
