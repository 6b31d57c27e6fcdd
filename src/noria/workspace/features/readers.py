"""Who used a view or a feature: trainings, models, sets, deployments, requests, people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from noria.deploy.releases import Release, read_release, read_route
from noria.deploy.shipping import PREDICTIONS
from noria.errors import NotFound
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.on_demand import OnDemand, OnDemandSpec
from noria.features.registering import list_view_versions
from noria.workspace.features.reader_records import (
    DeploymentUse,
    FeatureReaders,
    ModelUse,
    ReadCount,
    RequestCount,
    SetUse,
)

if TYPE_CHECKING:
    from noria.records import Pointer, Version
    from noria.workspace.features.reads import ReadNote
    from noria.workspace.project import Project

__all__ = ["readers_of"]


def readers_of(project: Project, wanted: str | FeatureView | OnDemand) -> FeatureReaders:
    """See `noria.workspace.features.features.Features.readers`."""
    view, feature = _named(project, wanted)
    definitions = [each for each in list_view_versions(project.ledger, view) if _has(each, feature)]
    declared = _declared(project, view)
    # Of an on-demand feature a reading notes the definition without its code.
    digests = {each.facts.get("on_demand", each.sha256) for each in definitions}
    if declared is not None and _looked_up([declared.spec()], view, feature) is not None:
        digests.add(declared.spec().digest)
    reads, since = _reads(project.feature_reads.read(), view, digests, every=feature is None)
    models, sets = _made_with(project, definitions)
    # Code is no part of an on-demand feature in a release: its model tells which definition it was.
    refs = {each.sha256: each.ref for each in definitions} | {each.model: each.definition for each in models}
    deployments = tuple(_deployments(project, view, feature, refs))
    return FeatureReaders(
        view=view,
        feature=feature,
        trainings=tuple(
            sorted(
                each.name
                for each in project.declarations.trainings.values()
                if view in {one.name for one in each.views} | {one.name for one in each.on_demand}
            )
        ),
        definitions=tuple(each.ref for each in definitions),
        models=models,
        training_sets=sets,
        deployments=deployments,
        requests=tuple(_requests(project, {each.release for each in deployments})),
        reads=reads,
        reads_since=since,
    )


def _declared(project: Project, name: str) -> FeatureView | OnDemand | None:
    return project.declarations.views.get(name) or project.declarations.on_demand.get(name)


def _named(project: Project, wanted: str | FeatureView | OnDemand) -> tuple[str, str | None]:
    """Read `VIEW` or `VIEW__FEATURE`; a view that is declared no more is known by its versions."""
    if not isinstance(wanted, str):
        return wanted.name, None
    view, _, feature = wanted.partition("__")
    declared = _declared(project, view)
    known = list_view_versions(project.ledger, view)
    if declared is None and not known:
        declarations = project.declarations
        raise NotFound("feature view", view, [*declarations.views, *declarations.on_demand])
    if feature:
        names = {each for version in known for each in version.facts["rules"]}
        if declared is not None:
            names |= set(_columns(declared.spec()))
        if feature not in names:
            raise NotFound("feature", wanted, [f"{view}__{each}" for each in names])
    return view, feature or None


def _columns(spec: ViewSpec | OnDemandSpec) -> tuple[str, ...]:
    """Name what a definition gives, without its own name."""
    if isinstance(spec, OnDemandSpec):
        return spec.outputs
    return tuple(each.name for each in spec.features)


def _has(version: Version, feature: str | None) -> bool:
    return feature is None or feature in version.facts["rules"]


def _made_with(
    project: Project, definitions: Sequence[Version]
) -> tuple[tuple[ModelUse, ...], tuple[SetUse, ...]]:
    """Follow edges: runs that read a definition, and what they made."""
    ledger = project.ledger
    models: list[ModelUse] = []
    sets: list[SetUse] = []
    for definition in definitions:
        for edge in ledger.list_edges(version=definition.id):
            run = ledger.get_run(edge.run)
            if edge.role != "input" or run.kind not in ("train", "training_set"):
                continue
            (started,) = ledger.list_events(verb="run.started", subject=f"run/{run.id}", limit=1)
            by, at = started.actor, run.at
            for other in ledger.list_edges(run=run.id):
                found = ledger.get_version_by_id(other.version)
                if found.kind == "model" and other.role == "output":
                    models.append(
                        ModelUse(model=found.ref, definition=definition.ref, run=run.id, by=by, at=at)
                    )
                elif found.kind == "training_set":  # of a training it is read, and made from its recipe
                    sets.append(
                        SetUse(training_set=found.ref, definition=definition.ref, run=run.id, by=by, at=at)
                    )
    return (
        tuple(sorted(models, key=lambda each: (each.at, each.model))),
        tuple(sorted(sets, key=lambda each: (each.at, each.training_set))),
    )


def _deployments(
    project: Project, view: str, feature: str | None, refs: Mapping[str, str]
) -> Iterator[DeploymentUse]:
    """Go through all moves: what a deployment pointed to until the next one.

    Parameters
    ----------
    refs
        Definitions, by their digests and by the model versions that were trained with them.
    """
    places: dict[tuple[str, str], list[Pointer]] = {}
    for pointer in project.ledger.list_pointers():
        places.setdefault((pointer.environment, pointer.name), []).append(pointer)
    known: dict[str, Release] = {}
    for (environment, deployment), moves in sorted(places.items()):
        ordered = sorted(moves, key=lambda each: each.number)
        for place, pointer in enumerate(ordered):
            route = project.ledger.get_version_by_id(pointer.version)
            if route.kind != "route":
                continue
            content = read_route(route)
            until = ordered[place + 1].at if place + 1 < len(ordered) else None
            for entry in content.entries:
                id = content.releases[entry.release]
                if id not in known:
                    known[id] = read_release(project.ledger.get_version_by_id(id))
                spec = _looked_up((*known[id].views, *known[id].on_demand), view, feature)
                if spec is None:
                    continue
                yield DeploymentUse(
                    environment=environment,
                    deployment=deployment,
                    release=entry.release,
                    model=known[id].model_ref,
                    definition=refs.get(spec.digest, refs.get(known[id].model_ref)),
                    weight=entry.weight,
                    mode=entry.mode,
                    since=pointer.at,
                    until=until,
                )


def _looked_up(
    specs: Iterable[ViewSpec | OnDemandSpec], name: str, feature: str | None
) -> ViewSpec | OnDemandSpec | None:
    for spec in specs:
        if spec.name == name and (feature is None or feature in _columns(spec)):
            return spec
    return None


def _requests(project: Project, releases: set[str]) -> Iterator[RequestCount]:
    """Count the rows of the prediction log that were scored by releases with the view."""
    if not releases or not project.lake.exists(PREDICTIONS):
        return
    found = project.query(
        f"select environment, deployment, release, strftime(\"at\" at time zone 'UTC', '%Y-%m-%d') as day, "
        f'count(*) as "rows" from {PREDICTIONS} where list_contains(?, release) '
        "group by all order by all",
        [sorted(releases)],
    )
    for row in found.to_pylist():
        yield RequestCount(**row)


def _reads(
    notes: Iterable[ReadNote], view: str, digests: set[str], *, every: bool
) -> tuple[tuple[ReadCount, ...], datetime | None]:
    """Sum readings up; of one feature those of definitions that have it."""
    since: datetime | None = None
    calls: Counter[tuple[str, str, str]] = Counter()
    entities: Counter[tuple[str, str, str]] = Counter()
    last: dict[tuple[str, str, str], datetime] = {}
    for note in notes:
        since = since or note.at
        read = note.views.get(view)
        if read is None or not (every or read in digests):
            continue
        key = (note.at.date().isoformat(), note.who, note.how)
        calls[key] += 1
        entities[key] += note.entities
        last[key] = note.at
    counts = (
        ReadCount(who=who, how=how, day=day, calls=calls[key], entities=entities[key], last=last[key])
        for key in sorted(calls)
        for day, who, how in [key]
    )
    return tuple(counts), since
