"""Data contracts: rules over columns, held against a batch in one pass.

The declarations are light; `noria.checks.engine` runs them.
"""

from noria.checks.declarations import (
    Rule,
    Severity,
    aggregate,
    between,
    expression,
    finite,
    fresh,
    has_type,
    increasing,
    length,
    matches,
    not_null,
    one_of,
    references,
    rejected_share,
    row_count,
    unique,
)

__all__ = [
    "Rule",
    "Severity",
    "aggregate",
    "between",
    "expression",
    "finite",
    "fresh",
    "has_type",
    "increasing",
    "length",
    "matches",
    "not_null",
    "one_of",
    "references",
    "rejected_share",
    "row_count",
    "unique",
]
