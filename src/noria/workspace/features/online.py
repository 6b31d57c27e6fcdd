"""Online features of a project: looked up, loaded, held against offline, traced to their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.clock import as_utc, to_micros
from noria.errors import ConfigError, SourceError
from noria.workspace.features.records import Compared, Loaded, Traced
from noria.workspace.features.registering import register_views
from noria.workspace.features.sources import FeatureSources
from noria.workspace.features.views import Wanted, entities_of, find_view

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from noria.features.declarations import ViewSpec
    from noria.workspace.project import Project

__all__ = ["asked_column", "compare_online", "get_online", "materialize_views", "trace_values"]


def get_online(
    project: Project,
    features: Sequence[Wanted],
    entities: Mapping[str, Sequence[str | int | None]],
    *,
    at: datetime | None = None,
) -> pa.Table:
    """See `noria.workspace.features.features.Features.get`."""
    import pyarrow as pa

    from noria.features.layout import layout_of
    from noria.features.online import open_online_store
    from noria.features.standing import lacking
    from noria.features.value_columns import value_column

    views = [find_view(project, each) for each in features]
    if not views:
        raise ConfigError("no feature view is wanted; name one or more")
    specs = [each.spec() for each in views]
    if not project.has_online:
        raise lacking(layout_of(specs[0]), {})
    at_us = to_micros(_asked_at(project, at))
    with (
        project.online_guard,
        closing(open_online_store(project.settings.stores.online, root=project.root, readonly=True)) as store,
    ):
        if all(spec.is_numbers_only for spec in specs):
            numbers = store.read(specs, entities, at_us)
            names = [name for spec in specs for name in spec.columns]
            values = {name: pa.array(numbers[:, place]) for place, name in enumerate(names)}
        else:
            found = store.read_values(specs, entities, at_us)
            values = {
                name: value_column(each[name], feature)
                for spec, each in zip(specs, found, strict=True)
                for name, feature in zip(spec.columns, spec.features, strict=True)
            }
    named = {name for spec in specs for name in spec.entity}
    columns = {name: asked_column(name, each, is_entity=name in named) for name, each in entities.items()}
    return pa.table(columns | values)


def asked_column(name: str, values: Sequence[Any], *, is_entity: bool = False) -> pa.Array:
    """Give a column that somebody asks with; entities of several kinds are texts, as they are to the store.

    Raises
    ------
    SourceError
        If it is no column.
    """
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as err:
        if is_entity and not isinstance(err, UnicodeEncodeError):
            return pa.array([None if each is None else str(each) for each in values], pa.string())
        raise SourceError(
            f"column {name!r} cannot be read: {err}; give values of one kind, texts or numbers"
        ) from err


def materialize_views(project: Project, features: Sequence[Wanted]) -> tuple[Loaded, ...]:
    """See `noria.workspace.features.features.Features.materialize`."""
    from noria.workspace.features.following import (
        ViewsFollowed,
        record_cleared,
        record_loaded,
        writing_store,
    )
    from noria.workspace.features.needs import needed_specs

    views = [find_view(project, each) for each in features or sorted(project.declarations.views)]
    if not views:
        raise ConfigError("the project declares no feature view; write one: `noria.FeatureView(...)`")
    register_views(project, views)
    followed, loaded = ViewsFollowed(project), []
    with writing_store(project) as store:
        for view in views:
            brought = followed.load(store, view.spec(), why="somebody asked")
            record_loaded(project, brought)
            loaded.append(Loaded(view=view.name, rows=brought.rows, known_until=brought.newest_at))
        needed = {*needed_specs(project), *(view.spec() for view in views)}
        names = (
            {view.name for view in views} if features else {spec.name for spec in (*needed, *store.specs())}
        )
        for spec in store.specs():
            if spec.name in names and spec not in needed:
                store.clear(spec)
                record_cleared(project, spec)
        kept = store.definitions()
        for spec in sorted(
            needed, key=lambda each: (each.name, each.digest)
        ):  # a deployed release reads a definition that the store has lost
            if spec.name in names and spec.digest not in kept.get(spec.name, ()):
                brought = followed.load(store, spec, why="a deployed release needs it")
                record_loaded(project, brought)
                loaded.append(Loaded(view=spec.name, rows=brought.rows, known_until=brought.newest_at))
    return tuple(loaded)


def compare_online(project: Project, name: Wanted, *, limit: int, at: datetime | None) -> Compared:
    """See `noria.workspace.features.features.Features.compare`."""
    import numpy as np
    import pyarrow as pa

    from noria.features.agreeing import tolerances
    from noria.features.joining import join_features
    from noria.features.value_columns import unequal

    if limit < 1:
        raise ConfigError(f"the limit is {limit}; give how many entities are compared, at least 1")
    view = find_view(project, name)
    spec = view.spec()
    now = _asked_at(project, at)
    entities = entities_of(project, spec).slice(0, limit)
    columns = {each: entities.column(each).to_pylist() for each in spec.entity}
    online = get_online(project, [view], columns, at=now)
    instants = pa.array([now] * entities.num_rows, pa.timestamp("us", "UTC"))
    with FeatureSources(project, [spec]) as sources:
        offline = join_features(entities.append_column("at", instants), [view], read=sources)
    allowed = tolerances([spec])
    different = 0
    examples: list[tuple[str, str, Any, Any]] = []
    for column in spec.columns:
        one, other = online.column(column), offline.column(column)
        places = np.flatnonzero(unequal(one, other, allowed.get(column, 0.0))).tolist()
        different += len(places)
        for place in places[: 5 - len(examples)]:
            who = ", ".join(str(columns[each][place]) for each in spec.entity)
            examples.append((who, column, _plain(one[place].as_py()), _plain(other[place].as_py())))
    return Compared(
        view=view.name,
        at=now,
        entities=entities.num_rows,
        values=int(np.prod((entities.num_rows, len(spec.columns)))),
        different=different,
        examples=tuple(examples),
    )


def trace_values(project: Project, name: Wanted, entity: Mapping[str, Any], *, at: datetime | None) -> Traced:
    """See `noria.workspace.features.features.Features.trace`."""
    import pyarrow as pa

    from noria.features.materialize import read_sources
    from noria.features.offline import point_in_time
    from noria.features.replaced import known_rows

    spec = find_view(project, name).spec()
    if set(entity) != set(spec.entity):
        raise SourceError(
            f"view {spec.name!r} is of {', '.join(map(repr, spec.entity))}; "
            f"given was {', '.join(map(repr, entity)) or 'nothing'}"
        )
    if any(each is None for each in entity.values()):
        raise SourceError(f"an entity of view {spec.name!r} is missing; no row is of a missing entity")
    now = _asked_at(project, at)
    instants = pa.array([now], pa.timestamp("us", "UTC"))
    spine = pa.table({each: pa.array([str(entity[each])]) for each in spec.entity} | {"at": instants})
    with FeatureSources(project, [spec]) as sources:
        mine = _rows_of(spec, entity, sources.schema(spec.source))

        def read(source: str, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
            return sources(source, columns=columns, where=where & mine)

        rows = read_sources([spec], spine, read)[spec.source]
    (values,) = point_in_time(spec, rows, spine).to_pylist()
    order = [(spec.event_at, "descending"), *((each, "descending") for each in spec.key)]
    return Traced(
        view=spec.name,
        entity={each: str(entity[each]) for each in spec.entity},
        at=now,
        values={each: _plain(value) for each, value in values.items()},
        rows=known_rows(rows, spec.known_at, instants[0]).sort_by(order),
    )


def _asked_at(project: Project, at: datetime | None) -> datetime:
    """Give the instant that somebody asks about, which is the project's now if they do not say."""
    if at is None:
        return project.clock.now()
    try:
        return as_utc(at)
    except ValueError as err:
        raise ConfigError(f"{err}; give an instant such as 2013-05-01T12:00:00Z") from err


def _rows_of(spec: ViewSpec, entity: Mapping[str, Any], schema: pa.Schema) -> ds.Expression:
    """Say which rows are of an entity."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    mine = ds.scalar(True)
    for column in spec.entity:
        kind = schema.field(column).type
        try:
            mine &= ds.field(column) == pa.scalar(str(entity[column])).cast(kind)
        except pa.ArrowInvalid as err:
            raise SourceError(f"{column} = {entity[column]!r} is no {kind}, as the source has it") from err
    return mine


def _plain(value: Any) -> Any:
    """Give a value without NaN."""
    return None if value != value else value  # noqa: PLR0124 - NaN
