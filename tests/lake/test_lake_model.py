"""Whatever is done in whatever order, and killed wherever: the lake is what a few lines of Python say."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.files import open_files
from noria.lake.store import Lake
from noria.ledger.store import Ledger

Row = tuple[int, int, int]  # id, v, t

KEPT = Dataset("kept", key="id", event_at="t", known_at="t", max_rejected_share=1.0)
LATEST = Dataset("latest", key="id", event_at="t", known_at="t", max_rejected_share=1.0, write="merge")
ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 3)), max_size=6)
DATASETS = st.sampled_from([KEPT, LATEST])
KILLS = st.none() | st.integers(0, 12)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Trapped:
    """Files that end the process before, or right after, one of their changes."""

    def __init__(self, inner: Any, steps: int | None) -> None:
        self._inner = inner
        self._left = steps

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in {"put", "create", "delete"}:
            return method

        def trapped(*args: Any) -> Any:
            self._step()
            done = method(*args)
            self._step()
            return done

        return trapped

    def live(self) -> None:
        self._left = None

    def _step(self) -> None:
        if self._left is not None:
            if self._left == 0:
                raise Killed
            self._left -= 1


def frame(rows: list[Row]) -> pa.Table:
    ids, values, instants = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "v": pa.array(values, pa.int64()),
            "t": pa.array(instants, pa.timestamp("us", "UTC")),
        }
    )


def rows_of(table: pa.Table) -> list[Row]:
    instants = table["t"].cast(pa.int64()).to_pylist()
    return sorted(zip(table["id"].to_pylist(), table["v"].to_pylist(), instants, strict=True))


def appended(held: dict[int, Row], rows: list[Row]) -> dict[int, Row]:
    held = dict(held)
    for row in rows:
        held.setdefault(row[0], row)
    return held


def merged(held: dict[int, Row], rows: list[Row]) -> dict[int, Row]:
    held = dict(held)
    for row in rows:
        if row[0] not in held or row[2] >= held[row[0]][2]:
            held[row[0]] = row
    return held


class LakeMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.database = Database.open(f"sqlite:///{self.root}/noria.db")
        self.clock = ReplayClock(datetime(2024, 1, 1, tzinfo=UTC))
        self.ledger = Ledger(self.database, clock=self.clock)
        self.held: dict[str, dict[int, Row]] = {"kept": {}, "latest": {}}
        self.versions: dict[tuple[str, int], list[Row]] = {}
        self.numbers = {"kept": 0, "latest": 0}
        self.lake = Lake(str(self.root / "lake"), ledger=self.ledger)

    def opened(self, kill: int | None = None) -> Lake:
        """Open the lake as a process that is killed after so many steps."""
        lake = Lake(str(self.root / "lake"), ledger=self.ledger)
        lake._tables.store = Trapped(open_files(lake.url), kill)
        return lake

    def through_kills(
        self, name: str, kill: int | None, work: Callable[[Lake], Any], after: dict[int, Row]
    ) -> None:
        """Do it, perhaps killed and then done again."""
        self.clock.move_to(self.clock.now() + timedelta(hours=1))
        if kill is not None:
            doomed = self.opened(kill)
            try:
                work(doomed)
            except Killed:
                self.lake = self.opened()
                if self.lake.exists(name):
                    found = rows_of(self.lake.read(name))
                    assert found in (sorted(self.held[name].values()), sorted(after.values()))
            else:
                doomed._tables.store.live()  # type: ignore[attr-defined]
                self.lake = doomed
        work(self.lake)
        self.held[name] = after
        versions = self.ledger.list_versions(kind="dataset", name=name)
        if versions and (name, versions[-1].number) not in self.versions:
            self.versions[name, versions[-1].number] = sorted(after.values())

    @rule(dataset=DATASETS, rows=ROWS, kill=KILLS, stream=st.booleans())
    def ingest(self, dataset: Dataset, rows: list[Row], kill: int | None, stream: bool) -> None:
        self.numbers[dataset.name] += 1
        number = self.numbers[dataset.name]
        grown = merged if dataset.write == "merge" else appended
        after = grown(self.held[dataset.name], rows)

        def work(lake: Lake) -> None:
            table = frame(rows)
            given = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
            lake.ingest(dataset, given if stream else table, batch=number)

        self.through_kills(dataset.name, kill, work, after)

    @rule(dataset=DATASETS, rows=ROWS, low=st.integers(0, 9), wide=st.integers(1, 5), kill=KILLS)
    def overwrite(self, dataset: Dataset, rows: list[Row], low: int, wide: int, kill: int | None) -> None:
        name = dataset.name
        inside = [row for row in rows if low <= row[1] < low + wide]
        outside = {key: row for key, row in self.held[name].items() if not low <= row[1] < low + wide}
        own = merged({}, inside) if dataset.write == "merge" else appended({}, inside)
        after = {**own, **outside}
        self.numbers[name] += 1
        number = self.numbers[name]
        self.through_kills(
            name,
            kill,
            lambda lake: lake.overwrite(
                dataset, frame(inside), column="v", low=low, high=low + wide, batch=number
            ),
            after,
        )

    @precondition(lambda self: self.versions)
    @rule(dataset=DATASETS, below=st.integers(0, 9), kill=KILLS)
    def delete(self, dataset: Dataset, below: int, kill: int | None) -> None:
        name = dataset.name
        if not self.lake.exists(name):
            return
        after = {key: row for key, row in self.held[name].items() if row[1] >= below}
        self.through_kills(
            name, kill, lambda lake: lake.delete(name, f"v < {below}", reason="of no use"), after
        )

    @precondition(lambda self: self.versions)
    @rule(dataset=DATASETS, subject=st.integers(0, 6), kill=KILLS)
    def forget(self, dataset: Dataset, subject: int, kill: int | None) -> None:
        name = dataset.name
        if not self.lake.exists(name):
            return
        after = {key: row for key, row in self.held[name].items() if key != subject}
        self.through_kills(name, kill, lambda lake: lake.forget(name, "id", [subject]), after)
        for at, rows in self.versions.items():
            if at[0] == name:
                self.versions[at] = [row for row in rows if row[0] != subject]

    @rule(dataset=DATASETS, vacuum=st.booleans())
    def tidy(self, dataset: Dataset, vacuum: bool) -> None:
        if self.lake.exists(dataset.name):
            self.lake.compact(dataset.name)
            if vacuum:
                self.lake.vacuum(dataset.name, retention=timedelta(0))

    @invariant()
    def tables_are_the_model(self) -> None:
        for name, rows in self.held.items():
            if self.lake.exists(name):
                assert rows_of(self.lake.read(name)) == sorted(rows.values())
            else:
                assert not rows

    @invariant()
    def every_version_reads_back(self) -> None:
        for (name, number), rows in list(self.versions.items())[-4:]:
            version = self.ledger.get_version("dataset", name, number)
            assert rows_of(self.lake.read(name, version=number)) == rows
            assert self.lake.version_digest(name, number) == self.lake.expected_digest(version)

    def teardown(self) -> None:
        for (name, number), rows in self.versions.items():
            assert rows_of(self.opened().read(name, version=number)) == rows
        self.database.close()
        shutil.rmtree(self.root)


LakeMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLakeMachine = LakeMachine.TestCase
