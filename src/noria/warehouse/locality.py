"""Which inputs of a model count in their own partition only, read off its SQL.

An input is local by a column when the rows of the model in one partition depend only on those rows of it
whose column lies in the same partition. Then new rows, late ones too, re-open just their partitions.
What cannot be shown to be local counts everywhere: a change of it builds the model again as a whole.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from noria.warehouse.partitions import Partition

__all__ = ["Locality", "find_locality"]

_SIZE = {"hour": 0, "day": 1, "month": 2, "year": 3}
_TRUNCATED = {"microsecond", "millisecond", "second", "minute", "hour", "day", "month", "quarter", "year"}
_FINER = {"microsecond": -1, "millisecond": -1, "second": -1, "minute": -1, "hour": 0, "day": 1, "month": 2,
          "quarter": 3, "year": 3}  # fmt: skip

# A reference to a table (each counts for itself) -> the column by which it is aligned.
_Aligned = dict[int, str]
_Place = tuple[str, str]  # of a column: source and name
_Links = dict[_Place, set[_Place]]


@dataclass(slots=True)
class Locality:
    """What was found.

    Attributes
    ----------
    columns
        Input -> the column by which it is local.
    reasons
        Why others are not.
    """

    columns: dict[str, str]
    reasons: list[str] = field(default_factory=list)


def find_locality(
    sql: str,
    *,
    partition: Partition,
    schemas: Mapping[str, Iterable[str]],
    views: Mapping[str, str],
    waive_windows: bool = False,
) -> Locality:
    """Find the inputs of a SELECT that are local.

    Parameters
    ----------
    schemas
        Input -> its columns.
    views
        View -> its SELECT, each after those that it reads.
    waive_windows
        Windows reach no further than the model declares.
    """
    try:
        tree: exp.Expr = expanded(sql, views)
        tree = qualify(
            tree,
            dialect="duckdb",
            schema={name: dict.fromkeys(columns, "VARCHAR") for name, columns in schemas.items()},
            validate_qualify_columns=False,
        )
        root = build_scope(tree)
    except SqlglotError as err:
        return Locality({}, [f"its SQL is not understood well enough ({str(err).splitlines()[0]})"])
    if root is None:
        return Locality({}, ["its SQL is not understood well enough"])
    walk = _Walk(partition, waive_windows)
    aligned = walk.of(root).get(partition.column.lower(), {})
    columns: dict[str, str] = {}
    spoiled = set()
    for number, table in enumerate(walk.references):
        column = aligned.get(number)
        if column is None or columns.setdefault(table, column) != column:
            spoiled.add(table)
    found = {table: column for table, column in columns.items() if table not in spoiled}
    if not found and not walk.reasons:
        walk.reasons.append(f"{partition.column!r} does not come unchanged from a column of an input")
    return Locality(found, list(dict.fromkeys(walk.reasons)))


def expanded(sql: str, views: Mapping[str, str]) -> exp.Expr:
    """Parse a SELECT, with views as subqueries."""
    sources: dict[str, exp.Query | Callable[[], exp.Query]] = {}
    for name, text in views.items():
        made = exp.expand(parse_one(text, read="duckdb"), sources, dialect="duckdb")
        if isinstance(made, exp.Query):
            sources[name] = made
    return exp.expand(parse_one(sql, read="duckdb"), sources, dialect="duckdb")


class _Walk:
    """Goes through the scopes of a tree, from the leaves up."""

    def __init__(self, partition: Partition, waive_windows: bool) -> None:
        self.references: list[str] = []
        self.reasons: list[str] = []
        self._unit = _SIZE[partition.unit]
        self._waive_windows = waive_windows

    def of(self, scope: Scope) -> dict[str, _Aligned]:
        """Give for each output column what is aligned with it; takes up every reference below."""
        tree = scope.expression
        if isinstance(tree, exp.SetOperation):
            return self._of_union(scope)
        if isinstance(tree, exp.Subquery) and isinstance(tree.this, exp.Query):
            inner = build_scope(tree.this)
            return {} if inner is None else self.of(inner)
        if not isinstance(tree, exp.Select):
            self._hide(scope)
            return {}
        return self._of_select(scope, tree)

    def _of_union(self, scope: Scope) -> dict[str, _Aligned]:
        if scope.expression.args.get("limit") or scope.expression.args.get("offset"):
            self.reasons.append("LIMIT looks at all rows")
            self._hide(scope)
            return {}
        left, right = scope.set_operation_scopes
        first, second = self.of(left), self.of(right)
        names, others = _names(left), _names(right)
        if len(names) != len(others) or scope.expression.args.get("by_name"):
            return {}
        return {
            name: {**first.get(name, {}), **second.get(other, {})}
            for name, other in zip(names, others, strict=True)
            if first.get(name) and second.get(other)
        }

    def _of_select(self, scope: Scope, tree: exp.Select) -> dict[str, _Aligned]:
        columns = self._sources(scope)
        for inner in scope.subquery_scopes:
            self.reasons.append("a subquery in an expression looks at all rows")
            self._hide(inner)
        if self._mixes(tree):
            return {}
        return self._selected(tree, columns)

    def _sources(self, scope: Scope) -> dict[tuple[str, str], _Aligned]:
        """Give for each column of what a SELECT reads what is aligned with it."""
        columns: dict[tuple[str, str], _Aligned] = {}
        joined = {each.alias_or_name for each in scope.expression.args.get("joins") or ()}
        for alias, source in scope.sources.items():
            if alias not in scope.selected_sources and alias not in joined:  # SEMI and ANTI select nothing
                continue
            if isinstance(source, exp.Table):
                if not isinstance(source.this, exp.Identifier):
                    continue
                number = len(self.references)
                self.references.append(source.name.lower())
                for column in scope.source_columns(alias):
                    columns[alias, column.name.lower()] = {number: column.name.lower()}
            elif source.is_cte and source.expression.find_ancestor(exp.With) and _is_recursive(source):
                self.reasons.append("a recursive WITH looks at all rows")
                self._hide(source)
            else:
                for name, aligned in self.of(source).items():
                    columns[alias, name] = aligned
        return columns

    def _selected(self, tree: exp.Select, columns: Mapping[tuple[str, str], _Aligned]) -> dict[str, _Aligned]:
        equal, follows = _equal_columns(tree, self._column)
        windows = self._windows(tree)
        group = self._group(tree)
        if group is not None and not group:
            self.reasons.append("an aggregate without GROUP BY looks at all rows")
            return {}
        found: dict[str, _Aligned] = {}
        for each in tree.selects:
            place = self._column(_plain(each, self._column, lambda one: _reached(one, equal, follows)))
            if place is None:
                continue
            members = _reached(place, equal, {})
            if group is not None and not members & group:
                continue
            if any(not members & keys for keys in windows):
                self.reasons.append("a window is not partitioned by the model's time")
                continue
            reached = _reached(place, equal, follows)
            aligned = {number: name for one in reached for number, name in columns.get(one, {}).items()}
            if aligned:
                found[each.alias_or_name.lower()] = aligned
        return found

    def _mixes(self, tree: exp.Select) -> bool:
        """Tell whether a SELECT has parts that look at all rows."""
        for word in ("limit", "offset", "sample"):
            if tree.args.get(word):
                self.reasons.append(f"{word.upper()} looks at all rows")
                return True
        distinct = tree.args.get("distinct")
        if distinct is not None and distinct.args.get("on"):
            self.reasons.append("DISTINCT ON looks at all rows")
            return True
        for join in tree.args.get("joins") or ():
            if join.side in ("RIGHT", "FULL") or join.method in ("ASOF", "POSITIONAL"):
                self.reasons.append(f"a {join.side or join.method} JOIN looks at all rows")
                return True
        if any(tree.find(kind) for kind in (exp.Pivot, exp.MatchRecognize)):
            self.reasons.append("PIVOT looks at all rows")
            return True
        return False

    def _windows(self, tree: exp.Select) -> list[set[tuple[str, str]]]:
        if self._waive_windows:
            return []
        found = []
        for window in tree.find_all(exp.Window):
            if window.find_ancestor(exp.Select) is tree:
                keys = {self._column(each) for each in window.args.get("partition_by") or ()}
                found.append({each for each in keys if each is not None})
        return found

    def _group(self, tree: exp.Select) -> set[tuple[str, str]] | None:
        """Give the columns that rows are grouped by; None if they are not."""
        group = tree.args.get("group")
        if group is None:
            has = any(
                each.find_ancestor(exp.Select) is tree
                and not isinstance(each.parent, exp.Window)
                and not (
                    isinstance(each.parent, exp.IgnoreNulls | exp.Filter) and each.find_ancestor(exp.Window)
                )
                for each in tree.find_all(exp.AggFunc)
            )
            return set() if has or tree.args.get("having") else None
        if any(group.args.get(word) for word in ("grouping_sets", "cube", "rollup", "totals")):
            return set()
        keys = [*group.expressions]
        if group.args.get("all"):
            keys += [each for each in tree.selects if not each.find(exp.AggFunc)]
        return {place for place in map(self._column, keys) if place is not None}

    def _column(self, node: exp.Expr) -> tuple[str, str] | None:
        """Give the source and column whose partition an expression keeps; None if it may not."""
        while True:
            match node:
                case exp.Alias() | exp.Paren():
                    node = node.this
                case exp.Column():
                    return (node.table, node.name.lower()) if node.table else None
                case exp.DateTrunc() | exp.TimestampTrunc():
                    unit = str(node.args["unit"].name if node.args.get("unit") else "").lower()
                    if unit not in _TRUNCATED or _FINER[unit] > self._unit or node.args.get("zone"):
                        return None
                    node = node.this
                case exp.Cast() if node.to.this in _DAYS and self._unit >= _SIZE["day"]:
                    node = node.this
                case exp.TsOrDsToDate() if self._unit >= _SIZE["day"]:
                    node = node.this
                case exp.Cast() if node.to.this in _INSTANTS:
                    node = node.this
                case _:
                    return None

    def _hide(self, scope: Scope) -> None:
        """Take up the references below a scope, aligned with nothing."""
        seen: set[int] = set()
        waiting = [scope]
        while waiting:
            top = waiting.pop()
            if id(top) in seen:
                continue
            seen.add(id(top))
            for each in top.traverse():
                for source in each.sources.values():
                    if isinstance(source, Scope):
                        waiting.append(source)
                    elif isinstance(source.this, exp.Identifier):
                        self.references.append(source.name.lower())


_DAYS = {exp.DataType.Type.DATE, exp.DataType.Type.DATE32}
_INSTANTS = {
    exp.DataType.Type.TIMESTAMP,
    exp.DataType.Type.TIMESTAMPTZ,
    exp.DataType.Type.TIMESTAMPNTZ,
}


def _equal_columns(tree: exp.Select, column: Callable[[exp.Expr], _Place | None]) -> tuple[_Links, _Links]:
    """Give the columns that joins set equal, and those that follow another one, as far as partitions go.

    What a LEFT JOIN says of its two sides holds where it has found a row: there the joined column is that of
    the side that is kept. What it says of the kept side alone holds of no row that it gives. SEMI and ANTI
    joins look at the joined rows in the same way.
    """
    equal: _Links = {}
    follows: _Links = {}
    for join in tree.args.get("joins") or ():
        is_inner = not join.side and join.kind not in ("SEMI", "ANTI")
        condition = join.args.get("on")
        parts = condition.flatten() if isinstance(condition, exp.And) else (condition,)
        for part in parts:
            if not isinstance(part, exp.EQ):
                continue
            left, right = column(part.left), column(part.right)
            if left is None or right is None:
                continue
            if is_inner:
                equal.setdefault(left, set()).add(right)
                equal.setdefault(right, set()).add(left)
                continue
            kept, joined = (right, left) if left[0] == join.alias_or_name else (left, right)
            if kept[0] != join.alias_or_name == joined[0]:
                follows.setdefault(kept, set()).add(joined)
    return equal, follows


def _reached(place: _Place, *links: Mapping[_Place, set[_Place]]) -> set[_Place]:
    """Give a column and all that links lead to from it."""
    found, waiting = {place}, [place]
    while waiting:
        here = waiting.pop()
        new = {each for way in links for each in way.get(here, ())} - found
        found |= new
        waiting += new
    return found


def _names(scope: Scope) -> list[str]:
    tree = scope.expression
    return [name.lower() for name in tree.named_selects] if isinstance(tree, exp.Query) else []


def _plain(
    node: exp.Expr,
    column: Callable[[exp.Expr], tuple[str, str] | None],
    reached: Callable[[_Place], set[_Place]],
) -> exp.Expr:
    """Give the first of columns that a join with USING has made one of."""
    inner = node.this if isinstance(node, exp.Alias) else node
    if isinstance(inner, exp.Coalesce):
        places = [column(each) for each in (inner.this, *inner.expressions)]
        first = places[0]
        if first is not None and all(each in reached(first) for each in places):
            first_of: exp.Expr = inner.this
            return first_of
    return node


def _is_recursive(scope: Scope) -> bool:
    found = scope.expression.find_ancestor(exp.With)
    return bool(found is not None and found.args.get("recursive"))
