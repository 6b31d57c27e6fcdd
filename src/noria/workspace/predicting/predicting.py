"""A batch from its input to its output, once, however often it is killed in between."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from noria.errors import ConfigError, Conflict, SourceError, StoreError
from noria.ledger.running import Running
from noria.records import Version, digest_of
from noria.serving.models import load_route
from noria.serving.records import read_record, write_record
from noria.workspace.predicting.inputs import Input, spool_identity
from noria.workspace.predicting.models import BatchModel
from noria.workspace.predicting.outputs import (
    FolderManifest,
    LogState,
    Output,
    app_of,
    append_table,
    check_free,
    digest_of_files,
    digests_of,
    files_of,
    finish_file,
    finish_folder,
    log_part,
    read_manifest,
    write_rejected,
)
from noria.workspace.predicting.parts import PLAN
from noria.workspace.predicting.records import (
    Asked,
    BatchPlan,
    BatchProgress,
    PartDone,
    Predicted,
    part_stem,
)
from noria.workspace.predicting.running import run_parts
from noria.workspace.predicting.scoring import over_limit

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Batch"]

KIND = "predict"
_MADE = "predictions"
_PREFIX_CHARS = 20
Tell = Callable[[BatchProgress], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """A model, an input, an output, and how.

    Attributes
    ----------
    executor, workers
        Where parts are scored; None and 0: as the settings say.
    """

    project: "Project"
    model: BatchModel
    input: Input
    output: Output
    asked: Asked
    executor: str | None = None
    workers: int = 0
    cause: str | None = None
    tell: Tell | None = None

    def run(self) -> Predicted:
        """Score all of it, or what an earlier process has left; see `Project.predict`."""
        began = time.perf_counter()
        if not 0 <= self.asked.max_rejected <= 1:
            raise ConfigError(f"max_rejected is {self.asked.max_rejected:g}; give a share, from 0 to 1")
        work = self.output.work_folder(self.project.state, self.model.release.name)
        with _alone(work):
            known = None if self.input.identity is None else self._job(self.input.identity)
            made = None if known is None else self._finished(known)
            if made is None:
                plan = self._planned(work, known)
                made = self._finished(plan.job)
            if made is None:
                made = self._made(work, plan, began)
            (work / PLAN).unlink(missing_ok=True)
        return made

    def _made(self, work: Path, plan: BatchPlan, began: float) -> Predicted:
        params = self._params(plan)
        with self.project.ledger.running(
            KIND, self.model.release.name, cause=self.cause, params=params
        ) as running:
            return self._scored(work, plan, running, began)

    # -- which batch it is

    def _job(self, identity: str) -> str:
        asked = self.asked
        return digest_of(
            {
                "release": self.model.release.sha256,
                "route": [self.model.route.environment, self.model.route.id],
                "input": identity,
                "output": self.output.told,
                "format": self.output.format,
                "id": asked.id or "",
                "keep": list(asked.keep),
                "at": asked.at or "",
                "log": asked.log,
            }
        )

    def _finished(self, job: str) -> Predicted | None:
        """Give what a batch gave that was finished before, if its output is still there."""
        output = self.output
        if output.path is not None:
            manifest = read_manifest(output.path) if output.is_folder else None
            if manifest is None or manifest.job != job or self.asked.replace:
                return None
            rejected = manifest.rejected
            return self._told(
                job, rows=manifest.rows, rejected=rejected, parts=len(manifest.files), was_there=True,
                rejected_path=str(output.rejected_path) if rejected else None,
            )  # fmt: skip
        assert output.table is not None
        done = self._landed(job)
        if done is None:
            return None
        return self._told(
            job, rows=int(done.facts["rows"]), rejected=int(done.facts["rejected"]), was_there=True
        )

    def _landed(self, job: str) -> Version | None:
        """Find the version by which a batch that went into a table is on record."""
        versions = self.project.ledger.list_versions(kind=_MADE, name=self.output.name)
        return next((each for each in versions if each.facts.get("job") == job), None)

    def _planned(self, work: Path, known: str | None) -> BatchPlan:
        """Give the plan that is there, or take the input in and write one last: what it lacks does not count.

        `known` is the batch's digest, where it is known without reading the rows.
        """
        old = read_record(work / PLAN, BatchPlan) if (work / PLAN).exists() else None
        if old is not None and old.job == known:
            return self._limited(work, old)
        output = self.output
        if known is not None or output.path is None or read_manifest(output.path) is None:
            check_free(output, replace=self.asked.replace)
        new = work / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        model, asked = self.model, self.asked
        target = load_route(model.route, folder=self.project.root).targets[model.route.deployment]
        if asked.at is not None and not target.views:
            raise ConfigError(
                f"{model.version.ref} reads no feature view, so there is nothing to take as of {asked.at!r}; "
                "leave `at` out"
            )
        keep = None if "*" in asked.keep else tuple(dict.fromkeys(asked.keep))
        taken = self.input.take_in(
            new, target.plan, asked=asked, keep=keep, model=model.version.ref, tell=self._reading
        )
        along = tuple(taken.schema.names) if keep is None else keep
        self._check_names(along, [each.name for each in target.outputs])
        if not taken.parts and not taken.rejected:
            raise SourceError(f"{self.input.name} has no row; give an input with rows")
        identity = self.input.identity or spool_identity(taken)
        job = self._job(identity)
        if old is not None and old.job == job:
            shutil.rmtree(new)
            return self._limited(work, old)
        if self._finished(job) is None:
            check_free(output, replace=self.asked.replace)
        plan = BatchPlan(
            job=job,
            root=str(self.project.root),
            route=model.route,
            parts=tuple(taken.parts),
            format=self.output.format,
            prefix=self._prefix(identity),
            id=asked.id,
            keep=along,
            at=asked.at,
            online=model.online,
            clock=model.settings.clock,
            log=asked.log,
            redact=model.settings.log.redact,
            unread=taken.rejected,
        )
        return self._limited(work, _settled(work, new, plan))

    def _prefix(self, identity: str) -> str:
        """Give what predictions without an id of their own are called by: what they are made of."""
        made_of = {"input": identity, "release": self.model.release.sha256, "at": self.asked.at or ""}
        return digest_of(made_of)[:_PREFIX_CHARS]

    def _limited(self, work: Path, plan: BatchPlan) -> BatchPlan:
        """Write down how many rows may be left out: another number than before is the same batch."""
        share = self.asked.max_rejected
        most = int(share * (plan.rows + plan.unread))
        plan = msgspec.structs.replace(plan, most_rejected=most, max_rejected=share)
        write_record(work / PLAN, plan)
        return plan

    def _check_names(self, along: Sequence[str], outputs: Sequence[str]) -> None:
        made = ["prediction_id", *outputs]
        if self.output.table is not None:
            made += ["model", "version", "release"]
        if both := [each for each in along if each in made]:
            raise ConfigError(
                f"{', '.join(map(repr, both))} would be a column of the input and one of the predictions; "
                "leave it out of `keep`, or rename it"
            )
        if self.output.format == "csv" and (odd := [each for each in (*along, *made) if "\n" in each]):
            raise ConfigError(
                f"the name of column {odd[0]!r} has more than one line, which CSV cannot show here"
            )

    # -- the work

    def _scored(self, work: Path, plan: BatchPlan, running: Running, began: float) -> Predicted:
        for version in (self.model.version, self.model.release, *self._versions()):
            running.add_input(version)
        moving = _Moving(self, work, plan)
        before = moving.parts_there()
        left = [number for number in range(len(plan.parts)) if number not in before]
        try:
            moving.check()
            for number in sorted(before):
                moving.done(number)
            run_parts(
                self.project, work, left, executor=self.executor, workers=self.workers, done=moving.done
            )
        except SourceError as error:
            path = self._keep_rejected(work, plan)
            if path is not None:
                error.add_note(f"{path} says which rows could not be scored so far, and why.")
            raise
        moving.finish()
        self._tell(
            BatchProgress(stage="writing", done=moving.rows, total=plan.rows, rejected=moving.rejected)
        )
        self._written(work, plan, moving, running)
        counts = {"rows": moving.rows, "rejected": moving.rejected, "parts_before": len(before)}
        running.metrics |= {name: float(each) for name, each in counts.items() if each or name == "rows"}
        return self._told(
            plan.job,
            rows=moving.rows,
            rejected=moving.rejected,
            rejected_path=self._keep_rejected(work, plan),
            parts=len(plan.parts),
            parts_before=len(before),
            logged=moving.log.logged,
            known=moving.log.known,
            changed=moving.log.changed,
            failed=moving.failed,
            seconds=time.perf_counter() - began,
            run=running.id,
        )

    def _written(self, work: Path, plan: BatchPlan, moving: "_Moving", running: Running) -> None:
        """Put the parts where they are to be, and record that."""
        output, served = self.output, plan.route.models[0]
        files = files_of(output, work, len(plan.parts))
        digests = digests_of(files)
        manifest = FolderManifest(
            job=plan.job,
            model=served.model,
            version=served.version,
            release=served.release,
            rows=moving.rows,
            rejected=moving.rejected,
            files=digests,
        )
        facts = {
            "rows": moving.rows, "rejected": moving.rejected, "job": plan.job, "release": served.release,
            "parts": len(plan.parts),
        }  # fmt: skip
        uri = f"{output.told}#{app_of(plan)}" if output.path is None else output.path.absolute().as_uri()
        running.record_version(  # before the output is there: killed in between, the same batch goes on
            _MADE, output.name, sha256=digest_of_files(digests | {"": plan.job}), uri=uri, facts=facts
        )
        if output.is_folder:
            finish_folder(output, work, manifest, len(plan.parts))
        elif output.path is not None:
            finish_file(output, files)

    def _versions(self) -> Iterator[Version]:
        """Give what the input is on record as; files become versions."""
        yield from self.input.versions
        for source in self.input.sources:
            yield from source.read
        for path, sha256 in self.input.files:
            yield self.project.ledger.record_version(
                "file", path.name, sha256=sha256, uri=path.absolute().as_uri(), facts={}
            )

    def _keep_rejected(self, work: Path, plan: BatchPlan) -> str | None:
        path = self.output.rejected_path
        if path is None:
            path = self.project.state / "predict" / f"{self.output.name}.rejected.jsonl"
        return str(path) if write_rejected(path, work, len(plan.parts)) else None

    def _params(self, plan: BatchPlan) -> dict[str, Any]:
        asked = self.asked
        return {
            "model": self.model.version.ref, "input": self.input.name, "output": self.output.told,
            "job": plan.job, "parts": len(plan.parts), "id": asked.id or "", "at": asked.at or "",
            "log": asked.log, "executor": self.executor or self.project.settings.compute.executor,
        }  # fmt: skip

    def _told(self, job: str, **facts: Any) -> Predicted:
        served = self.model.route.models[0]
        return Predicted(
            job=job, model=served.model, version=served.version, release=served.release,
            output=self.output.told, **facts,
        )  # fmt: skip

    def _reading(self, rows: int, total: int | None) -> None:
        self._tell(BatchProgress(stage="reading", done=rows, total=total))

    def _tell(self, progress: BatchProgress) -> None:
        if self.tell is not None:
            self.tell(progress)

    def scoring(self, rows: int, total: int, rejected: int) -> None:
        """Tell how far it is."""
        self._tell(BatchProgress(stage="scoring", done=rows, total=total, rejected=rejected))


class _Moving:
    """Takes parts as they are done: counts them, and appends them in their order to what is appended to."""

    def __init__(self, batch: Batch, work: Path, plan: BatchPlan) -> None:
        self._batch, self._work, self._plan = batch, work, plan
        self._done: set[int] = set()
        self._next = 0
        self.rows, self.log = 0, LogState()
        self.failed: dict[str, int] = {}
        self.rejected = plan.unread

    def parts_there(self) -> set[int]:
        """Give the parts that an earlier process has done."""
        every = range(len(self._plan.parts))
        return {each for each in every if Path(f"{part_stem(self._work, each)}.json").exists()}

    def done(self, number: int) -> None:
        """Take a part."""
        note = read_record(Path(f"{part_stem(self._work, number)}.json"), PartDone)
        self.rows += note.rows
        self.rejected += note.rejected
        for name, count in note.failed.items():
            self.failed[name] = self.failed.get(name, 0) + count
        self._done.add(number)
        self._batch.scoring(self.rows, self._plan.rows, self.rejected)
        self.check()
        while self._next in self._done:
            self._append(self._next)
            self._next += 1

    def check(self) -> None:
        """Raise `SourceError` where more rows were rejected than may be."""
        if self.rejected > self._plan.most_rejected:
            raise SourceError(over_limit(self._plan))

    def finish(self) -> None:
        """See that all parts came."""
        if self._next != len(self._plan.parts):
            raise StoreError(f"part {self._next} of the batch is missing in {self._work}; run it again")

    def _append(self, number: int) -> None:
        output, project = self._batch.output, self._batch.project
        stem = part_stem(self._work, number)
        if output.table is not None:
            append_table(project.lake, output, Path(f"{stem}.{output.format}"), self._plan, number)
        log = Path(f"{stem}.log")
        if self._plan.log and log.exists():
            log_part(project, self._plan, log, number, self.log)


def _settled(work: Path, new: Path, plan: BatchPlan) -> BatchPlan:
    """Let what was taken in take the place of whatever the folder held."""
    for each in list(work.iterdir()):
        if each in (new, work / _LOCK):
            continue
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
    for each in list(new.iterdir()):
        each.replace(work / each.name)
    new.rmdir()
    moved = tuple(
        msgspec.structs.replace(part, path=str(work / Path(part.path).name))
        if Path(part.path).parent == new
        else part
        for part in plan.parts
    )
    return msgspec.structs.replace(plan, parts=moved)


_LOCK = "lock"


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Let one process at a time work in a folder.

    Raises
    ------
    Conflict
        If another one does.
    """
    with ExitStack() as held:
        file = held.enter_context(_locked(work))
        while not _is_there(work / _LOCK, file):  # who held it has just removed the folder
            held.close()
            file = held.enter_context(_locked(work))
        try:
            yield
        finally:
            if not (work / PLAN).exists():  # nothing that another call could go on with
                shutil.rmtree(work, ignore_errors=True)


def _locked(work: Path) -> IO[str]:
    work.mkdir(parents=True, exist_ok=True)
    file = (work / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        file.close()
        if err.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        raise Conflict(
            f"another process makes this output right now (its parts are in {work}); wait for it"
        ) from err
    return file


def _is_there(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
