"""Runs that were tracked elsewhere, taken in as they were.

Each is taken in one transaction, and keeps its id, so that a second import finds what is here already. Such a
run is one of the ledger, begun and ended when its owner says; that it was taken in is its event's instant.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, bindparam, insert, select

from noria.database.upserts import Upsert
from noria.errors import ConfigError
from noria.ledger import runs as ledger_runs
from noria.ledger.chain import Change
from noria.ledger.code import CodeState
from noria.ledger.store import Ledger
from noria.ledger.tables import runs
from noria.ledger.whole_runs import WholeRun, record_whole_runs
from noria.records import RunId, RunState
from noria.tracking.beginning import files_folder
from noria.tracking.experiments import ExperimentBook
from noria.tracking.reading import read_infos
from noria.tracking.records import LoggedDataset, MetricPoint
from noria.tracking.run_desk import COMMIT_TAG, PARENT_TAG, RunDesk, enroll
from noria.tracking.store import TrackingStore
from noria.tracking.tables import experiment_tags, experiments, tracked_runs

__all__ = ["ForeignExperiment", "ForeignRun", "PointsAside", "RunImporter", "Standing", "check_texts"]

_KIND = "experiment"
_NO_CODE, _NO_RUNTIME = "none", "unknown"
_UNNAMED = "unnamed"  # in the ledger, where every run has a name
_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_POINT = struct.Struct("<dqq")  # value, instant, step
_IN_MEMORY_BYTES = 8 << 20
_AT_ONCE = 5_000  # points in one statement
_MAX_INT = (1 << 63) - 1
_KNOWN = (
    select(runs.c.id, runs.c.state, tracked_runs.c.experiment, tracked_runs.c.started_at)
    .add_columns(tracked_runs.c.deleted_at)
    .select_from(runs.outerjoin(tracked_runs, tracked_runs.c.run == runs.c.id))
    .where(runs.c.id == bindparam("id"))
)
_FOLDER = select(experiments).where(experiments.c.id == bindparam("number"))
_EXPERIMENT_TAGS = Upsert(experiment_tags)
_END = tracked_runs.update().where(tracked_runs.c.run == bindparam("of_run"))


class ForeignExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment of elsewhere."""

    id: str
    name: str
    at: datetime
    updated_at: datetime
    is_deleted: bool = False
    tags: dict[str, str] = {}


class ForeignRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of elsewhere, without the points of its metrics."""

    id: RunId
    experiment: str  # as it is called there
    name: str
    owner: str
    state: RunState
    started_at: datetime
    is_scheduled: bool = False
    ended_at: datetime | None = None
    is_deleted: bool = False
    deleted_at: datetime | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    artifact_uri: str = ""

    @property
    def parent(self) -> str | None:
        """The run that it is part of."""
        return self.tags.get(PARENT_TAG)


class Standing(StrEnum):
    """What is here of a run of elsewhere."""

    NEW = "new"
    OPEN = "open"  # it was taken in while it was at work, and nobody has touched it here
    KNOWN = "known"
    OTHER = "other"  # a run of this project has its id
    UNFIT = "unfit"  # its id can be none


class PointsAside:
    """The points of one run on their way: in memory, or in a file once they are many.

    Nobody waits for where they come from while they are written into the database.
    """

    def __init__(self) -> None:
        self.count = 0
        self.refused = 0  # whose instant or step no database holds
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed with this
        self._names: list[tuple[str, int]] = []  # in order, with how many points follow
        self._latest: dict[str, tuple[int, int, bool, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def names(self) -> list[str]:
        """Give the names of the metrics."""
        return [name for name, _ in self._names]

    def add(self, name: str, points: Iterable[tuple[float, int, int]]) -> None:
        """Add points of a metric: value, instant in milliseconds since 1970, step."""
        packed = bytearray()
        for value, at_ms, step in points:
            at_us = at_ms * 1_000
            if abs(at_us) > _MAX_INT or abs(step) > _MAX_INT:
                self.refused += 1
                continue
            packed += _POINT.pack(value, at_us, step)
            is_nan = value != value  # noqa: PLR0124 - NaN
            place = (step, at_us, is_nan, 0.0 if is_nan else value)
            if name not in self._latest or place > self._latest[name]:
                self._latest[name] = place
        if packed:
            self._file.write(packed)
            self._names.append((name, len(packed) // _POINT.size))
            self.count += len(packed) // _POINT.size

    def latest(self) -> dict[str, float]:
        """Give of each metric the value that is greatest by step, instant and value."""
        return {
            name: float("nan") if is_nan else value for name, (_, _, is_nan, value) in self._latest.items()
        }

    def pages(self) -> Iterator[list[MetricPoint]]:
        """Give all points, some thousands at a time."""
        self._file.seek(0)
        page: list[MetricPoint] = []
        for name, count in self._names:
            for start in range(0, count, _AT_ONCE):
                data = self._file.read(min(_AT_ONCE, count - start) * _POINT.size)
                page += [
                    MetricPoint(name=name, value=value, step=step, at_us=at_us)
                    for value, at_us, step in _POINT.iter_unpack(data)
                ]
                if len(page) >= _AT_ONCE:
                    yield page
                    page = []
        if page:
            yield page


class RunImporter:
    """Takes runs of elsewhere into a project. Safe to use from many processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store, self._desk = TrackingStore(ledger.database), RunDesk(ledger)

    def find_experiment(self, name: str) -> int | None:
        """Give the experiment of that name. Raises `ConfigError` if the database can hold no such name."""
        with self._ledger.database.read() as connection:
            check_texts(connection, f"experiment {name!r}", [name])
        found = ExperimentBook(self._ledger).find(name)
        return None if found is None else int(found.id)

    def experiment_of(self, run_ids: Sequence[str]) -> int | None:
        """Give the experiment that holds one of these runs: it was renamed here since they were taken in."""
        query = select(tracked_runs.c.experiment).where(tracked_runs.c.run.in_(run_ids)).limit(1)
        with self._ledger.database.read() as connection:
            found: int | None = connection.execute(query).scalar()
            return found

    def take_experiment(self, foreign: ForeignExperiment, known: int | None) -> tuple[int, bool]:
        """Make an experiment as it was elsewhere; of one that is here only tags are added that it lacks.

        Returns
        -------
        (int, bool)
            Its number here, and whether it is new.

        Raises
        ------
        ConfigError
            If it has a text that the project's database cannot hold.
        """
        with self._ledger.change(None) as change:
            connection = change.connection
            texts = (foreign.name, *chain(*foreign.tags.items()))
            check_texts(connection, f"experiment {foreign.name!r}", texts)
            number, is_new = known, False
            if number is None:
                query = select(experiments.c.id).where(experiments.c.name == foreign.name)
                number = connection.execute(query).scalar()  # somebody else may have made it meanwhile
            if number is None:
                row = {
                    "name": foreign.name,
                    "artifact_uri": None,
                    "at": foreign.at,
                    "updated_at": foreign.updated_at,
                    "deleted_at": foreign.updated_at if foreign.is_deleted else None,
                }
                statement = insert(experiments).values(row).returning(experiments.c.id)
                number, is_new = connection.execute(statement).scalar_one(), True
                payload = {"name": foreign.name}
                change.record("experiment.created", f"experiment/{number}", payload=payload, cause=None)
            tags = [
                {"experiment": number, "name": name, "value": value} for name, value in foreign.tags.items()
            ]
            _EXPERIMENT_TAGS.execute(connection, tags)
            return number, is_new

    def standing(self, run: ForeignRun) -> Standing:
        """Tell what is here of a run."""
        with self._ledger.database.read() as connection:
            return self._standing(connection, run)

    def files_folder(self, run: RunId) -> str:
        """Give where below the project's artifacts a run's files are. Raises `ConfigError` if elsewhere."""
        with self._ledger.database.read() as connection:
            (info,) = read_infos(connection, [run])
        return files_folder(ExperimentBook(self._ledger).get_by_id(info.experiment), run)

    def take(
        self, run: ForeignRun, experiment: int, points: PointsAside, datasets: Sequence[LoggedDataset] = ()
    ) -> Standing:
        """Take a run in, all or nothing; one that was at work is brought up to where it is now.

        Returns
        -------
        Standing
            What was here before: only of a run that is new or open anything was written.

        Raises
        ------
        ConfigError
            If it has a text that the project's database cannot hold.
        """
        with self._ledger.change(None) as change:
            connection = change.connection
            check_texts(connection, f"run {run.id}", _texts(run, points, datasets))
            standing = self._standing(connection, run)
            if standing is Standing.NEW:
                self._begin(change, run, experiment, points)
            elif standing is not Standing.OPEN:
                return standing
            known = (set(), set()) if standing is Standing.NEW else self._known_texts(run.id)
            params = {name: value for name, value in run.params.items() if name not in known[0]}
            tags = {name: value for name, value in run.tags.items() if name not in known[1]}
            self._store.log(run.id, params=params, tags=tags)
            for page in points.pages():
                self._store.log(run.id, points=page)
            if datasets:
                self._desk.log_datasets(run.id, datasets)
            self._close(change, run, standing)
            return standing

    def _standing(self, connection: Connection, run: ForeignRun) -> Standing:
        if _ID.fullmatch(run.id) is None:
            return Standing.UNFIT
        row = connection.execute(_KNOWN, {"id": run.id}).first()
        if row is None:
            return Standing.NEW
        if row.started_at != run.started_at:
            return Standing.OTHER
        if row.state != RunState.RUNNING or row.deleted_at is not None:
            return Standing.KNOWN
        resumed = self._ledger.list_events(verb="run.resumed", subject=f"run/{run.id}", limit=1)
        return Standing.KNOWN if resumed else Standing.OPEN

    def _begin(self, change: Change, run: ForeignRun, experiment: int, points: PointsAside) -> None:
        code = CodeState(run.tags.get(COMMIT_TAG, _NO_CODE), None, _NO_RUNTIME)
        parent = self._parent(change.connection, run)
        name = run.name or _UNNAMED
        if run.state is RunState.RUNNING:
            ledger_runs.start_run(
                change,
                kind=_KIND,
                name=name,
                cause=None,
                parent=parent,
                experiment=str(experiment),
                params=None,
                seed=None,
                key=None,
                code=code,
                id=run.id,
                is_held=False,
            )
        else:
            whole = WholeRun(
                id=run.id,
                kind=_KIND,
                name=name,
                state=run.state,
                started_at=run.started_at,
                ended_at=run.ended_at or run.started_at,
                parent=parent,
                experiment=str(experiment),
                params=dict(run.params),
                metrics=points.latest(),
            )
            record_whole_runs(change, [whole], code)
        enroll(
            change.connection,
            run.id,
            experiment=experiment,
            name=run.name,
            owner=run.owner,
            started_at=run.started_at,
        )

    def _close(self, change: Change, run: ForeignRun, standing: Standing) -> None:
        """Say of a run how and when it ended, and whether it is deleted."""
        if standing is Standing.OPEN and run.state is not RunState.RUNNING:
            metrics = {name: point.value for name, point in self._store.latest_points(run.id).items()}
            params = self._store.params(run.id)
            self._ledger.finish_run(run.id, state=run.state, metrics=metrics, params=params)
        query = select(experiments.c.deleted_at).join(tracked_runs).where(tracked_runs.c.run == run.id)
        folder_deleted_at = change.connection.execute(query).scalar()
        ends: dict[str, Any] = {
            "of_run": run.id,
            "is_scheduled": run.is_scheduled,
            "ended_at": run.ended_at,
            "deleted_at": None,
        }
        if folder_deleted_at is not None:  # who restores the experiment restores its runs
            ends["deleted_at"] = folder_deleted_at
        elif run.is_deleted:
            ends["deleted_at"] = run.deleted_at or change.recorded_at
        change.connection.execute(_END, ends)

    def _parent(self, connection: Connection, run: ForeignRun) -> RunId | None:
        if run.parent is None or run.parent == run.id:
            return None
        found: RunId | None = connection.execute(
            select(tracked_runs.c.run).where(tracked_runs.c.run == run.parent)
        ).scalar()
        return found

    def _known_texts(self, run: RunId) -> tuple[set[str], set[str]]:
        return set(self._store.list_params(run)), set(self._store.list_tags(run))


def check_texts(connection: Connection, what: str, texts: Iterable[str | None]) -> None:
    """Raise `ConfigError` for what PostgreSQL cannot hold, though SQLite can."""
    if connection.dialect.name == "postgresql" and any("\0" in each for each in texts if each):
        raise ConfigError(
            f"{what} has a text with a NUL, which PostgreSQL cannot hold; take it out of a copy of the "
            "store, and import that"
        )


def _texts(run: ForeignRun, points: PointsAside, datasets: Sequence[LoggedDataset]) -> Iterator[str | None]:
    """Give all that a run says."""
    yield from (run.name, run.owner, *chain(*run.params.items(), *run.tags.items()), *points.names())
    for each in datasets:
        yield from (each.name, each.digest, each.source_type, each.source, each.schema, each.profile)
        yield from (*chain(*each.tags.items()), each.context)
