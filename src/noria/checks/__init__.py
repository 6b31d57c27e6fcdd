"""Data contracts: rules over columns, held against a batch in one pass.

The declarations are light; `noria.checks.engine` runs them.
"""

from noria.checks.declarations import Rule, Severity, between, expression, matches, not_null, one_of, unique

__all__ = ["Rule", "Severity", "between", "expression", "matches", "not_null", "one_of", "unique"]
