"""Which feature views a project has, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from noria.errors import NotFound
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.telling import rule_of
from noria.workspace.feature_records import FeatureShown, ViewDetails, ViewSummary

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.records import Version
    from noria.workspace.project import Project

__all__ = ["Wanted", "entities_of", "find_view", "list_views", "show_view"]

Wanted = str | FeatureView


def find_view(project: Project, wanted: Wanted) -> FeatureView:
    """Give a view by its name. Raises `NotFound`, which says what exists."""
    if isinstance(wanted, FeatureView):
        return wanted
    views = project.declarations.views
    if wanted not in views:
        raise NotFound("feature view", wanted, views)
    return views[wanted]


def list_views(project: Project) -> tuple[ViewSummary, ...]:
    """List the views that the project declares, by name."""
    online = _online(project)
    return tuple(_summary(project, view, online) for _, view in sorted(project.declarations.views.items()))


def show_view(project: Project, name: Wanted) -> ViewDetails:
    """Tell all about one view."""
    import pyarrow.compute as pc

    view = find_view(project, name)
    spec = view.spec()
    newest, as_of = _newest(project, spec)
    shown = []
    for column, feature in zip(spec.columns, spec.features, strict=True):
        values = newest.column(column)
        there = values.filter(pc.invert(pc.is_nan(values)))
        bounds = pc.min_max(there).as_py()
        shown.append(
            FeatureShown(
                name=feature.name,
                rule=rule_of(feature.aggregation),
                missing=len(values) - len(there),
                low=bounds["min"],
                mean=pc.mean(there).as_py(),
                high=bounds["max"],
            )
        )
    return ViewDetails(
        summary=_summary(project, view, _online(project)),
        digest=spec.digest,
        event_at=spec.event_at,
        known_at=spec.known_at,
        entities=newest.num_rows,
        as_of=as_of,
        features=tuple(shown),
        versions=_versions(project, spec),
    )


def entities_of(project: Project, spec: ViewSpec) -> pa.Table:
    """Give every entity of the source, by name."""
    names = list(spec.entity)
    rows = project.lake.read(spec.source, columns=names).drop_null()
    return rows.group_by(names).aggregate([]).select(names).sort_by([(each, "ascending") for each in names])


def _online(project: Project) -> Mapping[str, str]:
    """Give the digest of each view that the online store holds."""
    if not project.has_online:
        return {}
    from noria.features.online import open_online_store

    store = open_online_store(project.settings.stores.online, root=project.root, readonly=True)
    try:
        return store.definitions()
    finally:
        store.close()


def _summary(project: Project, view: FeatureView, online: Mapping[str, str]) -> ViewSummary:
    spec = view.spec()
    held = online.get(view.name)
    trainings = project.declarations.trainings.values()
    return ViewSummary(
        name=view.name,
        source=spec.source,
        entity=spec.entity,
        features=len(spec.features),
        online="none" if held is None else "current" if held == spec.digest else "other",
        models=tuple(sorted(each.name for each in trainings if view in each.features)),
    )


def _newest(project: Project, spec: ViewSpec) -> tuple[pa.Table, datetime | None]:
    """Give the features of every entity as of the newest row, and when that became known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from noria.features.offline import point_in_time

    if not project.lake.exists(spec.source):
        empty = {name: pa.chunked_array([], pa.float64()) for name in spec.columns}
        return pa.table(empty), None
    rows = project.lake.read(spec.source, columns=spec.source_columns)
    newest = pc.max(rows[spec.known_at]).as_py()
    entities = entities_of(project, spec)
    instants = pa.array([newest] * entities.num_rows, pa.timestamp("us", "UTC"))
    return point_in_time(spec, rows, entities.append_column("at", instants)), newest


def _versions(project: Project, spec: ViewSpec) -> tuple[str, ...]:
    """Name the model versions whose training read this view, newest first."""
    found: list[Version] = []
    for each in project.declarations.trainings.values():
        if spec.name in {view.name for view in each.features}:
            found += project.ledger.list_versions(kind="model", name=each.name)
    return tuple(each.ref for each in sorted(found, key=lambda each: each.at, reverse=True))
