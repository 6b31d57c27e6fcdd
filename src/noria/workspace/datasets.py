"""The catalogue: what data there is, who owns it, how fresh it is, where it comes from and who reads it."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pyarrow as pa

from noria.clock import parse_instant
from noria.errors import ConfigError, NotFound
from noria.lake.blocked import find_blocked
from noria.lake.declarations import Dataset
from noria.lake.versions import stored_versions
from noria.records import Event, Run, Version
from noria.workspace.features.sources import reads_table
from noria.workspace.freshness import told_stale
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["ColumnShown", "DatasetDetails", "DatasetSummary", "Datasets", "Reader", "Writer"]

_SHOWN_VERSIONS = 20  # whose writers and readers are looked up: what is older is asked of `query`


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset at a glance; None where nothing has landed, or nothing is known.

    Attributes
    ----------
    is_declared
        Whether a module of the project declares it; else it is there from before.
    is_blocked
        Whether it lacks a batch that broke its contract; see `noria.lake.blocked`.
    stale
        How old it is where that is older than its check `fresh` allows; None where it is not.
    """

    name: str
    is_declared: bool
    owner: str | None
    description: str | None
    tags: tuple[str, ...]
    version: int | None
    rows: int | None
    rejected: int | None
    landed_at: datetime | None
    is_blocked: bool
    stale: str | None = None


class ColumnShown(msgspec.Struct, frozen=True, kw_only=True):
    """One column, by the statistics of its files; None where these do not say."""

    name: str
    type: str
    nulls: int | None
    low: Any
    high: Any


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """A run that made a version, and what it had read for it."""

    run: str
    kind: str
    version: str
    source: str | None
    accepted: int | None
    rejected: int | None
    read: tuple[str, ...]
    at: datetime


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who reads it: a run, or a declaration."""

    kind: str  # "train", "step", ... or "feature view", "training"
    name: str
    versions: tuple[str, ...]  # that it has read; none of a declaration
    wrote: tuple[str, ...]


class DatasetDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell about one dataset.

    Attributes
    ----------
    newest_event_at, newest_known_at
        How fresh it is.
    versions
        The newest, newest first.
    changes
        What became of its columns, oldest first.
    """

    summary: DatasetSummary
    key: tuple[str, ...]
    event_at: str | None
    known_at: str | None
    checks: tuple[str, ...]
    max_rejected_share: float | None
    files: str | None
    write: str | None
    size_bytes: int | None
    newest_event_at: datetime | None
    newest_known_at: datetime | None
    columns: tuple[ColumnShown, ...]
    changes: tuple[Event, ...]
    versions: tuple[Version, ...]
    version_count: int
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]


class Datasets:
    """What data a project has."""

    def __init__(self, project: Opened) -> None:
        self._project = project

    def list(self) -> list[DatasetSummary]:
        """List every dataset that is declared, or has landed, by name."""
        newest: dict[str, Version] = {}
        if self._project.has_begun:
            versions = self._project.ledger.list_versions(kind="dataset")
            newest = {each.name: each for each in versions}  # they come by number: the last one stays
        stale = told_stale(self._project)
        return [
            self._summary(name, newest.get(name), stale.get(name))
            for name in sorted({*self._declared, *newest})
        ]

    def show(self, name: str) -> DatasetDetails:
        """Tell all about one dataset. Raises `NotFound`, which says what exists."""
        known = {each.name: each for each in self.list()}
        if name not in known:
            raise NotFound("dataset", name, known)
        declared = self._declared.get(name)
        versions = (
            self._project.ledger.list_versions(kind="dataset", name=name) if self._project.has_begun else []
        )
        shown = versions[::-1][:_SHOWN_VERSIONS]
        statistics = self._project.lake.statistics(name) if self._exists(name) else None
        columns = {} if statistics is None else statistics.columns
        event_at = None if declared is None else declared.event_at
        known_at = None if declared is None else declared.known_at_column
        return DatasetDetails(
            summary=known[name],
            key=() if declared is None else declared.keys,
            event_at=event_at,
            known_at=known_at,
            checks=() if declared is None else tuple(each.name for each in declared.checks),
            max_rejected_share=None if declared is None else declared.max_rejected_share,
            files=None if declared is None else declared.files,
            write=None if declared is None else declared.write,
            size_bytes=None if statistics is None else statistics.size_bytes,
            newest_event_at=_high(columns, event_at),
            newest_known_at=_high(columns, known_at),
            columns=tuple(
                ColumnShown(name=column, type=each.type, nulls=each.nulls, low=each.low, high=each.high)
                for column, each in columns.items()
            ),
            changes=tuple(self._events("dataset.evolved", name)),
            versions=tuple(shown),
            version_count=len(versions),
            writers=tuple(self._writers(shown)),
            readers=(*self._declared_readers(declared), *self._readers(shown)),
        )

    def read(
        self, name: str, *, version: int | None = None, at: datetime | str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Give the rows of a dataset in pieces: as they are, of a version, or as they stood at an instant.

        Raises
        ------
        NotFound
            If there is no such dataset or version; says what exists.
        ConfigError
            If both a version and an instant are asked for.
        """
        yield from self._reader(name, version, at).scanner().to_batches()

    def schema(self, name: str, *, version: int | None = None, at: datetime | str | None = None) -> pa.Schema:
        """Give the columns of what `read` gives. Raises like it."""
        return self._reader(name, version, at).schema

    def _reader(self, name: str, version: int | None, at: datetime | str | None) -> Any:
        if version is not None and at is not None:
            raise ConfigError("a version and an instant are asked for; give one of them")
        is_past = version is not None or at is not None
        if not self._exists(name) and not (is_past and self._was(name)):
            raise NotFound("table", name, self._project.lake.names() if self._project.has_begun else ())
        try:
            instant = parse_instant(at) if isinstance(at, str) else at
        except ValueError as err:
            raise ConfigError(f"{at!r} is no instant; write for example 2024-03-02T12:00Z") from err
        return self._project.lake.reader(name, version=version, at=instant)

    @property
    def _declared(self) -> dict[str, Dataset]:
        """The declared datasets, and the tables of declared folders of files."""
        declared = self._project.declarations
        return {**declared.datasets, **{name: each.dataset for name, each in declared.files.items()}}

    def _exists(self, name: str) -> bool:
        return self._project.has_begun and self._project.lake.exists(name)

    def _was(self, name: str) -> bool:
        """Tell whether versions of a table are on record, though it was dropped."""
        return self._project.has_begun and bool(stored_versions(self._project.ledger, name))

    def _summary(self, name: str, newest: Version | None, stale: str | None) -> DatasetSummary:
        declared = self._declared.get(name)
        rejected = f"{name}__rejected"
        return DatasetSummary(
            name=name,
            is_declared=declared is not None,
            owner=None if declared is None else declared.owner,
            description=None if declared is None else declared.description,
            tags=() if declared is None else tuple(declared.tags),
            version=None if newest is None else newest.number,
            rows=None if newest is None else newest.facts.get("rows"),
            rejected=self._project.lake.statistics(rejected).rows if self._exists(rejected) else None,
            landed_at=None if newest is None else newest.at,
            is_blocked=self._is_blocked(name),
            stale=stale,
        )

    def _is_blocked(self, name: str) -> bool:
        return self._project.has_begun and find_blocked(self._project.ledger, name) is not None

    def _events(
        self, verb: str, name: str, *, newest_first: bool = False, limit: int | None = None
    ) -> Sequence[Event]:
        if not self._project.has_begun:
            return []
        return self._project.ledger.list_events(
            verb=verb, subject=name, newest_first=newest_first, limit=limit
        )

    def _writers(self, versions: Iterable[Version]) -> Iterator[Writer]:
        for version in versions:
            if version.run is None:
                continue
            run = self._project.ledger.get_run(version.run)
            yield Writer(
                run=run.id,
                kind=run.kind,
                version=version.ref,
                source=run.params.get("source"),
                accepted=version.facts.get("accepted"),
                rejected=version.facts.get("rejected"),
                read=self._refs(run, "input"),
                at=version.at,
            )

    def _readers(self, versions: Iterable[Version]) -> Iterator[Reader]:
        """Tell which runs have read these versions, those of one name together."""
        found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
        for version in versions:
            for edge in self._project.ledger.list_edges(version=version.id):
                if edge.role != "input":
                    continue
                run = self._project.ledger.get_run(edge.run)
                read, wrote = found.setdefault((run.kind, run.name), ({}, {}))
                read[version.ref] = None
                wrote |= dict.fromkeys(self._refs(run, "output"))
        for (kind, name), (read, wrote) in sorted(found.items()):
            yield Reader(kind=kind, name=name, versions=tuple(read), wrote=tuple(wrote))

    def _refs(self, run: Run, role: str) -> tuple[str, ...]:
        ledger = self._project.ledger
        edges = [each for each in ledger.list_edges(run=run.id) if each.role == role]
        return tuple(ledger.get_version_by_id(each.version).ref for each in edges)

    def _declared_readers(self, dataset: Dataset | None) -> Iterator[Reader]:
        if dataset is None:
            return
        declared = self._project.declarations
        for view in declared.views.values():
            if reads_table(cast("Project", self._project), view.spec(), dataset.name):
                yield Reader(kind="feature view", name=view.name, versions=(), wrote=())
        for training in declared.trainings.values():
            sources = {training.spine.source.name, training.label.source.name}
            if dataset.name in sources:
                yield Reader(kind="training", name=training.name, versions=(), wrote=())


def _high(columns: Any, name: str | None) -> datetime | None:
    found = columns.get(name)
    value = None if found is None else found.high
    return value if isinstance(value, datetime) else None
