import math
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import RunState
from noria.tracking.experiments import ExperimentBook
from noria.tracking.runs import tracked_run
from noria.tracking.store import TrackingStore


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    database = Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    return Ledger(database, clock=ReplayClock(datetime(2013, 4, 1, tzinfo=UTC)))


def test_the_default_experiment_exists_from_the_first_migration(ledger: Ledger) -> None:
    experiment = ExperimentBook(ledger).get("Default")
    assert experiment.id == "0"


def test_steps_are_kept_and_the_last_values_are_in_the_closing_event(ledger: Ledger) -> None:
    with tracked_run(ledger, "train", "late", params={"rows": 3}, seed=7) as tracked:
        tracked.log_params({"leaves": 31})
        for step in range(5):
            tracked.log_metric("loss", 1 / (step + 1), step=step)
        tracked.put_tag("why", "first try")
        tracked.put_tag("why", "second thought")
    run = ledger.get_run(tracked.id)
    store = TrackingStore(ledger.database)
    assert run.state is RunState.FINISHED
    assert (run.params, run.metrics, run.seed) == ({"rows": 3, "leaves": 31}, {"loss": 0.2}, 7)
    assert [point.value for point in store.list_points(run.id, "loss")] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert store.list_tags(run.id) == {"why": "second thought"}
    assert ledger.list_runs(experiment="0") == [run]
    assert ledger.verify().ok


def test_a_value_that_is_no_number_survives(ledger: Ledger) -> None:
    with tracked_run(ledger, "train", "late") as tracked:
        tracked.log_metrics({"a": math.nan, "b": math.inf})
    a, b = TrackingStore(ledger.database).list_points(tracked.id)
    assert math.isnan(a.value)
    assert b.value == math.inf
    assert math.isnan(ledger.get_run(tracked.id).metrics["a"])


def test_a_parameter_does_not_change(ledger: Ledger) -> None:
    with tracked_run(ledger, "train", "late", params={"leaves": 31}) as tracked:
        tracked.log_param("leaves", 31)
        with pytest.raises(Conflict, match="'31' and cannot become '63'"):
            tracked.log_param("leaves", 63)


def test_a_failed_block_keeps_what_was_logged_and_the_reason(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), tracked_run(ledger, "train", "late") as tracked:
        tracked.log_metric("loss", 0.5)
        _ = 1 // 0
    run = ledger.get_run(tracked.id)
    assert run.state is RunState.FAILED
    assert "ZeroDivisionError" in str(run.error)
    assert run.metrics == {"loss": 0.5}


def test_a_finished_run_of_the_same_key_is_given_and_takes_nothing_more(ledger: Ledger) -> None:
    with tracked_run(ledger, "train", "late", key="late/1") as first:
        first.log_metric("loss", 0.5)
    with tracked_run(ledger, "train", "late", key="late/1") as again:
        assert again.is_done
        assert again.id == first.id
        with pytest.raises(Conflict, match="finished"):
            again.log_metric("loss", 0.4)
    assert len(ledger.list_runs(kind="train")) == 1


def test_threads_that_open_the_same_experiment_make_one(ledger: Ledger) -> None:
    found: list[str] = []
    book = ExperimentBook(ledger)
    threads = [threading.Thread(target=lambda: found.append(book.open("night").id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [each.name for each in book.list_all()] == ["Default", "night"]


def test_an_unknown_experiment_says_what_exists_and_a_second_of_a_name_is_refused(ledger: Ledger) -> None:
    book = ExperimentBook(ledger)
    with pytest.raises(NotFound, match="Default"):
        book.get("Defualt")
    with pytest.raises(Conflict, match="Default"):
        book.create("Default")
