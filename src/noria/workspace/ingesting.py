"""Taking in rows: what is new of a dataset's files, a frame, what a database has got since.

Each source is a batch of its own, known by its content: a file by its bytes, a frame and the answer of a
database by their rows. So the same content lands once, whatever it is called and however often it is taken.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from noria.errors import BatchBlocked, ConfigError, Conflict, NoriaError, SourceError
from noria.lake.declarations import Dataset
from noria.lake.file_declarations import Files
from noria.lake.recording import Ingested
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
    with_declared_source,
)

__all__ = ["Taken", "Trial", "find_folder", "take", "try_out"]

# What is wrong with one source does not keep the others from being taken: damage, a missing extra, columns
# that the contract speaks of.
_OF_ONE_SOURCE = (BatchBlocked, ConfigError, Conflict, SourceError)


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
        Rows that hold, that do not, and that are there already or come twice. Keys are held against the
        table, and within the source; not against other sources of the same trial.
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
    request = with_declared_source(project, declared, request)
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
    request = with_declared_source(project, declared, request)
    for name, opening in openings(project, declared, request, tell=tell, remember=False):
        trial = Trial(shown(project, name))
        try:
            with opening() as source:
                last = project.lake.last_batch(declared.name, app_of(source, request))
                trial.landed = last is not None and (request.batch is None or last >= request.batch)
                if not trial.landed:
                    done = project.lake.try_out(declared, source)
                    trial.accepted, trial.rejected, trial.repeated = (
                        done.accepted,
                        done.rejected,
                        done.repeated,
                    )
                    trial.reasons, trial.blocked = Counter(done.reasons), done.blocked
                    trial.columns = dict(done.columns)
        except _OF_ONE_SOURCE as error:
            trial.error = error
        yield trial


def _want_nothing_named(folder: Files, request: Request) -> None:
    if request.what is not None or request.batch is not None:
        raise ConfigError(
            f"{folder.name!r} is a folder of files and takes in what has changed of {folder.folder}; ingest "
            "it without naming anything"
        )
