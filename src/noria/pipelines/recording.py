"""What is kept of finished steps: runs and versions in the ledger, results under their keys, logs.

Steps that end close to one another are one transaction. A result is found again only once it is committed, so
a kill before that repeats the step, and a kill after it never does. While the database is away they wait.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from noria.errors import DiskFull, NotFound, StoreError
from noria.ledger.store import Ledger
from noria.ledger.whole_runs import NewVersion, OutputOf, WholeRun
from noria.pipelines.code.project import ProjectCode, StepCode
from noria.pipelines.keys import Made
from noria.pipelines.store import CacheEntry, PipelineStore, Written
from noria.pipelines.trees import (
    INLINE_BYTES,
    Recorded,
    Stored,
    Tree,
    digest_of_tree,
    parts_of,
    stored_in,
    told_of,
    without_data,
)
from noria.records import RunId, VersionId, sha256_hex
from noria.storage.contract import Storage

__all__ = ["Finished", "Patience", "Recorder"]

_FLUSH_EVERY_S = 0.02  # at most; less often where it takes long, but no less than that
_FLUSH_AT_LEAST_EVERY_S = 0.1
_FLUSH_SHARE = 0.2
_FLUSH_COUNT = 64
_PATIENCE_S = 300.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


@dataclass(slots=True)
class Patience:
    """Does things with a database that may be away, again and again for some minutes.

    A full disk is told at once: waiting does not make room.

    Parameters
    ----------
    tell
        Told why it waits; None once it no longer does.
    """

    tell: Callable[[str | None], None] = lambda _: None
    _since: float | None = None  # monotonic
    _again_at: float = 0.0
    _pause: float = _FIRST_PAUSE_S

    @property
    def rest_s(self) -> float:
        """How long to wait before the next try; 0: the database is there, as far as is known."""
        return 0.0 if self._since is None else max(self._again_at - time.monotonic(), 0.0)

    def attempt(self, work: Callable[[], object]) -> bool:
        """Try it, unless it is too early after the last failure; tell whether it is done."""
        if self.rest_s > 0:
            return False
        try:
            work()
        except DiskFull:
            raise
        except StoreError as error:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since > _PATIENCE_S:
                raise
            self._again_at, self._pause = now + self._pause, min(self._pause * 2, _LONGEST_PAUSE_S)
            self.tell(f"the database is away ({error}); trying again")
            return False
        if self._since is not None:
            self._since, self._pause = None, _FIRST_PAUSE_S
            self.tell(None)
        return True

    def insist(self, work: Callable[[], object]) -> None:
        """Try it until it is done. Raises `StoreError` when it has taken too long."""
        while not self.attempt(work):
            time.sleep(max(self.rest_s, 0.01))


@dataclass(slots=True, kw_only=True)
class Finished:
    """A step's run that has ended, and what is to be kept of it."""

    task: str
    node: str
    run: WholeRun  # without its outputs
    made: Made | None = None  # with an output: keep it under this key
    output: Tree | None = None
    log: str | None = None
    code: StepCode | None = None


@dataclass(slots=True)
class Recorder:
    """Writes what steps leave, many at once.

    Parameters
    ----------
    on_versions
        Told the versions of each task once they are on record: task, by field.
    """

    pipeline: str
    ledger: Ledger
    store: PipelineStore
    storage: Storage
    code: ProjectCode
    on_versions: Callable[[str, dict[str, VersionId]], None]
    patience: Patience
    _waiting: list[Finished] = field(default_factory=list)
    _next_at: float = 0.0  # monotonic
    _unsure: int = 0  # how many of those that wait, from the first on, may be on record already
    _known_code: set[str] = field(default_factory=set)

    def add(self, finished: Finished) -> None:
        """Take up what has ended."""
        self._waiting.append(finished)

    @property
    def due_in_s(self) -> float | None:
        """After how long what waits should be written though more is about to come; None: nothing waits."""
        if not self._waiting:
            return None
        is_full = len(self._waiting) >= _FLUSH_COUNT
        late = 0.0 if is_full else self._next_at - time.monotonic()
        return max(late, self.patience.rest_s, 0.0)

    def flush_if_due(self) -> None:
        """Write what was taken up, if it is time. While the database is away it waits on."""
        if self.due_in_s == 0.0:
            self.patience.attempt(self._flush)

    def flush(self) -> None:
        """Write everything that was taken up. Raises `StoreError` if the database stays away for minutes."""
        self.patience.insist(self._flush)

    def flush_once(self) -> None:
        """Write everything that was taken up, at once or not at all."""
        self._flush()

    def _flush(self) -> None:
        """Write everything that was taken up, all or none."""
        if not self._waiting:
            return
        found = list(self._waiting)
        logs = [each for each in map(self._keep_log, found) if each is not None]
        for each in found:
            if each.code is not None and each.code.digest not in self._known_code:
                self._keep_code(each.code)
        began = time.monotonic()
        try:
            given = self._write(found, logs)
        except BaseException:
            self._unsure = len(found)
            raise
        del self._waiting[: len(found)]
        self._unsure, now = 0, time.monotonic()
        pause = (now - began) / _FLUSH_SHARE
        self._next_at = now + min(max(pause, _FLUSH_EVERY_S), _FLUSH_AT_LEAST_EVERY_S)
        for task, names in given:
            self.on_versions(task, names)
        for each in found:
            if each.log is not None and os.path.exists(each.log):  # noqa: PTH110
                Path(each.log).unlink(missing_ok=True)

    def _write(
        self, found: list[Finished], logs: list[tuple[str, str, int, bytes | None]]
    ) -> list[tuple[str, dict[str, VersionId]]]:
        parts = [parts_of(each.output) for each in found]
        whole = [
            _with_outputs(each, self.pipeline, some, self.storage)
            for each, some in zip(found, parts, strict=True)
        ]
        with self.ledger.database.write():
            made = {
                each.id: names
                for each in whole[: self._unsure]
                if (names := self._made_before(each)) is not None
            }
            new = [_settled(each, made) for each in whole if each.id not in made]
            for run, versions in zip(new, self.ledger.record_runs(new), strict=True):
                made[run.id] = [each.id for each in versions]
            given = [
                (
                    each.task,
                    {name: version for (name, _), version in zip(some, made[each.run.id], strict=True)},
                )
                for each, some in zip(found, parts, strict=True)
            ]
            written = [
                self._written(each, names) for each, (_, names) in zip(found, given, strict=True) if each.made
            ]
            if written:
                self.store.write(written)
            if logs:
                self.store.put_logs(logs)
        return given

    def _written(self, finished: Finished, names: dict[str, VersionId]) -> Written:
        made, output = finished.made, finished.output
        assert made is not None and output is not None
        trees = [
            output,
            *made.arguments.values(),
        ]  # arguments as well: a run can be made again from its record
        return Written(
            pipeline=self.pipeline,
            task=finished.task,
            key=made.key,
            ingredients=made.ingredients,
            entry=CacheEntry(finished.run.id, without_data(output), names),
            values={
                one.sha256: one.data for tree in trees for one in stored_in(tree) if one.data is not None
            },
            at=datetime.now(UTC),
        )

    def _made_before(self, run: WholeRun) -> list[VersionId] | None:
        """Give what a run made, if it is on record: a commit may succeed and report an error all the same."""
        try:
            if self.ledger.get_run(run.id).state is not run.state:
                return None
        except NotFound:
            return None
        made = []
        for each in run.outputs:
            if isinstance(each, NewVersion):
                version = self.ledger.find_version(each.kind, each.name, sha256=each.sha256)
                assert version is not None
                made.append(version.id)
            else:
                made.append(each)
        return made

    def _keep_log(self, finished: Finished) -> tuple[str, str, int, bytes | None] | None:
        if finished.log is None or not os.path.exists(finished.log):  # noqa: PTH110 - asked after every step
            return None
        log = Path(finished.log)
        if not (size := log.stat().st_size):
            return None
        if size <= INLINE_BYTES:
            data = log.read_bytes()
            return finished.run.id, sha256_hex(data), len(data), data
        return finished.run.id, self.storage.put_file(log), size, None

    def _keep_code(self, code: StepCode) -> None:
        """Keep the sources that a key stands for, so that a later plan can tell which line has changed."""
        if self.store.known_code(code.digest) is None:
            files = {
                name: (digest, self.storage.put(self.code.text(name))) for name, digest in code.files.items()
            }
            self.store.put_code(code.digest, files)
        self._known_code.add(code.digest)


def _with_outputs(
    finished: Finished, pipeline: str, parts: list[tuple[str, Tree]], storage: Storage
) -> WholeRun:
    outputs: list[NewVersion | VersionId] = []
    for name, tree in parts:
        if isinstance(tree, Recorded):
            outputs.append(tree.id)
            continue
        sha256 = digest_of_tree(tree)
        uri = f"values:{sha256}"
        if isinstance(tree, Stored) and not tree.is_small:
            uri = storage.uri(sha256)
        facts = {"told": told_of(tree), "size_bytes": sum(each.size_bytes for each in stored_in(tree))}
        outputs.append(
            NewVersion(
                kind="output",
                name=f"{pipeline}/{finished.node}" + (f".{name}" if name else ""),
                sha256=sha256,
                uri=uri,
                facts=facts,
            )
        )
    run = finished.run
    return msgspec.structs.replace(run, outputs=tuple(outputs))


def _settled(run: WholeRun, made: dict[RunId, list[VersionId]]) -> WholeRun:
    """Name the versions that a run reads, where they are on record."""
    if not made:
        return run
    inputs = tuple(
        made[each.run][each.number] if isinstance(each, OutputOf) and each.run in made else each
        for each in run.inputs
    )
    return msgspec.structs.replace(run, inputs=inputs)
