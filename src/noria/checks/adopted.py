"""Contracts written for other libraries, as rules of noria. Those libraries are not imported here."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noria.checks.declarations import (
    Rule,
    between,
    expression,
    finite,
    length,
    matches,
    not_null,
    one_of,
    unique,
)
from noria.checks.quoting import quoted
from noria.clock import heed_time_zones
from noria.errors import ConfigError

__all__ = ["Adopted", "from_dataframely", "from_pandera"]

_TYPES = {  # a type as pandas or Polars write it -> Arrow's name
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "int16", "uint16": "int32", "uint32": "int64", "uint64": "int64",
    "float32": "float", "float64": "double",
    "bool": "bool", "boolean": "bool",
    "str": "string", "string": "string", "string[python]": "string", "string[pyarrow]": "string",
    "category": "string", "categorical": "string",
    "date": "date32",
}  # fmt: skip
_DATETIME = re.compile(r"datetime64\[\w+(?:, ?([^\]]+))?\]")


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a foreign contract came to.

    Attributes
    ----------
    checks
        The rules, for `noria.Dataset(checks=...)`.
    schema
        Column -> Arrow type, for `noria.Dataset(schema=...)`; empty where a column's type is unknown.
    key
        The primary key, where the contract names one.
    left_out
        What noria has no rule for, each with what to do.
    """

    checks: tuple[Rule, ...]
    schema: Mapping[str, str]
    key: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    severity: str
    rules: dict[str, Rule] = field(default_factory=dict)
    types: dict[str, str | None] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, make: Callable[[], Rule], what: str) -> None:
        try:
            rule = make()
        except ConfigError as err:
            self.left_out.append(f"{what}: {err}")
            return
        self.rules.setdefault(rule.name, rule)

    def type(self, column: str, text: str) -> None:
        found = _DATETIME.fullmatch(text)
        named = (
            f"timestamp[us{f', tz={found[1]}' if found[1] else ''}]" if found else _TYPES.get(text.lower())
        )
        self.types[column] = named
        if named is None:
            self.left_out.append(
                f"column {column!r}: its type {text} has no name here; declare it in the dataset's schema"
            )

    def done(self, key: Sequence[str], *, strict: bool, what: str) -> Adopted:
        if strict and self.left_out:
            raise ConfigError(
                f"{what} says what noria cannot take over: {'; '.join(self.left_out)}. "
                "With strict=False the rest is taken, and this is listed in `left_out`"
            )
        schema = {name: text for name, text in self.types.items() if text is not None}
        complete = len(schema) == len(self.types)
        return Adopted(
            tuple(self.rules.values()), schema if complete else {}, tuple(key), tuple(self.left_out)
        )


def from_pandera(schema: Any, *, severity: str = "reject", strict: bool = True) -> Adopted:
    """Take over a pandera schema: a `DataFrameSchema`, or a `DataFrameModel`, for pandas or Polars.

    Parameters
    ----------
    severity
        Of the rules; a check with `raise_warning=True` warns.
    strict
        Refuse a schema of which something has no rule here; False: list it in `left_out`.

    Raises
    ------
    ConfigError
        If it is no pandera schema, or something of it cannot be taken over and `strict` is set.
    """
    if isinstance(schema, type) and hasattr(schema, "to_schema"):
        schema = schema.to_schema()
    heed_time_zones()
    if not type(schema).__module__.startswith("pandera.") or not hasattr(schema, "columns"):
        raise ConfigError(f"{schema!r} is no schema of pandera; give a DataFrameSchema or a DataFrameModel")
    draft = _Draft(severity)
    for name, column in schema.columns.items():
        _pandera_column(draft, name, column)
    together = [schema.unique] if isinstance(schema.unique, str) else list(schema.unique or ())
    if together:
        draft.add(lambda: unique(*together, severity=severity), "unique")
    for each in schema.checks or ():
        draft.left_out.append(
            f"the check {each.name} of the whole frame is a function; "
            "write it as check.expression(sql, name=...)"
        )
    if schema.index is not None:
        draft.left_out.append("the index: rows have none here; make it a column")
    return draft.done((), strict=strict, what=f"the pandera schema {schema.name or ''}".rstrip())


def from_dataframely(schema: Any, *, severity: str = "reject", strict: bool = True) -> Adopted:
    """Take over a dataframely `Schema`; its primary key becomes `key`.

    Parameters
    ----------
    severity
        Of the rules.
    strict
        Refuse a schema of which something has no rule here; False: list it in `left_out`.

    Raises
    ------
    ConfigError
        If it is no dataframely schema, or something of it cannot be taken over and `strict` is set.
    """
    known = isinstance(schema, type) and any(
        each.__module__.startswith("dataframely.") for each in schema.__mro__
    )
    if not known or not hasattr(schema, "columns"):
        raise ConfigError(f"{schema!r} is no schema of dataframely; give the class")
    draft = _Draft(severity)
    for name, column in schema.columns().items():
        _dataframely_column(draft, name, column)
    rules = {name for base in schema.__mro__ for name, each in vars(base).items() if _is_function_rule(each)}
    for name in sorted(rules):
        draft.left_out.append(
            f"the rule {name} is a function; write it as check.expression(sql, name=...) or check.aggregate"
        )
    return draft.done(schema.primary_key(), strict=strict, what=f"the dataframely schema {schema.__name__}")


def _pandera_column(draft: _Draft, name: str, column: Any) -> None:
    if column.regex:
        draft.left_out.append(f"column {name!r} is a pattern of names; name each column")
        return
    if not column.required:
        draft.left_out.append(
            f"column {name!r} may be lacking; a table has all its columns: take it out, or supply it"
        )
    if column.dtype is None:
        draft.types[name] = None
        draft.left_out.append(f"column {name!r}: no type is given; declare it in the dataset's schema")
    else:
        draft.type(name, _type_text(getattr(column.dtype, "type", None), str(column.dtype)))
    if not column.nullable:
        draft.add(lambda: not_null(name, severity=draft.severity), name)
    if column.unique:
        draft.add(lambda: unique(name, severity=draft.severity), name)
    for check in column.checks:
        severity = "warn" if check.raise_warning else draft.severity
        made = _pandera_check(name, check.name, check.statistics or {}, draft.types.get(name), severity)
        if made is None:
            draft.left_out.append(
                f"column {name!r}: the check {check.name} has no rule here; "
                "write it as check.expression(sql, name=...)"
            )
        else:
            for each in made:
                draft.add(each, f"column {name!r}, check {check.name}")


def _pandera_check(  # noqa: PLR0911 - one line per check
    name: str, check: str, facts: Mapping[str, Any], kind: str | None, severity: str
) -> list[Callable[[], Rule]] | None:
    low, high = facts.get("min_value"), facts.get("max_value")
    match check:
        case "greater_than_or_equal_to" | "less_than_or_equal_to":
            return [lambda: between(name, _plain(low), _plain(high), severity=severity)]
        case "greater_than":
            return [lambda: _beyond(name, ">", low, kind, severity)]
        case "less_than":
            return [lambda: _beyond(name, "<", high, kind, severity)]
        case "in_range":
            return list(
                _range(
                    name,
                    (low, bool(facts.get("include_min", True))),
                    (high, bool(facts.get("include_max", True))),
                    kind,
                    severity,
                )
            )
        case "isin":
            return [lambda: one_of(name, map(_plain, facts["allowed_values"]), severity=severity)]
        case "equal_to":
            return [lambda: one_of(name, [_plain(facts["value"])], severity=severity)]
        case "str_matches":
            return [lambda: matches(name, rf"(?:{_regex(facts)})[\s\S]*", severity=severity)]
        case "str_contains":
            return [lambda: matches(name, rf"[\s\S]*(?:{_regex(facts)})[\s\S]*", severity=severity)]
        case "str_startswith":
            return [lambda: matches(name, rf"{re.escape(facts['string'])}[\s\S]*", severity=severity)]
        case "str_endswith":
            return [lambda: matches(name, rf"[\s\S]*{re.escape(facts['string'])}", severity=severity)]
        case "str_length":
            exact = facts.get("exact_value")
            bounds = (exact, exact) if exact is not None else (low, high)
            return [lambda: length(name, *bounds, severity=severity)]
    return None


def _dataframely_column(draft: _Draft, name: str, column: Any) -> None:
    severity = draft.severity
    draft.type(name, _type_text(column.dtype, str(column.dtype)))
    if not column.nullable and not column.primary_key:
        draft.add(lambda: not_null(name, severity=severity), name)
    if getattr(column, "unique", False):
        draft.add(lambda: unique(name, severity=severity), name)
    kind = draft.types.get(name)
    low, high = getattr(column, "min", None), getattr(column, "max", None)
    above, below = getattr(column, "min_exclusive", None), getattr(column, "max_exclusive", None)
    lower = (above, False) if above is not None else (low, True)
    upper = (below, False) if below is not None else (high, True)
    for make in _range(name, lower, upper, kind, severity):
        draft.add(make, f"column {name!r}")
    allowed = getattr(column, "is_in", None) or getattr(column, "categories", None)
    if allowed is not None:
        draft.add(lambda: one_of(name, map(_plain, allowed), severity=severity), f"column {name!r}")
    shortest, longest = getattr(column, "min_length", None), getattr(column, "max_length", None)
    if shortest is not None or longest is not None:
        draft.add(lambda: length(name, shortest, longest, severity=severity), f"column {name!r}")
    regex = getattr(column, "regex", None)
    if regex is not None:
        draft.add(lambda: matches(name, rf"[\s\S]*(?:{regex})[\s\S]*", severity=severity), f"column {name!r}")
    if getattr(column, "allow_inf", True) is False:
        if column.allow_nan is False:
            draft.add(lambda: finite(name, severity=severity), name)
        else:
            draft.left_out.append(f"column {name!r}: NaN is allowed and infinity is not; write an expression")
    elif getattr(column, "allow_nan", True) is False:
        sql = f"not isnan({quoted(name)})"
        draft.add(lambda: expression(sql, name=f"{name} is no NaN", severity=severity), name)
    for other in ("check", "resolution"):
        if getattr(column, other, None) is not None:
            draft.left_out.append(
                f"column {name!r}: its {other} has no rule here; write it as check.expression(sql, name=...)"
            )


def _range(
    name: str, low: tuple[Any, bool], high: tuple[Any, bool], kind: str | None, severity: str
) -> Iterator[Callable[[], Rule]]:
    """Give the rules of bounds, each with whether it is allowed itself."""
    inner = [bound if allowed else None for bound, allowed in (low, high)]
    if any(each is not None for each in inner):
        yield lambda: between(name, _plain(inner[0]), _plain(inner[1]), severity=severity)
    if low[0] is not None and not low[1]:
        yield lambda: _beyond(name, ">", low[0], kind, severity)
    if high[0] is not None and not high[1]:
        yield lambda: _beyond(name, "<", high[0], kind, severity)


def _beyond(name: str, sign: str, bound: Any, kind: str | None, severity: str) -> Rule:
    plain = _plain(bound)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ConfigError(f"{bound!r} itself is not allowed, which only numbers can say; write an expression")
    if isinstance(plain, int) and kind is not None and kind.startswith("int"):
        edge = (plain + 1, None) if sign == ">" else (None, plain - 1)
        return between(name, *edge, severity=severity)
    return expression(
        f"{quoted(name)} {sign} {plain!r} and not isnan({quoted(name)}::double)",
        name=f"{name} {sign} {plain}",
        severity=severity,
    )


def _type_text(kind: Any, text: str) -> str:
    """Write a type as pandas does; Polars says of an instant what its unit and its zone are."""
    if type(kind).__name__ == "Datetime" and hasattr(kind, "time_unit"):
        return f"datetime64[{kind.time_unit}{f', {kind.time_zone}' if kind.time_zone else ''}]"
    if type(kind).__name__ == "Enum":
        return "category"
    return text


def _is_function_rule(value: Any) -> bool:
    return type(value).__module__.startswith("dataframely.") and "Rule" in type(value).__name__


def _regex(facts: Mapping[str, Any]) -> str:
    pattern = facts["pattern"]
    return str(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)


def _plain(value: Any) -> Any:
    """Give a number of numpy as one of Python."""
    return value.item() if type(value).__module__ == "numpy" else value
