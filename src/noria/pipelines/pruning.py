"""Forgetting kept results that no run needs any more.

What is on record stays: runs, versions with their digests, lineage, logs. Forgotten are the keys under which
results are found again, and with them small values in the database that nothing else names. It is one
transaction with its event: a kill leaves all of it or nothing, and no run can begin meanwhile.

Blobs in the storage stay. A writer puts a blob first and names it in the database afterwards, and putting
what is there writes nothing: whoever removed a blob between the two would take it from a record that is about
to be made, such as that of a model.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, func, or_, select

from noria.errors import Conflict
from noria.ledger.rows import to_run
from noria.ledger.store import Ledger
from noria.ledger.tables import edges, runs, versions
from noria.pipelines.kept import KeptRow, read_kept
from noria.pipelines.recipes import Recipe, read_recipe
from noria.pipelines.results import find_outcome
from noria.pipelines.tables import run_logs, step_cache, step_latest, step_values
from noria.pipelines.trees import Stored, stored_in
from noria.records import Run, RunState
from noria.storage.contract import Storage

__all__ = ["Pruned", "prune", "refuse_while_at_work"]

_AT_ONCE = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten, or would be.

    Attributes
    ----------
    before
        Results that no run since then has made or used.
    results, result_bytes
        How many, and what they hold.
    steps
        How many of each step: `PIPELINE/STEP`.
    freed_bytes
        Of small values in the database, which nothing else named.
    left_bytes
        In the storage, where nothing that is kept names them any more.
    kept
        How many results are kept still.
    """

    before: datetime
    results: int
    result_bytes: int
    steps: dict[str, int]
    freed_bytes: int
    left_bytes: int
    kept: int
    is_dry: bool


def prune(ledger: Ledger, storage: Storage, *, before: datetime, dry_run: bool = False) -> Pruned:
    """Forget the results that no run of the time since has made or used; see the head of this module.

    Parameters
    ----------
    before
        Runs that ended earlier do not count any more; by the wall clock.
    dry_run
        Only tell.

    Raises
    ------
    Conflict
        If a pipeline is at work: nobody knows what it will need.
    """
    if not dry_run:
        ledger.mark_killed()
    database = ledger.database
    block: AbstractContextManager[Connection] = database.read() if dry_run else database.write()
    with block as connection:
        if not dry_run:
            refuse_while_at_work(ledger)
        used = _Used(connection, ledger, storage, before)
        forgotten = [row for row in read_kept(connection, ledger.scope) if not used.holds(row)]
        keys = {row.key for row in forgotten}
        left = [row for row in read_kept(connection) if row.scope != ledger.scope or row.key not in keys]
        parts = _distinct(part for row in forgotten for part in stored_in(row.entry.output))
        named = {part.sha256 for row in left for part in stored_in(row.entry.output)}
        loose = {sha256: part for sha256, part in parts.items() if sha256 not in named}
        free = {sha256 for sha256, part in loose.items() if part.is_small}
        free -= _named_otherwise(connection, storage, before, free)
        told = Pruned(
            before=before,
            results=len(forgotten),
            result_bytes=sum(part.size_bytes for part in parts.values()),
            steps=_by_step(connection, forgotten),
            freed_bytes=_size(connection, free),
            left_bytes=sum(part.size_bytes for part in loose.values() if not part.is_small),
            kept=sum(row.scope == ledger.scope for row in left),
            is_dry=dry_run,
        )
        if forgotten and not dry_run:
            _remove(connection, ledger.scope, keys, free)
            ledger.append("results.pruned", payload=_payload(told))
    return told


def refuse_while_at_work(ledger: Ledger) -> None:
    """Raise `Conflict` if a pipeline is at work."""
    at_work = ledger.list_runs(kind="pipeline", state=RunState.RUNNING, limit=4)
    if at_work:
        named = ", ".join(f"{run.name} ({run.id[:16]})" for run in at_work[:3])
        named += " and more" if len(at_work) > 3 else ""
        raise Conflict(
            f"at work: {named}. What it needs is not known, so none is forgotten; try again once it has ended"
        )


class _Used:
    """What runs of the time since a certain instant have made or used.

    Runs say what they used by their outcome; of those that came to none, such as killed ones, what their
    pipeline was last made of is kept. What is read by a run of another kind stays, however long ago.
    """

    def __init__(self, connection: Connection, ledger: Ledger, storage: Storage, before: datetime) -> None:
        self._before = before
        self._runs = set[str]()
        self._keys = set[str]()
        open_ended = set[str]()
        of_pipelines = select(runs).where(
            runs.c.scope == ledger.scope, runs.c.kind == "pipeline", _since(before)
        )
        for run in _runs_of(connection, of_pipelines):
            outcome = find_outcome(run, storage)
            if outcome is None:
                open_ended.add(run.name)
            else:
                self._runs.update(outcome.runs.values())
        for some in _batches(open_ended):
            of_latest = select(step_latest.c.key).where(
                step_latest.c.scope == ledger.scope, step_latest.c.pipeline.in_(some)
            )
            self._keys.update(connection.execute(of_latest).scalars())
        reads = (
            select(edges.c.version)
            .join(runs, runs.c.id == edges.c.run)
            .where(edges.c.role == "input", or_(runs.c.kind.not_in(["pipeline", "step"]), _since(before)))
        )
        self._versions = set(connection.execute(reads).scalars())

    def holds(self, row: KeptRow) -> bool:
        """Tell whether a result was made or used."""
        return (
            row.at >= self._before
            or row.key in self._keys
            or row.entry.run in self._runs
            or not self._versions.isdisjoint(row.entry.versions.values())
        )


def _named_otherwise(
    connection: Connection, storage: Storage, before: datetime, digests: set[str]
) -> set[str]:
    """Give those of some small values that something other than a kept result names.

    That is: a log, a version that is no result of a step, what a pipeline has returned (a run that is asked
    for again by its key gives it), a run of another kind, and the arguments of steps since `before`, which
    may be run again to compare.
    """
    if not digests:
        return set()
    found: set[str] = set()
    for some in _batches(digests):
        logs = select(run_logs.c.sha256).where(run_logs.c.sha256.in_(some))
        others = select(versions.c.sha256).where(versions.c.sha256.in_(some), versions.c.kind != "output")
        found.update(connection.execute(logs).scalars(), connection.execute(others).scalars())
    named = or_(runs.c.kind != "step", _since(before))
    for run in _runs_of(connection, select(runs).where(named)):
        found.update(digests.intersection(_named_by(run, storage)))
    return found


def _named_by(run: Run, storage: Storage) -> Iterator[str]:
    match run.kind:
        case "pipeline":
            outcome = find_outcome(run, storage)
            if outcome is not None and outcome.value is not None:
                yield from (part.sha256 for part in stored_in(outcome.value))
        case "step":
            if "recipe" in run.params or "recipe_sha256" in run.params:
                yield from _arguments_of(read_recipe(run, storage))
        case _:
            yield from _SHA256.findall(msgspec.json.encode(run.params).decode())


def _arguments_of(recipe: Recipe) -> Iterator[str]:
    for tree in recipe.arguments.values():
        yield from (part.sha256 for part in stored_in(tree))


def _remove(connection: Connection, scope: str, keys: Iterable[str], values: Iterable[str]) -> None:
    for some in _batches(keys):
        connection.execute(delete(step_cache).where(step_cache.c.scope == scope, step_cache.c.key.in_(some)))
    for some in _batches(values):
        connection.execute(delete(step_values).where(step_values.c.sha256.in_(some)))


def _by_step(connection: Connection, rows: Iterable[KeptRow]) -> dict[str, int]:
    """Count results by the step that gave them."""
    made = Counter(row.entry.run for row in rows)
    steps: Counter[str] = Counter()
    for some in _batches(made):
        for id, name in connection.execute(select(runs.c.id, runs.c.name).where(runs.c.id.in_(some))):
            steps[name.partition("[")[0]] += made[id]
    return dict(sorted(steps.items()))


def _size(connection: Connection, values: Iterable[str]) -> int:
    """Add up how much small values take."""
    sizes = (
        connection.execute(
            select(func.sum(func.length(step_values.c.data))).where(step_values.c.sha256.in_(some))
        ).scalar()
        for some in _batches(values)
    )
    return sum(int(size or 0) for size in sizes)


def _payload(told: Pruned) -> Mapping[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(told)
    del plain["is_dry"]
    reason = f"forgot {told.results} kept results that no run since {plain['before']} has made or used"
    return {**plain, "reason": reason}


def _since(before: datetime) -> Any:
    return or_(runs.c.ended_at.is_(None), runs.c.ended_at >= before)


def _runs_of(connection: Connection, query: Select[Any]) -> Iterator[Run]:
    for row in connection.execute(query, execution_options={"yield_per": _AT_ONCE}).mappings():
        yield to_run(row)


def _distinct(parts: Iterable[Stored]) -> dict[str, Stored]:
    return {part.sha256: part for part in parts}


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    left = iter(items)
    while some := list(islice(left, _AT_ONCE)):
        yield some
