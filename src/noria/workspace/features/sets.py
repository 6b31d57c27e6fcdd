"""Training sets of a project: rows joined with features as they were known, kept as versions.

A set is made piece by piece and written as it is made, so it may be far larger than memory. In which pieces
makes no difference to what is kept.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from noria.errors import NotFound
from noria.workspace.features.on_demand import WantedFeature, choose
from noria.workspace.features.registering import register_on_demand, register_views
from noria.workspace.features.sources import FeatureSources

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.features.declarations import ViewSpec
    from noria.features.on_demand import OnDemand
    from noria.features.on_demand_values import Computed
    from noria.lake.declarations import ArrowFrame
    from noria.records import Version
    from noria.training.declarations import Spine
    from noria.workspace.project import Project

__all__ = ["make_training_set", "read_training_set"]

_ROWS_AT_ONCE = 1_000_000
_KIND = "training_set"


def make_training_set(
    project: Project,
    spine: ArrowFrame | Spine | str,
    features: Sequence[WantedFeature],
    *,
    name: str,
    at: str,
    corrected: bool,
    rows_at_once: int | None,
    cause: str | None,
) -> pa.Table:
    """See `noria.workspace.features.features.Features.training_set`."""
    from noria.features.on_demand_tables import on_demand_facts
    from noria.workspace.features.spines import opened_spine
    from noria.workspace.kept_sets import SetWriter, read_kept, scratch

    chosen = choose(project, features)
    specs = [_corrected(each.spec()) if corrected else each.spec() for each in chosen.views]
    registered = register_views(project, chosen.views, cause=cause)
    registered += register_on_demand(project, _in_files(chosen.on_demand), cause=cause)
    asked = {"features": chosen.names, "at": at} | ({"corrected": True} if corrected else {})
    many = _ROWS_AT_ONCE if rows_at_once is None else rows_at_once
    failed = _Failed()
    with (
        project.ledger.running(_KIND, name, cause=cause, params=asked) as running,
        scratch(project) as folder,
        FeatureSources(project, specs, is_corrected=corrected) as sources,
        opened_spine(project, spine, at=at, folder=folder) as rows,
    ):
        for each in registered:
            running.add_input(each)
        writer = SetWriter(folder / "set.arrow")
        for chunk in rows.chunks(many):
            made = _joined(chunk, specs, sources, at=rows.at, is_one_of_many=chunk.num_rows == many)
            made, computed = chosen.complete(made, check=True)
            failed.add(computed, before=writer.rows)
            writer.write(made)
        failed.refuse_useless(writer.rows)
        size_bytes = writer.close()
        for source in (*rows.read, *sources.read.values()):
            if source is not None:
                running.add_input(source)
        sha256 = project.storage.put_file(writer.path)
        facts = {
            "rows": writer.rows,
            "columns": made.num_columns,
            "views": {each.name: each.spec().digest for each in chosen.views},
            "size_bytes": size_bytes,
            **({"corrected": True} if corrected else {}),
            **on_demand_facts(chosen.on_demand, {}),
            **failed.facts(),
        }
        version = running.record_version(
            _KIND, name, sha256=sha256, uri=project.storage.uri(sha256), facts=facts
        )
        running.metrics["rows"] = float(writer.rows)
    return read_kept(project, version).replace_schema_metadata(_told(version) | failed.told(writer.rows))


def read_training_set(project: Project, name: str, number: int | None) -> pa.Table:
    """See `noria.workspace.features.features.Features.read_training_set`."""
    from noria.workspace.kept_sets import kept_sets, read_kept

    kept = kept_sets(project, name)
    found = next((each for each in reversed(kept) if number in (None, each.number)), None)
    if found is None:
        raise NotFound(_KIND, name if number is None else f"{name}:{number}", [each.ref for each in kept])
    return read_kept(project, found).replace_schema_metadata(_told(found))


def _joined(
    chunk: pa.Table, specs: Sequence[ViewSpec], sources: FeatureSources, *, at: str, is_one_of_many: bool
) -> pa.Table:
    import pyarrow as pa

    from noria.features.joining import join_features

    if not specs:
        return chunk
    made = join_features(
        chunk, specs, read=sources, at=at, schema_of=sources.schema, by_entity=is_one_of_many
    )
    pa.default_memory_pool().release_unused()  # else each piece takes as much again
    return made


def _in_files(features: Sequence[OnDemand]) -> list[OnDemand]:
    """Leave out what stands in a notebook or the script that runs: a worker could not import it either."""
    modules = ((each, each.function.__module__) for each in features)
    return [
        each
        for each, name in modules
        if name != "__main__" and getattr(sys.modules.get(name), "__file__", None) is not None
    ]


def _corrected(spec: ViewSpec) -> ViewSpec:
    """Let rows be known as soon as they happened."""
    return msgspec.structs.replace(spec, known_at=spec.event_at)


def _told(version: Version) -> dict[str, str]:
    return {"noria.version": version.ref} | (
        {"noria.corrected": "true"} if version.facts.get("corrected") else {}
    )


@dataclass(slots=True)
class _Failed:
    """The rows for which on-demand features failed, over all pieces."""

    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)

    def add(self, computed: Mapping[str, Computed], *, before: int) -> None:
        """Take those of a piece; `before` it were so many rows."""
        from dataclasses import replace

        for name, each in computed.items():
            if each.first is not None:
                self.reasons.setdefault(name, Counter()).update(each.reasons)
                self.first.setdefault(name, replace(each.first, row=each.first.row + before))

    def refuse_useless(self, rows: int) -> None:
        """Raise `SourceError` if one failed for all rows."""
        from noria.features.on_demand_tables import refuse_useless

        for name, each in self.reasons.items():
            refuse_useless(name, failed=each.total(), rows=rows, first=self.first[name])

    def facts(self) -> dict[str, Any]:
        """Give them for the record, without any value of a row."""
        failed = {name: dict(sorted(each.items())) for name, each in self.reasons.items()}
        return {"failed": failed} if failed else {}

    def told(self, rows: int) -> dict[str, str]:
        """Say for whoever made the set what failed."""
        told = [
            f"{name}: {each.total()} of {rows} rows are missing; the first is {self.first[name]}"
            for name, each in self.reasons.items()
        ]
        return {"noria.missing": "\n".join(told)} if told else {}
