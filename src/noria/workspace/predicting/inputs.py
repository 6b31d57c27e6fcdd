"""The rows of a batch, wherever they come from, as parts that any process can read by itself.

Parquet files are read where they lie, by row groups. Whatever else there is (CSV, JSON lines, tables, answers
of queries, frames) is taken in once, piece by piece, into an Arrow file in the batch's folder.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from noria.errors import ConfigError, NotFound, SourceError
from noria.lake.reading import Reading
from noria.lake.schema import as_table
from noria.lake.sources.files import SourceFile
from noria.lake.sources.opening import find_files, open_file
from noria.lake.versions import stored_versions
from noria.records import Version, VersionRef, digest_of
from noria.serving.binding import RequestPlan
from noria.workspace.predicting.columns import check_columns, columns_read, wanted_types
from noria.workspace.predicting.records import Asked, Part
from noria.workspace.querying import limits_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Input", "TakenIn", "open_input", "spool_identity"]

ROWS_PER_PART = 262_144
_ROWS_PER_BATCH = 65_536
_ENDS = (".arrow", ".csv", ".feather", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".tsv")
_PACKED = (".bz2", ".gz", ".xz", ".zst")
_LINES = msgspec.json.Encoder(enc_hook=str)
Tell = Callable[[int, int | None], None]  # rows taken in, of how many


@dataclass(slots=True)
class TakenIn:
    """The rows of an input as parts.

    Attributes
    ----------
    rejected
        How many rows were none; they are in `reading.rejected` of the folder.
    """

    schema: pa.Schema
    parts: list[Part] = field(default_factory=list)
    rejected: int = 0

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(each.rows for each in self.parts)


@dataclass(frozen=True, slots=True)
class Input:
    """What rows a batch is about.

    Attributes
    ----------
    name
        For people.
    identity
        A digest of the content; None where it is known only after it was taken in.
    versions
        On record, that it comes from.
    files
        Path and digest of those that it is.
    """

    name: str
    identity: str | None
    sources: tuple["_Source", ...]
    versions: tuple[Version, ...] = ()
    files: tuple[tuple[Path, str], ...] = ()

    def take_in(
        self,
        folder: Path,
        plan: RequestPlan,
        *,
        asked: Asked,
        keep: Sequence[str] | None,
        model: str,
        tell: Tell,
    ) -> TakenIn:
        """Check the columns of all of it, then make parts of it.

        Parameters
        ----------
        folder
            Takes what has to be taken in.
        keep
            The columns that go along; None: all.

        Raises
        ------
        SourceError
            If a column is missing or of the wrong type, before any row is taken in; or it cannot be read.
        """
        with ExitStack() as opened:
            readers = [opened.enter_context(each.opened()) for each in self.sources]
            for reader in readers:
                schema = reader.schema
                if not reader.is_typed:  # what its first rows look like decides nothing
                    schema = _with_types(
                        schema, wanted_types(plan, schema, also=(), at=asked.at, names=asked.id)
                    )
                check_columns(
                    schema, plan, source=reader.name, model=model, id=asked.id, at=asked.at,
                    keep=() if keep is None else keep,
                )  # fmt: skip
            along = tuple(readers[0].schema.names if keep is None else keep)
            _check_alike(readers, along)
            taken = TakenIn(readers[0].schema)
            with (folder / "reading.rejected").open("wb") as rejects:
                for number, reader in enumerate(readers):
                    wanted = wanted_types(plan, reader.schema, also=along, at=asked.at, names=asked.id)
                    columns = columns_read(plan, reader.schema.names, id=asked.id, at=asked.at, keep=along)
                    reader.add_to(
                        _Taking(taken, folder / f"input-{number:05d}.arrow", rejects, tell), columns, wanted
                    )
            return taken

    def example(self, rows: int = 100) -> pa.Table:
        """Give the first rows of the first source, as they are."""
        with self.sources[0].opened() as reader:
            return reader.first(rows)


@dataclass(frozen=True, slots=True)
class _Taking:
    """What a source that is taken in is added to."""

    taken: TakenIn
    path: Path  # of an Arrow file
    rejects: IO[bytes]
    tell: Tell


class _Reader(ABC):
    """One source, opened: its columns are known, its rows are not read yet."""

    name: str
    schema: pa.Schema
    is_typed = True  # else its values are read as whatever is wanted

    @abstractmethod
    def add_to(self, taking: "_Taking", columns: Sequence[str], wanted: pa.Schema) -> None:
        """Add the parts."""

    @abstractmethod
    def first(self, rows: int) -> pa.Table:
        """Give the first rows."""


class _Source(ABC):
    """Something that can be opened."""

    @property
    def read(self) -> Sequence[Version]:
        """The versions that were read of what is on record; known once it was taken in."""
        return ()

    @abstractmethod
    def opened(self) -> AbstractContextManager[_Reader]:
        """Give it opened for a block."""


class _ParquetReader(_Reader):
    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        try:
            with pq.ParquetFile(path, pre_buffer=False) as opened:
                self.schema = opened.schema_arrow
                metadata = opened.metadata
                self._groups = [metadata.row_group(each).num_rows for each in range(metadata.num_row_groups)]
        except (pa.ArrowInvalid, OSError) as err:
            raise SourceError(f"{path} is no Parquet file that can be read: {err}; write it again") from err

    def add_to(self, taking: "_Taking", columns: Sequence[str], wanted: pa.Schema) -> None:
        _add_parts(taking.taken, "parquet", self._path.absolute(), self._groups, columns, name=self.name)

    def first(self, rows: int) -> pa.Table:
        with pq.ParquetFile(self._path, pre_buffer=False) as opened:
            return pa.Table.from_batches([next(opened.iter_batches(rows))], opened.schema_arrow)


class _RowsReader(_Reader):
    """Rows that come one after the other, once."""

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        pieces: Callable[[pa.Schema], Iterable[Any]],
        total: int | None = None,
    ) -> None:
        self.name, self.schema, self._pieces, self._total = name, schema, pieces, total

    def add_to(self, taking: "_Taking", columns: Sequence[str], wanted: pa.Schema) -> None:
        taken, path = taking.taken, taking.path
        schema = pa.schema([(name, _plain(wanted.field(name).type)) for name in columns])
        staged = path.with_name(f".{path.name}")
        groups: list[int] = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        before = taken.rows
        with pa.OSFile(str(staged), "wb") as file, pa.ipc.new_file(file, schema, options=options) as writer:
            for piece in self._pieces(wanted):
                if not isinstance(piece, pa.RecordBatch):
                    taken.rejected += len(piece)
                    taking.rejects.writelines(_told(each, self.name) for each in piece)
                    continue
                for begin in range(0, piece.num_rows, _ROWS_PER_BATCH):
                    part = piece.slice(begin, _ROWS_PER_BATCH)
                    writer.write_batch(_as(part, schema))
                    groups.append(part.num_rows)
                taking.tell(before + sum(groups), self._total)
        staged.replace(path)
        _add_parts(taken, "arrow", path, groups, columns, name=self.name)
        if schema.names and not taken.schema.equals(schema):
            taken.schema = _with_types(taken.schema, schema)

    def first(self, rows: int) -> pa.Table:
        batch = next(each for each in self._pieces(self.schema) if isinstance(each, pa.RecordBatch))
        return pa.Table.from_batches([batch.slice(0, rows)])


@dataclass(frozen=True, slots=True)
class _FileSource(_Source):
    path: Path
    digest: str
    format: str | None
    reading: Reading

    @contextmanager
    def opened(self) -> Iterator[_Reader]:
        source = self._source()
        if type(source).__name__ == "ParquetRows":
            yield _ParquetReader(self.path)
            return
        first = next((each for each in source.pieces(None) if isinstance(each, pa.RecordBatch)), None)
        if first is None:
            raise SourceError(f"{self.path} has no row; give a file with rows")
        reader = _RowsReader(str(self.path), first.schema, lambda wanted: self._source().pieces(wanted))
        reader.is_typed = type(source).__name__ == "ArrowRows"
        yield reader

    def _source(self) -> Any:
        return open_file(self.path, format=self.format, reading=self.reading, digest=self.digest)


@dataclass(frozen=True, slots=True)
class _TableSource(_Source):
    project: "Project"
    name: str
    version: Version | None

    @contextmanager
    def opened(self) -> Iterator[_Reader]:
        reader = self.project.lake.reader(self.name, version=self.version)

        def pieces(wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
            yield from reader.scanner(
                columns=wanted.names, batch_size=_ROWS_PER_BATCH, batch_readahead=2, fragment_readahead=1
            ).to_batches()

        yield _RowsReader(f"table {self.name!r}", reader.schema, pieces, reader.count_rows())


@dataclass(frozen=True, slots=True)
class _QuerySource(_Source):
    project: "Project"
    sql: str
    found: list[Version]

    @property
    def read(self) -> Sequence[Version]:
        return self.found

    @contextmanager
    def opened(self) -> Iterator[_Reader]:
        from noria.warehouse.query import answering
        from noria.workspace.tables import ProjectTables

        tables = ProjectTables(self.project, is_recorded=True)
        with answering(
            self.sql, tables, travel=tables.as_it_was, limits=limits_of(self.project, None)
        ) as answer:
            yield _RowsReader("the query", answer.schema, lambda _: answer)
        self.found.extend(each for each in tables.read.values() if each is not None)


@dataclass(frozen=True, slots=True)
class _FrameSource(_Source):
    frame: Any

    @contextmanager
    def opened(self) -> Iterator[_Reader]:
        if hasattr(self.frame, "__arrow_c_stream__") and not isinstance(self.frame, pa.Table):
            with pa.RecordBatchReader.from_stream(self.frame) as reader:
                yield _RowsReader("the frame", reader.schema, lambda _: reader)
            return
        table = as_table(self.frame, name="frame")
        yield _RowsReader("the frame", table.schema, lambda _: table.to_reader(), table.num_rows)


def open_input(
    project: "Project", what: Any, *, sql: bool, format: str | None, reading: Reading | None
) -> Input:
    """Find out what the input is; nothing but digests is read yet.

    Parameters
    ----------
    what
        A file, a folder, a pattern or several of them; the name of a table, with `:3` a version of it; a
        frame; or with `sql` a SELECT.

    Raises
    ------
    NotFound
        If it is neither a file nor a table.
    SourceError
        If a file cannot be read, or a folder holds none.
    """
    if sql:
        return Input("a query", None, (_QuerySource(project, str(what), []),))
    if isinstance(what, str | Path) and not _is_path(what):
        return _table(project, str(what))
    if isinstance(what, str | Path | list | tuple):
        several = list(what) if isinstance(what, list | tuple) else [what]
        reading = _only_wanted(reading)
        files = [file for each in several for file in _files(Path(each))]
        digests = [SourceFile(file).digest for file in files]
        identity = digest_of({"files": digests, "reading": repr(reading), "format": format or ""})
        sources = [_FileSource(*each, format, reading) for each in zip(files, digests, strict=True)]
        name = str(several[0]) if len(several) == 1 else f"{len(files)} files"
        return Input(name, identity, tuple(sources), files=tuple(zip(files, digests, strict=True)))
    return Input("a frame", None, (_FrameSource(what),))


def spool_identity(taken: TakenIn) -> str:
    """Give the digest of what was taken in."""
    found = hashlib.sha256()
    for path in dict.fromkeys(each.path for each in taken.parts):
        with Path(path).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _is_path(what: str | Path) -> bool:
    text = str(what)
    return isinstance(what, Path) or any(each in text for each in "/*?[.") or Path(text).exists()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return find_files([path])
    found = sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not each.name.startswith((".", "_")) and _known(each)
    )
    if not found:
        raise SourceError(f"the folder {path} holds no file of rows ({', '.join(_ENDS)}); name one that does")
    return found


def _known(path: Path) -> bool:
    ends = [each.lower() for each in path.suffixes]
    if ends and ends[-1] in _PACKED:
        ends = ends[:-1]
    return bool(ends) and ends[-1] in _ENDS


def _only_wanted(reading: Reading | None) -> Reading:
    from dataclasses import replace

    return replace(reading or Reading(), only_wanted=True)


def _table(project: "Project", name: str) -> Input:
    try:
        wanted = VersionRef.parse(name)
    except ValueError as err:
        raise ConfigError(f"the input {name!r} is no file, and names no table: {err}") from err
    if not project.lake.exists(wanted.name):
        raise NotFound("table", wanted.name, project.lake.names())
    versions = stored_versions(project.ledger, wanted.name)
    if wanted.number is not None:
        versions = [each for each in versions if each.number == wanted.number]
        if not versions:
            raise NotFound(
                "dataset version", name, [each.ref for each in stored_versions(project.ledger, wanted.name)]
            )
    version = versions[-1] if versions else None
    identity = project.lake.version_digest(wanted.name) if version is None else version.sha256
    source = _TableSource(project, wanted.name, version)
    return Input(
        name,
        digest_of({"table": wanted.name, "sha256": identity}),
        (source,),
        () if version is None else (version,),
    )


def _check_alike(readers: Sequence[_Reader], along: Sequence[str]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        for name in along:
            wanted, found = first.schema.field(name).type, reader.schema.field(name).type
            if found != wanted:
                raise SourceError(
                    f"{reader.name} has {name!r} as {found}, {first.name} as {wanted}; a column that goes "
                    "along has one type in all files"
                )


def _add_parts(
    taken: TakenIn, format: Any, path: Path, groups: Sequence[int], columns: Sequence[str], *, name: str
) -> None:
    """Put groups of rows together, up to so many rows."""
    first, offset, start, rows = taken.rows, 0, 0, 0
    for number, size in enumerate(groups):
        rows += size
        last = number == len(groups) - 1
        if rows >= ROWS_PER_PART or last:
            if rows:
                taken.parts.append(
                    Part(
                        format=format,
                        path=str(path),
                        groups=tuple(range(start, number + 1)),
                        columns=tuple(columns),
                        rows=rows,
                        first=first + offset,
                        offset=offset,
                        name=name,
                    )
                )
            offset, start, rows = offset + rows, number + 1, 0


def _told(each: Any, source: str) -> bytes:
    line = {"source": source, "row": each.row + 1, "reason": each.reason, "raw": each.payload}
    return _LINES.encode(line) + b"\n"


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give the columns of a schema; a type that is not that is cast where this loses nothing that counts."""
    columns = []
    for each in schema:
        column = batch.column(each.name)
        columns.append(column if column.type == each.type else column.cast(each.type, safe=False))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _with_types(schema: pa.Schema, known: pa.Schema) -> pa.Schema:
    """Give a schema with the types that its columns were taken in by."""
    return pa.schema([known.field(each.name) if each.name in known.names else each for each in schema])
