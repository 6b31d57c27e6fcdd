from datetime import UTC, datetime, timedelta

import pytest

from noria.clock import ReplayClock
from noria.errors import Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import Edge, Version

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


def _model(ledger: Ledger, content: str, *, run: str | None = None) -> Version:
    return ledger.record_version("model", "late", sha256=content * 64, uri=f"storage:{content}", run=run)


def test_versions_are_numbered_from_one_and_come_back(ledger: Ledger) -> None:
    first = ledger.record_version("model", "late", sha256="a" * 64, uri="u", facts={"rows": 3})
    second, other = _model(ledger, "b"), ledger.record_version("model", "early", sha256="a" * 64, uri="u")
    assert (first.id, first.ref, second.number, other.number) == ("project/model/late:1", "late:1", 2, 1)
    assert ledger.get_version("model", "late") == second
    assert ledger.get_version("model", "late", 1) == ledger.get_version_by_id(first.id) == first
    assert ledger.find_version("model", "late", sha256="a" * 64) == first
    assert ledger.find_version("model", "late", sha256="c" * 64) is None
    assert ledger.list_versions(kind="model") == [other, first, second]
    assert ledger.list_versions(name="late") == [first, second]


def test_the_same_content_is_the_same_version(ledger: Ledger) -> None:
    first = _model(ledger, "a")
    assert _model(ledger, "a") == first
    assert len(ledger.list_events()) == 1


def test_a_retry_that_makes_the_same_content_is_an_output_of_both_runs(ledger: Ledger) -> None:
    one, two = ledger.start_run("train", "late"), ledger.start_run("train", "late")
    version = _model(ledger, "a", run=one.id)
    assert _model(ledger, "a", run=two.id) == _model(ledger, "a", run=two.id) == version
    assert version.run == one.id
    assert [edge.run for edge in ledger.list_edges(version=version.id)] == sorted([one.id, two.id])
    assert ledger.verify().ok


def test_the_start_of_the_run_is_the_cause_of_its_versions(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late")
    _model(ledger, "a", run=run.id)
    started, recorded = ledger.list_events()
    assert (recorded.verb, recorded.cause) == ("version.recorded", started.id)
    assert recorded.subject == "project/model/late:1"


def test_inputs_are_recorded_once(ledger: Ledger) -> None:
    run, version = ledger.start_run("train", "late"), _model(ledger, "a")
    ledger.add_input(run.id, version.id)
    ledger.add_input(run.id, version.id)
    assert ledger.list_edges(run=run.id) == [Edge(run=run.id, version=version.id, role="input")]
    assert len(ledger.list_events(verb="lineage.added")) == 1


def test_unknown_names_say_what_exists(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late")
    with pytest.raises(NotFound, match="there is no model yet"):
        ledger.get_version("model", "late")
    version = _model(ledger, "a")
    with pytest.raises(NotFound, match="did you mean 'late'"):
        ledger.get_version("model", "lat")
    with pytest.raises(NotFound, match="late:1"):
        ledger.get_version("model", "late", 2)
    with pytest.raises(NotFound, match="no version named"):
        ledger.add_input(run.id, "project/model/late:9")
    with pytest.raises(NotFound, match="no run named"):
        ledger.add_input("nix", version.id)
    with pytest.raises(NotFound, match="no run named"):
        _model(ledger, "b", run="nix")
    with pytest.raises(NotFound, match="no version named"):
        ledger.move_pointer("production", "late", "nix", stable=True, reason="r")
    assert ledger.verify().ok


def test_pointers_keep_their_history(ledger: Ledger, clock: ReplayClock) -> None:
    a, b = _model(ledger, "a"), _model(ledger, "b")
    gate = ledger.append("gate.passed")
    first = ledger.move_pointer("production", "late", a.id, stable=True, reason="first", cause=gate.id)
    clock.move_to(NOON + timedelta(days=1))
    second = ledger.move_pointer("production", "late", b.id, stable=False, reason="canary")
    staging = ledger.move_pointer("staging", "late", b.id, stable=True, reason="try")
    assert (first.number, second.number, staging.number) == (1, 2, 1)
    assert ledger.find_pointer("production", "late") == second
    assert ledger.find_pointer("production", "late", at=NOON + timedelta(hours=23)) == first
    assert ledger.find_pointer("production", "late", at=NOON - timedelta(seconds=1)) is None
    assert ledger.find_pointer("test", "late") is None
    assert ledger.list_pointers() == [first, second, staging]
    assert ledger.list_pointers(environment="staging", name="late") == [staging]
    moved = ledger.get_event(first.event)
    assert (moved.verb, moved.subject, moved.cause) == ("pointer.moved", "production/late", gate.id)


def test_a_move_with_the_same_key_is_made_once(ledger: Ledger) -> None:
    version = _model(ledger, "a")
    first = ledger.move_pointer("production", "late", version.id, stable=True, reason="r", key="k")
    assert ledger.move_pointer("production", "late", version.id, stable=True, reason="r", key="k") == first
    assert len(ledger.list_pointers()) == 1
    with pytest.raises(Conflict):
        ledger.move_pointer("staging", "late", version.id, stable=True, reason="r", key="k")


def test_changes_of_one_write_are_recorded_together_or_not_at_all(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.database.write():
        run = ledger.start_run("train", "late")
        _model(ledger, "a", run=run.id)
        raise ZeroDivisionError
    assert [*ledger.list_events(), *ledger.list_runs(), *ledger.list_versions()] == []
    with ledger.database.write():
        run = ledger.start_run("train", "late")
        _model(ledger, "a", run=run.id)
    assert [event.seq for event in ledger.list_events()] == [1, 2]
    assert ledger.verify().ok
