"""Which columns the columns of a model come from, read off its SQL."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from noria.errors import NotFound
from noria.warehouse.graph import Graph
from noria.warehouse.locality import expanded
from noria.warehouse.records import ColumnLineage, SourceColumn

__all__ = ["Lineage"]


@dataclass(frozen=True, slots=True)
class _Sources:
    found: frozenset[SourceColumn]
    approximate: bool = False


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
        direct = self._of(model, name)
        roots: set[SourceColumn] = set()
        approximate = direct.approximate
        seen: set[SourceColumn] = set()
        waiting = list(direct.found)
        while waiting:
            each = waiting.pop()
            if each in seen:
                continue
            seen.add(each)
            if each.table not in self.graph.models:
                roots.add(each)
                continue
            further = self._of(each.table, each.column)
            approximate |= further.approximate
            waiting.extend(further.found)
        return ColumnLineage(
            model=model,
            column=name,
            sources=tuple(sorted(direct.found)),
            roots=tuple(sorted(roots)),
            approximate=approximate,
        )

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
            nodes = lineage(None, expanded(declared.sql, views), schema=schema, dialect="duckdb")
        except (SqlglotError, ValueError):  # it is refused where a column is not found
            return dict.fromkeys(stored or (), self._all(model))
        exact = {name: _leaves(node) for name, node in nodes.items() if name != "*"}
        if stored is None:
            return exact
        known: Mapping[str, _Sources] = {name.lower(): each for name, each in exact.items()}
        return {name: known.get(name.lower()) or self._all(model) for name in stored}

    def _all(self, model: str) -> _Sources:
        """Give all columns of all inputs: more is not known."""
        return _Sources(
            frozenset(
                SourceColumn(table, column)
                for table in self.graph.inputs_of(model)
                for column in self.columns(table)
            ),
            approximate=True,
        )


def _leaves(node: Node) -> _Sources:
    found = set()
    approximate = False
    for each in node.walk():
        if each.downstream:
            continue
        if isinstance(each.expression, exp.Table):
            column = each.name.rpartition(".")[2].strip('"')
            approximate |= column == "*"
            found.add(SourceColumn(each.expression.name.lower(), column))
    return _Sources(frozenset(found), approximate)
