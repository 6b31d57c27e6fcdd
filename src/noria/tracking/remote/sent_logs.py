"""Logs that runs of other machines send: their entries go through the same stores as those of this one."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection, Row, bindparam, select

from noria.clock import from_micros
from noria.errors import ConfigError, Conflict, NotFound
from noria.ledger.code import CodeState
from noria.ledger.store import Ledger
from noria.ledger.tables import heartbeats, runs
from noria.records import Cost, RunId, RunState
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.beginning import Origin, WantedRun, begin_elsewhere, checked, files_folder, models_folder
from noria.tracking.experiments import ExperimentBook
from noria.tracking.logged_values import instant_us, param_values, plain_text, tag_values
from noria.tracking.models.records import check_model_name
from noria.tracking.names import check_name, check_title
from noria.tracking.remote.hearing import LATEST_LOG
from noria.tracking.remote.sending import Batch, Beginning, Begun, Kept, check_log_id
from noria.tracking.run_desk import RunDesk
from noria.tracking.spools.moving import EntryKeeper
from noria.tracking.spools.records import (
    DescribedInput,
    Ended,
    Entry,
    Input,
    KeptFile,
    MadeModel,
    Params,
    Point,
    Points,
    Tags,
)
from noria.tracking.store import TrackingStore
from noria.tracking.tables import sent_logs, tracked_runs

__all__ = ["FILES", "MODELS", "SentLogs"]

FILES, MODELS = "files/", "models/"  # how a file's path begins in a log for a server
_ID_CHARS, _DIGEST_CHARS = 32, 64
_HEX = frozenset("0123456789abcdef")
_LARGEST = 2**63 - 1
_MOST_ENTRIES, _MOST_FILES = 10_000, 1_000  # of a batch
_MOST_BEFORE = 100  # runs that a run is within
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # of the years 1 and 9999

_LOG = select(sent_logs).where(sent_logs.c.log == bindparam("log"))
_KNOWN_RUN = select(runs.c.id).where(runs.c.id == bindparam("run"))
_HELD = select(heartbeats.c.run).where(heartbeats.c.run == bindparam("run"))
_UPDATE = sent_logs.update().where(sent_logs.c.log == bindparam("of_log"))
_SET_END = tracked_runs.update().where(tracked_runs.c.run == bindparam("of_run"))


class SentLogs:
    """Takes in what processes of other machines have logged. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger, artifacts: ArtifactStore) -> None:
        self._ledger, self._artifacts = ledger, artifacts
        self._keeper = EntryKeeper(ledger, artifacts)
        self._store, self._desk, self._book = (
            TrackingStore(ledger.database),
            RunDesk(ledger),
            ExperimentBook(ledger),
        )

    def begin(self, asked: Beginning) -> Begun:
        """Record that a run begins, or goes on, after those that it is within; the same again is nothing.

        Raises
        ------
        ConfigError
            If something of it can be kept nowhere.
        Conflict
            If there is a run of that id that was begun by another log, a parameter has another value
            already, or the run or its experiment is deleted.
        NotFound
            If there is no run to go on with.
        LeaseHeld
            If that is at work.
        """
        if len(asked.before) > _MOST_BEFORE:
            raise ConfigError(
                f"a run within {len(asked.before):,} others is not taken; {_MOST_BEFORE} may be"
            )
        for each in (*asked.before, asked):
            self._begin(each)
        run = self._ledger.get_run(asked.run)
        experiment = self._book.get_by_id(run.experiment or "0")
        paths: list[str] = []
        if asked.is_resumed:
            folder = files_folder(experiment, run.id)
            paths = [each.path.removeprefix(f"{folder}/") for each in self._artifacts.tree(folder)]
        latest = self._store.latest_points(run.id).values()
        return Begun(
            run=run,
            params=self._store.params(run.id),
            tags=self._store.list_tags(run.id),
            latest=[(each.name, each.value, each.step, each.at_us) for each in latest],
            paths=paths,
            missing=[
                each for each in (asked.code.diff, asked.code.runtime) if each and not self._has_code(each)
            ],
        )

    def keep(self, batch: Batch) -> Kept:
        """Keep the entries of a batch with how far the log has come, all or none.

        Where that is not where the batch begins, nothing is kept: the answer tells how far it is.

        Raises
        ------
        ConfigError
            If an entry can be kept nowhere.
        Conflict
            If one contradicts what is here.
        NotFound
            If the run, or something that an entry names, is not here.
        """
        check_log_id(batch.log, batch.run)
        files = sum(isinstance(each, KeptFile) for each in batch.entries)
        if len(batch.entries) > _MOST_ENTRIES or files > _MOST_FILES:  # others could not write meanwhile
            raise ConfigError(
                f"a batch has {len(batch.entries):,} entries, {files:,} of them files; {_MOST_ENTRIES:,} "
                f"may be, and {_MOST_FILES:,}: send fewer at once"
            )
        places = (*batch.after, *batch.end)
        if not all(0 <= each <= _LARGEST for each in places) or batch.after > batch.end:
            raise ConfigError(f"a batch from {batch.after} to {batch.end} is none; nothing was kept")
        if not batch.entries and batch.after == batch.end:
            return Kept(position=self._touch(batch))
        entries, ended = self._checked(batch)
        wanted = {each.sha256 for each in entries if isinstance(each, KeptFile)}
        missing = sorted(each for each in wanted if not self._artifacts.has(each))
        if missing:
            return Kept(position=batch.after, missing=missing)
        with self._ledger.database.write() as connection:
            log = self._log(connection, batch)
            here = (log.segment, log.offset)
            if here != batch.after:
                return Kept(position=here)
            self._keeper.keep(batch.run, entries)
            values = {"segment": batch.end[0], "offset": batch.end[1], "heard_at": datetime.now(UTC)}
            if ended is not None and log.ended_at is None:
                self._end(connection, log, ended)
                values["ended_at"] = datetime.now(UTC)
            connection.execute(_UPDATE, {"of_log": batch.log, **values})
        return Kept(position=batch.end)

    def _touch(self, batch: Batch) -> tuple[int, int]:
        """Remember that a log's process is there."""
        with self._ledger.database.write() as connection:
            log = self._log(connection, batch)
            connection.execute(_UPDATE, {"of_log": batch.log, "heard_at": datetime.now(UTC)})
            return log.segment, log.offset

    def has_bytes(self, sha256: str, *, is_code: bool) -> bool:
        """Tell whether bytes are kept, as those of a file or of a run's code. Raises `ConfigError`."""
        _check_digest(sha256)
        return self._has_code(sha256) if is_code else self._artifacts.has(sha256)

    def _has_code(self, sha256: str) -> bool:
        storage = self._ledger.storage
        return storage is None or storage.exists(sha256)

    def _begin(self, asked: Beginning) -> None:
        check_log_id(asked.log, asked.run)
        wanted = checked(
            WantedRun(
                name=asked.name,
                experiment=asked.experiment,
                params=asked.params,
                tags=asked.tags,
                seed=asked.seed,
                run=asked.run if asked.is_resumed else None,
            )
        )
        for each in (asked.code.runtime, asked.code.diff):
            if each:
                _check_digest(each)
        began_us = instant_us(asked.began_at)
        _check_instant("the beginning of the run", began_us)
        commit = check_title("commit", asked.code.commit)
        origin = Origin(
            owner=check_title("owner", asked.owner) or "unknown",
            told=tag_values(asked.told),
            id=None if asked.is_resumed else asked.run,
            code=CodeState(commit, asked.code.diff, asked.code.runtime),
            started_at=from_micros(began_us),
            is_held=False,
        )
        with self._ledger.database.write() as connection:
            now = datetime.now(UTC)
            if connection.execute(_LOG, {"log": asked.log}).first() is not None:
                connection.execute(_UPDATE, {"of_log": asked.log, "heard_at": now})
                return
            before: Cost | None = None
            if asked.is_resumed:
                before = self._ledger.get_run(asked.run).cost
            elif connection.execute(_KNOWN_RUN, {"run": asked.run}).first() is not None:
                raise Conflict(
                    f"there is a run {asked.run} already that another log has begun; start it anew, so that "
                    "it gets an id of its own"
                )
            begin_elsewhere(self._ledger, wanted, origin, parent=asked.parent)
            row = {
                "log": asked.log,
                "run": asked.run,
                "segment": 0,
                "offset": 0,
                "heard_at": now,
                "begun_at": now,
                "ended_at": None,
                "holder": msgspec.json.encode(asked.holder).decode(),
                "cpu_s": None if before is None else before.cpu_s,
                "wall_s": None if before is None else before.wall_s,
            }
            connection.execute(sent_logs.insert(), row)

    def _log(self, connection: Connection, batch: Batch) -> Row[tuple[object, ...]]:
        """Give how far a log has come; that of a child of a run's process begins with its first batch."""
        found = connection.execute(_LOG, {"log": batch.log}).first()
        if found is not None:
            return found
        if connection.execute(LATEST_LOG, {"run": batch.run}).first() is None:
            raise NotFound("run", batch.run)
        row = {
            "log": batch.log,
            "run": batch.run,
            "segment": 0,
            "offset": 0,
            "heard_at": datetime.now(UTC),
        }
        connection.execute(sent_logs.insert(), row)
        return connection.execute(_LOG, {"log": batch.log}).one()

    def _end(self, connection: Connection, log: Row[tuple[object, ...]], ended: Ended) -> None:
        """Close a run as its log tells, unless somebody has gone on with it since."""
        id = RunId(log.run)
        run = self._ledger.get_run(id)
        latest = connection.execute(LATEST_LOG, {"run": id}).first()
        is_mine = latest is not None and latest.log == log.log
        is_held = connection.execute(_HELD, {"run": id}).first() is not None
        if ended.state is RunState.KILLED and (not is_mine or is_held or run.state is not RunState.RUNNING):
            return
        if (is_held or not is_mine) and run.state is RunState.RUNNING:
            raise Conflict(
                f"run {id} has gone on elsewhere since; its end as {ended.state.value} is not taken from a "
                "process that had it before"
            )
        cost = None
        if ended.cost is not None:
            cpu_s, wall_s = ended.cost
            cost = Cost(cpu_s=cpu_s + (log.cpu_s or 0.0), wall_s=wall_s + (log.wall_s or 0.0))
        metrics = {name: point.value for name, point in self._store.latest_points(id).items()}
        owner = connection.execute(select(tracked_runs.c.owner).where(tracked_runs.c.run == id)).scalar()
        self._ledger.finish_run(
            id,
            state=ended.state,
            metrics=metrics,
            params=self._store.params(id),
            error=ended.error,
            cost=cost,
            actor=owner,
        )
        connection.execute(_SET_END, {"of_run": id, "ended_at": from_micros(ended.at_us)})

    def _checked(self, batch: Batch) -> tuple[list[Entry], Ended | None]:
        """Give entries as they can be kept here, and the run's end if it is among them."""
        found: list[Entry] = []
        ended: Ended | None = None
        folders: tuple[str, str] | None = None
        for entry in batch.entries:
            match entry:
                case Points():
                    _check_points(entry.points)
                    found.append(entry)
                case Params():
                    found.append(Params(param_values(entry.values)))
                case Tags():
                    found.append(Tags(tag_values(entry.values)))
                case KeptFile():
                    folders = folders or self._folders(batch.run)
                    found.append(_placed(entry, folders))
                case Input():
                    plain_text("the input", entry.version)
                    plain_text("the context of an input", entry.context)
                    found.append(entry)
                case DescribedInput():
                    _check_dataset(entry)
                    found.append(entry)
                case MadeModel():
                    found.append(_checked_model(entry))
                case Ended():
                    ended = _checked_end(entry)
        return found, ended

    def _folders(self, run: RunId) -> tuple[str, str]:
        (found,) = self._desk.read([run])
        experiment = self._book.get_by_id(found.info.experiment)
        return files_folder(experiment, run), models_folder(experiment)


def _check_points(points: Sequence[Point]) -> None:
    for name, _, step, at_us in points:
        check_name("metric", name)
        if not -_LARGEST <= step <= _LARGEST:
            raise ConfigError(f"metric {name!r}: the step is {step}; steps are whole numbers of 64 bits")
        _check_instant(f"metric {name!r}", at_us)


def _check_instant(what: str, at_us: int) -> None:
    if not _FIRST_US <= at_us <= _LAST_US:
        raise ConfigError(f"{what}: {at_us} is no instant in microseconds since 1970")


def _check_digest(sha256: str) -> None:
    if len(sha256) != _DIGEST_CHARS or not _HEX.issuperset(sha256):
        raise ConfigError(f"{sha256!r:.100} is no sha256 in hex")


def _placed(entry: KeptFile, folders: tuple[str, str]) -> KeptFile:
    _check_digest(entry.sha256)
    if not 0 <= entry.size_bytes <= _LARGEST:
        raise ConfigError(f"the file {entry.path!r:.200} has {entry.size_bytes} bytes, which cannot be")
    for beginning, folder in zip((FILES, MODELS), folders, strict=True):
        if entry.path.startswith(beginning):
            below = checked_path(entry.path.removeprefix(beginning))
            return KeptFile(f"{folder}/{below}", entry.sha256, entry.size_bytes)
    raise ConfigError(f"the file {entry.path!r:.200} is neither of {FILES!r} nor of {MODELS!r}")


def _check_dataset(entry: DescribedInput) -> None:
    told = entry.dataset
    plain_text("the dataset's name", told.name)
    for what in (told.digest, told.source_type, told.source, told.schema, told.profile, told.context):
        if what is not None:
            plain_text(f"the dataset {told.name!r:.100}", what)
    tag_values(told.tags)


def _checked_model(entry: MadeModel) -> MadeModel:
    hex = entry.id.removeprefix("m-")
    if not entry.id.startswith("m-") or len(hex) != _ID_CHARS or not _HEX.issuperset(hex):
        raise ConfigError(f"{entry.id!r:.100} is no id of a logged model; it is m- and 32 hex digits")
    check_model_name(plain_text("the model's name", entry.name))
    for name, value in entry.params.items():
        check_name("param", name)
        plain_text(f"param {name!r}", value)
    tag_values(entry.tags)
    _check_points(entry.points)
    if not -_LARGEST <= entry.step <= _LARGEST:
        raise ConfigError(f"model {entry.name!r}: the step is {entry.step}")
    return entry


def _checked_end(entry: Ended) -> Ended:
    if entry.state is RunState.RUNNING:
        raise ConfigError("a run ends as finished, failed, cancelled or killed, not as running")
    _check_instant("the end of the run", entry.at_us)
    if entry.cost is not None and not all(0 <= each < float("inf") for each in entry.cost):
        raise ConfigError(f"a run that cost {entry.cost} cannot be")
    return entry
