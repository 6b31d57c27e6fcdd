"""What is derived from a subject's rows and lies in the lake or beside it: rows, samples, results, events.

Each class is one `noria.workspace.forgetting.records.Store`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.checks.verdicts import row_json
from noria.errors import ConfigError, DigestMismatch, LeaseHeld, NoriaError, NotFound
from noria.lake.finding import Carrying, Finder, InPayload, Orphans, Subject, text_of
from noria.lake.rejected import rejected_name
from noria.pipelines.forgetting import forget_in_logs, forget_results
from noria.registry.forgetting import drop_old_samples, parts_of_models, put_samples, scored
from noria.replay.loop import feature_table
from noria.streams.erasing import ErasableStream
from noria.streams.opening import open_stream
from noria.workspace.file_sets import alone, kept_of
from noria.workspace.forgetting.records import Holding, State
from noria.workspace.forgetting.trail import Descent, Trail

if TYPE_CHECKING:
    from noria.lake.forgetting import Held
    from noria.records import Version
    from noria.registry.store import LoadedModel
    from noria.streams.contract import StreamEvent
    from noria.streams.declarations import Stream
    from noria.workspace.project import Project

__all__ = ["Asked", "Blobs", "Derived", "Events", "Own", "Repairs", "Results", "Samples"]

_REPAIRED = ("app", "batch", "row", "digest")


@dataclass(frozen=True, slots=True)
class Asked:
    """What all stores are told: the project, what is followed, why it was asked for, and what led to it.

    Attributes
    ----------
    rewritten
        Model versions whose samples have been written anew.
    strays
        Table -> files with rows of the subject that never were part of it.
    """

    project: "Project"
    trail: Trail
    descent: Descent
    reason: str
    cause: str | None
    rewritten: set[str] = field(default_factory=set)
    strays: dict[str, int] = field(default_factory=dict)

    def erase(self, table: str, find: Finder, *, kind: str, told: str = "") -> Holding:
        """Take rows out of a table and its older versions."""
        about = {"of": self.trail.dataset, "column": self.trail.column, "subjects": len(self.trail.values)}
        lake = self.project.lake
        held = self._searched(table, find)
        done = lake.erase(table, find, about=about, reason=self.reason, cause=self.cause)
        return Holding(
            kind=kind,
            name=table,
            state="forgotten" if done.files else "nothing",
            held=max(held.rows, done.rows, min(1, done.files)),
            versions=_refs(done.versions),
            told=told,
        )

    def look(self, table: str, find: Finder, *, kind: str, told: str = "") -> Holding:
        """Tell what a table and its older versions hold."""
        held = self._searched(table, find)
        return Holding(
            kind=kind,
            name=table,
            state="forgotten" if held.files else "nothing",
            held=max(held.rows, min(1, held.files)),
            versions=_refs(held.versions),
            told=told,
        )

    def _searched(self, table: str, find: Finder) -> "Held":
        held = self.project.lake.search(table, find)
        if held.strays:
            self.strays[table] = held.strays
        return held


def _refs(versions: Sequence["Version"]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.ref for each in versions))


@dataclass(frozen=True, slots=True)
class Own:
    """The dataset's own rows, and its rejected ones."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell what was found when the trail was."""
        for name, held in self.asked.trail.held.items():
            yield Holding(
                kind="dataset",
                name=name,
                state="forgotten" if held.files else "nothing",
                held=max(held.rows, min(1, held.files)),
                versions=_refs(held.versions),
            )

    def forget(self) -> Iterator[Holding]:
        """Take them out."""
        asked, trail = self.asked, self.asked.trail
        before = {each.name: each for each in self.look()}
        done = asked.project.lake.forget(
            trail.dataset, trail.column, trail.values, reason=asked.reason, cause=asked.cause
        )
        for name, held in before.items():
            mine = tuple(each for each in done.versions if each.name == name)
            yield Holding(kind="dataset", name=name, state=held.state, held=held.held, versions=_refs(mine))


@dataclass(frozen=True, slots=True)
class Repairs:
    """Notes of which rejected rows were taken in: those of rows that are no more go as well."""

    asked: Asked

    @property
    def _table(self) -> str:
        return f"{self.asked.trail.dataset}__repairs"

    def look(self) -> Iterator[Holding]:
        """Tell that there are notes."""
        if self.asked.project.lake.exists(self._table):
            rejected = self.asked.trail.held.get(rejected_name(self.asked.trail.dataset))
            state: State = "forgotten" if rejected is not None and rejected.files else "nothing"
            told = "notes of rejected rows that are forgotten go with them"
            yield Holding(kind="dataset", name=self._table, state=state, told=told)

    def forget(self) -> Iterator[Holding]:
        """Take out the notes whose rejected row is gone."""
        project, dataset = self.asked.project, self.asked.trail.dataset
        if not project.lake.exists(self._table):
            return
        rejected = project.rejected(dataset, settled=True).select(list(_REPAIRED)).to_pylist()
        left = frozenset(tuple(row.values()) for row in rejected)
        yield self.asked.erase(self._table, Orphans(_REPAIRED, left), kind="dataset")


@dataclass(frozen=True, slots=True)
class Derived:
    """Tables that were derived: the rows that carry a value go, of all versions.

    Where none of its columns does, as in sums, the newest state of a model is built anew and its older
    versions are left.
    """

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell what each holds."""
        yield from self._each(self.asked.look)

    def forget(self) -> Iterator[Holding]:
        """Take it out."""
        yield from self._each(self.asked.erase)

    def _each(self, deal: Callable[..., Holding]) -> Iterator[Holding]:
        trail = self.asked.trail
        for table, paths in trail.tables.items():
            doubt = trail.doubts.get(table, "")
            if paths:
                columns = ", ".join(".".join(path) for path in paths)
                told = f"by {columns}" + (f"; {doubt}" if doubt else "")
                yield deal(table, Carrying(paths), kind="table", told=told)
                if table in trail.changed:
                    yield self._changed(table)
                continue
            anew = "its newest state is built anew" if table in trail.models else "it is left as it is"
            told = f"no column carries a value on, as in sums: {anew}, older versions are left"
            yield Holding(kind="table", name=table, state="left", told=f"{told}; {doubt}" if doubt else told)

    def _changed(self, table: str) -> Holding:
        """Tell of values that cannot be looked for, as an expression has made others of them."""
        told = (
            f"{', '.join(self.asked.trail.changed[table])}: an expression makes something else of values, "
            "which is not looked for; the newest state is built anew, older versions may hold it. Rows with "
            f"the key beside it, or with {self.asked.trail.column!r} as it is, would be found"
        )
        return Holding(kind="table", name=table, state="left", told=told)


@dataclass(frozen=True, slots=True)
class Samples:
    """Sample rows that model versions keep: those of the subject's feature rows go.

    A sample names no subject; it is known by being equal, in all that the model reads, to a row of the
    training's feature rows that does.
    """

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell how many samples each version would lose."""
        for version in self._versions():
            found = self._found(version)
            if isinstance(found, Holding):
                yield found
            elif found:
                yield self._told(version, len(found))

    def forget(self) -> Iterator[Holding]:
        """Write them anew without."""
        project = self.asked.project
        registry, ledger, storage = project.registry, project.ledger, project.storage
        for version in self._versions():
            found = self._found(version)
            if isinstance(found, Holding):
                yield found
                continue
            if not found:
                continue
            loaded = registry.load(version)
            kept = loaded.samples.take([n for n in range(loaded.samples.num_rows) if n not in found])
            if not kept.num_rows:
                others = self._rows(version.name, without=True)
                if not others.num_rows:
                    why = "all its samples are the subject's, and there is no other row to take their place"
                    yield Holding(kind="samples", name=version.ref, state="left", held=len(found), told=why)
                    continue
                kept = scored(loaded, registry.add_on_demand(version, others.slice(0, 1)))
            put_samples(
                registry, ledger, storage, version, kept, why=self.asked.reason, cause=self.asked.cause
            )
            self.asked.rewritten.add(version.ref)
            yield self._told(version, len(found))
        drop_old_samples(registry, ledger, storage)

    def _versions(self) -> list["Version"]:
        return self.asked.descent.of("model")

    def _told(self, version: "Version", count: int) -> Holding:
        return Holding(
            kind="samples", name=version.ref, state="forgotten", held=count, versions=(version.ref,)
        )

    def _found(self, version: "Version") -> set[int] | Holding:
        """Give the places of the subject's samples; a holding where they cannot be told."""
        project, trail = self.asked.project, self.asked.trail
        table = feature_table(version.name)
        if not project.lake.exists(table):
            why = (
                f"the rows that it was trained on are not in a table {table}: which of its samples are the "
                "subject's is not known. Register it anew without them"
            )
            return Holding(kind="samples", name=version.ref, state="left", told=why)
        try:
            loaded = project.registry.load(version)
        except (NotFound, DigestMismatch, ConfigError) as err:
            told = f"it cannot be read, so neither can its samples: {err}"
            return Holding(kind="samples", name=version.ref, state="left", told=told)
        names = self._stored(version, loaded)
        if table not in trail.tables or not set(names) <= set(project.lake.schema(table).names):
            return set()
        rows = self._rows(version.name, columns=names)
        if not rows.num_rows:
            return set()
        mine = set(_tuples(rows.select(names)))
        return {place for place, each in enumerate(_tuples(loaded.samples.select(names))) if each in mine}

    def _stored(self, version: "Version", loaded: "LoadedModel") -> list[str]:
        """Name the columns of a model's samples that feature rows have: not those that are computed."""
        bundle = self.asked.project.registry.read_code(version)
        computed = {name for spec in (bundle.on_demand if bundle else ()) for name in spec.columns}
        others = {loaded.signature.output, *computed}
        return [name for name in loaded.samples.column_names if name not in others]

    def _rows(self, model: str, *, columns: Sequence[str] = (), without: bool = False) -> pa.Table:
        """Give the subject's feature rows, of all versions; or those that are not the subject's."""
        lake, table = self.asked.project.lake, feature_table(model)
        find = self.asked.trail.finder(table)
        if without:
            rows = lake.read(table)
            return rows.filter(pa.array(~find.flags(rows)))
        found = lake.search(table, find, columns=list(columns)).found
        return pa.table({}) if found is None else found


def _tuples(rows: pa.Table) -> Iterator[tuple[object, ...]]:
    """Give rows as tuples that are equal where a model sees the same."""
    yield from zip(
        *([_comparable(each) for each in column.to_pylist()] for column in rows.columns), strict=True
    )


def _comparable(value: object) -> object:
    if isinstance(value, bool | int):
        return float(value)
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Results:
    """Kept results of steps that had read the subject's rows, and what these steps have printed."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell what would go."""
        yield from self._deal(dry_run=True)

    def forget(self) -> Iterator[Holding]:
        """Let it go; steps run again when their results are needed."""
        yield from self._deal(dry_run=False)

    def _deal(self, *, dry_run: bool) -> Iterator[Holding]:
        asked, project = self.asked, self.asked.project
        runs = [each.id for each in asked.descent.runs.values() if each.kind == "step"]
        outputs = asked.descent.of("output")
        made: dict[str, Version | None] = {**dict.fromkeys(runs), **{each.id: each for each in outputs}}
        done = forget_results(
            project.ledger,
            project.storage,
            made,
            why=asked.reason,
            cause=asked.cause,
            named=parts_of_models(project.registry, project.ledger) if made else (),
            dry_run=dry_run,
        )
        if done.results or done.versions:
            yield Holding(
                kind="results",
                name="kept results",
                state="forgotten" if done.results else "nothing",
                held=done.results,
                versions=_refs(done.versions),
                told="their steps run again when they are needed",
            )
        texts = {row_json({"": each})[5:-2] for each in asked.trail.values}
        texts |= {text_of(each) for each in asked.trail.values}
        logs = forget_in_logs(project.ledger, project.storage, runs, texts, dry_run=dry_run)
        if logs:
            yield Holding(kind="logs", name="what steps printed", state="forgotten", held=logs)


@dataclass(frozen=True, slots=True)
class Events:
    """Events of the streams that go into the dataset, landed or not."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Count them."""
        yield from self._deal(dry_run=True)

    def forget(self) -> Iterator[Holding]:
        """Take them out of the log."""
        yield from self._deal(dry_run=False)

    def _deal(self, *, dry_run: bool) -> Iterator[Holding]:
        project, trail = self.asked.project, self.asked.trail
        finder = InPayload(
            Subject(trail.column, trail.values), project.lake.names_of(trail.dataset, trail.column)
        )

        def is_gone(events: Sequence["StreamEvent"]) -> Sequence[bool]:
            texts = [each.payload.decode("utf-8", "backslashreplace") for each in events]
            rows = pa.table({"payload": pa.array(texts, pa.string())})
            return [bool(each) for each in finder.flags(rows)]

        for declared in project.declarations.streams.values():
            if declared.into.name == trail.dataset:
                yield self._of(declared, is_gone, dry_run=dry_run)

    def _of(self, declared: "Stream", is_gone: Any, *, dry_run: bool) -> Holding:
        project = self.asked.project
        url = project.settings.stores.stream
        try:
            source = open_stream(url, declared.name, root=project.root, partitions=declared.partitions)
        except NoriaError as err:
            return Holding(kind="stream", name=declared.name, state="left", told=str(err))
        try:
            if not isinstance(source, ErasableStream):
                why = (
                    f"the broker ({url.partition(':')[0]}) keeps its log as it is: what it holds goes by its "
                    "own rules of retention, and what has not landed yet lands"
                )
                return Holding(kind="stream", name=declared.name, state="left", told=why)
            count = source.erase(is_gone, dry_run=dry_run)
        finally:
            source.close()
        return Holding(
            kind="stream", name=declared.name, state="forgotten" if count else "nothing", held=count
        )


@dataclass(frozen=True, slots=True)
class Blobs:
    """Kept bytes of files, where the dataset is a table of files: those that no other row names."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Count them."""
        yield from self._deal(dry_run=True)

    def forget(self) -> Iterator[Holding]:
        """Remove them; before the rows that name them, and while nobody takes in others."""
        project, dataset = self.asked.project, self.asked.trail.dataset
        if dataset not in project.declarations.files:
            return
        try:
            with alone(project, dataset):
                yield from self._deal(dry_run=False)
        except LeaseHeld as err:
            told = (
                f"{err}; once it has ended, `noria dataset vacuum {dataset}` removes bytes that no row names"
            )
            yield Holding(kind="files", name=dataset, state="left", told=told)

    def _deal(self, *, dry_run: bool) -> Iterator[Holding]:
        project, trail = self.asked.project, self.asked.trail
        folders = project.declarations.files
        if trail.dataset not in folders:
            return
        find = Carrying({(trail.column,): trail.values})
        mine = project.lake.search(trail.dataset, find, columns=["sha256"]).found
        wanted = set() if mine is None else set(mine["sha256"].to_pylist())
        named: set[str] = set()
        if wanted:
            columns = ["sha256", trail.column]
            same = Carrying({("sha256",): list(wanted)})
            rows = project.lake.search(trail.dataset, same, columns=columns).found
            if rows is not None:
                named = set(rows.filter(pa.array(~find.flags(rows)))["sha256"].to_pylist())
        gone = sorted(wanted - named)
        if not dry_run:
            storage = kept_of(project, trail.dataset)
            for each in gone:
                storage.remove(each)
        if wanted:
            kept = (
                f"; {len(wanted & named)} stay, as other rows name the same bytes" if wanted & named else ""
            )
            yield Holding(
                kind="files",
                name=trail.dataset,
                state="forgotten" if gone else "nothing",
                held=len(gone),
                told=f"kept copies; the files themselves are yours{kept}",
            )
