"""Experiments: made, named, tagged, deleted and restored, on both databases."""

import threading

import pytest

from noria.errors import Conflict, NotFound
from noria.ledger.store import Ledger
from noria.tracking.experiments import ExperimentBook
from noria.tracking.run_desk import RunDesk


@pytest.fixture
def book(either_ledger: Ledger) -> ExperimentBook:
    return ExperimentBook(either_ledger)


def test_an_experiment_keeps_its_name_tags_and_place_of_files(book: ExperimentBook) -> None:
    made = book.create("night", artifact_uri="mlflow-artifacts:/own", tags={"team": "ops", "b": "ü"})
    assert book.get("night") == made == book.get_by_id(made.id)
    assert (made.name, made.artifact_uri, made.tags) == (
        "night",
        "mlflow-artifacts:/own",
        {"b": "ü", "team": "ops"},
    )
    assert made.deleted_at is None
    assert book.get("Default").id == "0"
    assert [each.name for each in book.list_all()] == ["Default", "night"]


def test_a_name_is_taken_also_by_a_deleted_experiment(book: ExperimentBook) -> None:
    made = book.create("night")
    with pytest.raises(Conflict, match="already; use it"):
        book.create("night")
    book.delete(made.id)
    with pytest.raises(Conflict, match=f"deleted; restore it \\(its id is {made.id}\\)"):
        book.create("night")
    with pytest.raises(Conflict, match="restore it first"):
        book.rename(made.id, "day")
    assert [each.name for each in book.list_all()] == ["Default"]
    book.restore(made.id)
    assert book.rename(made.id, "day").name == "day"
    assert book.find("night") is None


def test_a_name_that_another_has_is_refused(book: ExperimentBook) -> None:
    made = book.create("night")
    with pytest.raises(Conflict, match="'Default' already"):
        book.rename(made.id, "Default")
    assert book.rename(made.id, "night").name == "night"


def test_runs_are_deleted_and_restored_with_their_experiment_but_not_those_deleted_before(
    either_ledger: Ledger,
) -> None:
    book, desk = ExperimentBook(either_ledger), RunDesk(either_ledger)
    made = book.create("night")
    kept, gone = desk.start(made.id).info.id, desk.start(made.id).info.id
    desk.delete(gone)
    book.delete(made.id)
    assert desk.get(kept).info.deleted_at is not None
    with pytest.raises(Conflict, match="is deleted; restore it first"):
        desk.start(made.id)
    with pytest.raises(Conflict, match="restore it first"):
        desk.restore(gone)
    book.restore(made.id)
    assert desk.get(kept).info.deleted_at is None
    assert desk.get(gone).info.deleted_at is not None


def test_tags_are_set_overwritten_and_taken_away(book: ExperimentBook) -> None:
    made = book.create("night")
    book.put_tag(made.id, "team", "a")
    book.put_tag(made.id, "team", "b")
    assert book.get("night").tags == {"team": "b"}
    assert book.get("night").updated_at > made.updated_at
    book.remove_tag(made.id, "team")
    assert book.get("night").tags == {}
    with pytest.raises(NotFound, match="team"):
        book.remove_tag(made.id, "team")


@pytest.mark.parametrize("id", ["", "7", "-1", "x", "1e3", "９", "9" * 19])
def test_an_id_that_none_has_is_not_found(book: ExperimentBook, id: str) -> None:
    for ask in (book.get_by_id, book.delete, book.restore):
        with pytest.raises(NotFound):
            ask(id)


def test_every_change_is_on_record(either_ledger: Ledger) -> None:
    book = ExperimentBook(either_ledger)
    made = book.create("night", actor="ada")
    book.rename(made.id, "day")
    book.delete(made.id)
    book.restore(made.id)
    events = either_ledger.list_events(verb="experiment.*")
    assert [(each.verb, each.subject) for each in events] == [
        (f"experiment.{verb}", f"experiment/{made.id}")
        for verb in ("created", "renamed", "deleted", "restored")
    ]
    assert events[0].actor == "ada"
    assert events[1].payload == {"name": "day", "before": "night"}
    assert either_ledger.verify().ok


def test_threads_that_make_the_same_experiment_make_one(book: ExperimentBook) -> None:
    told: list[str] = []

    def make() -> None:
        try:
            told.append(book.create("night").id)
        except Conflict:
            told.append("taken")

    threads = [threading.Thread(target=make) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(told)[1:] == ["taken"] * 5
