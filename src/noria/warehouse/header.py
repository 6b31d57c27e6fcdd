"""What the comments at the top of a model's file declare: `-- materialize: table`, `-- test: unique(id)`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Literal, TypeVar, get_args

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.warehouse.partitions import Partition, parse_partition

__all__ = ["Header", "Materialize", "Rule", "parse_rule", "read_header"]

T = TypeVar("T")

Materialize = Literal["table", "view", "incremental"]
Severity = Literal["block", "warn"]

_LINE = re.compile(r"--\s*([A-Za-z_]+)\s*:\s*(.*)")
_CALL = re.compile(r"(not_null|unique)\s*\(([^()]*)\)", re.IGNORECASE)
_INPUT = re.compile(r"(\w+)\s*\(\s*(\"[^\"]+\"|\w+)\s*\)")
_WORDS = (
    "materialize", "partition", "key", "description", "owner", "tags", "test", "warn", "lookback", "input",
    "severity",
)  # fmt: skip
_ONCE = {"materialize", "partition", "key", "owner", "lookback", "severity"}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A test of a table.

    Attributes
    ----------
    kind
        `row`: `sql` has to hold for each row (an unknown passes); `query`: it gives the rows that fail.
    """

    kind: Literal["not_null", "unique", "row", "query"]
    name: str
    columns: tuple[str, ...] = ()
    sql: str = ""
    severity: Severity = "block"
    line: int = 0


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The declarations of one model."""

    materialize: Materialize = "table"
    partition: Partition | None = None
    key: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    lookback: str = ""
    inputs: dict[str, str] = {}  # table -> its column of time: rows of it count in their own partition only
    severity: Severity = "block"  # of a file that is a test


def read_header(text: str) -> Header:
    """Read the comments before the first statement.

    Raises
    ------
    ConfigError
        If one says what cannot be; begins with `line N:`.
    """
    said: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if bare and not bare.startswith("--"):
            break
        found = _LINE.fullmatch(bare)
        if not found:
            continue
        word = found[1].lower()
        if word not in _WORDS:
            near = get_close_matches(word, _WORDS, n=1, cutoff=0.8)
            if near:
                raise ConfigError(
                    f"line {number}: {word!r} is no word of a header; did you mean {near[0]!r}?"
                )
            continue
        if word in _ONCE and word in said:
            raise ConfigError(
                f"line {number}: {word!r} was said in line {said[word][0][0]} already; say it once"
            )
        if not found[2]:
            raise ConfigError(f"line {number}: nothing follows `{word}:`; say it or take the line out")
        said.setdefault(word, []).append((number, found[2].strip()))
    return _header(said)


def parse_rule(text: str, *, severity: Severity = "block", line: int = 0) -> Rule:
    """Read a test: `not_null(a, b)`, `unique(a, b)`, or a boolean expression over a row."""
    call = _CALL.fullmatch(text.strip())
    if call is None:
        return Rule(kind="row", name=text.strip(), sql=text.strip(), severity=severity, line=line)
    kind: Literal["not_null", "unique"] = "unique" if call[1].lower() == "unique" else "not_null"
    columns = split_names(call[2])
    if not columns:
        raise ConfigError(f"{kind}() names no column; give at least one")
    return Rule(
        kind=kind, name=f"{kind}({', '.join(columns)})", columns=columns, severity=severity, line=line
    )


def checked(header: Header) -> Header:
    """Give a header whose parts go together. Raises `ConfigError`."""
    if header.materialize == "incremental" and header.partition is None:
        raise ConfigError(
            "it is incremental and has no partition; say which column of it holds the time: "
            "partition: day(event_at)"
        )
    if header.materialize == "view" and (header.partition or header.key):
        raise ConfigError("a view is not stored, so it has neither partition nor key; make it a table")
    if header.materialize != "incremental" and (header.lookback or header.inputs):
        raise ConfigError("lookback and input are about incremental models; this one is none")
    if header.lookback:
        try:
            parse_duration(header.lookback)
        except ValueError as error:
            raise ConfigError(f"lookback: {error}") from error
    return header


def split_names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(each.strip().strip('"') for each in text.split(",") if each.strip())


def _header(said: dict[str, list[tuple[int, str]]]) -> Header:
    def one(word: str) -> str:
        return said[word][0][1] if word in said else ""

    with _line_of("partition", said):
        partition = parse_partition(one("partition")) if "partition" in said else None
    first = next(
        (word for word in ("materialize", "lookback", "input", "partition", "key") if word in said), ""
    )
    with _line_of(first, said):
        return checked(
            Header(
                materialize=_one_of(
                    "materialize", one("materialize") or "table", get_args(Materialize), said
                ),
                partition=partition,
                key=split_names(one("key")),
                description=" ".join(text for _, text in said.get("description", ())),
                owner=one("owner"),
                tags=split_names(",".join(text for _, text in said.get("tags", ()))),
                rules=_rules(said),
                lookback=one("lookback"),
                inputs=dict(_input(line, text) for line, text in said.get("input", ())),
                severity=_one_of("severity", one("severity") or "block", get_args(Severity), said),
            )
        )


@contextmanager
def _line_of(word: str, said: dict[str, list[tuple[int, str]]]) -> Iterator[None]:
    """Say in which line it was that is wrong."""
    try:
        yield
    except ConfigError as error:
        told = str(error)
        line = said[word][0][0] if word in said else 1
        raise ConfigError(told if told.startswith("line ") else f"line {line}: {told}") from error


def _rules(said: dict[str, list[tuple[int, str]]]) -> tuple[Rule, ...]:
    severities: dict[str, Severity] = {"test": "block", "warn": "warn"}
    found = []
    for word, severity in severities.items():
        for line, text in said.get(word, ()):
            with _line_of(word, {word: [(line, text)]}):
                found.append(parse_rule(text, severity=severity, line=line))
    return tuple(sorted(found, key=lambda each: each.line))


def _input(line: int, text: str) -> tuple[str, str]:
    written = _INPUT.fullmatch(text)
    if not written:
        raise ConfigError(
            f"line {line}: {text!r} is no input; write a table and its column of time: prices(quoted_at)"
        )
    return written[1].lower(), written[2].strip('"')


def _one_of(word: str, text: str, allowed: Sequence[T], said: dict[str, list[tuple[int, str]]]) -> T:
    for each in allowed:
        if each == text:
            return each
    shown = ", ".join(map(str, allowed))
    raise ConfigError(f"line {said[word][0][0]}: {word} is {text!r}; choose {shown}")
