"""Runs that are recorded as a whole: one event each, many in one transaction."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from noria.errors import NotFound
from noria.ledger.store import Ledger
from noria.ledger.tables import edges, runs, versions
from noria.ledger.whole_runs import NewVersion, OutputOf, WholeRun
from noria.records import Cost, RunId, RunState, VersionId, new_id

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def whole(name: str, **more: Any) -> WholeRun:
    given: dict[str, Any] = {"state": RunState.FINISHED, **more}
    return WholeRun(
        id=RunId(given.pop("id", new_id())),
        kind="step",
        name=name,
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=2),
        **given,
    )


def made(name: str, content: str = "a") -> NewVersion:
    return NewVersion(kind="output", name=name, sha256=content * 64, uri=f"values:{content}")


def test_a_run_is_one_event_that_covers_all_its_rows(ledger: Ledger) -> None:
    read = ledger.record_version("dataset", "rows", sha256="f" * 64, uri="x")
    asked = whole(
        "score",
        inputs=(read.id,),
        outputs=(made("score"), made("score.second", "b")),
        params={"limit": 3},
        metrics={"rows": 7.0, "bad": float("nan")},
        cost=Cost(cpu_s=0.5, wall_s=2.0),
        seed=11,
        attempt=2,
    )
    before = len(ledger.list_events())
    ((first, second),) = ledger.record_runs([asked])
    assert (first.id, second.id) == ("project/output/score:1", "project/output/score.second:1")
    run = ledger.get_run(asked.id)
    assert (run.state, run.attempt, run.seed, run.params) == (RunState.FINISHED, 2, 11, {"limit": 3})
    assert (run.started_at, run.ended_at, run.cost) == (NOW, NOW + timedelta(seconds=2), asked.cost)
    assert run.metrics["rows"] == 7.0
    assert {(each.version, each.role) for each in ledger.list_edges(run=asked.id)} == {
        (read.id, "input"),
        (first.id, "output"),
        (second.id, "output"),
    }
    (event,) = ledger.list_events()[before:]
    assert (event.verb, event.subject) == ("run.finished", f"run/{asked.id}")
    assert len(event.rows) == 6
    assert ledger.verify().ok


def test_many_are_recorded_in_their_order_and_count_versions_on(ledger: Ledger) -> None:
    found = ledger.record_runs([whole("a", outputs=(made("x", each),)) for each in "abcab"])
    assert [version.number for (version,) in found] == [1, 2, 3, 1, 2]
    ((again,), (new,)) = ledger.record_runs([whole("a", outputs=(made("x", each),)) for each in "cd"])
    assert (again.number, new.number) == (3, 4)
    assert len(ledger.list_versions()) == 4
    assert ledger.verify().ok


def test_a_run_reads_what_one_before_it_has_just_made(ledger: Ledger) -> None:
    first = whole("first", outputs=(made("x"), made("y", "b")))
    second = whole("second", inputs=(OutputOf(first.id, 1),), outputs=(made("z"),))
    (_, y), (z,) = ledger.record_runs([first, second])
    assert {(each.version, each.role) for each in ledger.list_edges(run=second.id)} == {
        (y.id, "input"),
        (z.id, "output"),
    }
    assert ledger.verify().ok


def test_an_open_run_is_closed_with_what_it_made(ledger: Ledger) -> None:
    read = ledger.record_version("dataset", "rows", sha256="f" * 64, uri="x")
    started = ledger.start_run("step", "long", params={"executor": "inline"})
    ledger.add_input(started.id, read.id)
    earlier = whole("earlier", outputs=(made("e"),))
    asked = whole(
        "long",
        id=started.id,
        is_open=True,
        inputs=(read.id, OutputOf(earlier.id, 0)),
        outputs=(made("x"),),
        params={"limit": 3},
    )
    reader = whole("reader", inputs=(OutputOf(asked.id, 0),))
    (e,), (x,), () = ledger.record_runs([earlier, asked, reader])
    run = ledger.get_run(started.id)
    assert (run.state, run.params) == (RunState.FINISHED, {"executor": "inline", "limit": 3})
    assert {each.version for each in ledger.list_edges(run=started.id)} == {read.id, e.id, x.id}
    assert [each.version for each in ledger.list_edges(run=reader.id)] == [x.id]
    assert ledger.mark_killed() == []
    (event,) = ledger.list_events(verb="run.finished", subject=f"run/{started.id}")
    assert event.cause == ledger.list_events(verb="run.started")[0].id
    assert ledger.verify().ok


def test_what_an_open_run_made_is_kept_though_somebody_has_closed_it(ledger: Ledger) -> None:
    """Another machine took its process for dead."""
    started = ledger.start_run("step", "long")
    ledger.finish_run(started.id, state=RunState.KILLED, error="it was silent")
    asked = whole("long", id=started.id, is_open=True, outputs=(made("x"),))
    for _ in range(2):
        ((version,),) = ledger.record_runs([asked])
        assert version.number == 1
        assert ledger.get_run(started.id).state is RunState.KILLED
        assert [each.version for each in ledger.list_edges(run=started.id)] == [version.id]
    assert ledger.verify().ok


def test_all_or_none_is_recorded(ledger: Ledger) -> None:
    good, bad = whole("good", outputs=(made("x"),)), whole("bad", cause="project:99")
    with pytest.raises(NotFound):
        ledger.record_runs([good, bad])
    assert ledger.list_runs() == []
    assert ledger.list_versions() == []
    unknown = whole("bad", outputs=(VersionId("project/output/none:1"),))
    with pytest.raises(NotFound):
        ledger.record_runs([good, unknown])
    with pytest.raises(NotFound):
        ledger.record_runs([good, whole("bad", is_open=True)])
    assert ledger.list_runs() == []
    assert ledger.record_runs([]) == []
    assert ledger.verify().ok


def test_a_version_that_is_there_already_may_be_an_output(ledger: Ledger) -> None:
    model = ledger.record_version("model", "late", sha256="e" * 64, uri="x")
    asked = whole("train", outputs=(model.id,))
    assert ledger.record_runs([asked]) == [[model]]
    assert [each.role for each in ledger.list_edges(run=asked.id)] == ["output"]


def test_an_error_is_cut_and_cleaned(ledger: Ledger) -> None:
    asked = whole("bad", state=RunState.FAILED, error="\udcff\0" + "x" * 100_000)
    ledger.record_runs([asked])
    error = ledger.get_run(asked.id).error
    assert error is not None
    assert error.startswith("\\udcff\\0xxx")
    assert len(error) < 5_000
    assert ledger.verify().ok


@pytest.mark.parametrize(
    "change",
    [
        update(runs).values(state="failed"),
        update(runs).values(metrics='{"rows":8.0}'),
        update(versions).values(sha256="c" * 64),
        update(edges).values(role="input"),
    ],
)
def test_a_row_that_is_changed_later_shows(ledger: Ledger, change: Any) -> None:
    ledger.record_runs([whole("a", outputs=(made("x"),), metrics={"rows": 7.0})])
    with ledger.database.write() as connection:
        connection.execute(change)
    assert not ledger.verify().ok
