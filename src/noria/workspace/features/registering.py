"""Views put on record when they are first used, with statistics of their features, without being asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from noria.errors import LeaseHeld, NotFound
from noria.features.registering import record_on_demand, record_view
from noria.features.statistics.records import ViewStatistics
from noria.records import Version, canonical_json, digest_of
from noria.workspace.features.sources import FeatureSources

if TYPE_CHECKING:
    import numpy as np

    from noria.features.declarations import FeatureView, ViewSpec
    from noria.features.on_demand import OnDemand
    from noria.workspace.project import Project

__all__ = ["find_view_statistics", "measure_view", "register_on_demand", "register_views"]

_KIND = "feature_statistics"
_RUN = "register"
_MOST_ENTITIES = 20_000
_MOST_ROWS = 2_000_000


def register_views(
    project: Project, views: Sequence[FeatureView], *, cause: str | None = None
) -> list[Version]:
    """Put definitions on record, each once, and measure those that have not been measured.

    What goes wrong in measuring stops nothing: there is an event `features.unmeasured` with the reason.
    """
    versions = []
    for view in views:
        version = record_view(project.ledger, view, cause=cause)
        if _measured(project, version) is None:
            measure_view(project, view, version, cause=cause)
        versions.append(version)
    return versions


def register_on_demand(
    project: Project, features: Sequence[OnDemand], *, cause: str | None = None
) -> list[Version]:
    """Put definitions of on-demand features on record, each once, with the digest of their code.

    Raises `ConfigError` if code lies in no file, or was changed since this process has loaded it.
    """
    from noria.features.code_bundling import code_digest

    return [record_on_demand(project.ledger, each, code=code_digest(each), cause=cause) for each in features]


def measure_view(
    project: Project,
    view: FeatureView,
    version: Version,
    *,
    again: bool = False,
    cause: str | None = None,
) -> Version | None:
    """Keep statistics of a view's features over its entities, as of the newest row of the source.

    Once for each definition and state of the source. None is given if nothing has landed there, if another
    process is at it, or if they could not be computed, now or, unless `again`, when that was tried before.
    """
    spec = view.spec()
    key = f"{_RUN}/{version.id}/{project.clock.now()}"
    try:
        with FeatureSources(project, [spec]) as sources:
            try:
                sources.schema(spec.source)
            except NotFound:
                return None
            read = [each for each in sources.read.values() if each is not None]
            key = f"{_RUN}/{version.id}/{digest_of({each.id: each.sha256 for each in read})[:16]}"
            if not again and project.ledger.find_event(key=f"{key}/unmeasured") is not None:
                return None
            return _measured_once(project, spec, version, sources, read, key=key, cause=cause)
    except LeaseHeld:
        return None
    except Exception as error:  # noqa: BLE001 - whoever uses the view goes on; what is missing is on record
        _tell(project, version, error, key=key, cause=cause)
        return None


def _measured_once(
    project: Project,
    spec: ViewSpec,
    version: Version,
    sources: FeatureSources,
    read: Sequence[Version],
    *,
    key: str,
    cause: str | None,
) -> Version | None:
    with project.ledger.running(_RUN, spec.name, key=key, cause=cause) as running:
        if running.is_done:
            return _measured(project, version)
        for each in (version, *read):
            running.add_input(each)
        found = _measure(spec, sources)
        return project.registry.record_report(
            _KIND,
            spec.name,
            canonical_json(found),
            run=running.id,
            facts={
                "view": version.id,
                "entities": found.entities,
                "sampled": found.sampled,
                "features": len(found.features),
                "groups": [list(each) for each in found.groups],
            },
        )


def _tell(project: Project, version: Version, error: Exception, *, key: str, cause: str | None) -> None:
    reason = f"{type(error).__name__}: {error}"
    project.ledger.append(
        "features.unmeasured",
        subject=version.ref,
        payload={"view": version.id, "reason": reason},
        cause=cause,
        key=f"{key}/unmeasured",
    )


def find_view_statistics(project: Project, version: Version) -> ViewStatistics | None:
    """Give the newest statistics of a definition; None if there are none. Raises `DigestMismatch`."""
    found = _measured(project, version)
    if found is None:
        return None
    return msgspec.json.decode(project.registry.read_report(found), type=ViewStatistics)


def _measured(project: Project, version: Version) -> Version | None:
    made = project.ledger.list_versions(kind=_KIND, name=version.name)
    return next((each for each in reversed(made) if each.facts.get("view") == version.id), None)


def _measure(spec: ViewSpec, sources: FeatureSources) -> ViewStatistics:
    """Compute features of some entities: as many as few enough rows of the source make."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from noria.features.offline import point_in_time
    from noria.features.statistics.describing import describe_view

    names = list(spec.entity)
    seen = sources(spec.source, columns=[*names, spec.known_at])
    newest = pc.max(seen[spec.known_at]).as_py()
    counted = seen.select(names).drop_null().group_by(names).aggregate([([], "count_all")])
    counted = counted.sort_by([(each, "ascending") for each in names])
    chosen, busy = _some(counted["count_all"].to_numpy(), seed=int(spec.digest[:16], 16))
    entities = counted.select(names).take(pa.array(chosen))
    whole = len(chosen) == counted.num_rows
    del seen
    where = None if whole else pc.field(names[0]).isin(entities[names[0]].unique())
    rows = sources(spec.source, columns=spec.source_columns, where=where)
    if len(names) > 1 and not whole:
        rows = rows.join(entities, names, join_type="left semi")
    instants = pa.array([newest] * entities.num_rows, pa.timestamp("us", "UTC"))
    features = point_in_time(spec, rows, entities.append_column("at", instants))
    return describe_view(
        spec.name, features.select(spec.columns), entities=counted.num_rows, as_of=newest, busy=busy
    )


def _some(rows: np.ndarray, *, seed: int) -> tuple[np.ndarray, int]:
    """Choose entities by how many rows each has; those with more than may be read are counted, not chosen."""
    import numpy as np

    few = np.flatnonzero(rows <= _MOST_ROWS)
    order = few
    if len(few) > _MOST_ENTITIES or rows[few].sum() > _MOST_ROWS:
        order = np.random.default_rng(seed).permutation(few)[:_MOST_ENTITIES]
        order = order[np.cumsum(rows[order]) <= _MOST_ROWS]
    return np.sort(order), len(rows) - len(few)
