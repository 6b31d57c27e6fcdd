"""What one SELECT says: which tables it names, and a digest that comments and white space do not change."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
from sqlglot import exp, parse
from sqlglot.errors import OptimizeError, SqlglotError
from sqlglot.optimizer.scope import traverse_scope
from sqlglot.tokenizer_core import Token, TokenType
from sqlglot.tokens import Tokenizer

from noria.errors import ConfigError
from noria.records import digest_of
from noria.warehouse.records import Reference, Statement

__all__ = ["read_statement", "table_names"]

_LINE = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)
_PIVOT = re.compile(r"\s*(un)?pivot\b", re.IGNORECASE)
# Functions that give rows and reach nothing outside of the statement.
_TABLE_FUNCTIONS = {
    "generate_series", "generateseries", "json_each", "json_tree", "range", "regexp_split_to_table", "repeat",
    "repeat_row", "unnest",
}  # fmt: skip
# What may give rows in another order each time, as several threads come to it.
_MIXING = (
    exp.Join,
    exp.Group,
    exp.Distinct,
    exp.SetOperation,
    exp.Window,
    exp.AggFunc,
    exp.Lateral,
    exp.Unnest,
)
# Functions that give something else each time, as DuckDB lists them; the second need no parentheses.
_CHANGING = {
    "current_connection_id", "current_query", "current_query_id", "current_transaction_id", "currval",
    "gen_random_uuid", "get_current_time", "get_current_timestamp", "nextval", "now", "random", "setseed",
    "today", "transaction_timestamp", "txid_current", "uuid", "uuidv4", "uuidv7",
}  # fmt: skip
_CHANGING_WORDS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
_NAMES = {TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING, TokenType.NUMBER}


def read_statement(text: str) -> Statement:
    """Read one SELECT.

    Raises
    ------
    ConfigError
        If it does not parse, writes, is several statements, or reads files; begins with line and column.
    """
    _want_one_select(text)
    tokens = Tokenizer(dialect="duckdb").tokenize(text)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    said = [
        [each.token_type.name, each.text if each.token_type in _NAMES else each.text.upper()]
        for each in tokens
    ]
    digest = digest_of({"tokens": said})
    changing = _changing(tokens)
    tree = _tree(text)
    if tree is None:
        names = dict.fromkeys(
            (each.text, each.line)
            for each in tokens
            if each.token_type in (TokenType.VAR, TokenType.IDENTIFIER) or each.text.isidentifier()
        )
        found = {name.lower(): Reference(name.lower(), line) for name, line in reversed(list(names))}
        return Statement(digest=digest, tables=tuple(found.values()), is_exact=False, changing=changing)
    _refuse_files(tree)
    references: dict[str, Reference] = {}
    for table in table_names(tree):
        name = table.name.lower()
        references.setdefault(name, Reference(name, _line(table)))
    is_ordered = tree.args.get("order") is not None or tree.find(*_MIXING) is None
    return Statement(
        digest=digest, tables=tuple(references.values()), is_ordered=is_ordered, changing=changing
    )


def _changing(tokens: Sequence[Token]) -> str:
    """Name the first thing in a statement that gives something else each time; empty: there is none."""
    for place, each in enumerate(tokens):
        if each.token_type in (TokenType.STRING, TokenType.NUMBER):
            continue
        word, after = each.text.lower(), tokens[place + 1 : place + 2]
        before = tokens[place - 1 : place] if place else []
        is_member = bool(before) and before[0].token_type is TokenType.DOT
        is_called = bool(after) and after[0].token_type is TokenType.L_PAREN
        if is_called and (word in _CHANGING or (word == "age" and _arguments(tokens[place + 1 :]) == 1)):
            return f"{word}()"
        if each.token_type is TokenType.IDENTIFIER or is_member:
            continue
        if word in _CHANGING_WORDS:
            return word
        if each.token_type is TokenType.TABLE_SAMPLE or (
            word == "sample" and bool(before) and before[0].token_type is TokenType.USING
        ):
            return "a sample"
    return ""


def _arguments(tokens: Sequence[Token]) -> int:
    """Count the arguments between the parentheses that tokens begin with."""
    depth, found = 0, 1
    for each in tokens:
        if each.token_type in _OPENING:
            depth += 1
        elif each.token_type in _CLOSING:
            depth -= 1
        if depth == 0:
            break
        if each.token_type is TokenType.COMMA and depth == 1:
            found += 1
    return found


def table_names(tree: exp.Expr) -> Iterator[exp.Table]:
    """Give the tables that a tree reads, without the names of its own WITH."""
    try:
        scopes = traverse_scope(tree)
    except (OptimizeError, SqlglotError):
        scopes = []
    if not scopes:
        own = {each.alias.lower() for each in tree.find_all(exp.CTE)}
        yield from (each for each in tree.find_all(exp.Table) if each.name and each.name.lower() not in own)
        return
    seen: set[int] = set()
    for scope in scopes:
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and source.name and id(source) not in seen:
                seen.add(id(source))
                yield source


def _want_one_select(text: str) -> None:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as err:
        raise ConfigError(_placed(str(err))) from err
    if not statements:
        raise ConfigError("line 1: there is no statement; write one SELECT")
    if len(statements) > 1:
        second = text.find(statements[1].query.strip()[:40], len(statements[0].query.strip()))
        line = text[: max(second, 0)].count("\n") + 1
        raise ConfigError(f"line {line}: {len(statements)} statements were found, one SELECT is wanted")
    kind = statements[0].type.name
    if kind != "SELECT" and not (kind == "MULTI" and _PIVOT.match(_bare(text))):
        raise ConfigError(f"line 1: this is {kind}, which does not only read; one SELECT is wanted")


def _bare(text: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def _placed(message: str) -> str:
    """Put line and column before what DuckDB says of a statement."""
    first = message.strip().splitlines()[0].removeprefix("Parser Error: ")
    if "syntax error" in first:
        first += '; a name that is a keyword of SQL, such as "at", has to be in double quotes'
    found = _LINE.search(message)
    if not found:
        return f"line 1: {first}"
    column = len(found[3]) - len(f"LINE {found[1]}: ") + 1
    return f"line {found[1]}, column {column}: {first}"


def _tree(text: str) -> exp.Expr | None:
    """Give the syntax tree of a statement that DuckDB understands, or None where sqlglot does not."""
    try:
        found = [each for each in parse(text, read="duckdb") if each is not None]
    except SqlglotError:
        return None
    tree = found[0] if len(found) == 1 else None
    return tree if isinstance(tree, exp.Query | exp.Values) else None


def _refuse_files(tree: exp.Expr) -> None:
    for table in tree.find_all(exp.Table):
        inner: Any = table.this
        if not isinstance(inner, exp.Identifier):
            name = (inner.name or inner.sql_name()) if isinstance(inner, exp.Anonymous) else inner.sql_name()
            if name.lower() not in _TABLE_FUNCTIONS:
                raise ConfigError(
                    f"line {_line(table)}: {name.lower()}(...) reads from outside of the lake; ingest it "
                    "into a dataset first, and name that"
                )
        elif inner.quoted and re.search(r"[./:*]", inner.name):
            raise ConfigError(
                f"line {_line(table)}: {inner.name!r} is a file, not a table; ingest it into a dataset "
                "first, and name that"
            )
        elif table.catalog or table.db.lower() not in ("", "main"):
            raise ConfigError(
                f"line {_line(table)}: {table.sql(dialect='duckdb')} names a schema; tables of a project "
                "have names alone"
            )


def _line(node: exp.Expr) -> int:
    found = next((each.meta["line"] for each in node.walk() if "line" in each.meta), 1)
    return int(found)
