"""Runs: started, kept alive, closed; and what became of those whose process died."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Integer, RowMapping, Select, bindparam, select

from noria.errors import Conflict, LeaseHeld, NotFound
from noria.ledger.chain import Change
from noria.ledger.code import CodeState
from noria.ledger.processes import Process, is_gone, this_process
from noria.ledger.rows import decode_json, encode_json, encode_metrics, row_digest, row_key, to_run
from noria.ledger.tables import heartbeats, runs
from noria.records import Cost, Run, RunState, new_id

__all__ = [
    "STALE_AFTER",
    "beat",
    "beat_all",
    "clean_error",
    "close_run",
    "dead_runs_exist",
    "find_run",
    "find_runs",
    "get_run",
    "kill_dead_runs",
    "list_runs",
    "resume_run",
    "start_run",
    "started_by",
]

STALE_AFTER = timedelta(seconds=90)  # a run on another machine is given up when it was silent for so long

_BY_ID = select(runs).where(runs.c.id == bindparam("id"))
_BY_KEY = (
    select(runs)
    .where(runs.c.scope == bindparam("scope"), runs.c.key == bindparam("key"))
    .order_by(runs.c.attempt.desc())
    .limit(1)
)
_INSERT = runs.insert()
_UPDATE = runs.update().where(runs.c.id == bindparam("run_id"))
_HEARTBEAT = select(heartbeats).where(heartbeats.c.run == bindparam("run"))
_INSERT_HEARTBEAT = heartbeats.insert()
_BEAT = heartbeats.update().where(heartbeats.c.run == bindparam("run_id"))
_END_HEARTBEAT = heartbeats.delete().where(heartbeats.c.run == bindparam("run")).returning(heartbeats.c.event)
_AT_WORK = (
    select(heartbeats).join(runs, runs.c.id == heartbeats.c.run).where(runs.c.scope == bindparam("scope"))
)

_MAX_ERROR_CHARS = 4_000


def start_run(
    change: Change,
    *,
    kind: str,
    name: str,
    cause: str | None,
    parent: str | None,
    experiment: str | None,
    params: Mapping[str, Any] | None,
    seed: int | None,
    key: str | None,
    code: CodeState,
    id: str | None = None,
    is_held: bool = True,
) -> Run:
    """Record that a run begins; with a key, a finished run of that key is given instead.

    One that is not held has no process whose death would end it: its owner is elsewhere.

    With an id that is on record already, that run is given: a commit may succeed and report an error.
    """
    if id is not None:
        known = change.connection.execute(_BY_ID, {"id": id}).mappings().first()
        if known is not None:
            return to_run(known)
    attempt = 1
    if key is not None:
        latest = _latest_attempt(change, kind=kind, name=name, key=key)
        if latest is not None and latest.state is RunState.FINISHED:
            return latest
        attempt = 1 if latest is None else latest.attempt + 1
    if parent is not None:
        get_run(change.connection, parent)
    row: dict[str, Any] = {
        "id": id or new_id(),
        "scope": change.scope,
        "kind": kind,
        "name": name,
        "state": RunState.RUNNING.value,
        "attempt": attempt,
        "key": key,
        "cause": cause,
        "parent": parent,
        "experiment": experiment,
        "params": encode_json(params),
        "metrics": "{}",
        "seed": seed,
        "code": code.commit,
        "code_diff": code.diff,
        "runtime": code.runtime,
        "error": None,
        "cpu_s": None,
        "wall_s": None,
        "at": change.at,
        "started_at": change.recorded_at,
        "ended_at": None,
    }
    change.connection.execute(_INSERT, row)
    event = change.record(
        "run.started",
        f"run/{row['id']}",
        payload={"kind": kind, "name": name, "attempt": attempt},
        cause=cause,
        rows={row_key(runs, row): row_digest(runs, row)},
    )
    if is_held:
        _hold(change, row["id"], event.id)
    return to_run(row)


def resume_run(change: Change, run_id: str, *, is_held: bool) -> Run:
    """Record that a run goes on that had ended; one at work is given as it is."""
    row = dict(_get_row(change.connection, run_id))
    if row["state"] == RunState.RUNNING:
        return to_run(row)
    open_ = dict.fromkeys(("error", "cpu_s", "wall_s", "ended_at"))
    changed = {"state": RunState.RUNNING.value, **open_}
    row.update(changed)
    change.connection.execute(_UPDATE, {"run_id": run_id, **changed})
    payload = {"kind": row["kind"], "name": row["name"], "attempt": row["attempt"]}
    rows = {row_key(runs, row): row_digest(runs, row)}
    event = change.record("run.resumed", f"run/{run_id}", payload=payload, cause=None, rows=rows)
    if is_held:
        _hold(change, run_id, event.id)
    return to_run(row)


def _hold(change: Change, run_id: str, event_id: str) -> None:
    beat = {"run": run_id, "event": event_id, "holder": _this_holder(), "beat_at": change.recorded_at}
    change.connection.execute(_INSERT_HEARTBEAT, beat)


def close_run(
    change: Change,
    run_id: str,
    *,
    state: RunState,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    error: str | None = None,
    cost: Cost | None = None,
) -> Run:
    """Record how a run ended; see `Ledger.finish_run`."""
    row = dict(_get_row(change.connection, run_id))
    if row["state"] == state:
        return to_run(row)
    if row["state"] != RunState.RUNNING:
        raise Conflict(f"run {run_id} is already {row['state']}, it cannot become {state}; start a new one")
    changed: dict[str, Any] = {
        "state": state.value,
        "params": encode_json({**decode_json(row["params"]), **params}) if params else row["params"],
        "metrics": encode_metrics(metrics),
        "error": None if error is None else clean_error(error),
        "cpu_s": None if cost is None else float(cost.cpu_s),
        "wall_s": None if cost is None else float(cost.wall_s),
        "ended_at": change.recorded_at,
    }
    row.update(changed)
    change.connection.execute(_UPDATE, {"run_id": run_id, **changed})
    cause = change.connection.execute(_END_HEARTBEAT, {"run": run_id}).scalar_one_or_none()
    payload = {"kind": row["kind"], "name": row["name"], "attempt": row["attempt"]}
    if error is not None:
        payload["error"] = row["error"]
    rows = {row_key(runs, row): row_digest(runs, row)}
    change.record(f"run.{state.value}", f"run/{run_id}", payload=payload, cause=cause, rows=rows)
    return to_run(row)


def kill_dead_runs(change: Change) -> list[Run]:
    """Close as killed the runs of this scope whose process is gone."""
    at_work = change.connection.execute(_AT_WORK, {"scope": change.scope}).mappings().all()
    return [_kill(change, beat) for beat in at_work if _is_dead(beat, change.recorded_at)]


def dead_runs_exist(connection: Connection, scope: str, now: datetime) -> bool:
    """Tell whether `kill_dead_runs` would find any, without a transaction that writes."""
    at_work = connection.execute(_AT_WORK, {"scope": scope}).mappings().all()
    return any(_is_dead(beat, now) for beat in at_work)


def beat(connection: Connection, run_id: str, now: datetime) -> None:
    """Say that a run is alive. Raises `Conflict` if it was closed, `NotFound` if there is none."""
    if connection.execute(_BEAT, {"run_id": run_id, "beat_at": now}).rowcount == 0:
        state = _get_row(connection, run_id)["state"]
        raise Conflict(f"run {run_id} is already {state}; somebody closed it while it was at work")


def beat_all(connection: Connection, run_ids: Sequence[str], now: datetime) -> None:
    """Say that runs are alive; those that were closed meanwhile are left as they are."""
    for run_id in run_ids:
        connection.execute(_BEAT, {"run_id": run_id, "beat_at": now})


def started_by(connection: Connection, run_id: str) -> str | None:
    """Give the event that started a run that is at work."""
    row = connection.execute(_HEARTBEAT, {"run": run_id}).mappings().first()
    return None if row is None else str(row["event"])


def get_run(connection: Connection, run_id: str) -> Run:
    """Give a run. Raises `NotFound`."""
    return to_run(_get_row(connection, run_id))


def find_runs(connection: Connection, scope: str, beginning: str, *, limit: int) -> list[Run]:
    """List runs whose id begins so."""
    if "\0" in beginning:  # which PostgreSQL refuses, even to look for
        return []
    within = (runs.c.id >= beginning) & (runs.c.id < beginning + "g")  # ids are hex digits
    query = select(runs).where(runs.c.scope == scope, within).order_by(runs.c.id).limit(limit)
    return [to_run(row) for row in connection.execute(query).mappings()]


def find_run(connection: Connection, scope: str, key: str) -> Run | None:
    """Give the latest attempt at the run of an idempotency key."""
    row = connection.execute(_BY_KEY, {"scope": scope, "key": key}).mappings().first()
    return None if row is None else to_run(row)


def list_runs(
    connection: Connection,
    scope: str,
    *,
    kind: str | None,
    name: str | None,
    state: str | None,
    experiment: str | None,
    parent: str | None,
    with_steps: bool,
    limit: int | None,
    newest_first: bool,
) -> list[Run]:
    """List runs of one scope; see `Ledger.list_runs`."""
    filters = {"kind": kind, "name": name, "state": state, "experiment": experiment, "parent": parent}
    wanted = {"scope": scope} | {column: each for column, each in filters.items() if each is not None}
    query = _listing(
        tuple(wanted), with_steps=with_steps, newest_first=newest_first, is_limited=limit is not None
    )
    given = wanted if limit is None else {**wanted, "limit": limit}
    return [to_run(row) for row in connection.execute(query, given).mappings()]


@cache
def _listing(
    columns: tuple[str, ...], *, with_steps: bool, newest_first: bool, is_limited: bool
) -> Select[Any]:
    """Write the query of a list once: to put it together takes as long as to answer it."""
    query = select(runs).where(*(runs.c[each] == bindparam(each) for each in columns))
    if not with_steps:
        query = query.where(runs.c.kind != "step")
    order = (runs.c.started_at, runs.c.id)
    query = query.order_by(*(column.desc() if newest_first else column for column in order))
    return query.limit(bindparam("limit", type_=Integer)) if is_limited else query


def _latest_attempt(change: Change, *, kind: str, name: str, key: str) -> Run | None:
    row = change.connection.execute(_BY_KEY, {"scope": change.scope, "key": key}).mappings().first()
    if row is None:
        return None
    if (row["kind"], row["name"]) != (kind, name):
        raise Conflict(
            f"the key {key!r} is that of run {row['id']} ({row['kind']} {row['name']}); "
            f"{kind} {name} needs a key of its own"
        )
    if row["state"] != RunState.RUNNING:
        return to_run(row)
    beat = change.connection.execute(_HEARTBEAT, {"run": row["id"]}).mappings().first()
    if beat is None:
        return close_run(change, row["id"], state=RunState.KILLED, error="nobody held the run any more")
    if not _is_dead(beat, change.recorded_at):
        holder = msgspec.json.decode(beat["holder"], type=Process)
        raise LeaseHeld(f"{kind} {name} ({key})", f"run {row['id']} of {holder}")
    return _kill(change, beat)


def _is_dead(beat: RowMapping, now: datetime) -> bool:
    gone = is_gone(msgspec.json.decode(beat["holder"], type=Process))
    return now - beat["beat_at"] > STALE_AFTER if gone is None else gone


def _kill(change: Change, beat: RowMapping) -> Run:
    holder = msgspec.json.decode(beat["holder"], type=Process)
    error = f"{holder} ended without closing the run"
    return close_run(change, beat["run"], state=RunState.KILLED, error=error)


def _get_row(connection: Connection, run_id: str) -> RowMapping:
    row = connection.execute(_BY_ID, {"id": run_id}).mappings().first()
    if row is None:
        raise NotFound("run", run_id)
    return row


def _this_holder() -> str:
    return msgspec.json.encode(this_process()).decode()


def clean_error(text: str) -> str:
    """Make an error's text storable: whole characters only, no NUL, not endless."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= _MAX_ERROR_CHARS else text[:_MAX_ERROR_CHARS] + "…"
