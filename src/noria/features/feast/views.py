"""Feast's feature views as noria's."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from noria.features.feast.datasets import Source, Sources, Tell
from noria.features.feast.naming import duration_text, feature_name, quoted, unused_name
from noria.features.feast.records import Made, Symbol

__all__ = ["VIEW_KINDS", "View", "Views"]

VIEW_KINDS = {
    "FeatureView",
    "BatchFeatureView",
    "StreamFeatureView",
    "batch_feature_view",
    "stream_feature_view",
}
_NUMBERS = {"Float32", "Float64", "Int32", "Int64", "Bool", "FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"}
_TEXTS = {"String", "Uuid", "TimeUuid", "STRING"}
_ARROW_NUMBER = re.compile(r"u?int\d+|float|double|halffloat|bool|decimal.*")
_ARROW_TEXTS = {"string", "large_string", "string_view"}
_WINDOWED = {"sum": "sum", "mean": "mean", "avg": "mean", "min": "min", "max": "max", "std": "std"}


@dataclass(frozen=True, slots=True)
class View:
    """A view on its way: its lines are Python."""

    made: Made
    variable: str
    name: str
    source: Source
    lines: tuple[str, ...]


class Views:
    """Makes views; what they cannot have is told."""

    def __init__(
        self, sources: Sources, entities: Mapping[str, Made], *, taken: set[str], tell: Tell
    ) -> None:
        self._sources, self._entities, self._taken, self._tell = sources, entities, taken, tell

    def of(self, made: Made) -> View | None:
        """Make a view; None if it cannot be one: then a note says why."""
        if self._is_computed(made):
            return None
        entity = self._entity(made)
        given = made.get("source") or made.get("stream_source") or made.get("batch_source")
        if entity is None or self._is_of_views(made, given):
            return None
        source = self._sources.of(given, entity=entity)
        if source is None:
            if not isinstance(given, Made):
                self._leave(made, "its source is made by code that is not run", "write the source in place")
            return None
        columns = [source.column(each) for each in entity]
        for old, new in zip(entity, columns, strict=True):
            if old != new:
                self._differ(made, f"entity {old}", f"the source calls it {new}", f"ask by {new}")
        features, descriptions = self._features(made, source, entity)
        if not features:
            self._leave(made, "none of its features maps", "see the notes about them")
            return None
        name = feature_name(made.name)
        if name != made.name:
            self._differ(made, made.name, "names hold no '__' in noria", f"it is called {name}")
        variable = unused_name(made.variable or name, self._taken)
        self._taken.add(variable)
        written = _Written(made, variable, name, source.variable, columns, self._ttl(made))
        return View(made, variable, name, source, tuple(written.lines(features, descriptions)))

    # -- what a view is of

    def _is_computed(self, made: Made) -> bool:
        computed = made.function is not None or any(
            made.get(each) for each in ("udf", "udf_string", "feature_transformation")
        )
        if computed:
            self._leave(
                made,
                "a function of its own changes the rows",
                "write it as a model of the warehouse (a SELECT, or a function with @noria.model), a view "
                "with source=noria.Table(...) reads that",
            )
        return computed

    def _is_of_views(self, made: Made, given: Any) -> bool:
        of_views = isinstance(given, list) or (isinstance(given, Made) and given.kind in VIEW_KINDS)
        if of_views:
            self._leave(
                made,
                "it is made of other views",
                "write a SELECT over their sources: source=noria.Query(...)",
            )
        return of_views

    def _entity(self, made: Made) -> list[str] | None:
        given = made.get("entities")
        if not isinstance(given, list) or not given:
            self._leave(
                made,
                "it has no entity"
                if given in (None, [])
                else "its entities are made by code that is not run",
                "give its source a column that is the same in all rows, and make that the entity",
            )
            return None
        keys: list[str] = []
        for each in given:
            entity = self._entities.get(each) if isinstance(each, str) else each
            if not isinstance(entity, Made):
                self._leave(made, f"there is no entity {each!r}", "declare it, or write its column in place")
                return None
            joined = entity.get("join_keys")
            named = [one for one in joined if isinstance(one, str)] if isinstance(joined, list) else []
            keys += named or [entity.text("join_key") or entity.name]
        return keys

    # -- what it has

    def _features(
        self, made: Made, source: Source, entity: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Give the code of each feature, and descriptions."""
        aggregated = made.get("aggregations")
        if isinstance(aggregated, list) and aggregated:
            return dict(self._aggregated(made, source, aggregated)), {}
        fields = made.get("schema") or made.get("features")
        fields = [each for each in fields if isinstance(each, Made)] if isinstance(fields, list) else []
        if not fields:
            return dict(self._inferred(made, source, entity)), {}
        features: dict[str, str] = {}
        descriptions: dict[str, str] = {}
        for each in fields:
            if each.name in entity:
                continue
            code = self._latest(each, source.column(each.name))
            if code is None:
                continue
            name = feature_name(each.name)
            if name != each.name:
                self._differ(each, each.name, "names hold no '__' in noria", f"it is called {name}")
            features[name] = code
            told = each.text("description")
            if told is not None:
                descriptions[name] = told
        return features, descriptions

    def _latest(self, field: Made, column: str) -> str | None:
        dtype = field.get("dtype", 1)
        kind = dtype.name if isinstance(dtype, Symbol) else dtype.kind if isinstance(dtype, Made) else ""
        kind = kind.rpartition(".")[2]
        if kind in _NUMBERS:
            return f"agg.last({quoted(column)})"
        if kind in _TEXTS:
            return f"agg.last_text({quoted(column)})"
        length = field.get("vector_length")
        if kind == "Array" and isinstance(length, int) and length > 0:
            return f"agg.embedding({quoted(column)}, {length})"
        self._tell(
            field,
            what=f"field {field.name}",
            why=f"its type is {kind or 'made by code that is not run'}; features are numbers, texts, and "
            "vectors of a known length",
            instead="make numbers or texts of it in a model of the warehouse"
            if kind != "Array"
            else "give the Field its vector_length, or write agg.embedding(column, LENGTH)",
        )
        return None

    def _inferred(self, made: Made, source: Source, entity: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Take the columns of the file, as Feast does where a view has no schema."""
        if source.looked is None:
            self._leave(
                made, "it has no schema, and its rows are not at hand", "write its schema, import again"
            )
            return
        others = {source.column(each) for each in entity} | {source.event_at, source.created}
        called = {old: new for new, old in source.feast_name.items()}
        for column, kind in source.looked.columns.items():
            if column in others:
                continue
            if _ARROW_NUMBER.fullmatch(kind):
                yield feature_name(called.get(column, column)), f"agg.last({quoted(column)})"
            elif kind in _ARROW_TEXTS:
                yield feature_name(called.get(column, column)), f"agg.last_text({quoted(column)})"
            else:
                self._tell(
                    made,
                    what=f"column {column} of {made.name}",
                    why=f"its type is {kind}",
                    instead="make numbers or texts of it in a model of the warehouse",
                )

    def _aggregated(self, made: Made, source: Source, given: Sequence[Any]) -> Iterator[tuple[str, str]]:
        for each in given:
            if not isinstance(each, Made):
                self._leave(made, "an aggregation is made by code that is not run", "write it in place")
                continue
            column, function = each.text("column", 0), each.text("function", 1)
            window = each.get("time_window", 2)
            text = duration_text(window) if isinstance(window, timedelta) else None
            if text is None or function is None or (column is None and function != "count"):
                self._tell(
                    each,
                    what=f"aggregation {function} of {column}",
                    why="it has no window, or is made by code that is not run",
                    instead="write it with noria.agg, in a window",
                )
                continue
            seconds = int(window.total_seconds())
            name = feature_name(each.text("name") or f"{function}_{column}_{seconds}s")
            code = _windowed(function, source.column(column or ""), text)
            if code is None:
                self._tell(
                    each,
                    what=f"aggregation {function} of {column}",
                    why="noria has none of that name",
                    instead="see the guide's page of aggregations: quantile, first, last, top, decayed ones",
                )
                continue
            if function in ("sum", "mean", "avg", "min", "max", "std"):
                self._tell(
                    each,
                    kind="differs",
                    what=f"aggregation {name}",
                    why="values are counted as whole numbers of a unit; windows begin at whole minutes",
                    instead="of a column with fractions give `scale=100` or the like",
                )
            yield name, code

    def _ttl(self, made: Made) -> str | None:
        given = made.get("ttl")
        if given is None or given == timedelta(0) or made.get("aggregations"):
            return None
        text = duration_text(given) if isinstance(given, timedelta) else None
        if text is None:
            self._differ(made, f"ttl of {made.name}", "it is not known without running code", "write `ttl=`")
        return text

    def _leave(self, made: Made, why: str, instead: str) -> None:
        self._tell(made, what=f"view {made.name}", why=why, instead=instead)

    def _differ(self, made: Made, what: str, why: str, instead: str) -> None:
        self._tell(made, kind="differs", what=what, why=why, instead=instead)


@dataclass(frozen=True, slots=True)
class _Written:
    """A view as Python."""

    made: Made
    variable: str
    name: str
    source: str
    entity: Sequence[str]
    ttl: str | None

    def lines(self, features: Mapping[str, str], descriptions: Mapping[str, str]) -> Iterator[str]:
        yield f"{self.variable} = noria.FeatureView("
        yield f"    {quoted(self.name)},"
        yield f"    source={self.source},"
        keys = ", ".join(map(quoted, self.entity))
        yield f"    entity={keys if len(self.entity) == 1 else f'({keys})'},"
        if self.ttl is not None:
            yield f"    ttl={quoted(self.ttl)},"
        for each in ("owner", "description"):
            told = self.made.text(each)
            if told is not None:
                yield f"    {each}={quoted(told)},"
        tags = _tags(self.made.get("tags"))
        if tags:
            yield f"    tags=({', '.join(tags)}{',' if len(tags) == 1 else ''}),"
        if descriptions:
            yield "    descriptions={"
            yield from (f"        {quoted(key)}: {quoted(told)}," for key, told in descriptions.items())
            yield "    },"
        yield "    features={"
        yield from (f"        {quoted(key)}: {code}," for key, code in features.items())
        yield "    },"
        yield ")"


def _tags(given: Any) -> list[str]:
    """Give Feast's tags, which have values, as texts."""
    if not isinstance(given, dict):
        return []
    return [quoted(f"{key}:{value}" if value not in ("", None) else str(key)) for key, value in given.items()]


def _windowed(function: str, column: str, window: str) -> str | None:
    if function == "count":
        return f"agg.count({quoted(window)})"
    if function == "count_distinct":
        return f"agg.distinct({quoted(column)}, {quoted(window)})"
    known = _WINDOWED.get(function)
    return None if known is None else f"agg.{known}({quoted(column)}, {quoted(window)})"
