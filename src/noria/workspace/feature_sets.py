"""Training sets of a project: rows joined with features as they were known, kept as versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from noria.errors import NotFound
from noria.workspace.feature_views import Wanted, find_view

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.lake.declarations import ArrowFrame
    from noria.records import Version
    from noria.training.declarations import Spine
    from noria.workspace.project import Project

__all__ = ["make_training_set", "read_training_set"]

_KIND = "training_set"


def make_training_set(
    project: Project,
    spine: ArrowFrame | Spine | str,
    features: Sequence[Wanted],
    *,
    name: str,
    at: str,
    cause: str | None,
) -> pa.Table:
    """See `noria.workspace.features.Features.training_set`."""
    from noria.features.joining import join_features
    from noria.workspace.kept_sets import encode

    rows, at = _spine(project, spine, at)
    views = [find_view(project, each) for each in features]
    read: dict[str, Version | None] = {}
    asked = {
        "features": [each.name for each in views],
        "at": at,
    }
    with project.ledger.running(_KIND, name, cause=cause, params=asked) as running:
        made = join_features(rows, views, read=_Reading(project, read), at=at)
        for source in read.values():
            if source is not None:
                running.add_input(source)
        data = encode(made)
        sha256 = project.storage.put(data)
        facts = {
            "rows": made.num_rows,
            "columns": made.num_columns,
            "views": {each.name: each.spec().digest for each in views},
            "size_bytes": len(data),
        }
        version = running.record_version(
            _KIND, name, sha256=sha256, uri=project.storage.uri(sha256), facts=facts
        )
        running.metrics["rows"] = float(made.num_rows)
    return made.replace_schema_metadata({"noria.version": version.ref})


def read_training_set(project: Project, name: str, number: int | None) -> pa.Table:
    """See `noria.workspace.features.Features.read_training_set`."""
    from noria.workspace.kept_sets import kept_sets, read_kept

    kept = kept_sets(project, name)
    found = next((each for each in reversed(kept) if number in (None, each.number)), None)
    if found is None:
        raise NotFound(_KIND, name if number is None else f"{name}:{number}", [each.ref for each in kept])
    return read_kept(project, found).replace_schema_metadata({"noria.version": found.ref})


def _spine(project: Project, spine: ArrowFrame | Spine | str, at: str) -> tuple[pa.Table, str]:
    from noria.lake.schema import as_table
    from noria.training.declarations import Spine

    if isinstance(spine, str):
        return project.query(spine), at
    if isinstance(spine, Spine):
        return project.lake.read(spine.source.name), spine.at
    return as_table(spine, name="spine"), at


class _Reading:
    """Reads sources, each at one version, and remembers which."""

    def __init__(self, project: Project, read: dict[str, Version | None]) -> None:
        self._project, self._read = project, read

    def __call__(self, name: str, /, *, columns: Sequence[str], where: Any) -> pa.Table:
        from noria.lake.versions import stored_versions

        if name not in self._read:
            versions = stored_versions(self._project.ledger, name)
            self._read[name] = versions[-1] if versions else None
        return self._project.lake.read(name, columns=columns, where=where, version=self._read[name])
