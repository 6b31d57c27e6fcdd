"""Which columns the columns of a model come from, read off its SQL."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from noria.errors import NotFound
from noria.warehouse.forms import Form, form_in, then
from noria.warehouse.graph import Graph
from noria.warehouse.locality import expanded
from noria.warehouse.records import ColumnLineage, SourceColumn

__all__ = ["Lineage"]

_INVENTED = re.compile(r"_col_\d+")  # how sqlglot calls what has no name


@dataclass(frozen=True, slots=True)
class _Sources:
    forms: Mapping[SourceColumn, Form]
    approximate: bool = False

    @property
    def found(self) -> frozenset[SourceColumn]:
        return frozenset(self.forms)


@dataclass(slots=True)
class Lineage:
    """Finds sources of columns.

    Parameters
    ----------
    stored
        Gives the columns of a table in the lake; None if there is none yet.
    """

    graph: Graph
    stored: Callable[[str], list[str] | None]
    _known: dict[str, dict[str, _Sources]] = field(default_factory=dict)

    def columns(self, model: str) -> list[str]:
        """Name the columns of a table or a model, built or not."""
        if model not in self.graph.models or not self.graph.models[model].is_view:
            found = self.stored(model)
            if found is not None:
                return found
        return list(self._sources(model)) if model in self.graph.models else []

    def of(self, model: str, column: str) -> ColumnLineage:
        """Give where a column comes from.

        Raises
        ------
        NotFound
            If the model has no such column.
        """
        names = self.columns(model)
        name = next((each for each in names if each.lower() == column.lower()), None)
        if name is None:
            raise NotFound("column", f"{model}.{column}", [f"{model}.{each}" for each in names])
        roots, approximate = self._roots(model, name)
        return ColumnLineage(
            model=model,
            column=name,
            sources=tuple(sorted(self._of(model, name).found)),
            roots=tuple(sorted(roots)),
            approximate=approximate,
        )

    def forms(self, model: str, column: str) -> dict[SourceColumn, Form]:
        """Give in what form a column holds its roots."""
        return self._roots(model, column)[0]

    def _roots(self, model: str, column: str) -> tuple[dict[SourceColumn, Form], bool]:
        """Give the roots of a column with their forms, and whether they are approximate."""
        direct = self._of(model, column)
        roots: dict[SourceColumn, Form] = {}
        approximate = direct.approximate
        seen: dict[SourceColumn, Form] = {}
        waiting = list(direct.forms.items())
        while waiting:
            each, form = waiting.pop()
            if seen.get(each, -1) >= form:
                continue
            seen[each] = form
            if each.table not in self.graph.models:
                roots[each] = form
                continue
            further = self._of(each.table, each.column)
            approximate |= further.approximate
            waiting += [(source, then(form, more)) for source, more in further.forms.items()]
        return roots, approximate

    def _of(self, model: str, column: str) -> _Sources:
        found = {name.lower(): each for name, each in self._sources(model).items()}
        return found.get(column.lower()) or self._all(model)

    def _sources(self, model: str) -> dict[str, _Sources]:
        if model not in self._known:
            self._known[model] = {}  # a circle ends here
            self._known[model] = self._read(model)
        return self._known[model]

    def _read(self, model: str) -> dict[str, _Sources]:
        declared = self.graph.models[model]
        stored = None if declared.is_view else self.stored(model)
        if declared.language == "python" or not declared.is_exact:
            return dict.fromkeys(stored or (), self._all(model))
        views = {each: self.graph.models[each].sql for each in self.graph.views_of(model)}
        schema = {each: dict.fromkeys(self.columns(each), "VARCHAR") for each in self.graph.inputs_of(model)}
        try:
            tree = expanded(declared.sql, views)
            if any(each.args.get("by_name") for each in tree.find_all(exp.SetOperation)):
                return dict.fromkeys(stored or _names(tree), self._all(model))
            nodes = lineage(None, tree, schema=schema, dialect="duckdb")
        except (SqlglotError, ValueError):  # it is refused where a column is not found
            return dict.fromkeys(stored or (), self._all(model))
        there = {table: {each.lower(): each for each in columns} for table, columns in schema.items()}
        exact = {
            name: _leaves(node, there) or self._all(model)
            for name, node in nodes.items()
            if name != "*" and not _INVENTED.fullmatch(name)
        }
        if stored is None:
            return exact
        known: Mapping[str, _Sources] = {name.lower(): each for name, each in exact.items()}
        return {name: known.get(name.lower()) or self._all(model) for name in stored}

    def _all(self, model: str) -> _Sources:
        """Give all columns of all inputs: more is not known."""
        return _Sources(
            {
                SourceColumn(table, column): Form.CHANGED
                for table in self.graph.inputs_of(model)
                for column in self.columns(table)
            },
            approximate=True,
        )


def _names(tree: exp.Expr) -> list[str]:
    return [each for each in tree.named_selects if each != "*"] if isinstance(tree, exp.Query) else []


def _leaves(node: Node, there: Mapping[str, Mapping[str, str]]) -> _Sources | None:
    """Give the columns of tables that a column comes from; None where one of them is not certain.

    What cannot be told: a column that belongs to no table in reach (but to a query around this one, beside
    it, or to itself), a whole row taken as one value, and a star whose columns are not known.
    """
    found: dict[SourceColumn, Form] = {}
    waiting = [(node, Form.SAME)]
    while waiting:
        each, form = waiting.pop()
        if each.expression.find(exp.TableColumn):
            return None
        if each.downstream:
            waiting += [(one, then(form, form_in(each, one))) for one in each.downstream]
            continue
        leaf = each.expression
        if isinstance(leaf, exp.Placeholder):
            return None
        if not isinstance(leaf, exp.Table):
            continue
        if not isinstance(leaf.this, exp.Identifier):  # a function that gives rows
            if leaf.find(exp.Column):
                return None
            continue
        table, column = leaf.name.lower(), each.name.rpartition(".")[2].strip('"').lower()
        if column not in there.get(table, {}):
            return None
        source = SourceColumn(table, there[table][column])
        found[source] = max(form, found.get(source, form))
    return _Sources(found)
