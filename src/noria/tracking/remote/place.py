"""Runs that a server keeps: logged to this disk when a call returns, sent in the background.

The server may be away when a run begins, and for as long as it is at work.
"""

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from noria.clock import to_micros
from noria.errors import ConfigError, Conflict, NoriaError, NotFound, SourceError, StoreError
from noria.ledger.book import user
from noria.ledger.code import CapturedCode, capture_code
from noria.ledger.processes import this_process
from noria.ledger.running import Running
from noria.ledger.runs import clean_error
from noria.records import Cost, Run, RunId, RunState, Version, new_id
from noria.tracking.beginning import KIND, ModelShelf, WantedRun, told_of_process
from noria.tracking.places import Remembered, RunFolders, RunPlace
from noria.tracking.records import MetricPoint
from noria.tracking.remote.client import RemoteServer, ServerSpeaksOther
from noria.tracking.remote.keeper import RemoteKeeper
from noria.tracking.remote.sending import Beginning, SentCode
from noria.tracking.remote.spools import (
    keep_bytes,
    keep_copy,
    let_go,
    mark_unsure,
    put_server,
    server_folder,
    write_head,
)
from noria.tracking.remote.syncing import sync_folder
from noria.tracking.run_desk import COMMIT_TAG, PARENT_TAG
from noria.tracking.run_names import random_run_name
from noria.tracking.spools.moving import parse_dataset
from noria.tracking.spools.records import Ended, Input
from noria.tracking.spools.run_log import RunLog
from noria.tracking.store import RUN_NAME_TAG

__all__ = ["RemotePlace"]

_LOG = logging.getLogger(__name__)
_ID_CHARS = 32
_HEX = frozenset("0123456789abcdef")
_SCOPE = "project"
_NO_CODE = "none"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _AtWork:
    """A run of this process."""

    run: Run
    log: RunLog
    keeper: RemoteKeeper


class RemotePlace:
    """A server, for one run of this process.

    Parameters
    ----------
    root
        The folder of the logs that wait, of all servers.
    code_root
        The folder whose code the run names.
    patience_s
        How long its beginning and its end may wait for the server.
    """

    patience_s = 0.0  # the run's end is the last entry of its log

    def __init__(
        self,
        server: RemoteServer,
        root: Path,
        *,
        code_root: Path | None,
        patience_s: float,
        models: ModelShelf | None = None,
    ) -> None:
        self._root = root
        self._server, self._folder = server, server_folder(root, server.location)
        self._code_root, self.last_patience_s = code_root, patience_s
        self._models = models
        self._at_work: _AtWork | None = None

    @property
    def models(self) -> ModelShelf | None:
        """What writes and registers models."""
        return self._models

    def is_same(self, other: RunPlace) -> bool:
        """Tell whether the other one is the same server."""
        return isinstance(other, RemotePlace) and other._server.location == self._server.location

    def for_another(self) -> AbstractContextManager[RunPlace]:
        """Give the same server, with connections of its own."""
        place = RemotePlace(
            self._server.another(),
            self._root,
            code_root=self._code_root,
            patience_s=self.last_patience_s,
            models=self._models,
        )
        return closing(place)

    def start(
        self,
        wanted: WantedRun,
        *,
        parent: RunId | None,
        within: RunPlace | None,
        tell: Callable[[RunId], object],
    ) -> Running:
        """Give a run that begins once it is entered."""
        before: tuple[Beginning, ...] = ()
        if isinstance(within, RemotePlace) and within._at_work is not None:
            outer = within._at_work.keeper.beginning
            before = (*outer.before, replace(outer, before=()))
        return Running(_Book(self), lambda: self._begin(wanted, parent, before, tell))

    def log_of(self, run: RunId) -> RunLog:
        """Give where the run is logged to."""
        return self._here.log

    def remembered(self, run: RunId) -> Remembered:
        """Give what the run had when it began."""
        begun, beginning = self._here.keeper.begun, self._here.keeper.beginning
        if begun is None:
            tags = {**beginning.told, **_told(beginning), **beginning.tags, RUN_NAME_TAG: beginning.name}
            return Remembered(beginning.params, tags, ())
        points = [
            MetricPoint(name=name, value=value, step=step, at_us=at_us)
            for name, value, step, at_us in begun.latest
        ]
        return Remembered(begun.params, begun.tags, points)

    def input_of(self, data: Version | str, context: str) -> Input:
        """Name a version that the run reads; the server looks it up when that arrives."""
        if isinstance(data, Version):
            return Input(data.id, context, data.sha256)
        parse_dataset(data)
        return Input(data, context)

    def folders(self, run: RunId) -> RunFolders:
        """Give where files of the run go: the server knows."""
        begun = self._here.keeper.begun
        return RunFolders("files", "models", () if begun is None else begun.paths)

    def keep_file(self, run: RunId, file: Path) -> tuple[str, int]:
        """Keep a copy of a file beside the log; where that finds no room, send it at once."""
        try:
            return keep_copy(self._here.log.open(), file)
        except SourceError:
            raise
        except StoreError as err:
            sha256, size = _digest(file)
            try:
                self._here.keeper.put_file(sha256, file)
            except StoreError:
                raise err from None
            return sha256, size

    def outcome(self, run: RunId) -> tuple[dict[str, float], dict[str, Any]] | None:
        """Leave it to the server to tell what the run ends with."""
        return None

    def get_run(self, run: RunId) -> Run:
        """Give the run as it is known here."""
        return self._here.run

    def close_interrupted(self, run: RunId, *, state: RunState, error: str) -> None:
        """Close the run, if it has begun."""
        if self._at_work is not None:
            self.finish(state=state, error=error, cost=None)
            log = self._at_work.log
            log.end()
            log.close(is_whole=log.flush(self.last_patience_s))

    def finish(
        self,
        *,
        state: RunState,
        error: str | None,
        cost: Cost | None,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Run:
        """Log the run's end; give its record as it is known here."""
        here = self._here
        if here.run.state is not RunState.RUNNING:
            return here.run
        self._send_left_by_children()
        now = datetime.now(UTC)
        told = None if error is None else clean_error(error)
        seconds = None if cost is None else (float(cost.cpu_s), float(cost.wall_s))
        try:
            here.log.append(Ended(state, told, seconds, to_micros(now)))
        except StoreError as err:
            _LOG.warning(
                "the end of run %s as %s finds no room here, and no server; it will be told as killed: %s",
                here.run.id, state, err,
            )  # fmt: skip
        ended = replace(
            here.run,
            state=state,
            error=told,
            cost=cost,
            ended_at=now,
            metrics=dict(metrics or {}),
            params={**here.run.params, **(params or {})},
        )
        self._at_work = _AtWork(ended, here.log, here.keeper)
        return ended

    def beat(self) -> None:
        """Let the server know that the run is at work. Raises `StoreError`."""
        self._here.keeper.beat()

    def close(self) -> None:
        """Hang up."""
        self._server.close()

    @property
    def _here(self) -> _AtWork:
        if self._at_work is None:
            raise RuntimeError("the run has not begun")
        return self._at_work

    def _begin(
        self,
        wanted: WantedRun,
        parent: RunId | None,
        before: tuple[Beginning, ...],
        tell: Callable[[RunId], object],
    ) -> Run:
        if wanted.run is not None and not (len(wanted.run) == _ID_CHARS and _HEX.issuperset(wanted.run)):
            raise NotFound("run", wanted.run)
        id = RunId(wanted.run or new_id())
        if wanted.run is not None:
            self._send_left_of(id)
        captured = capture_code(self._code_root)
        keeper = RemoteKeeper(self._server, _beginning(id, wanted, captured, parent=parent, before=before))

        def prepare(folder: Path) -> None:
            if not keeper.beginning.log:
                keeper.name_log(folder.name)
            _fill(folder, keeper.beginning, captured)

        later = f"`noria run sync {self._server.location}` sends it"
        log = RunLog(
            self._folder, id, keeper, direct="to the server", later=later, prepare=prepare, discard=let_go
        )
        tell(id)
        folder = self._opened(log, keeper)
        self._look_how_it_began(wanted, log, keeper, folder)
        begun = keeper.begun
        run = _offline_run(keeper.beginning) if begun is None else begun.run
        self._at_work = _AtWork(run, log, keeper)
        if begun is not None:
            self._send_left()
        return run

    def _opened(self, log: RunLog, keeper: RemoteKeeper) -> Path | None:
        """Let the thread say that the run begins; where the disk takes nothing, say it here."""
        try:
            put_server(self._folder, self._server.location)
            folder = log.open()
        except StoreError as err:
            keeper.name_log(f"{keeper.beginning.run}.{secrets.token_hex(4)}")
            try:
                keeper.begin(None)
            except StoreError:
                if keeper.fault is None or isinstance(keeper.fault, StoreError):
                    raise err from None
            return None
        keeper.settled.wait(self.last_patience_s)
        return folder

    def _look_how_it_began(
        self, wanted: WantedRun, log: RunLog, keeper: RemoteKeeper, folder: Path | None
    ) -> None:
        """Raise what is wrong with the run, if the server has said so. It may go on without a server."""
        fault = keeper.fault
        if keeper.begun is not None:
            return
        if isinstance(fault, ServerSpeaksOther) or (fault is not None and not isinstance(fault, StoreError)):
            log.close(is_whole=True)
            if isinstance(fault, NoriaError) and not isinstance(fault, ServerSpeaksOther):
                raise fault
            raise ConfigError(str(fault)) from fault
        why = str(
            fault or f"the server {self._server.location} has not answered in {self.last_patience_s:g} s"
        )
        if wanted.run is not None:
            if folder is not None:
                mark_unsure(folder)
            log.close(is_whole=False)
            raise StoreError(
                f"run {wanted.run} goes on only where its server can be asked what it has: {why}; start a "
                "new one, which may begin without"
            )
        _LOG.warning(
            "run %s begins without its server: %s; what is logged waits in %s, and is sent once the server "
            "is there, by this process or by `noria run sync`",
            keeper.beginning.run, why, folder,
        )  # fmt: skip

    def _send_left_of(self, run: RunId) -> None:
        """Send what processes have left of a run that is to go on. Raises `StoreError`."""
        for each in sync_folder(self._server, self._folder, run=run):
            if each.why and not each.is_sent:
                raise StoreError(f"run {run} cannot go on before all of it is sent: {each.why}")

    def _send_left_by_children(self) -> None:
        if self._here.keeper.begun is None:
            return
        run = self._here.run.id
        with suppress(StoreError):
            list(sync_folder(self._server, self._folder, run=run))

    def _send_left(self) -> None:
        """Send in the background what other processes have left."""
        server = self._server.another()

        def send() -> None:
            try:
                for each in sync_folder(server, self._folder):
                    _LOG.info("log %s: %s", each.run, each.why or "sent")
            except StoreError as err:
                _LOG.warning("what ended processes have logged waits in %s: %s", self._folder, err)
            finally:
                server.close()

        with suppress(RuntimeError):  # as many threads as there may be: the next run sends it
            threading.Thread(target=send, name="sender of left logs", daemon=True).start()


class _Book:
    """What closes the run, and says that it is alive."""

    def __init__(self, place: RemotePlace) -> None:
        self._place = place

    def heartbeat(self, run_id: str) -> None:
        """Say that the run is alive."""
        self._place.beat()

    def finish_run(
        self,
        run_id: str,
        *,
        state: RunState,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        error: str | None = None,
        cost: Cost | None = None,
    ) -> Run:
        """Log the run's end."""
        return self._place.finish(state=state, error=error, cost=cost, metrics=metrics, params=params)

    def add_input(self, run_id: str, version_id: str) -> None:
        """Log that the run reads a version."""
        self._place.log_of(RunId(run_id)).acknowledge(Input(version_id, ""))

    def record_version(
        self,
        kind: str,
        name: str,
        *,
        sha256: str,
        uri: str,
        run: str | None = None,
        facts: Mapping[str, Any] | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Refuse: a version is recorded where its bytes are."""
        raise Conflict(f"{kind} {name} cannot be recorded over HTTP; record it in the project of the server")


def _beginning(
    id: RunId,
    wanted: WantedRun,
    captured: CapturedCode,
    *,
    parent: RunId | None,
    before: tuple[Beginning, ...],
) -> Beginning:
    state = captured.state
    name = wanted.name or wanted.tags.get(RUN_NAME_TAG, "")
    if not name and wanted.run is None:
        name = random_run_name()
    return Beginning(
        log="",
        run=id,
        is_resumed=wanted.run is not None,
        name=name,
        experiment=wanted.experiment,
        params=dict(wanted.params),
        tags=dict(wanted.tags),
        seed=wanted.seed,
        owner=user(),
        told=told_of_process(),
        code=SentCode(commit=state.commit, diff=state.diff, runtime=state.runtime),
        holder=this_process(),
        began_at=datetime.now(UTC),
        parent=parent,
        before=before,
    )


def _fill(folder: Path, beginning: Beginning, captured: CapturedCode) -> None:
    """Put beside a log what its run begins with. Raises `StoreError`."""
    code = beginning.code
    keep_bytes(folder, captured.distributions, code.runtime)
    if code.diff is not None:
        keep_bytes(folder, captured.patch, code.diff)
    write_head(folder, beginning)


def _told(beginning: Beginning) -> dict[str, str]:
    tags = {} if beginning.parent is None else {PARENT_TAG: str(beginning.parent)}
    if beginning.code.commit != _NO_CODE:
        tags[COMMIT_TAG] = beginning.code.commit
    return tags


def _offline_run(beginning: Beginning) -> Run:
    """Give the record of a run as far as it is known without its server."""
    return Run(
        id=beginning.run,
        scope=_SCOPE,
        kind=KIND,
        name=beginning.name,
        state=RunState.RUNNING,
        attempt=1,
        key=None,
        cause=None,
        parent=beginning.parent,
        experiment=None,
        params=dict(beginning.params),
        metrics={},
        seed=beginning.seed,
        code=beginning.code.commit,
        code_diff=beginning.code.diff,
        runtime=beginning.code.runtime,
        error=None,
        cost=None,
        at=beginning.began_at,
        started_at=beginning.began_at,
        ended_at=None,
    )


def _digest(file: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
