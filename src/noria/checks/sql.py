"""Rules as SQL: each a condition that is true where a row breaks it."""

from collections.abc import Sequence

import pyarrow as pa

from noria.checks.declarations import Bound, Rule
from noria.checks.quoting import quoted, quoted_text
from noria.errors import ConfigError

__all__ = ["failing_sql", "hash_sql", "listed", "literal", "missing_sql"]


def failing_sql(rule: Rule, schema: pa.Schema) -> str:  # noqa: PLR0911 - one line per kind
    """Write the SQL that is true where `rule` fails, and false or null where it holds."""
    column = quoted(rule.columns[0]) if rule.columns else ""
    match rule.kind:
        case "between":
            sides = _outside(column, rule)
            if pa.types.is_floating(schema.field(rule.columns[0]).type):
                sides.append(f"isnan({column})")
            return " or ".join(sides)
        case "not_null":
            return " or ".join(missing_sql(each, schema) for each in rule.columns)
        case "finite":
            return " or ".join(f"not isfinite({quoted(each)}::double)" for each in rule.columns)
        case "length":
            return " or ".join(_outside(f"length({column})", rule))
        case "one_of":
            return f"{column} not in ({', '.join(literal(value) for value in rule.values)})"
        case "matches":
            return f"not regexp_full_match({column}::varchar, {literal(rule.pattern or '')})"
        case "expression":
            return f"not ({rule.sql})"
        case _:
            raise ConfigError(f"{rule.name}: no check is of kind {rule.kind!r}")


def hash_sql(columns: Sequence[str]) -> str:
    """Write the SQL of a 64-bit hash: equal values, equal hashes."""
    return f"hash({listed(columns)})"


def missing_sql(column: str, schema: pa.Schema) -> str:
    """Write the SQL that is true where a value is missing: null, or NaN."""
    test = f"{quoted(column)} is null"
    if pa.types.is_floating(schema.field(column).type):
        test += f" or coalesce(isnan({quoted(column)}), false)"
    return f"({test})"


def listed(columns: Sequence[str]) -> str:
    """Write columns' names."""
    return ", ".join(map(quoted, columns))


def literal(value: Bound, *, instant: bool = False) -> str:
    """Write a value."""
    if isinstance(value, bool | int | float):
        return repr(value) if not isinstance(value, bool) else str(value).lower()
    text = quoted_text(value)
    return f"timestamptz {text}" if instant else text


def _outside(measured: str, rule: Rule) -> list[str]:
    sides = []
    if rule.low is not None:
        sides.append(f"{measured} < {literal(rule.low, instant=rule.instants)}")
    if rule.high is not None:
        sides.append(f"{measured} > {literal(rule.high, instant=rule.instants)}")
    return sides
