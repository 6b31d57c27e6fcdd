"""Tests that the YAML files of a dbt project name, as rules of noria."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from noria.errors import ConfigError
from noria.warehouse.header import Rule

__all__ = ["TestSaid", "read_test"]

Severity = Literal["block", "warn"]

_PLAIN = re.compile(r"[A-Za-z_]\w*")
_REFERRED = re.compile(r"\s*(ref|source)\s*\((.*)\)\s*", re.DOTALL)
_FILLED = "is not null"
_OTHERWISE = ("error_if", "warn_if", "fail_calc")  # what makes of failing rows something else than a failure


class TestSaid(NamedTuple):
    """A test that is a query: it gives the rows that should not be."""

    model: str
    other: str | None  # a second table that it reads
    name: str
    sql: str
    severity: Severity


class _Found(Protocol):
    """Where tests go to; see `noria.warehouse.dbt_properties.Properties`."""

    rules: dict[str, list[Rule]]
    tests: list[TestSaid]
    notes: list[str]
    newest: dict[str, str]

    def source(self, group: str, table: str) -> str: ...


class _Test:
    """One test as it is said."""

    def __init__(self, said: Any, where: str) -> None:
        self.arguments: dict[str, Any] = {}
        if isinstance(said, Mapping) and "test_name" in said:
            self.kind = str(said["test_name"])
            self.arguments = {key: value for key, value in said.items() if key not in ("name", "test_name")}
        elif isinstance(said, Mapping) and len(said) == 1:
            ((kind, arguments),) = said.items()
            self.kind = str(kind)
            if arguments and not isinstance(arguments, Mapping):
                raise ConfigError(
                    f"{where}: what test {kind} is given is {str(arguments)[:60]!r}, no mapping"
                )
            self.arguments = dict(arguments or {})
        elif isinstance(said, str):
            self.kind = said
        else:
            raise ConfigError(f"{where}: {str(said)[:60]!r} is no test; write its name, or `name: {{...}}`")
        config = self.arguments.get("config")
        self.config = {**self.arguments, **(config if isinstance(config, Mapping) else {})}
        more = self.arguments.get("arguments")
        self.arguments |= more if isinstance(more, Mapping) else {}

    @property
    def severity(self) -> Severity:
        return "warn" if str(self.config.get("severity") or "").lower() == "warn" else "block"

    @property
    def where(self) -> str:
        return str(self.config.get("where") or "").strip()

    @property
    def is_understood(self) -> bool:
        return "{{" not in self.where and not any(self.config.get(each) for each in _OTHERWISE)


def read_test(found: _Found, model: str, column: str | None, said: Any, *, where: str) -> None:
    """Take in one test of a model, or of its column.

    Raises
    ------
    ConfigError
        If it is none; begins with `where`.
    """
    test = _Test(said, where)
    if str(test.config.get("enabled", True)).lower() == "false":
        return
    arguments = test.arguments
    column = column or arguments.get("column_name")
    given = column is not None and test.is_understood
    match test.kind:
        case "unique" if given:
            _add_unique(found, model, str(column), test)
        case "not_null" if given:
            _add_row_rule(found, model, str(column), test, _FILLED)
        case "accepted_values" if given and isinstance(arguments.get("values"), list) and arguments["values"]:
            quoted = arguments.get("quote", True)
            values = ", ".join(_literal(each, quoted) for each in arguments["values"])
            _add_row_rule(found, model, str(column), test, f"in ({values})")
        case "relationships" if given and "to" in arguments and "field" in arguments:
            _add_relationship(found, model, str(column), test)
        case _:
            found.notes.append(f"test {test.kind} of model {model} is not understood, and not run")


def _add_unique(found: _Found, model: str, column: str, test: _Test) -> None:
    name = f"unique({column})"
    if not test.where and _PLAIN.fullmatch(column):
        rule = Rule(kind="unique", name=name, columns=(column,), severity=test.severity)
        found.rules.setdefault(model, []).append(rule)
        return
    value = _value(column)
    condition = f"{value} is not null" + (f" and ({test.where})" if test.where else "")
    sql = (
        f'select {value} as v, count(*) as n from "{model}" where {condition} group by 1 having count(*) > 1'
    )
    found.tests.append(TestSaid(model, None, _limited(name, test), sql, test.severity))


def _add_row_rule(found: _Found, model: str, column: str, test: _Test, condition: str) -> None:
    is_filled = condition == _FILLED
    name = f"not_null({column})" if is_filled else f"{column} {condition}"
    sql = f"{_value(column)} {condition}"
    if test.where:
        rule = Rule(
            kind="row",
            name=_limited(name, test),
            sql=f"not coalesce(({test.where}), false) or {sql}",
            severity=test.severity,
        )
    elif is_filled and _PLAIN.fullmatch(column):
        rule = Rule(kind="not_null", name=name, columns=(column,), severity=test.severity)
    else:
        rule = Rule(kind="row", name=name, sql=sql, severity=test.severity)
    found.rules.setdefault(model, []).append(rule)


def _add_relationship(found: _Found, model: str, column: str, test: _Test) -> None:
    try:
        to, other = _referred(found, str(test.arguments["to"])), str(test.arguments["field"])
    except ConfigError as error:
        found.notes.append(f"test relationships of model {model} is not run: {error}")
        return
    limit = f" and ({test.where})" if test.where else ""
    sql = (
        f'select {_value(column)} as v from "{model}" where {_value(column)} is not null{limit} '
        f'and {_value(column)} not in (select {_value(other)} from "{to}" where {_value(other)} is not null)'
    )
    name = _limited(f"{column} refers to {to}.{other}", test)
    found.tests.append(TestSaid(model, to, name, sql, test.severity))


def _value(column: str) -> str:
    """Write a column, or the expression that stands in its place."""
    return f'"{column}"' if _PLAIN.fullmatch(column) else f"({column})"


def _limited(name: str, test: _Test) -> str:
    return f"{name} where {test.where}" if test.where else name


def _referred(found: _Found, text: str) -> str:
    """Give the table that `ref('x')` or `source('a', 'b')` names."""
    called = _REFERRED.fullmatch(text)
    names = [each.strip(" '\"") for each in (called[2] if called else text).split(",") if "=" not in each]
    if called and called[1] == "source" and len(names) == 2:
        return found.source(names[0], names[1])
    name = names[-1].lower()
    return found.newest.get(name, name)


def _literal(value: Any, quoted: bool) -> str:
    if isinstance(value, bool) or (isinstance(value, int | float) and not quoted):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'" if quoted else str(value)
