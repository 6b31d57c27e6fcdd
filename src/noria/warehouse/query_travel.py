"""Time travel in a statement: `FOR VERSION AS OF 3`, `FOR TIMESTAMP AS OF '2013-05-01'`, `AT (VERSION => 3)`.

DuckDB's own tokenizer tells text from strings and comments; each dated table gets a name of its own, which
the statement reads in its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import duckdb

from noria.checks.quoting import quoted
from noria.errors import ConfigError

__all__ = ["Dated", "Token", "named_parameters", "read_tokens", "undated"]

_UNITS = {"version": "version", "timestamp": "timestamp", "system_time": "timestamp"}
_TYPES = {"timestamp", "timestamptz", "date"}
_DESCRIBING = {"describe", "desc", "summarize", "show"}  # these take no alias
_NO_ALIAS = """
    select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')
"""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a literal or a sign of a statement; `start` and `stop` count the bytes of its UTF-8."""

    text: str
    kind: str
    start: int
    stop: int

    @property
    def word(self) -> str:
        """The text in lower case; of a quoted name what is in the quotes, as it is."""
        if self.text.startswith('"'):
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()

    @property
    def is_quoted(self) -> bool:
        """Whether it is a name in double quotes."""
        return self.text.startswith('"')


@dataclass(frozen=True, slots=True)
class Dated:
    """A table as it was.

    Attributes
    ----------
    schema, table
        What stands before the clause.
    unit
        `version` or `timestamp`.
    value
        An SQL expression.
    """

    schema: str
    table: str
    unit: str
    value: str


@dataclass(frozen=True, slots=True)
class _Clause:
    unit: str
    value: str
    first: int  # places of tokens: [first, stop)
    stop: int


def read_tokens(sql: str) -> list[Token]:
    """Give the tokens of a statement, comments left out."""
    data = sql.encode()
    found = duckdb.tokenize(sql)
    tokens = []
    for place, (start, kind) in enumerate(found):
        stop = found[place + 1][0] if place + 1 < len(found) else len(data)
        text = data[start:stop].rstrip()
        if kind.name != "comment" and text:
            tokens.append(Token(text.decode(), kind.name, start, start + len(text)))
    return tokens


def named_parameters(sql: str) -> set[str]:
    """Give the names of a statement's parameters, without their `$`.

    Examples
    --------
    >>> sorted(named_parameters("select $a + $b, '$c' -- $d"))
    ['a', 'b']
    """
    tokens = read_tokens(sql)
    return {
        after.text for before, after in pairwise(tokens) if before.text == "$" and before.stop == after.start
    }


def undated(sql: str, connection: duckdb.DuckDBPyConnection) -> tuple[str, dict[str, Dated]]:
    """Give the statement with plain names in the place of dated tables, and what each name stands for.

    Raises
    ------
    ConfigError
        If a clause of time travel does not follow a table's name, or names no version or instant.
    """
    tokens = read_tokens(sql)
    clauses = list(_clauses(tokens))
    if not clauses:
        return sql, {}
    no_alias = {row[0] for row in connection.execute(_NO_ALIAS).fetchall()}
    data, end = sql.encode(), 0
    parts: list[bytes] = []
    names: dict[str, Dated] = {}
    for clause in clauses:
        path, alias, begin = _table_before(tokens, clause, no_alias)
        follows = None if alias is not None else _alias_after(tokens, clause.stop, no_alias)
        named = f"{path[-1]} as of {clause.unit} {clause.value}"
        names[named] = Dated(path[0] if len(path) > 1 else "", path[-1], clause.unit, clause.value)
        described = begin > 0 and tokens[begin - 1].word in _DESCRIBING
        text = quoted(named)
        if alias is not None:
            text += f" as {alias}"
        elif not follows and not described:
            text += f" as {quoted(path[-1])}"
        parts += [data[end : tokens[begin].start], text.encode()]
        end = tokens[clause.stop - 1].stop
    return b"".join([*parts, data[end:]]).decode(), names


def _clauses(tokens: list[Token]) -> Iterator[_Clause]:
    place = 0
    while place < len(tokens):
        clause = _as_of(tokens, place) or _at(tokens, place)
        if clause is not None:
            yield clause
        place = place + 1 if clause is None else clause.stop


def _as_of(tokens: list[Token], first: int) -> _Clause | None:
    """Read `[FOR] VERSION | TIMESTAMP | SYSTEM_TIME AS OF value`."""
    has_for = _is(tokens, first, "for")
    place = first + has_for
    if not (_is(tokens, place, *_UNITS) and _is(tokens, place + 1, "as") and _is(tokens, place + 2, "of")):
        return None
    unit = _UNITS[tokens[place].word]
    stop = _value_stop(tokens, place + 3)
    if stop is None:
        if not has_for:
            return None  # a column called `version`, named `of`
        found = tokens[place + 3].text if place + 3 < len(tokens) else "nothing"
        raise ConfigError(
            f"`FOR {unit.upper()} AS OF` is followed by {found}; write a number for a version, a text such "
            "as '2013-05-01' for an instant, a $parameter, or an expression in parentheses"
        )
    return _Clause(unit, _text(tokens, place + 3, stop), first, stop)


def _at(tokens: list[Token], first: int) -> _Clause | None:
    """Read `AT (VERSION | TIMESTAMP => expression)`."""
    if not (_is(tokens, first, "at") and _is(tokens, first + 1, "(") and _is(tokens, first + 3, "=>")):
        return None
    if not _is(tokens, first + 2, "version", "timestamp"):
        return None
    closed = _closing(tokens, first + 1)
    if closed is None or closed == first + 4:
        return None
    unit = _UNITS[tokens[first + 2].word]
    return _Clause(unit, _text(tokens, first + 4, closed), first, closed + 1)


def _value_stop(tokens: list[Token], place: int) -> int | None:
    """Give the place behind a value; None if none begins here."""
    if place >= len(tokens):
        return None
    token = tokens[place]
    if token.text == "(":
        closed = _closing(tokens, place)
        return None if closed is None else closed + 1
    if token.kind == "string_const" or (token.kind == "numeric_const" and token.text[0].isdigit()):
        return place + 1
    if token.text == "$" and place + 1 < len(tokens):
        return place + 2
    if token.word in _TYPES and place + 1 < len(tokens) and tokens[place + 1].kind == "string_const":
        return place + 2
    return None


def _closing(tokens: list[Token], place: int) -> int | None:
    depth = 0
    for at in range(place, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at].text, 0)
        if depth == 0:
            return at
    return None


def _table_before(
    tokens: list[Token], clause: _Clause, no_alias: set[str]
) -> tuple[list[str], str | None, int]:
    """Give the table's path, its alias if it stands before the clause, and the place where it begins."""
    last, alias = clause.first - 1, None
    if last >= 1 and _is_name(tokens[last], no_alias):
        if _is(tokens, last - 1, "as"):
            last, alias = last - 2, tokens[last].text
        elif _is_name(tokens[last - 1], no_alias):
            last, alias = last - 1, tokens[last].text
    if last < 0 or not _is_name(tokens[last], no_alias):
        raise ConfigError(
            f"`{_text(tokens, clause.first, clause.stop)}` has to follow a table's name: "
            "FROM orders FOR VERSION AS OF 3"
        )
    path, begin = [tokens[last].word if tokens[last].is_quoted else tokens[last].text], last
    while begin >= 2 and tokens[begin - 1].text == "." and _is_name(tokens[begin - 2], no_alias):
        begin -= 2
        path.insert(0, tokens[begin].word)
    return path, alias, begin


def _alias_after(tokens: list[Token], place: int, no_alias: set[str]) -> bool:
    return _is(tokens, place, "as") or (place < len(tokens) and _is_name(tokens[place], no_alias))


def _is_name(token: Token, no_alias: set[str]) -> bool:
    if token.is_quoted:
        return True
    return token.kind in ("identifier", "keyword") and token.word not in no_alias


def _is(tokens: list[Token], place: int, *words: str) -> bool:
    return 0 <= place < len(tokens) and not tokens[place].is_quoted and tokens[place].word in words


def _text(tokens: list[Token], first: int, stop: int) -> str:
    """Join tokens as they were written, save that comments and line breaks between them are one space."""
    parts = [tokens[first].text]
    for before, after in pairwise(tokens[first:stop]):
        parts.append(after.text if before.stop == after.start else f" {after.text}")
    return "".join(parts)
