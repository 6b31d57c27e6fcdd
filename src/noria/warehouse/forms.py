"""In what form a column of a model holds the values that it comes from, read off its expression."""

from enum import IntEnum

from sqlglot import exp
from sqlglot.lineage import Node

__all__ = ["Form", "form_in", "then"]


class Form(IntEnum):
    """How much of a value is left in what comes of it; of several ways the last one counts.

    Attributes
    ----------
    COUNTED
        Only whether it is there, or what it is compared with.
    SAME
        Itself, in every row: a plain column, whatever its case, blanks or type.
    AMONG
        Itself, in some rows or beside others, as by `min`, `list` or `case`.
    CHANGED
        Something else that may tell it, as by `'x' || name`, `split_part` or `md5`.
    """

    COUNTED = 0
    SAME = 1
    AMONG = 2
    CHANGED = 3


_SAME = (exp.Alias, exp.Paren, exp.Upper, exp.Lower, exp.Trim, exp.Cast)
_AMONG = (
    exp.AnyValue,
    exp.ArgMax,
    exp.ArgMin,
    exp.Array,
    exp.ArrayAgg,
    exp.Case,
    exp.Coalesce,
    exp.Distinct,
    exp.Filter,
    exp.First,
    exp.FirstValue,
    exp.If,
    exp.Lag,
    exp.Last,
    exp.LastValue,
    exp.Lead,
    exp.List,
    exp.Max,
    exp.Min,
    exp.Nullif,
    exp.Order,
    exp.Ordered,
    exp.PropertyEQ,
    exp.Select,
    exp.Struct,
    exp.Subquery,
    exp.Window,
)
_COUNTED = (exp.ApproxDistinct, exp.Connector, exp.Count, exp.Not, exp.Predicate)


def form_in(node: Node, source: Node) -> Form:
    """Tell in what form the expression of a column holds one of the columns that it comes from."""
    top = node.expression
    columns = list(top.find_all(exp.Column, exp.Subquery))
    named = [each for each in columns if isinstance(each, exp.Column) and each.sql("duckdb") == source.name]
    return max((_form(each, top) for each in named or columns), default=Form.CHANGED)


def then(first: Form, second: Form) -> Form:
    """Give the form of a value that goes through two expressions: what was only counted is never more."""
    return Form.COUNTED if Form.COUNTED in (first, second) else max(first, second)


def _form(part: exp.Expr, top: exp.Expr) -> Form:
    form = Form.SAME
    while part is not top and part.parent is not None:
        part = part.parent
        if isinstance(part, _COUNTED):
            return Form.COUNTED
        if not isinstance(part, _SAME):
            form = max(form, Form.AMONG if isinstance(part, _AMONG) else Form.CHANGED)
    return form
