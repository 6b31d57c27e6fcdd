"""Feast's data sources as datasets and streams."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from noria.errors import SourceError
from noria.features.feast.looking import Looked, look_at
from noria.features.feast.naming import quoted, unused_name
from noria.features.feast.records import Made, Opaque

__all__ = ["KnownAt", "Source", "Sources", "Tell"]

KnownAt = Literal["created", "event"]
Tell = Callable[..., None]

_LOADED_LATE = timedelta(days=30)
_STREAM = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WRAPPERS = {"PushSource", "KafkaSource", "KinesisSource"}


@dataclass(eq=False, slots=True)
class Source:
    """A source on its way to be a dataset.

    Attributes
    ----------
    keys
        Entity columns of the views that read it, in the order in which they came.
    files
        The pattern below the project's folder.
    feast_name
        What Feast calls a column -> the column.
    """

    made: Made
    variable: str
    event_at: str
    created: str | None
    known_at: str
    files: str | None
    looked: Looked | None
    feast_name: Mapping[str, str]
    stream: str | None = None
    keys: dict[str, None] = field(default_factory=dict)

    def column(self, feast: str) -> str:
        """Give the column of the source that Feast calls so."""
        return self.feast_name.get(feast, feast)

    def lines(self) -> Iterator[str]:
        """Write it as Python."""
        key = [*self.keys, *dict.fromkeys([self.event_at, *([self.created] if self.created else [])])]
        yield f"{self.variable} = noria.Dataset("
        yield f"    {quoted(self.variable)},"
        yield f"    key=({', '.join(map(quoted, key))}),"
        yield f"    event_at={quoted(self.event_at)},"
        yield f"    known_at={quoted(self.known_at)},"
        if self.files is not None:
            yield f"    files={quoted(self.files)},"
        if self.looked is not None and self.looked.doubled:
            yield '    write="merge",'
        yield '    reading={"time_zone": "UTC"},'
        for name in ("owner", "description"):
            told = self.made.text(name)
            if told is not None:
                yield f"    {name}={quoted(told)},"
        yield ")"
        if self.stream is not None:
            yield f"{self.variable}_stream = noria.Stream({quoted(self.stream)}, into={self.variable})"


class Sources:
    """Makes datasets of sources, each once.

    Parameters
    ----------
    repository
        The folder of the Feast repository: paths are relative to it.
    root
        The project's folder: patterns of files are below it.
    known_at
        Whether a row is known from when it was created, or from when it happened.
    taken, views
        Variables, and names of views: neither is free for a dataset.
    tell
        Takes notes.
    """

    def __init__(
        self, repository: Path, root: Path, *, known_at: KnownAt, taken: set[str], views: set[str], tell: Tell
    ) -> None:
        self._repository, self._root, self._known_at = repository, root, known_at
        self._taken, self._views, self._tell = taken, views, tell
        self._found: dict[int, Source | None] = {}

    @property
    def all(self) -> list[Source]:
        """Those that were made, in the order in which they were first read."""
        return list({id(each): each for each in self._found.values() if each is not None}.values())

    def of(self, given: Any, *, entity: Sequence[str]) -> Source | None:
        """Give the dataset of what a view reads, None if it cannot be one: then a note says why."""
        if not isinstance(given, Made):
            return None
        if id(given) not in self._found:
            self._found[id(given)] = (
                self._wrapped(given, entity)
                if given.kind in _WRAPPERS
                else (self._table(given, entity) if given.kind.endswith("Source") else None)
            )
        found = self._found[id(given)]
        if found is not None:
            found.keys |= {found.column(each): None for each in entity}
        return found

    def _wrapped(self, made: Made, entity: Sequence[str]) -> Source | None:
        """Unwrap a source of events: its rows are those of its batch source."""
        inner = made.get("batch_source")
        if isinstance(inner, Made):
            source = self.of(inner, entity=entity)
        elif made.kind == "KafkaSource" and made.text("timestamp_field"):
            source = self._table(made, entity)
        else:
            self._tell(
                made,
                what=f"source {made.name}",
                why="it has no batch source, so it keeps no rows to train from",
                instead="declare a noria.Dataset with the columns of its events, and a view of it",
            )
            return None
        if source is not None:
            self._streamed(made, source)
        return source

    def _streamed(self, made: Made, source: Source) -> None:
        if made.kind == "PushSource":
            self._tell(
                made,
                kind="differs",
                what=f"push source {made.name}",
                why="rows are pushed into the dataset, and reach the online store from there",
                instead=f"`POST /datasets/{source.variable}/rows` of `noria up`, or project.ingest",
            )
            return
        topic = made.text("topic") or made.text("stream_name") or made.name
        form = made.get("message_format") or made.get("record_format")
        is_json = isinstance(form, Made) and form.kind == "JsonFormat"
        if made.kind != "KafkaSource" or not is_json or not _STREAM.fullmatch(topic):
            self._tell(
                made,
                what=f"stream {topic}",
                why="noria reads JSON from Kafka, of topics named by letters, digits, '-' and '_'",
                instead=f"bring its events into a topic like that, and declare noria.Stream(..., into="
                f"{source.variable})",
            )
            return
        source.stream = topic
        servers = made.text("kafka_bootstrap_servers") or made.text("bootstrap_servers") or "HOST:PORT"
        self._tell(
            made,
            kind="differs",
            what=f"stream {topic}",
            why="noria's broker is a setting of the project, and types of events have to be known",
            instead=f'set `[stores] stream = "kafka://{servers}"`, and take in a batch of '
            f"{source.variable} first or declare its `schema`",
        )

    def _table(self, made: Made, entity: Sequence[str]) -> Source | None:
        mapping = made.get("field_mapping")
        feast_name = (
            {new: old for old, new in mapping.items() if isinstance(new, str)}
            if isinstance(mapping, dict)
            else {}
        )
        if mapping is not None and not isinstance(mapping, dict):
            self._tell(
                made,
                kind="differs",
                what=f"field_mapping of {made.name}",
                why="it is made by code that is not run",
                instead="correct the columns in the module",
            )
        event = made.text("timestamp_field") or made.text("event_timestamp_column")
        created = made.text("created_timestamp_column")
        event, created = (None if each is None else feast_name.get(each, each) for each in (event, created))
        path = self._path(made)
        keys = [feast_name.get(each, each) for each in entity]
        looked = self._looked(made, path, keys, event, created)
        if event is None and looked is not None and len(looked.instants) == 1:
            (event,) = looked.instants
        if event is None:
            self._tell(
                made,
                what=f"source {made.name}",
                why="it names no timestamp_field, and its file does not tell which column it is",
                instead="add timestamp_field and import again",
            )
            return None
        known_at = self._known(made, event, created, looked)
        wanted = unused_name(self._wanted_name(made), ())
        wanted = f"{wanted}_rows" if wanted in self._views else wanted  # both are tables to a query
        variable = unused_name(wanted, self._taken | self._views)
        self._taken.add(variable)
        if looked is not None and looked.doubled:
            self._tell(
                made,
                kind="differs",
                what=f"dataset {variable}",
                why=f"{looked.doubled} of the first {looked.rows} rows have the key of another one",
                instead="of those the one that came last stays, in Feast any; give a key of their own",
            )
        files = self._files(made, path, variable)
        return Source(made, variable, event, created, known_at, files, looked, feast_name)

    def _wanted_name(self, made: Made) -> str:
        path = made.text("path")
        table = made.text("table")
        return (
            made.text("name")
            or (None if path is None else Path(path).stem)
            or (None if table is None else table.rpartition(".")[2])
            or made.variable
            or made.kind
        )

    def _path(self, made: Made) -> Path | None:
        if made.kind != "FileSource":
            return None
        path = made.get("path", 0)
        if isinstance(path, Opaque) or path is None:
            self._tell(
                made,
                kind="differs",
                what=f"path of {made.name}",
                why=f"it is made by code that is not run: {getattr(path, 'text', 'nothing')}",
                instead="write `files=` of the dataset",
            )
            return None
        text = str(path)
        if "://" in text:
            return None
        try:
            (self._repository / text).resolve().exists()
        except (OSError, ValueError) as error:
            self._tell(
                made,
                kind="differs",
                what=f"path of {made.name}",
                why=f"it can be no file here: {error}",
                instead="correct it, and import again; or write `files=` of the dataset",
            )
            return None
        return self._repository / text

    def _looked(
        self, made: Made, path: Path | None, keys: Sequence[str], event: str | None, created: str | None
    ) -> Looked | None:
        form = made.get("file_format")
        if path is None or (isinstance(form, Made) and form.kind != "ParquetFormat") or not path.exists():
            return None
        try:
            return look_at(path, key=keys, event_at=event, created=created)
        except SourceError as error:
            self._tell(
                made,
                kind="differs",
                what=f"file of {made.name}",
                why=str(error),
                instead="hold columns and instants against the file yourself",
            )
            return None

    def _known(self, made: Made, event: str, created: str | None, looked: Looked | None) -> str:
        if created is None or created == event or self._known_at == "event":
            return event
        if looked is not None and looked.early:
            self._tell(
                made,
                kind="differs",
                what=f"known_at of {made.name}",
                why=f"{looked.early} of the first {looked.rows} rows have {created} before {event}; what is"
                " known before it happened is refused",
                instead=f"known_at is {event}; correct the data, then write known_at={quoted(created)}",
            )
            return event
        lag = None if looked is None else looked.lag
        late = (
            f"; half of the rows came {lag.days} days late" if lag is not None and lag > _LOADED_LATE else ""
        )
        self._tell(
            made,
            kind="differs",
            what=f"known_at of {made.name}",
            why=f"Feast chooses by {created} among rows of one instant only; noria shows a row from then on"
            + late,
            instead="if it is when rows were loaded, not when they could be used: `--known-at event`",
        )
        return created

    def _files(self, made: Made, path: Path | None, variable: str) -> str | None:
        """Give the pattern of the files below the project; else a note says how rows come in."""
        form = made.get("file_format")
        if path is None or (isinstance(form, Made) and form.kind != "ParquetFormat"):
            where = made.text("path", 0) or made.text("table") or made.text("query") or made.name
            self._tell(
                made,
                kind="differs",
                what=f"rows of {variable}",
                why=f"they are in {made.kind.removesuffix('Source')}: {' '.join(where.split())}",
                instead=f"`noria ingest {variable} URL --query SQL` of a database that SQLAlchemy knows, or "
                f"project.ingest({quoted(variable)}, FRAME)",
            )
            return None
        resolved, root = path.resolve(), self._root.resolve()
        if not resolved.is_relative_to(root):
            self._tell(
                made,
                kind="differs",
                what=f"rows of {variable}",
                why=f"{path} is not below the project's folder",
                instead=f"`noria ingest {variable} {path}`, or bring it there and write `files=`",
            )
            return None
        if not path.exists():
            self._tell(
                made,
                kind="differs",
                what=f"rows of {variable}",
                why=f"there is no {path}",
                instead="bring the file there, or correct `files=`",
            )
        pattern = resolved.relative_to(root).as_posix()
        return f"{pattern}/*.parquet" if path.is_dir() else pattern
