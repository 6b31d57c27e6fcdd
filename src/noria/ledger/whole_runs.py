"""Runs recorded as a whole: what began and ended in one go is one event, and many are one transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import bindparam, func, select

from noria.errors import NotFound
from noria.ledger.chain import Change
from noria.ledger.code import CodeState
from noria.ledger.rows import decode_json, encode_json, encode_metrics, row_digest, row_key, to_version
from noria.ledger.runs import clean_error
from noria.ledger.tables import edges, heartbeats, runs, versions
from noria.ledger.versions import get_version_by_id
from noria.records import Cost, RunId, RunState, Version, VersionId

__all__ = ["NewVersion", "OutputOf", "WholeRun", "record_whole_runs"]

_OF_NAME = (
    versions.c.scope == bindparam("scope"),
    versions.c.kind == bindparam("kind"),
    versions.c.name == bindparam("name"),
)
_KNOWN = select(versions).where(*_OF_NAME, versions.c.sha256.in_(bindparam("digests", expanding=True)))
_RUN = select(runs).where(runs.c.id == bindparam("id"))
_STARTED_BY = select(heartbeats.c.event).where(heartbeats.c.run == bindparam("run"))
_EDGES = select(edges.c.version, edges.c.role).where(edges.c.run == bindparam("run"))
_CLOSE = runs.update().where(runs.c.id == bindparam("run_id"))
_END_HEARTBEAT = heartbeats.delete().where(heartbeats.c.run == bindparam("run_id"))
_LAST_NUMBER = select(func.max(versions.c.number)).where(*_OF_NAME)
_AT_ONCE = 500  # digests in one question


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that a run made; the same content again is the version it was."""

    kind: str
    name: str
    sha256: str
    uri: str
    facts: dict[str, Any] = {}


class OutputOf(msgspec.Struct, frozen=True):
    """The version that a run made, before it has an id: for a run that is recorded right after it."""

    run: RunId
    number: int  # among its outputs


class WholeRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run from its start to its end.

    `is_open`: it was started by `Ledger.start_run` and is closed now.
    """

    id: RunId
    kind: str
    name: str
    state: RunState
    started_at: datetime
    ended_at: datetime
    attempt: int = 1
    key: str | None = None
    cause: str | None = None
    parent: RunId | None = None
    experiment: str | None = None
    params: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    seed: int | None = None
    error: str | None = None
    cost: Cost | None = None
    inputs: tuple[VersionId | OutputOf, ...] = ()
    outputs: tuple[NewVersion | VersionId, ...] = ()
    is_open: bool = False


def record_whole_runs(change: Change, found: Sequence[WholeRun], code: CodeState) -> list[list[Version]]:
    """Record runs with their versions and edges; give the versions that each made, in order."""
    book = _Book(change, found)
    for each in found:
        book.add(each, code)
    book.write()
    return [book.made[each.id] for each in found]


class _Book:
    """Rows of many runs on their way into the tables."""

    def __init__(self, change: Change, found: Sequence[WholeRun]) -> None:
        self.made: dict[RunId, list[Version]] = {}
        self._change = change
        self._runs: list[dict[str, Any]] = []
        self._changed: list[dict[str, Any]] = []
        self._closed: list[dict[str, Any]] = []
        self._versions: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []
        self._known, self._numbers = self._look_up(found)

    def add(self, run: WholeRun, code: CodeState) -> None:
        """Take up one run: its rows, and the event that covers them."""
        change = self._change
        if run.is_open:
            row, cause, is_late = self._row_of_open(run)
        else:
            row, cause, is_late = self._row_of_new(run, code), run.cause, False
        covered = {} if is_late else {row_key(runs, row): row_digest(runs, row)}
        made = [self._version(each, run, covered) for each in run.outputs]
        self.made[run.id] = made
        pairs = [(self._id_of(each), "input") for each in run.inputs] + [(each.id, "output") for each in made]
        known = self._edges_of(run) if run.is_open else set()
        for version_id, role in dict.fromkeys(pairs):
            if (version_id, role) in known:
                continue
            edge = {"run": run.id, "version": version_id, "role": role, "scope": change.scope}
            self._edges.append(edge)
            covered[row_key(edges, edge)] = row_digest(edges, edge)
        payload: dict[str, Any] = {"kind": run.kind, "name": run.name, "attempt": run.attempt}
        if is_late:
            if covered:
                change.queue("lineage.added", f"run/{run.id}", payload=payload, cause=cause, rows=covered)
            return
        if run.error is not None:
            payload["error"] = row["error"]
        change.queue(f"run.{run.state.value}", f"run/{run.id}", payload=payload, cause=cause, rows=covered)

    def write(self) -> None:
        """Write everything that was taken up."""
        connection = self._change.connection
        if self._runs:
            connection.execute(runs.insert(), self._runs)
        if self._changed:
            connection.execute(_CLOSE, self._changed)
            connection.execute(_END_HEARTBEAT, self._closed)
        for table, rows in ((versions, self._versions), (edges, self._edges)):
            if rows:
                connection.execute(table.insert(), rows)
        self._change.write_queued()

    def _row_of_new(self, run: WholeRun, code: CodeState) -> dict[str, Any]:
        change = self._change
        row: dict[str, Any] = {
            "id": run.id,
            "scope": change.scope,
            "kind": run.kind,
            "name": run.name,
            "attempt": run.attempt,
            "key": run.key,
            "cause": run.cause,
            "parent": run.parent,
            "experiment": run.experiment,
            "params": encode_json(run.params),
            "seed": run.seed,
            "code": code.commit,
            "code_diff": code.diff,
            "runtime": code.runtime,
            "at": change.at,
            "started_at": run.started_at,
            **_end_of(run),
        }
        self._runs.append(row)
        return row

    def _row_of_open(self, run: WholeRun) -> tuple[dict[str, Any], str | None, bool]:
        """Give the row of an open run as it becomes, the event that started it, and whether it is late.

        It is where somebody has closed the run: took this process for dead, for having been silent too long.
        """
        connection = self._change.connection
        found = connection.execute(_RUN, {"id": run.id}).mappings().first()
        if found is None:
            raise NotFound("run", run.id)
        row: dict[str, Any] = dict(found)
        if row["state"] != RunState.RUNNING:
            return row, None, True
        ends = {**_end_of(run), "params": encode_json({**decode_json(row["params"]), **run.params})}
        row.update(ends)
        self._changed.append({"run_id": run.id, **ends})
        self._closed.append({"run_id": run.id})
        cause = connection.execute(_STARTED_BY, {"run": run.id}).scalar()
        return row, cause, False

    def _edges_of(self, run: WholeRun) -> set[tuple[VersionId, str]]:
        """Give what an open run has on record already: a step may say itself what it reads."""
        return {(row.version, row.role) for row in self._change.connection.execute(_EDGES, {"run": run.id})}

    def _id_of(self, version: VersionId | OutputOf) -> VersionId:
        if isinstance(version, OutputOf):
            return self.made[version.run][version.number].id
        return version

    def _version(self, made: NewVersion | VersionId, run: WholeRun, covered: dict[str, str]) -> Version:
        change = self._change
        if not isinstance(made, NewVersion):
            return get_version_by_id(change.connection, made)
        known = self._known.get((made.kind, made.name, made.sha256))
        if known is not None:
            return known
        number = self._numbers.get((made.kind, made.name), 0) + 1
        self._numbers[made.kind, made.name] = number
        row: dict[str, Any] = {
            "id": f"{change.scope}/{made.kind}/{made.name}:{number}",
            "scope": change.scope,
            "kind": made.kind,
            "name": made.name,
            "number": number,
            "sha256": made.sha256,
            "uri": made.uri,
            "run": run.id,
            "facts": encode_json(made.facts),
            "at": change.at,
            "recorded_at": change.recorded_at,
        }
        self._versions.append(row)
        covered[row_key(versions, row)] = row_digest(versions, row)
        version = to_version(row)
        self._known[made.kind, made.name, made.sha256] = version
        return version

    def _look_up(
        self, found: Iterable[WholeRun]
    ) -> tuple[dict[tuple[str, str, str], Version], dict[tuple[str, str], int]]:
        """Find which versions are there already, and the last number of each name."""
        wanted: dict[tuple[str, str], dict[str, None]] = {}
        for run in found:
            for each in run.outputs:
                if isinstance(each, NewVersion):
                    wanted.setdefault((each.kind, each.name), {})[each.sha256] = None
        known: dict[tuple[str, str, str], Version] = {}
        numbers: dict[tuple[str, str], int] = {}
        connection = self._change.connection
        for (kind, name), digests in wanted.items():
            of_name: Mapping[str, Any] = {"scope": self._change.scope, "kind": kind, "name": name}
            numbers[kind, name] = connection.execute(_LAST_NUMBER, of_name).scalar() or 0
            if not numbers[kind, name]:
                continue
            listed = list(digests)
            for start in range(0, len(listed), _AT_ONCE):
                some = {**of_name, "digests": listed[start : start + _AT_ONCE]}
                for row in connection.execute(_KNOWN, some).mappings():
                    version = to_version(row)
                    known[kind, name, version.sha256] = version
        return known, numbers


def _end_of(run: WholeRun) -> dict[str, Any]:
    return {
        "state": run.state.value,
        "metrics": encode_metrics(run.metrics),
        "error": None if run.error is None else clean_error(run.error),
        "cpu_s": None if run.cost is None else float(run.cost.cpu_s),
        "wall_s": None if run.cost is None else float(run.cost.wall_s),
        "ended_at": run.ended_at,
    }
