"""Outcomes in the lake: moved there once; of several of a prediction the one that was known last counts."""

import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import from_micros
from noria.lake.store import Lake
from noria.monitoring.outcomes import OUTCOMES, OutcomeLog, latest_outcomes, ship_outcomes
from noria.serving.logs.outcomes import OUTCOME_INDEX, Outcome, OutcomeBook, outcome_spool

PLACE = "production/late"
Value = float | str | None


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    yield lake
    lake.close()


def latest(lake: Lake, **bounds: datetime) -> dict[str, tuple[float | None, str | None]]:
    rows = latest_outcomes(lake, [PLACE], **bounds).to_pylist()
    return {row["prediction_id"]: (row["outcome"], row["label"]) for row in rows}


def record(folder: Path, lake: Lake, *outcomes: Outcome, worker: int | None = 0) -> int:
    with OutcomeBook(folder, spool=outcome_spool(worker), wait_s=20) as book:
        book.record(outcomes, now=1_000)
        closed = [(book.path, book.rotate())]
    return ship_outcomes(closed, lake, place=PLACE, index=folder / OUTCOME_INDEX)


def test_late_and_corrected_outcomes_of_every_kind_count_by_when_they_were_known(
    lake: Lake, tmp_path: Path
) -> None:
    assert latest(lake) == {}
    assert record(tmp_path, lake, Outcome(prediction_id="a", value=1.0, known_at=50)) == 1
    record(tmp_path, lake, Outcome(prediction_id="a", value=0.0, known_at=70), worker=1)
    record(tmp_path, lake, Outcome(prediction_id="a", value="x", known_at=60), worker=None)  # learned late
    record(tmp_path, lake, Outcome(prediction_id="b", value=2.5, known_at=10))
    record(tmp_path, lake, Outcome(prediction_id="b", value=None, known_at=20))
    record(tmp_path, lake, Outcome(prediction_id="c", value="no show"))
    assert lake.read(OUTCOMES).num_rows == 6
    assert latest(lake) == {"a": (0.0, None), "b": (None, None), "c": (None, "no show")}
    assert latest(lake, before=from_micros(70)) == {"a": (None, "x"), "b": (None, None)}
    assert latest(lake, before=datetime(1970, 1, 1, tzinfo=UTC)) == {}


def test_a_table_without_labels_is_read_as_well(lake: Lake, tmp_path: Path) -> None:
    with OutcomeLog(tmp_path / "log", deployment=PLACE) as log:
        log.record(["a", "b"], [1, None], known_at=[3, 4])
        with pytest.raises(ValueError, match="is no number"):
            log.record(["a"], [float("nan")], known_at=[3])
        assert log.ship(lake) == 2
    assert lake.schema(OUTCOMES).names == ["prediction_id", "deployment", "outcome", "known_at"]
    assert latest(lake) == {"a": (1.0, None), "b": (None, None)}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(0, 6)),
        st.sampled_from([0.0, 1.0, 3.5, "x", "y", None]),
        max_size=14,
    ),
    st.randoms(),
)
def test_the_order_in_which_outcomes_arrive_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, known: dict[tuple[str, int], Value], rng: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("outcomes")
    rows = list(known.items())
    rng.shuffle(rows)

    class Memory:
        """Keeps batches as a lake does, without its files."""

        def __init__(self) -> None:
            self.tables: list[pa.Table] = []
            self.batches: dict[str, int] = {}

        def append(self, name: str, table: pa.Table, *, batch: int, app_id: str) -> bool:
            self.tables.append(table)
            self.batches[app_id] = batch
            return True

        def last_batch(self, name: str, app_id: str) -> int | None:
            return self.batches.get(app_id)

        def exists(self, name: str) -> bool:
            return bool(self.tables)

        def schema(self, name: str) -> pa.Schema:
            return pa.concat_tables(self.tables, promote_options="default").schema

        def read(self, name: str, *, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
            found = pa.concat_tables(self.tables, promote_options="default")
            return pa.dataset.dataset(found).to_table(columns=columns, filter=where)

    memory = Memory()
    for place, ((each, at), value) in enumerate(rows):
        worker = place % 3
        with OutcomeBook(folder, spool=outcome_spool(worker)) as book:
            book.record([Outcome(prediction_id=each, value=value, known_at=at)], now=0)
            closed = [(book.path, book.rotate())] if place % 2 else []
        ship_outcomes(closed, memory, place=PLACE, index=folder / OUTCOME_INDEX)
    for worker in range(3):
        with OutcomeBook(folder, spool=outcome_spool(worker)) as book:
            closed = [(book.path, book.rotate())]
        ship_outcomes(closed, memory, place=PLACE, index=folder / OUTCOME_INDEX)
    wanted = {each: known[each, max(at for one, at in known if one == each)] for each, _ in known}
    found = latest_outcomes(memory, [PLACE]).to_pylist()
    got = {row["prediction_id"]: row["label"] or row["outcome"] for row in found}
    assert got == wanted
    assert sum(table.num_rows for table in memory.tables) == len(known)


def test_many_who_record_and_move_at_once_lose_and_double_nothing(lake: Lake, tmp_path: Path) -> None:
    def run(name: str) -> None:
        for number in range(6):
            record(
                tmp_path, lake, Outcome(prediction_id=f"{name}{number}", value=1.0, known_at=number),
                worker=None,
            )  # fmt: skip

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ids = lake.read(OUTCOMES)["prediction_id"].to_pylist()
    assert sorted(ids) == sorted(f"{name}{number}" for name in "abcd" for number in range(6))
