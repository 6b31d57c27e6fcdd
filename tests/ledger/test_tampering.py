import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.records import Verification
from noria.ledger.store import Ledger
from noria.records import RunState

_TABLES = ("events", "runs", "versions", "edges", "pointers")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ledger with something in every column; tests work on copies of it."""
    path = tmp_path_factory.mktemp("template") / "noria.db"
    with Database.open(f"sqlite:///{path}") as database:
        ledger = Ledger(database, clock=WallClock())
        tick = ledger.append("schedule.ticked", subject="nightly", payload={"day": 1}, key="tick/1")
        parent = ledger.start_run("pipeline", "nightly", cause=tick.id)
        data = ledger.record_version("dataset", "flights", sha256="a" * 64, uri="u", facts={"rows": 3})
        with ledger.running("train", "late", parent=parent.id, experiment="1", seed=1, key="k") as run:
            run.add_input(data)
            run.metrics["auc"] = 0.75
            model = run.record_version("model", "late", sha256="b" * 64, uri="v")
        with pytest.raises(ZeroDivisionError), ledger.running("train", "late"):
            raise ZeroDivisionError
        ledger.move_pointer("production", "late", model.id, stable=True, reason="first", key="m")
        ledger.move_pointer("staging", "late", model.id, stable=False, reason="try", cause=tick.id)
        ledger.finish_run(parent.id, state=RunState.FINISHED)
        assert ledger.verify().ok
    return path


@pytest.fixture(scope="module")
def copy(template: Path) -> Path:
    return template.with_name("copy.db")


def _verify(path: Path, *, head: str | None = None) -> Verification:
    with Database.open(f"sqlite:///{path}") as database:
        return Ledger(database, clock=WallClock()).verify(head=head)


def _edit(template: Path, copy: Path, statement: str, values: tuple[Any, ...] = ()) -> int:
    for leftover in copy.parent.glob("copy.db*"):
        leftover.unlink()
    shutil.copyfile(template, copy)
    with closing(sqlite3.connect(copy)) as raw, raw:
        return raw.execute(statement, values).rowcount


def _other(value: Any, data: st.DataObject) -> Any:
    """Draw another value for a column."""
    match value:
        case None:
            return data.draw(st.sampled_from(["x", 1]))
        case int():
            return value + data.draw(st.sampled_from([-1, 1, 1_000_000, 2**62 - value, -(2**62) - value]))
        case float():
            return value + data.draw(st.sampled_from([1.0, 1e-6, -0.5]))
        case _:
            position = data.draw(st.integers(0, len(value)))
            edited = data.draw(
                st.sampled_from(
                    [
                        value[:position] + " " + value[position:],
                        value[:position],
                        value + "x",
                        "",
                        None,
                        7,
                        b"\xff",
                    ]
                )
            )
            return edited if edited != value else value + "y"


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_one_edited_value_anywhere_is_found(template: Path, copy: Path, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(_TABLES))
    with closing(sqlite3.connect(template)) as raw:
        raw.row_factory = sqlite3.Row
        rows = raw.execute(f"SELECT rowid AS place, * FROM {table}").fetchall()
    row = data.draw(st.sampled_from(rows))
    column = data.draw(st.sampled_from(row.keys()[1:]))
    value = _other(row[column], data)
    try:
        _edit(template, copy, f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (value, row["place"]))
    except sqlite3.IntegrityError:
        return  # the database itself refuses it
    with closing(sqlite3.connect(copy)) as raw:
        (stored,) = raw.execute(f'SELECT "{column}" FROM {table} WHERE rowid = ?', (row["place"],)).fetchone()
    if stored == row[column] and type(stored) is type(row[column]):
        return  # the column's type made it the same value again
    found = _verify(copy)
    assert not found.ok, (table, column, row[column], value)
    assert any(word in found.problems[0] for word in ("changed", "gone", "no event", "cannot be read"))


@pytest.mark.parametrize("table", _TABLES)
def test_any_deleted_row_is_found(template: Path, copy: Path, table: str) -> None:
    head = _verify(template).head
    with closing(sqlite3.connect(template)) as raw:
        places = [place for (place,) in raw.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    for place in places:
        assert _edit(template, copy, f"DELETE FROM {table} WHERE rowid = ?", (place,)) == 1
        found = _verify(copy, head=head)
        assert not found.ok
        assert "gone" in " ".join(found.problems) or "cut off" in " ".join(found.problems)


@pytest.mark.parametrize("table", _TABLES)
def test_a_row_from_elsewhere_is_found(template: Path, copy: Path, table: str) -> None:
    fresh = {
        "events": "scope, 99, verb, subject, actor, cause, NULL, payload, rows, at, recorded_at, previous,"
        " digest",
        "runs": "'x' || id, scope, kind, name, state, attempt, NULL, cause, parent, experiment, params,"
        " metrics, seed, code, code_diff, runtime, error, cpu_s, wall_s, at, started_at, ended_at",
        "versions": "id || '9', scope, kind, name, number + 9, 'x' || sha256, uri, run, facts, at,"
        " recorded_at",
        "edges": "run, version, 'other', scope",
        "pointers": "scope, environment, name, number + 9, version, stable, reason, event, at, recorded_at",
    }[table]
    assert _edit(template, copy, f"INSERT INTO {table} SELECT {fresh} FROM {table} LIMIT 1") == 1
    assert not _verify(copy).ok


def test_the_problem_names_the_row_and_the_event(template: Path, copy: Path) -> None:
    _edit(template, copy, "UPDATE versions SET sha256 = ? WHERE name = 'late'", ("c" * 64,))
    (problem,) = _verify(copy).problems
    assert problem.startswith("row versions/project/model/late:1 was changed")
    assert "event project:" in problem
    _edit(template, copy, "UPDATE events SET actor = 'somebody else' WHERE seq = 3")
    assert _verify(copy).problems == (
        "event project:3 (version.recorded) was changed: its digest is not that of its content",
    )


def test_a_forged_event_with_a_right_digest_breaks_the_next(template: Path, copy: Path) -> None:
    with Database.open(f"sqlite:///{template}") as database:
        event = Ledger(database, clock=WallClock()).get_event("project:3")
    from noria.records import digest_of

    forged = {name: getattr(event, name) for name in event.__struct_fields__ if name != "digest"} | {
        "actor": "me"
    }
    digest = digest_of({name: value for name, value in forged.items() if value is not None})
    _edit(template, copy, "UPDATE events SET actor = 'me', digest = ? WHERE seq = 3", (digest,))
    (problem,) = _verify(copy).problems
    assert "event project:4 follows another event" in problem


def test_a_cut_tail_shows_only_against_an_exported_head(template: Path, copy: Path) -> None:
    _edit(template, copy, "DELETE FROM heartbeats")
    with Database.open(f"sqlite:///{copy}") as database:
        ledger = Ledger(database, clock=WallClock())
        before, last = ledger.verify(), ledger.append("a.b")
        after = ledger.verify(head=before.head)  # an older head is still in the chain
        assert after.ok
    assert after.head == last.digest != before.head
    with closing(sqlite3.connect(copy)) as raw, raw:
        raw.execute("DELETE FROM events WHERE verb = 'a.b'")
    assert _verify(copy).ok
    found = _verify(copy, head=after.head)
    assert found.problems == (
        f"the head {after.head[:16]}… is not in the chain: its end was cut off, or it was rewritten",
    )


def test_rows_of_a_scope_without_events_are_found(template: Path, copy: Path) -> None:
    _edit(template, copy, "INSERT INTO edges SELECT run, version, 'other', 'ghost' FROM edges LIMIT 1")
    assert "scope 'ghost'" in " ".join(_verify(copy).problems)


def test_heartbeats_and_leases_are_not_covered(template: Path, copy: Path) -> None:
    _edit(template, copy, "DELETE FROM heartbeats")
    with Database.open(f"sqlite:///{copy}") as database:
        ledger = Ledger(database, clock=WallClock())
        run = ledger.start_run("train", "late")
        before = ledger.verify().head
        ledger.heartbeat(run.id)
        ledger.release_lease(ledger.acquire_lease("x", ttl_s=1))
        assert ledger.verify() == ledger.verify(head=before)
    with closing(sqlite3.connect(copy)) as raw, raw:
        assert raw.execute("UPDATE heartbeats SET beat_at = 0").rowcount == 1
    assert _verify(copy).ok


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    found = _verify(tmp_path / "noria.db")
    assert (found.ok, found.events, found.rows, found.head) == (True, 0, 0, "0" * 64)
