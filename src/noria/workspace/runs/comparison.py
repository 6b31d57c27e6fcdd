"""Runs beside each other: what two of them differ in, and many as one table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from noria.records import Run, Version
from noria.tracking.reading import read_infos
from noria.tracking.records import param_text
from noria.tracking.store import TrackingStore

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.workspace.project import Project

__all__ = ["CodeDifference", "Pair", "RunDifference", "compare_runs", "difference_of"]


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """What one run has and what the other; None: it has none."""

    one: str | float | None
    other: str | float | None


class CodeDifference(msgspec.Struct, frozen=True, kw_only=True):
    """In which code two runs ran: commits, and digests of what was not committed."""

    commits: Pair
    diffs: Pair


class RunDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What two runs differ in; what they have in common is left out."""

    one: str
    other: str
    params: dict[str, Pair]
    metrics: dict[str, Pair]
    tags: dict[str, Pair]
    code: CodeDifference | None  # None: the same
    distributions: dict[str, Pair]  # versions of installed packages
    inputs: dict[str, Pair]  # by kind and name: which versions were read
    seed: Pair | None

    @property
    def is_none(self) -> bool:
        """Whether they are alike in all that is on record of them."""
        maps = (self.params, self.metrics, self.tags, self.distributions, self.inputs)
        return self.code is None and self.seed is None and not any(maps)


def difference_of(project: "Project", one: Run, other: Run) -> RunDifference:
    """Tell what two runs differ in: parameters, metrics, tags, code, packages, data, seed."""
    store = TrackingStore(project.ledger.database)
    code = CodeDifference(
        commits=Pair(one.code, other.code), diffs=Pair(_short(one.code_diff), _short(other.code_diff))
    )
    same_code = (one.code, one.code_diff) == (other.code, other.code_diff)
    packages = [_distributions(project, each) for each in (one, other)]
    return RunDifference(
        one=one.id,
        other=other.id,
        params=_pairs(*({name: param_text(value) for name, value in _params(store, each).items()}
                        for each in (one, other))),
        metrics=_pairs(*(_metrics(store, each) for each in (one, other))),
        tags=_pairs(*(store.list_tags(each.id) for each in (one, other))),
        code=None if same_code else code,
        distributions={} if one.runtime == other.runtime else _pairs(*packages),
        inputs=_pairs(*(_inputs(project, each) for each in (one, other))),
        seed=None if one.seed == other.seed else Pair(_seed(one), _seed(other)),
    )  # fmt: skip


def compare_runs(project: "Project", found: Sequence[Run]) -> "pa.Table":
    """Give runs as a table, a row each.

    Returns
    -------
    Table
        `run`, `kind`, `name`, `state`, `started_at`, `ended_at`, then `params.<name>` (text),
        `metrics.<name>` (float64, the latest point), `tags.<name>`, null where a run has none.
    """
    import pyarrow as pa

    store = TrackingStore(project.ledger.database)
    with project.ledger.database.read() as connection:
        tracked = [each.id for each in found if each.experiment is not None]
        names = {each.id: each.name for each in read_infos(connection, tracked)}
    params = [{name: param_text(value) for name, value in _params(store, each).items()} for each in found]
    metrics = [_metrics(store, each) for each in found]
    tags = [store.list_tags(each.id) for each in found]
    instant = pa.timestamp("us", "UTC")
    columns: dict[str, Any] = {
        "run": pa.array([each.id for each in found], pa.string()),
        "kind": pa.array([each.kind for each in found], pa.string()),
        "name": pa.array([names.get(each.id, each.name) for each in found], pa.string()),
        "state": pa.array([str(each.state) for each in found], pa.string()),
        "started_at": pa.array([each.started_at for each in found], instant),
        "ended_at": pa.array([each.ended_at for each in found], instant),
    }
    for what, rows, kind in (
        ("params", params, pa.string()),
        ("metrics", metrics, pa.float64()),
        ("tags", tags, pa.string()),
    ):
        for name in sorted({name for row in rows for name in row}):
            columns[f"{what}.{name}"] = pa.array([row.get(name) for row in rows], kind)
    return pa.table(columns)


def _params(store: TrackingStore, run: Run) -> Mapping[str, Any]:
    """Give parameters: those of a run of an experiment are kept as they come, others with the run."""
    return {**run.params, **store.params(run.id)}


def _metrics(store: TrackingStore, run: Run) -> dict[str, float]:
    return {**run.metrics, **{name: point.value for name, point in store.latest_points(run.id).items()}}


def _inputs(project: "Project", run: Run) -> dict[str, str]:
    found: dict[str, list[Version]] = {}
    for edge in project.ledger.list_edges(run=run.id):
        if edge.role == "input":
            version = project.ledger.get_version_by_id(edge.version)
            found.setdefault(f"{version.kind} {version.name}", []).append(version)
    return {
        name: ", ".join(str(each.number) for each in sorted(versions, key=lambda each: each.number))
        for name, versions in found.items()
    }


def _distributions(project: "Project", run: Run) -> dict[str, str]:
    """Give what was installed, where that is on record."""
    if len(run.runtime) != 64 or not project.storage.exists(run.runtime):
        return {}
    lines = project.storage.get(run.runtime).decode().splitlines()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    """Give what differs, by name. A NaN is like a NaN."""
    return {
        name: Pair(one.get(name), other.get(name))
        for name in sorted({*one, *other})
        if repr(one.get(name)) != repr(other.get(name))
    }


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest[:12]


def _seed(run: Run) -> str | None:
    return None if run.seed is None else str(run.seed)
