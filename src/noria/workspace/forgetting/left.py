"""What forgetting a subject does not reach: looked for and told, with what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from noria.errors import ConfigError, DigestMismatch, NotFound
from noria.lake.finding import Carrying, text_of
from noria.ledger.tables import events, runs, versions
from noria.pipelines.words import Words
from noria.records import canonical_json
from noria.tracking.tables import artifacts, run_tags
from noria.workspace.forgetting.records import Holding
from noria.workspace.forgetting.stores import Asked

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

__all__ = ["Left", "Vocabularies"]

_SHORTEST = 4  # shorter texts stand in many records for something else
_IN_SQL = 50  # texts; SQLite takes no thousand of them
_AT_ONCE = 1_000
_RECORDS: tuple[tuple["Table", tuple["Column[str]", ...]], ...] = (
    (events, (events.c.payload,)),
    (runs, (runs.c.params, runs.c.error)),
    (versions, (versions.c.facts,)),
    (run_tags, (run_tags.c.value,)),
)


def _texts(asked: Asked) -> list[str]:
    return [text for each in asked.trail.values if len(text := text_of(each)) >= _SHORTEST]


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """Model versions whose vocabulary or profile names the subject: these are part of what they learned."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Name them."""
        registry, storage = self.asked.project.registry, self.asked.project.storage
        wanted = _texts(self.asked)
        words = Words(wanted)
        for version in self.asked.descent.of("model") if wanted else ():
            try:
                manifest = registry.read_manifest(version)
                profile = storage.get(manifest.parts["profile"].sha256).decode()
            except (NotFound, DigestMismatch, ConfigError):
                continue  # its samples were told of as left, for this very reason
            if words.are_in(canonical_json(manifest).decode()) or words.are_in(profile):
                told = (
                    "its vocabulary or its profile names the subject, as one value of a category; train a "
                    "version without, and deploy that"
                )
                yield Holding(kind="model", name=version.ref, state="left", held=1, told=told)

    def forget(self) -> Iterator[Holding]:
        """Name them."""
        yield from self.look()


@dataclass(frozen=True, slots=True)
class Left:
    """Records that cannot be changed, rendered reports, other data about the subject, files of one's own."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Look for them."""
        yield from self._strays()
        yield from self._records()
        yield from self._reports()
        yield from self._statistics()
        yield from self._others()
        yield from self._sources()
        yield from self._artifacts()

    def forget(self) -> Iterator[Holding]:
        """Look for them."""
        yield from self.look()

    def _strays(self) -> Iterator[Holding]:
        asked = self.asked
        found = {name: held.strays for name, held in asked.trail.held.items() if held.strays} | asked.strays
        for name, files in found.items():
            told = (
                "files of a batch that was killed before it landed, or that is being written: once nobody "
                f"writes, `noria dataset vacuum {name} --retention 1s` removes them"
            )
            yield Holding(kind="table", name=name, state="left", held=files, told=told)

    def _records(self) -> Iterator[Holding]:
        wanted = _texts(self.asked)
        if not wanted:
            return
        ledger, words = self.asked.project.ledger, Words(wanted)
        for table, columns in _RECORDS:
            query = select(*columns)
            if len(wanted) <= _IN_SQL:  # the database leaves out what nobody has to read
                query = query.where(
                    or_(*(each.contains(text, autoescape=True) for each in columns for text in wanted))
                )
            with ledger.database.read() as connection:
                rows = connection.execution_options(yield_per=_AT_ONCE).execute(query)
                count = sum(
                    any(words.are_in(str(value)) for value in row if value is not None) for row in rows
                )
            if count:
                told = (
                    "names the subject, such as by a parameter that somebody gave; the ledger is a chain, of "
                    "which nothing can be taken"
                )
                yield Holding(kind="record", name=table.name, state="left", held=count, told=told)

    def _reports(self) -> Iterator[Holding]:
        for version in self.asked.descent.of("report"):
            told = "it shows what was there; pages that were drawn are files of `.noria/dashboards`, or yours"
            yield Holding(kind="report", name=version.ref, state="left", told=told)

    def _statistics(self) -> Iterator[Holding]:
        """Find statistics and explanations that name the subject; else they hold shares and means, no row."""
        wanted = _texts(self.asked)
        words = Words(wanted)
        kept = [
            each for kind in ("feature_statistics", "explanation") for each in self.asked.descent.of(kind)
        ]
        for version in kept if wanted else ():
            try:
                report = self.asked.project.storage.get(version.sha256).decode()
            except NotFound:
                continue  # nothing of it is there
            if words.are_in(report):
                told = "it names the subject, as one of the most frequent values of a category"
                kind = "explanation" if version.kind == "explanation" else "statistics"
                yield Holding(kind=kind, name=version.ref, state="left", held=1, told=told)

    def _others(self) -> Iterator[Holding]:
        """Find other datasets that hold rows of the entity: they are data of their own."""
        project, trail = self.asked.project, self.asked.trail
        for name in sorted({*project.declarations.datasets} - {trail.dataset, *trail.tables}):
            if project.lake.exists(name) and trail.column in project.lake.schema(name).names:
                held = project.lake.search(name, Carrying({(trail.column,): trail.values}))
                if held.files:
                    told = (
                        f"a dataset of its own with such a {trail.column!r}; forget there as well: "
                        f"`noria dataset forget {name} {trail.column} ...`"
                    )
                    yield Holding(kind="dataset", name=name, state="left", held=max(1, held.rows), told=told)

    def _sources(self) -> Iterator[Holding]:
        project, dataset = self.asked.project, self.asked.trail.dataset
        found = {
            str(each.params.get("source") or "")
            for each in project.ledger.list_runs(kind="ingest", name=dataset)
        }
        for source in sorted(found - {""}):
            if (project.root / source).is_file():
                told = "it was taken in from here and is yours: noria changes no such file"
                yield Holding(kind="file", name=source, state="left", told=told)

    def _artifacts(self) -> Iterator[Holding]:
        """Count the files that runs have logged which read the subject's data."""
        for run in self.asked.descent.runs.values():
            below = f"{run.experiment}/{run.id}"
            query = select(func.count()).where(artifacts.c.path > f"{below}/", artifacts.c.path < f"{below}0")
            with self.asked.project.ledger.database.read() as connection:
                count = connection.execute(query).scalar_one()
            if count:
                told = "files that the run logged are yours and were not looked into; see which hold it"
                yield Holding(kind="artifacts", name=f"run/{run.id}", state="left", held=count, told=told)
