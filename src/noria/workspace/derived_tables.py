"""Tables that are nowhere stored as such: views, feature views as of now, results of steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.records import Version

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView
    from noria.workspace.project import Project

__all__ = ["derived_tables", "output_table"]

_TABLE = "table of "  # how `noria.pipelines` tells of one
_BLOB = "storage:sha256/"


def derived_tables(project: Project) -> dict[str, Callable[[], Any]]:
    """Give what opens each view of the warehouse, each feature view, each step's result that is a table.

    And who read features of views on this machine, `feature_reads`.
    """
    from noria.warehouse.query_tables import View
    from noria.workspace.features.reads import reads_table
    from noria.workspace.transforming import view_queries

    found: dict[str, Callable[[], Any]] = {"feature_reads": partial(reads_table, project)}
    for version in project.ledger.list_versions(kind="output"):
        if str(version.facts.get("told", "")).startswith(_TABLE) and version.uri.startswith(_BLOB):
            found[version.name] = partial(output_table, project, version)  # the newest comes last
    for name, view in project.declarations.views.items():
        found[name] = partial(_newest_features, project, view)
    for name, sql in view_queries(project).items():
        found[name] = partial(View, sql)
    return found


def output_table(project: Project, version: Version) -> pa.Table:
    """Give a result of a step as the table that it is."""
    from noria.pipelines.values.codec import Format, load

    value = load(Format.ARROW, project.storage.fetch(version.sha256))
    return value if isinstance(value, pa.Table) else pa.table(value)


def _newest_features(project: Project, view: FeatureView) -> pa.Table:
    """Compute the features of every entity as of the instant at which the newest row became known."""
    from noria.features.offline import point_in_time
    from noria.workspace.features.sources import FeatureSources

    spec = view.spec()
    with FeatureSources(project, [spec]) as sources:
        rows = sources.all_of(spec)
    entities = (
        rows.select(list(spec.entity))
        .group_by(list(spec.entity))
        .aggregate([])
        .sort_by([(name, "ascending") for name in spec.entity])
    )
    newest = pc.max(rows[spec.known_at])
    at = pa.array([newest.as_py()] * entities.num_rows, rows.schema.field(spec.known_at).type)
    spine = entities.append_column("at", at)
    features = point_in_time(view, rows, spine)
    return pa.table(
        {
            **dict(zip(spine.column_names, spine.columns, strict=True)),
            **dict(zip(features.column_names, features.columns, strict=True)),
        }
    )
