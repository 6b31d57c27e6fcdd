"""Experiments at a glance, on both databases."""

from datetime import UTC, datetime

from noria.clock import to_micros
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.tracking.experiments import ExperimentBook
from noria.tracking.records import MetricPoint
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore
from noria.tracking.summaries import metric_names, names_along, summarize

AT = datetime(2024, 5, 1, tzinfo=UTC)


def _log(ledger: Ledger, run: RunId, name: str, *, step: int) -> None:
    point = MetricPoint(name=name, value=0.5, step=step, at_us=to_micros(AT))
    TrackingStore(ledger.database).log(run, points=[point])


def test_experiments_are_summed_up(either_ledger: Ledger) -> None:
    book, desk = ExperimentBook(either_ledger), RunDesk(either_ledger)
    full, bare = book.create("full"), book.create("bare")
    ids = [desk.start(full.id, started_at=AT.replace(day=day)).info.id for day in (3, 9, 5, 12)]
    desk.delete(ids[3])
    numbers = [int(full.id), int(bare.id), 99]
    with either_ledger.database.read() as connection:
        found = summarize(connection, numbers)
        assert {each: (one.runs, one.newest) for each, one in found.items()} == {
            int(full.id): (3, ids[1]),
            int(bare.id): (0, None),
        }


def test_metrics_are_listed_by_name_up_to_a_number(either_ledger: Ledger) -> None:
    book, desk = ExperimentBook(either_ledger), RunDesk(either_ledger)
    full, other = book.create("full"), book.create("other")
    runs = [desk.start(full.id).info.id, desk.start(full.id).info.id, desk.start(other.id).info.id]
    for run, name, step in (
        (runs[0], "loss", 3), (runs[1], "loss", 0), (runs[1], "auc", 0), (runs[1], "system/cpu", 2),
        (runs[1], "Zürich", 1), (runs[2], "elsewhere", 1),
    ):  # fmt: skip
        _log(either_ledger, run, name, step=step)
    with either_ledger.database.read() as connection:
        names = metric_names(connection, int(full.id), most=10)
        assert names == ["Zürich", "auc", "loss", "system/cpu"]
        assert metric_names(connection, int(full.id), most=2) == ["Zürich", "auc"]
        assert names_along(connection, runs[:2]) == ["Zürich", "loss", "system/cpu"]
