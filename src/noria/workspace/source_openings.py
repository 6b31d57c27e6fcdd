"""What a request names, opened as sources one by one, each asked for what its dataset has to have."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import ConfigError, NotFound, SourceError
from noria.lake.declarations import Dataset
from noria.lake.file_declarations import Files
from noria.lake.reading import Reading
from noria.lake.schema import declared_schema
from noria.lake.sources.columnar import FrameRows, frame_digest
from noria.lake.sources.contract import Piece, Source
from noria.lake.sources.opening import find_files, open_file, open_source
from noria.lake.sources.spooled import spooled
from noria.workspace.opened import Opened
from noria.workspace.seen_files import SeenFiles

__all__ = [
    "Request",
    "Sighted",
    "Watched",
    "app_of",
    "dataset_of",
    "expected_types",
    "is_numbered_frame",
    "openings",
    "shown",
    "wanted_of",
    "with_declared_source",
]

_TYPES_BY_RULE = {"finite": "number", "length": "string", "matches": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be taken in, and how.

    Attributes
    ----------
    what
        See `noria.lake.sources.opening.open_source`; None: the files that the dataset declares.
    batch
        The batch's number; None: the content tells whether it has landed.
    since
        Of a database: only rows whose column `since` is not below the greatest that the table has.
    """

    what: Any = None
    format: str | None = None
    batch: int | None = None
    reading: Reading | None = None
    query: str | None = None
    table: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Sighted:
    """How far the reading of a source is."""

    source: str
    rows: int
    unreadable: int
    bytes_read: int
    size_bytes: int | None


def dataset_of(project: Opened, dataset: str | Dataset | Files) -> Dataset:
    """Give a declared dataset. Raises `ConfigError`, which says how to declare one."""
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, Files):
        return dataset.dataset
    known = project.declarations.datasets
    if dataset in known:
        return known[dataset]
    near = get_close_matches(dataset, known, n=1)
    hint = f"did you mean {near[0]!r}? Else add" if near else "add"
    modules = ", ".join(f"{each}.py" for each in project.settings.project.modules)
    raise ConfigError(
        f"no dataset named {dataset!r} is declared; {hint} "
        f'{dataset} = noria.Dataset("{dataset}", key=..., event_at=...) to '
        f"{modules or 'a module that noria.toml lists'}. "
        f"`noria dataset profile {dataset} FILE` proposes one from a file"
    )


def with_declared_source(project: Opened, dataset: Dataset, request: Request) -> Request:
    """Let the function that the dataset declares as its source give the rows, if nothing else is named."""
    if request.what is not None or dataset.files is not None or dataset.source is None:
        return request
    return replace(request, what=dataset.source(project.root))


_Opening = Callable[[], AbstractContextManager["Watched"]]


def openings(
    project: Opened,
    dataset: Dataset,
    request: Request,
    *,
    tell: Callable[[Sighted], None] | None = None,
    remember: bool = True,
) -> Iterator[tuple[str, _Opening]]:
    """Give the name of each source, and what opens it: one that cannot be does not keep the others out.

    Parameters
    ----------
    tell
        Called after each piece of rows.
    remember
        Keep a list of the files that were looked at.
    """
    reading = expected_types(dataset, request.reading or Reading.of(dataset.reading))
    if request.what is None or _is_files(request.what):
        place = project.state / "seen" / f"{dataset.name}.json"
        seen = SeenFiles(place) if remember and request.what is None else None
        for path in _files(project, dataset, request):
            yield (
                str(path),
                partial(_opened_file, project, path, dataset, request, reading, seen, tell),
            )
        if seen is not None:
            seen.keep()
        return
    above = None if request.since is None else _greatest(project, dataset, request.since, reading)
    (source,) = open_source(
        request.what,
        reading=reading,
        query=request.query,
        table=request.table,
        since=request.since,
        above=above,
    )
    if request.batch is not None:
        yield source.name, partial(_opened, lambda: source, dataset, tell)
    elif isinstance(source, FrameRows) and _is_whole(request.what):
        table = pa.table(request.what)
        whole = FrameRows(table, name=source.name, digest=frame_digest(table))
        yield source.name, partial(_opened, lambda: whole, dataset, tell)
    else:
        yield source.name, partial(_spooled, project, source, dataset, tell)


@contextmanager
def _opened(
    make: Callable[[], Source], dataset: Dataset, tell: Callable[[Sighted], None] | None
) -> "Iterator[Watched]":
    yield Watched(make(), dataset, tell)


@contextmanager
def _opened_file(  # noqa: PLR0917 - bound one by one
    project: Opened,
    path: Path,
    dataset: Dataset,
    request: Request,
    reading: Reading,
    seen: SeenFiles | None,
    tell: Callable[[Sighted], None] | None,
) -> "Iterator[Watched]":
    """Open a file; one that has landed and is as it was is not read to be known."""
    found = path.stat() if seen is not None and path.exists() else None
    known = None if seen is None else seen.find(path)
    if known is not None and project.lake.last_batch(dataset.name, f"file:{known}") is None:
        known = None
    source = open_file(path, format=request.format, reading=reading, digest=known)
    if seen is not None and found is not None and source.digest is not None:
        seen.note(path, found, source.digest)
    yield Watched(source, dataset, tell)


@contextmanager
def _spooled(
    project: Opened, source: Source, dataset: Dataset, tell: Callable[[Sighted], None] | None
) -> "Iterator[Watched]":
    """Write what comes to a file first: only then is it known by its content."""
    watched = Watched(source, dataset, tell)
    with spooled(watched, wanted_of(project, dataset), folder=project.state / "incoming") as written:
        yield Watched(written, dataset, None)


def expected_types(dataset: Dataset, reading: Reading) -> Reading:
    """Add what the declaration tells about types: a rule about numbers is about a column of numbers."""
    types = {dataset.event_at: "instant"}
    if dataset.known_at is not None:
        types[dataset.known_at] = "instant"
    for rule in dataset.checks:
        kind = _TYPES_BY_RULE.get(rule.kind)
        if rule.kind == "between":
            bounds = {type(each) for each in (rule.low, rule.high) if each is not None}
            kind = "instant" if rule.instants else "number" if bounds <= {int, float} else "string"
        if rule.kind == "one_of" and all(isinstance(each, str) for each in rule.values):
            kind = "string"
        if kind is not None:
            types |= {column: kind for column in rule.columns if column not in types}
    return replace(reading, types={**types, **reading.types})


def _files(project: Opened, dataset: Dataset, request: Request) -> list[Path]:
    if request.what is None:
        if dataset.files is None:
            raise ConfigError(
                f"say what to ingest into {dataset.name!r}, or declare where its files come from: "
                f'noria.Dataset("{dataset.name}", files="data/{dataset.name}/*.csv", ...)'
            )
        try:
            files = find_files([dataset.files], folder=project.root)
        except SourceError:
            return []  # none has come yet
    else:
        files = find_files([request.what] if isinstance(request.what, str | Path) else request.what)
    if request.batch is not None and len(files) > 1:
        raise ConfigError(
            f"{len(files)} files cannot be one batch; give the number {request.batch} to one, or none: "
            "a file is known by its content"
        )
    return files


def app_of(source: "Watched", request: Request) -> str:
    """Name the sequence to which the batch belongs: for what is known by its content, one of its own."""
    if request.batch is not None:
        return "ingest"
    kind = "file" if _is_files(request.what) or request.what is None else "content"
    return f"{kind}:{source.digest}"


def _is_files(what: Any) -> bool:
    if isinstance(what, list | tuple):
        return True
    return isinstance(what, Path) or (
        isinstance(what, str) and ("://" not in what or what.startswith("file://"))
    )


def is_numbered_frame(request: Request) -> bool:
    """Say whether it is a frame that the lake itself holds against what came under its number before."""
    return request.batch is not None and hasattr(request.what, "__arrow_c_stream__")


def _is_whole(frame: Any) -> bool:
    """Say whether a frame is in memory already, rather than a stream."""
    return isinstance(frame, pa.Table | pa.RecordBatch) or hasattr(frame, "__len__")


def wanted_of(project: Opened, dataset: Dataset) -> pa.Schema | None:
    """Give the columns that a source has to have, where that is known: of the table, or declared."""
    declared = declared_schema(dataset)
    if declared is not None:
        return declared
    return project.lake.schema(dataset.name) if project.lake.exists(dataset.name) else None


def _greatest(project: Opened, dataset: Dataset, column: str, reading: Reading) -> Any:
    """Give the greatest value of a column that has landed, as the database would write it."""
    if not project.lake.exists(dataset.name):
        return None
    reader = project.lake.reader(dataset.name)
    if column not in reader.schema.names:
        raise NotFound("column", column, reader.schema.names)
    found = [pc.max(batch[column]) for batch in reader.to_batches(columns=[column])]
    values = [each.as_py() for each in found if each.is_valid]
    if not values:
        return None
    value = max(values)
    if isinstance(value, datetime) and value.tzinfo is not None and reading.time_zone is not None:
        return value.astimezone(ZoneInfo(reading.time_zone)).replace(tzinfo=None)
    return value


def shown(project: Opened, name: str) -> str:
    """Name a file below the project's folder from there on."""
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(project.root):
        return str(path.relative_to(project.root))
    return name


class Watched:
    """A source of a dataset: it is asked for what the dataset has to have, and tells how far it is."""

    def __init__(
        self, source: Source, dataset: Dataset, tell: Callable[[Sighted], None] | None = None
    ) -> None:
        self._source, self._dataset, self._tell = source, dataset, tell
        self.name = source.name

    @property
    def digest(self) -> str | None:
        """The sha256 of the content."""
        return self._source.digest

    def where(self, place: int) -> str | None:
        """Say where something stands that was given; see `noria.lake.sources.contract.Source`."""
        return self._source.where(place)

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, and what is none."""
        rows = unreadable = 0
        for piece in self._source.pieces(self._own(wanted)):
            yield piece
            if isinstance(piece, pa.RecordBatch):
                rows += piece.num_rows
            else:
                unreadable += len(piece)
            if self._tell is not None:
                read, size = self._source.bytes_read, self._source.size_bytes
                self._tell(Sighted(self.name, rows + unreadable, unreadable, read, size))

    def _own(self, wanted: pa.Schema | None) -> pa.Schema | None:
        """Leave out what the lake adds."""
        added = self._dataset.known_at_column
        if wanted is None or self._dataset.known_at is not None or added not in wanted.names:
            return wanted
        return wanted.remove(wanted.names.index(added))
