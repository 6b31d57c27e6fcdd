"""`noria query`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.warehouse.query import Answer

__all__ = ["query", "read_params"]

_STANDARD_INPUT = "-"
_Formats = Literal["table", "csv", "json", "jsonl", "parquet", "arrow"]


def query(
    sql: Annotated[str | None, Parameter(name="SQL", allow_leading_hyphen=True)] = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(name="--file")] = None,
    param: Annotated[list[str] | None, Parameter(name="--param", negative="")] = None,
    format: Annotated[_Formats | None, Parameter(name="--format")] = None,
    output: Annotated[Path | None, Parameter(name="--output")] = None,
    rows: int = 100,
    timeout: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Answer one SELECT over every table: datasets, models, features, predictions, the ledger's own.

    `noria query "show tables"` lists them, `"describe NAME"` shows the columns of one.

    Parameters
    ----------
    sql
        DuckDB's dialect; `-` reads it from standard input.
    file
        Read the SQL from a file.
    param
        NAME=VALUE for `$NAME`; a number, `true`, `false` or `null` is one, all else is text.
    format
        How the answer is written. Default: a table on the screen, by the file's name into a file.
    output
        Write the answer to a file: all of it or none.
    rows
        Show at most so many; files and other formats hold all.
    timeout
        Stop it after this long, such as 60s. Default: `[query] timeout_s` of noria.toml.
    """
    text = _text(sql, file)
    params = read_params(param or [])
    with options.open() as project:
        if output is not None:
            if format == "table":
                raise ConfigError(
                    "a table is for the screen; give --format csv, json, jsonl, parquet or arrow"
                )
            written = project.write_answer(text, output, params, format=format, timeout=timeout)
            _tell(written, output, options)
            return
        with project.answering(text, params, timeout=timeout) as answer:
            if format in (None, "table") and not options.json:
                _show(answer, max(rows, 0))
            else:
                _write(answer, "json" if format in (None, "table") else format)


def _text(sql: str | None, file: Path | None) -> str:
    if sql is not None and file is not None:
        raise ConfigError("one query is wanted, and both SQL and --file are given; leave one out")
    if file is None:
        if sql is None:
            raise ConfigError("`noria query` needs SQL. See `noria query --help`.")
        return sys.stdin.read() if sql == _STANDARD_INPUT else sql
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ConfigError(f"{file} cannot be read: {err.strerror}; name a file with SQL in it") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{file} is not UTF-8 text; save it as UTF-8") from err


def read_params(given: Iterable[str]) -> dict[str, Any] | None:
    """Read `NAME=VALUE`: a number, `true`, `false`, `null` or a text in quotes is one, all else is text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param {each!r} is no NAME=VALUE")
        try:
            read = msgspec.json.decode(value)
        except msgspec.DecodeError:
            read = value
        found[name] = value if isinstance(read, list | dict) else read
    return found or None


def _show(answer: "Answer", most: int) -> None:
    """Show the first rows, and count the rest."""
    from noria.cli import screen
    from noria.warehouse.query_output import json_rows

    shown: list[list[object]] = []
    count = 0
    for batch in answer:
        wanted = most - len(shown)
        if wanted > 0:
            shown.extend(list(row.values()) for row in json_rows(batch.slice(0, wanted)))
        count += batch.num_rows
    numbers = [each.name for each in answer.schema if _is_number(str(each.type))]
    if answer.schema.names == ["explain_key", "explain_value"]:
        for _, plan in shown:
            screen.verbatim(str(plan))
        return
    screen.table(answer.schema.names, shown, right=numbers)
    left = count - len(shown)
    told = screen.count(count, "row")
    screen.line(f"{told}; the last {left:,} are not shown (--rows N shows more)" if left else told)


def _write(answer: "Answer", format: str) -> None:
    from noria.warehouse.query_output import Format, write_rows

    kind = Format.read(format)
    if not kind.is_text and sys.stdout.isatty():
        raise ConfigError(
            f"{kind} is no text for a terminal; name a file by --output, or send it into a pipe"
        )
    sys.stdout.flush()
    write_rows(answer, answer.schema, kind, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _tell(written: int, output: Path, options: Options) -> None:
    from noria.cli import screen

    if options.json:
        screen.json({"rows": written, "file": str(output)})
    else:
        screen.verbatim(f"{screen.count(written, 'row')} in {output}")


def _is_number(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "decimal"))
