"""From spools into the database: in the background while a run is at work, at once where a process died."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import DBAPIError

from noria.errors import ConfigError, Conflict, NoriaError, NotFound, StoreDamaged, StoreError
from noria.ledger.store import Ledger
from noria.records import RunId, Version, VersionRef
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.records import LoggedDataset, MetricPoint
from noria.tracking.run_desk import RunDesk
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
from noria.tracking.spools.spool import RunSpool, abandoned_spools
from noria.tracking.store import TrackingStore

__all__ = ["EntryKeeper", "Keeper", "SpoolMover", "find_version", "move_abandoned", "parse_dataset"]

_LOG = logging.getLogger(__name__)
_GATHER_S = 0.5  # how long entries wait for others to be moved with
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0  # between two tries while the database is away
# What a driver raises, and no `StoreError` tells of, is about a value.
_UNKEEPABLE = (NoriaError, DBAPIError, OverflowError)
_DIGEST_CHARS = 36  # that MLflow takes
_QUICK_S = 0.2  # that a thread takes to end which waits for nobody
_MUCH_BYTES = 1 << 30  # waiting on the disk, which is told


class Keeper(Protocol):
    """Where entries go from a spool."""

    def take(self, spool: RunSpool) -> bool:
        """Move what comes next of a spool; False: nothing was left. Raises `StoreError` while it cannot."""
        ...

    def keep(self, run: RunId, entries: Sequence[Entry]) -> None:
        """Keep entries that are in no spool, in their order, all or none. Raises `StoreError`."""
        ...

    def interrupt(self) -> None:
        """Let a `take` that another thread waits for end soon."""
        ...


class EntryKeeper:
    """Puts what was logged into the project's stores. The same entry twice is one."""

    def __init__(self, ledger: Ledger, artifacts: ArtifactStore) -> None:
        self._ledger, self._artifacts = ledger, artifacts
        self._store, self._desk = TrackingStore(ledger.database), RunDesk(ledger)
        self._models = LoggedModels(ledger)

    def take(self, spool: RunSpool) -> bool:
        """Move what comes next of a spool; False: nothing was left. Raises `StoreError`."""
        entries, position = spool.read()
        if entries:
            self.keep_all_it_can(spool.run, entries)
            spool.mark_moved(position)
        return bool(entries)

    def interrupt(self) -> None:
        """Do nothing: a database ends by itself what takes too long."""

    def keep(self, run: RunId, entries: Sequence[Entry]) -> None:
        """Keep entries in their order, all or none.

        Raises
        ------
        StoreError
            If the database is away.
        NoriaError
            If one of them cannot be kept, such as a parameter that has another value.
        """
        points: list[MetricPoint] = []
        params: dict[str, Any] = {}
        tags: dict[str, str] = {}
        others: list[KeptFile | Input | DescribedInput | MadeModel | Ended] = []
        for entry in entries:
            match entry:
                case Points():
                    points += _metric_points(entry.points)
                case Params():
                    params |= entry.values
                case Tags():
                    tags |= entry.values
                case _:
                    others.append(entry)
        with self._ledger.database.write():
            self._store.log(run, points=points, params=params, tags=tags)
            for each in others:
                match each:
                    case KeptFile():
                        self._artifacts.put_kept(each.path, each.sha256, each.size_bytes)
                    case Input():
                        self._add_input(run, each)
                    case Ended():
                        raise ValueError("the end of a run is in no log that is moved here")
                    case DescribedInput():
                        self._desk.log_datasets(run, [each.dataset])
                    case MadeModel():
                        self._models.put_made(
                            run,
                            each.id,
                            name=each.name,
                            step=each.step,
                            params=each.params,
                            tags=each.tags,
                            points=_metric_points(each.points),
                        )

    def _add_input(self, run: RunId, entry: Input) -> None:
        """Record what the run reads: in the lineage, and as clients of MLflow see it."""
        named = entry.version
        version = self._ledger.get_version_by_id(named) if "/" in named else find_version(self._ledger, named)
        if entry.sha256 and entry.sha256 != version.sha256:
            raise Conflict(
                f"{version.kind} {version.ref} has other content here than where run {run} has read it; "
                "log it by the name that it has here"
            )
        self._ledger.add_input(run, version.id)
        told = LoggedDataset(
            name=version.name,
            digest=version.sha256[:_DIGEST_CHARS],
            source_type="noria",
            source=f"{version.kind}/{version.ref}",
            context=entry.context or None,
        )
        self._desk.log_datasets(run, [told])

    def keep_each(self, run: RunId, entries: Sequence[Entry]) -> None:
        """Keep the entries that can be; tell of the others in the log of the program. Raises `StoreError`."""
        for entry in entries:
            try:
                self.keep(run, [entry])
            except StoreError:
                raise
            except _UNKEEPABLE as err:
                _LOG.warning("what was logged to run %s cannot be kept: %r: %s", run, entry, err)

    def keep_all_it_can(self, run: RunId, entries: Sequence[Entry]) -> None:
        """Keep entries at once, or those that can be kept one by one. Raises `StoreError`."""
        try:
            self.keep(run, entries)
        except StoreError:
            raise
        except _UNKEEPABLE:
            self.keep_each(run, entries)


def _metric_points(points: Sequence[Point]) -> list[MetricPoint]:
    return [
        MetricPoint(name=name, value=value, step=step, at_us=at_us) for name, value, step, at_us in points
    ]


class SpoolMover:
    """Moves what is appended to a spool, in a thread of its own; whoever appends never waits for it."""

    def __init__(self, spool: RunSpool, keeper: Keeper) -> None:
        self._spool, self._keeper = spool, keeper
        self._asked = 0  # how many waits for an end were asked for
        self._answered = 0
        self._news, self._hurry = threading.Event(), threading.Event()
        self._turn = threading.Condition()
        self._ends = False
        self._fault: StoreError | None = None
        self._thread = threading.Thread(target=self._work, name=f"mover of run {spool.run}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that something was appended."""
        if not self._news.is_set():
            self._news.set()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was appended before is in the database; tell whether it is."""
        ends = time.monotonic() + timeout_s
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._hurry.set()
            self._news.set()
            while self._answered < mine and self._thread.is_alive():
                left = ends - time.monotonic()
                if left <= 0:
                    return False
                self._turn.wait(min(left, 1.0))
            return self._answered >= mine

    @property
    def fault(self) -> StoreError | None:
        """Why the last try failed; None: it did not."""
        return self._fault

    def stop(self, timeout_s: float) -> bool:
        """End the thread; tell whether it has ended."""
        self._ends = True
        self._hurry.set()
        self._news.set()
        self._thread.join(min(timeout_s, _QUICK_S))
        if self._thread.is_alive():
            self._keeper.interrupt()
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _tell(self, err: StoreError, told: int) -> int:
        """Tell once that entries wait, and once more that they are many; give what was told."""
        waiting = self._spool.waiting_bytes
        level = 2 if waiting > _MUCH_BYTES else 1
        if level > told:
            much = f", {waiting >> 20} MiB by now," if level == 2 else ""
            place = self._spool.folder
            _LOG.warning("what run %s logs waits in %s%s until it can be moved: %s",
                         self._spool.run, place, much, err)  # fmt: skip
        return max(level, told)

    def _work(self) -> None:
        pause_s, told = _FIRST_PAUSE_S, 0
        while not self._ends:
            self._news.wait()
            self._hurry.wait(_GATHER_S)
            with self._turn:
                asked = self._asked
                self._news.clear()
                self._hurry.clear()
            try:
                _move_all(self._spool, self._keeper)
            except StoreError as err:
                self._fault = err
                told = self._tell(err, told)
                if self._ends or isinstance(err, StoreDamaged):
                    return
                self._hurry.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                self._news.set()
            else:
                self._fault, pause_s = None, _FIRST_PAUSE_S
                with self._turn:
                    self._answered = asked
                    self._turn.notify_all()


def move_abandoned(root: Path, ledger: Ledger, artifacts: ArtifactStore, *, run: RunId | None = None) -> int:
    """Move what processes have left that ended before they could; give how many logs that were.

    Parameters
    ----------
    root
        Where the logs are.
    run
        Only those of this run.

    Raises
    ------
    StoreError
        If the database is away; what is left stays for the next time.
    """
    count = 0
    for spool in abandoned_spools(root, run=run):
        try:
            ledger.get_run(spool.run)
            _move_all(spool, EntryKeeper(ledger, artifacts))
            spool.remove()
            count += 1
        except (NotFound, StoreDamaged) as err:
            _LOG.warning(
                "%s cannot be moved and was set aside as %s: %s", spool.folder, spool.set_aside(), err
            )
        finally:
            spool.close()
    return count


def _move_all(spool: RunSpool, keeper: Keeper) -> None:
    while keeper.take(spool):
        pass


def find_version(ledger: Ledger, text: str) -> Version:
    """Give a dataset's version by `NAME` (its newest) or `NAME:NUMBER`. Raises `ConfigError`, `NotFound`."""
    wanted = parse_dataset(text)
    return ledger.get_version("dataset", wanted.name, wanted.number)


def parse_dataset(text: str) -> VersionRef:
    """Read `NAME` or `NAME:NUMBER`. Raises `ConfigError`."""
    try:
        wanted = VersionRef.parse(text)
    except ValueError as err:
        raise ConfigError(str(err)) from err
    if wanted.environment is not None:
        raise ConfigError(f"{text!r} names a model of an environment, wanted is a dataset: NAME or NAME:3")
    return wanted
