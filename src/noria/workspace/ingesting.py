"""Taking in rows: what is new of a dataset's files, a frame, what a database has got since.

Each source is a batch of its own, known by its content: a file by its bytes, a frame and the answer of a
database by their rows. So the same content lands once, whatever it is called and however often it is taken.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from msgspec.structs import replace

from noria.checks.verdicts import Finding, blocking_reasons
from noria.errors import BatchBlocked, ConfigError, Conflict, NoriaError, SourceError
from noria.lake.declarations import Dataset
from noria.lake.file_declarations import Files
from noria.lake.recording import Ingested
from noria.lake.sources.contract import Piece
from noria.workspace.file_sets import take_files
from noria.workspace.opened import Opened
from noria.workspace.source_openings import (
    Request,
    Sighted,
    app_of,
    dataset_of,
    is_numbered_frame,
    openings,
    shown,
    wanted_of,
)

__all__ = ["Taken", "Trial", "find_folder", "take", "try_out"]

# What is wrong with one source does not keep the others from being taken.
_OF_ONE_SOURCE = (BatchBlocked, Conflict, SourceError)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one source: it was done, or why it was not."""

    source: str
    done: Ingested | None
    error: NoriaError | None = None


@dataclass(slots=True)
class Trial:
    """What would become of one source.

    Attributes
    ----------
    landed
        Whether its content is in the table already.
    accepted, rejected, repeated
        Rows that hold, that do not, and that are there already. Keys are held against the table, and within
        each piece of rows.
    reasons
        Why rows would be rejected -> how many.
    blocked
        Why all of it would be blocked: rule, value and limit. Empty if it would not.
    error
        Why none of it could be taken.
    """

    source: str
    landed: bool = False
    accepted: int = 0
    rejected: int = 0
    repeated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    columns: dict[str, str] = field(default_factory=dict)
    blocked: tuple[str, ...] = ()
    error: NoriaError | None = None


def find_folder(project: Opened, dataset: str | Dataset | Files) -> Files | None:
    """Give the folder of files that is meant, if it is one."""
    return dataset if isinstance(dataset, Files) else project.declarations.files.get(str(dataset))


def take(
    project: Opened,
    dataset: str | Dataset | Files,
    request: Request,
    *,
    cause: Callable[[], str] | None = None,
    at: datetime | None = None,
    tell: Callable[[Sighted], None] | None = None,
) -> Iterator[Taken]:
    """Take in each source, one after the other; what one of them has wrong is told, the others go on.

    Parameters
    ----------
    cause
        Gives the event that led to it; asked once something is to land.
    tell
        Called after each piece of rows.

    Raises
    ------
    SourceError
        If a file or a pattern that is named fits nothing.
    ConfigError
        If the request cannot be: no such dataset, nothing that gives rows, several files under one number.
    StoreError
        If the lake cannot be written.
    """
    folder = find_folder(project, dataset)
    if folder is not None:
        _want_nothing_named(folder, request)
        yield Taken(folder.folder, take_files(project, folder, cause=cause, at=at))
        return
    declared = dataset_of(project, dataset)
    caused: list[str | None] = []

    def caused_by() -> str | None:
        if not caused:
            caused.append(None if cause is None else cause())
        return caused[0]

    for name, opening in openings(project, declared, request, tell=tell):
        label = shown(project, name)
        try:
            with opening() as source:
                app = app_of(source, request)
                number = 1 if request.batch is None else request.batch
                last = project.lake.last_batch(declared.name, app)
                done = project.lake.ingest(
                    declared,
                    request.what if is_numbered_frame(request) else source,
                    batch=number,
                    app=app,
                    source=label,
                    cause=None if last is not None and last >= number else caused_by(),
                    at=at,
                )
        except _OF_ONE_SOURCE as error:
            yield Taken(label, None, error)
        else:
            yield Taken(label, done)


def try_out(
    project: Opened,
    dataset: str | Dataset | Files,
    request: Request,
    *,
    tell: Callable[[Sighted], None] | None = None,
) -> Iterator[Trial]:
    """Tell what `take` would do, and write nothing. Raises like it, and what a source has wrong."""
    if find_folder(project, dataset) is not None:
        raise ConfigError(
            "a folder of files is compared by what is kept of it already; there is no trial of it"
        )
    declared = dataset_of(project, dataset)
    for name, opening in openings(project, declared, request, tell=tell, remember=False):
        trial = Trial(shown(project, name))
        try:
            with opening() as source:
                last = project.lake.last_batch(declared.name, app_of(source, request))
                trial.landed = last is not None and (request.batch is None or last >= request.batch)
                broken = _Broken()
                for piece in () if trial.landed else source.pieces(wanted_of(project, declared)):
                    _try_piece(project, declared, trial, piece, broken)
                trial.blocked = broken.reasons(declared, trial)
        except (*_OF_ONE_SOURCE, ConfigError) as error:
            trial.error = error
        yield trial


@dataclass(slots=True)
class _Broken:
    """The rules that the pieces of a trial break, added up.

    Rules about the batch as a whole can be told of one piece only, if it is all there is.
    """

    pieces: int = 0
    unreadable: int = 0
    found: dict[str, Finding] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        self.pieces += 1
        for each in findings:
            before = self.found.get(each.rule)
            failing = each.failing + (0 if before is None else before.failing)
            self.found[each.rule] = replace(each, failing=failing)

    def reasons(self, dataset: Dataset, trial: Trial) -> tuple[str, ...]:
        findings = [each for each in self.found.values() if self.pieces == 1 or not each.detail]
        return tuple(
            blocking_reasons(
                findings,
                rejected=trial.rejected,
                rows=trial.accepted + trial.rejected + trial.repeated,
                unreadable=self.unreadable,
                limit=dataset.max_rejected_share,
            )
        )


def _try_piece(project: Opened, dataset: Dataset, trial: Trial, piece: Piece, broken: _Broken) -> None:
    if not isinstance(piece, pa.RecordBatch):
        broken.unreadable += len(piece)
        trial.rejected += len(piece)
        trial.reasons.update(each.reason for each in piece)
        return
    trial.columns = trial.columns or {each.name: str(each.type) for each in piece.schema}
    verdict = project.lake.check(dataset, pa.table(piece))
    broken.add(verdict.findings)
    trial.accepted += verdict.accepted.num_rows
    trial.rejected += verdict.rejected.num_rows
    trial.repeated += piece.num_rows - verdict.accepted.num_rows - verdict.rejected.num_rows
    trial.reasons.update(verdict.rejected["reason"].to_pylist())


def _want_nothing_named(folder: Files, request: Request) -> None:
    if request.what is not None or request.batch is not None:
        raise ConfigError(
            f"{folder.name!r} is a folder of files and takes in what has changed of {folder.folder}; ingest "
            "it without naming anything"
        )
