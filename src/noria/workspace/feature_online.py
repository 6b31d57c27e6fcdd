"""Online features of a project: looked up, loaded, held against offline, traced to their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.clock import to_micros
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.workspace.feature_records import Compared, Loaded, Traced
from noria.workspace.feature_views import Wanted, entities_of, find_view

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.workspace.project import Project

__all__ = ["compare_online", "get_online", "materialize_views", "trace_values"]


def get_online(
    project: Project,
    features: Sequence[Wanted],
    entities: Mapping[str, Sequence[str | int | None]],
    *,
    at: datetime | None = None,
) -> pa.Table:
    """See `noria.workspace.features.Features.get`."""
    import pyarrow as pa

    from noria.features.online import open_online_store

    views = [find_view(project, each) for each in features]
    if not views:
        raise ConfigError("no feature view is wanted; name one or more")
    specs = [each.spec() for each in views]
    try:
        if not project.has_online:
            raise NotFound("online feature view", views[0].name, [])
        with closing(
            open_online_store(project.settings.stores.online, root=project.root, readonly=True)
        ) as store:
            values = store.read(specs, entities, to_micros(at or project.clock.now()))
    except (NotFound, Conflict) as error:
        wanted = " ".join(each.name for each in views)
        error.add_note(f"`noria feature materialize {wanted}` loads it.")
        raise
    names = [name for spec in specs for name in spec.columns]
    return pa.table(
        {**{name: pa.array(each) for name, each in entities.items()}}
        | {name: pa.array(values[:, place]) for place, name in enumerate(names)}
    )


def materialize_views(project: Project, features: Sequence[Wanted]) -> tuple[Loaded, ...]:
    """See `noria.workspace.features.Features.materialize`."""
    import pyarrow.compute as pc

    from noria.features.online import open_online_store

    views = [find_view(project, each) for each in features or sorted(project.declarations.views)]
    if not views:
        raise ConfigError("the project declares no feature view; write one: `noria.FeatureView(...)`")
    loaded = []
    store = open_online_store(project.settings.stores.online, root=project.root)
    try:
        for view in views:
            spec = view.spec()
            rows = project.lake.read(spec.source, columns=spec.source_columns)
            store.load(view, rows)
            until = pc.max(rows[spec.known_at]).as_py()
            loaded.append(Loaded(view=view.name, rows=rows.num_rows, known_until=until))
    finally:
        store.close()
    return tuple(loaded)


def compare_online(project: Project, name: Wanted, *, limit: int, at: datetime | None) -> Compared:
    """See `noria.workspace.features.Features.compare`."""
    import numpy as np
    import pyarrow as pa

    from noria.features.agreeing import agree, differing, tolerances
    from noria.features.joining import join_features

    view = find_view(project, name)
    spec = view.spec()
    now = at or project.clock.now()
    entities = entities_of(project, spec).slice(0, limit)
    columns = {each: entities.column(each).to_pylist() for each in spec.entity}
    online = get_online(project, [view], columns, at=now)
    instants = pa.array([now] * entities.num_rows, pa.timestamp("us", "UTC"))
    offline = join_features(entities.append_column("at", instants), [view], read=project.lake.read)
    allowed = tolerances([spec])
    different = 0
    examples: list[tuple[str, str, float | None, float | None]] = []
    for column in spec.columns:
        one = online.column(column).to_numpy()
        other = offline.column(column).to_numpy()
        found = differing(one, other, allowed[column])
        different += found
        if found:
            for place in range(len(one)):
                pair = _plain(one[place]), _plain(other[place])
                if len(examples) < 5 and not agree(*pair, allowed[column]):
                    who = ", ".join(str(columns[each][place]) for each in spec.entity)
                    examples.append((who, column, *pair))
    return Compared(
        view=view.name,
        at=now,
        entities=entities.num_rows,
        values=int(np.prod((entities.num_rows, len(spec.columns)))),
        different=different,
        examples=tuple(examples),
    )


def trace_values(project: Project, name: Wanted, entity: Mapping[str, Any], *, at: datetime | None) -> Traced:
    """See `noria.workspace.features.Features.trace`."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    from noria.features.materialize import read_sources
    from noria.features.offline import point_in_time

    spec = find_view(project, name).spec()
    if set(entity) != set(spec.entity):
        raise SourceError(
            f"view {spec.name!r} is of {', '.join(map(repr, spec.entity))}; "
            f"given was {', '.join(map(repr, entity)) or 'nothing'}"
        )
    now = at or project.clock.now()
    schema = project.lake.schema(spec.source)
    instants = pa.array([now], pa.timestamp("us", "UTC"))
    spine = pa.table({each: pa.array([str(entity[each])]) for each in spec.entity} | {"at": instants})
    mine = ds.scalar(True)
    for column in spec.entity:
        try:
            mine &= ds.field(column) == pa.scalar(str(entity[column])).cast(schema.field(column).type)
        except pa.ArrowInvalid as err:
            kind = schema.field(column).type
            raise SourceError(f"{column} = {entity[column]!r} is no {kind}, as the source has it") from err

    def read(source: str, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
        return project.lake.read(source, columns=columns, where=where & mine)

    rows = read_sources([spec], spine, read)[spec.source]
    (values,) = point_in_time(spec, rows, spine).to_pylist()
    order = [(spec.event_at, "descending"), *((each, "descending") for each in spec.key)]
    return Traced(
        view=spec.name,
        entity={each: str(entity[each]) for each in spec.entity},
        at=now,
        values={each: _plain(value) for each, value in values.items()},
        rows=rows.sort_by(order),
    )


def _plain(value: float) -> float | None:
    return None if value != value else float(value)  # noqa: PLR0124 - NaN
