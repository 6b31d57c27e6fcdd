"""Which feature views a project has, and what is told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from noria.errors import ConfigError, NotFound
from noria.features.declarations import FeatureSpec, FeatureView, ViewSpec
from noria.features.on_demand import OnDemand
from noria.features.registering import list_view_versions, record_view
from noria.features.searching import search_features
from noria.features.telling import rule_of
from noria.workspace.features.on_demand_details import tell_on_demand
from noria.workspace.features.records import (
    FeatureShown,
    FoundOnDemand,
    FoundView,
    FoundViews,
    Registered,
    ViewDetails,
    ViewSummary,
)
from noria.workspace.features.registering import find_view_statistics, measure_view, register_on_demand
from noria.workspace.features.sources import FeatureSources, is_table
from noria.workspace.features.standing import OnlineState, online_states

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.records import Version
    from noria.workspace.project import Project

__all__ = [
    "Wanted",
    "entities_of",
    "find_view",
    "list_views",
    "register_named",
    "search_project",
    "show_view",
]

Wanted = str | FeatureView
_ASKED = "its values are computed of what is asked for"


def find_view(project: Project, wanted: Wanted) -> FeatureView:
    """Give a view by its name.

    Raises
    ------
    ConfigError
        If it is an on-demand feature, of which there is no view.
    NotFound
        If there is none of the name; says what exists.
    """
    if isinstance(wanted, FeatureView):
        return wanted
    views = project.declarations.views
    if wanted in project.declarations.on_demand:
        raise ConfigError(
            f"{wanted!r} is an on-demand feature: it is computed when it is asked for, by `get` and in "
            "training sets; there is nothing of it to load, compare or trace"
        )
    if wanted not in views:
        raise NotFound("feature view", wanted, views)
    return views[wanted]


def list_views(project: Project) -> tuple[ViewSummary, ...]:
    """List the views that the project declares, by name."""
    online = online_states(project)
    return tuple(_summary(project, view, online) for _, view in sorted(project.declarations.views.items()))


def search_project(project: Project, text: str, *, tags: Collection[str], owner: str | None) -> FoundViews:
    """See `noria.workspace.features.features.Features.search`."""
    declared = project.declarations
    found = search_features(
        [*declared.views.values(), *declared.on_demand.values()], text, tags=tags, owner=owner
    )
    online = online_states(project) if found.hits else {}
    views, on_demand = [], []
    for hit in found.hits:
        if isinstance(hit.found, OnDemand):
            details = tell_on_demand(project, hit.found)
            on_demand.append(FoundOnDemand(details=details, outputs=hit.features, score=hit.score))
        else:
            summary = _summary(project, hit.found, online)
            views.append(FoundView(summary=summary, features=hit.features, score=hit.score))
    return FoundViews(views=tuple(views), meant=found.meant, on_demand=tuple(on_demand))


def register_named(project: Project, features: Sequence[Wanted | OnDemand]) -> tuple[Registered, ...]:
    """See `noria.workspace.features.features.Features.register`."""
    declared = project.declarations
    done = []
    for each in features or sorted([*declared.views, *declared.on_demand]):
        feature = declared.on_demand.get(each, each) if isinstance(each, str) else each
        if isinstance(feature, OnDemand):
            (version,) = register_on_demand(project, [feature])
            done.append(Registered(view=feature.name, version=version.ref, statistics=None, reason=_ASKED))
            continue
        view = find_view(project, feature)
        version = record_view(project.ledger, view)
        measure_view(project, view, version, again=True)
        reasons = project.ledger.list_events(verb="features.unmeasured", subject=version.ref)
        found = find_view_statistics(project, version)
        reason = reasons[-1].payload["reason"] if reasons and found is None else None
        done.append(Registered(view=view.name, version=version.ref, statistics=found, reason=reason))
    return tuple(done)


def show_view(project: Project, name: Wanted) -> ViewDetails:
    """Tell all about one view."""
    view = find_view(project, name)
    spec = view.spec()
    newest, as_of = _newest(project, spec)
    shown = [
        _shown(newest.column(column), feature, view.description_of(feature.name))
        for column, feature in zip(spec.columns, spec.features, strict=True)
    ]
    definitions = list_view_versions(project.ledger, view.name)
    current = next((each for each in definitions if each.sha256 == spec.digest), None)
    return ViewDetails(
        summary=_summary(project, view, online_states(project)),
        digest=spec.digest,
        event_at=spec.event_at,
        known_at=spec.known_at,
        entities=newest.num_rows,
        as_of=as_of,
        features=tuple(shown),
        versions=_versions(project, spec),
        definitions=tuple(each.ref for each in reversed(definitions)),
        statistics=None if current is None else find_view_statistics(project, current),
    )


def entities_of(project: Project, spec: ViewSpec) -> pa.Table:
    """Give every entity of the source, by name."""
    names = list(spec.entity)
    with FeatureSources(project, [spec]) as sources:
        rows = sources(spec.source, columns=names).select(names).drop_null()
    return rows.group_by(names).aggregate([]).select(names).sort_by([(each, "ascending") for each in names])


def _summary(project: Project, view: FeatureView, online: Mapping[str, OnlineState]) -> ViewSummary:
    spec = view.spec()
    state = online.get(view.name) or OnlineState(view=view.name, online="none")
    trainings = project.declarations.trainings.values()
    return ViewSummary(
        name=view.name,
        source=spec.source,
        entity=spec.entity,
        features=len(spec.features),
        online=state.online,
        known_until=state.known_until,
        behind_s=state.behind_s,
        freshness=view.freshness,
        is_stale=state.is_stale,
        models=tuple(sorted(each.name for each in trainings if view in each.views)),
        owner=view.owner,
        description=view.description,
        tags=tuple(view.tags),
    )


def _shown(values: pa.ChunkedArray, feature: FeatureSpec, description: str | None) -> FeatureShown:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_number = pa.types.is_floating(values.type)
    there = values.filter(pc.invert(pc.is_nan(values))) if is_number else values.drop_null()
    bounds = pc.min_max(there).as_py() if is_number else {"min": None, "max": None}
    return FeatureShown(
        name=feature.name,
        rule=rule_of(feature.aggregation),
        missing=len(values) - len(there),
        low=bounds["min"],
        mean=pc.mean(there).as_py() if is_number else None,
        high=bounds["max"],
        description=description,
    )


def _newest(project: Project, spec: ViewSpec) -> tuple[pa.Table, datetime | None]:
    """Give the features of every entity as of the newest row, and when that became known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from noria.features.offline import point_in_time
    from noria.features.value_columns import empty_columns

    if is_table(project, spec) and not project.lake.exists(spec.source):
        return pa.table(empty_columns([spec])), None
    with FeatureSources(project, [spec]) as sources:
        rows = sources.all_of(spec)
    newest = pc.max(rows[spec.known_at]).as_py()
    entities = entities_of(project, spec)
    instants = pa.array([newest] * entities.num_rows, pa.timestamp("us", "UTC"))
    return point_in_time(spec, rows, entities.append_column("at", instants)), newest


def _versions(project: Project, spec: ViewSpec) -> tuple[str, ...]:
    """Name the model versions whose training read this view, newest first."""
    found: list[Version] = []
    for each in project.declarations.trainings.values():
        if spec.name in {view.name for view in each.views}:
            found += project.ledger.list_versions(kind="model", name=each.name)
    return tuple(each.ref for each in sorted(found, key=lambda each: (each.at, each.number), reverse=True))
