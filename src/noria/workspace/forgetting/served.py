"""What serving and training keep of a subject: predictions, answers, online features, routes, training sets.

Each class is one `noria.workspace.forgetting.records.Store`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from noria.audit.training_sets import training_set_digest
from noria.clock import from_micros
from noria.deploy.collecting import collect_predictions
from noria.deploy.releases import Release, read_release
from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError, DigestMismatch, LeaseHeld, NotFound, SourceError
from noria.lake.finding import Carrying, text_of
from noria.ledger.redacted import expected_digest, record_redacted
from noria.monitoring.outcomes import OUTCOMES, collect_outcomes
from noria.records import VersionRef
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import decode_frame
from noria.serving.logs.outcomes import OUTCOME_INDEX, OutcomeIndex
from noria.serving.process.hosting import INDEX
from noria.serving.records import ROUTE_FILE, Route, read_record, write_record
from noria.streams.spool import read_spool
from noria.workspace.endpoints import release_samples
from noria.workspace.features.following import ViewsFollowed, reading_store, writing_store
from noria.workspace.features.needs import declared_specs
from noria.workspace.features.sources import FeatureSources, tables_behind
from noria.workspace.forgetting.records import Holding
from noria.workspace.forgetting.stores import Asked

if TYPE_CHECKING:
    from pathlib import Path

    from noria.deploy.supervisor import Supervisor
    from noria.features.declarations import ViewSpec
    from noria.features.online import OnlineStore

__all__ = ["Online", "Predictions", "Routes", "TrainingSets"]

_CLOCK_TICK_US = 1


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions that were asked for the subject, their outcomes, and the answers kept for retries."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell what there is."""
        if not self._is_asked_about:
            return
        ids = self._ids()
        for supervisor, name in self._deployments():
            yield self._waiting(supervisor, name)
            with PredictionIndex(supervisor.folder / name / INDEX) as index:
                yield self._answers(supervisor, name, len(_among(index, ids)))
        for table, find in self._tables(ids):
            yield self.asked.look(table, find, kind="predictions")

    def forget(self) -> Iterator[Holding]:
        """Move what is logged into the lake, and take it out there; last of all what tells the ids."""
        if not self._is_asked_about:
            return
        lake = self.asked.project.lake
        for supervisor, name in self._deployments():
            try:
                collect_predictions(supervisor, name, lake)
                collect_outcomes(supervisor, name, lake)
            except LeaseHeld:
                yield self._waiting(supervisor, name, is_held=True)
        yield from self._outcomes_waiting()
        ids = self._ids()
        for supervisor, name in self._deployments():
            with PredictionIndex(supervisor.folder / name / INDEX) as index:
                yield self._answers(supervisor, name, index.forget(_among(index, ids)))
            outcomes = supervisor.folder / name / OUTCOME_INDEX
            if outcomes.is_dir():
                with OutcomeIndex(outcomes) as recorded:
                    recorded.forget(_among(recorded, ids))
        for table, find in self._tables(ids):
            yield self.asked.erase(table, find, kind="predictions")

    def _outcomes_waiting(self) -> Iterator[Holding]:
        """Tell of outcomes that a replay has recorded and not yet moved into the lake."""
        waiting = sum(1 for _ in read_spool(self.asked.project.streams_path() / OUTCOMES))
        if waiting:
            told = "recorded and not yet in the lake: go on with the replay, then forget again"
            yield Holding(kind="predictions", name="outcomes", state="left", held=waiting, told=told)

    @property
    def _is_asked_about(self) -> bool:
        return bool(self.asked.trail.prediction_ids or self.asked.trail.inputs)

    def _deployments(self) -> Iterator[tuple["Supervisor", str]]:
        """Give the deployments that have ever answered on this machine, each with its server."""
        project = self.asked.project
        for folder in sorted((project.state / "deployments").glob("*/*")):
            answered = any((folder / each).is_dir() for each in (INDEX, OUTCOME_INDEX))
            if answered and folder.parent.name in project.settings.environments:
                yield project.supervisor(folder.parent.name), folder.name

    def _ids(self) -> list[Any]:
        """Give the ids that are the subject's, and those of predictions whose request names it."""
        lake, trail = self.asked.project.lake, self.asked.trail
        found = None
        if trail.inputs and lake.exists(PREDICTIONS):
            found = lake.search(PREDICTIONS, Carrying(trail.inputs), columns=["prediction_id"]).found
        named = [] if found is None else found["prediction_id"].unique().to_pylist()
        return [*dict.fromkeys([*trail.prediction_ids, *named])]

    def _tables(self, ids: list[Any]) -> Iterator[tuple[str, Carrying]]:
        paths: dict[tuple[str, ...], list[Any]] = {("prediction_id",): ids}
        tables = {OUTCOMES: paths, PREDICTIONS: paths | self.asked.trail.inputs}
        for table, values in tables.items():
            if self.asked.project.lake.exists(table):
                yield table, Carrying(values, behind_colon=True)

    def _answers(self, supervisor: "Supervisor", name: str, count: int) -> Holding:
        return Holding(
            kind="answers",
            name=f"{supervisor.environment}/{name}",
            state="forgotten" if count else "nothing",
            held=count,
            told="kept for retries: asked again under such an id, it is a new prediction",
        )

    def _waiting(self, supervisor: "Supervisor", name: str, *, is_held: bool = False) -> Holding:
        frames = (decode_frame(each) for spool in supervisor.spools(name) for _, each in read_spool(spool))
        told = "logged and not yet in the lake: it is moved there first"
        if is_held:
            told = (
                "a server of another process is logging here: what it has not yet moved into the lake is not "
                "searched. Stop it, and forget again"
            )
        return Holding(
            kind="predictions",
            name=f"log of {supervisor.environment}/{name}",
            state="left" if is_held else "nothing",
            held=sum(each.answered_rows for each in frames),
            told=told,
        )


def _place(folder: "Path") -> str:
    return f"{folder.parent.name}/{folder.name}"


def _among(index: PredictionIndex | OutcomeIndex, ids: list[Any]) -> list[str]:
    """Give the answered ids that are one of some, or end in one behind a colon."""
    wanted = {text_of(each).strip().lower() for each in ids}
    return [
        each
        for each in index.list_ids()
        if each.strip().lower() in wanted or each.rpartition(":")[2].strip().lower() in wanted
    ]


@dataclass(frozen=True, slots=True)
class Online:
    """Online features of the views that count rows of the dataset: counted anew from what is left."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Name the views."""
        for name in dict.fromkeys(spec.name for spec in self._views()):
            told = "it is loaded anew from what is left"
            yield Holding(kind="online", name=name, state="rebuilt", told=told)

    def forget(self) -> Iterator[Holding]:
        """Load every definition of them anew, and leave no byte of what was there before."""
        project = self.asked.project
        specs = self._views()
        names = list(dict.fromkeys(spec.name for spec in specs))
        if not names:
            return
        followed = ViewsFollowed(project)
        try:
            with writing_store(project) as store:
                for spec in specs:
                    self._load(store, spec, followed)
                store.scrub()
        except LeaseHeld as err:
            yield Holding(
                kind="online",
                name=", ".join(names),
                state="left",
                told=f"{err}; let it end, and forget again: what it loads then is without the subject",
            )
            return
        for name in names:
            yield Holding(kind="online", name=name, state="rebuilt")

    def _load(self, store: "OnlineStore", spec: "ViewSpec", followed: ViewsFollowed) -> None:
        """Load one anew, as far as it was: up to the position of a replay, or to now."""
        position = store.position()
        try:
            if position is None:
                followed.load(store, spec, why="a subject was forgotten")
                return
            with FeatureSources(self.asked.project, [spec]) as sources:
                rows, before = sources.all_of(spec), from_micros(position + _CLOCK_TICK_US)
                store.load(spec, rows, before=before, position=position)
        except (NotFound, SourceError):
            if spec in declared_specs(self.asked.project):
                raise
            store.clear(spec)  # what nobody declares any more, and cannot be made again

    def _views(self) -> list["ViewSpec"]:
        """Give all definitions that the store holds, whoever needs them."""
        project, trail = self.asked.project, self.asked.trail
        with reading_store(project) as store:
            kept = [] if store is None else store.specs()
        return [spec for spec in kept if any(trail.knows(each) for each in _tables_behind(project, spec))]


def _tables_behind(project: Any, spec: "ViewSpec") -> tuple[str, ...]:
    """Name the tables of a definition; one whose query is wrong by now has its source alone."""
    try:
        return tables_behind(project, spec)
    except (ConfigError, NotFound):
        return (spec.source,)


@dataclass(frozen=True, slots=True)
class TrainingSets:
    """Training sets are recipes: they are made again from what is left, and so have another digest."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Name those that models were trained on."""
        for version_ref in self._sets():
            yield Holding(kind="training set", name=version_ref, state="rebuilt", versions=(version_ref,))

    def forget(self) -> Iterator[Holding]:
        """Compute their digests again."""
        project = self.asked.project
        ledger = project.ledger
        for ref, id in self._sets().items():
            version = ledger.get_version_by_id(id)
            training = project.declarations.trainings.get(version.name)
            if training is None:
                told = "no training of that name is declared any more: its digest is not computed again"
                yield Holding(kind="training set", name=ref, state="left", told=told)
                continue
            try:
                new = training_set_digest(training, version.facts, project.lake)
            except (SourceError, NotFound) as err:
                new, told = "", f"nothing of it can be made again: {err}"
            else:
                told = "made again from what is left"
            changed = new != expected_digest(ledger, version)
            record_redacted(ledger, version, new, why=self.asked.reason, cause=self.asked.cause)
            yield Holding(
                kind="training set",
                name=ref,
                state="rebuilt" if changed else "nothing",
                versions=(ref,) if changed else (),
                told=told,
            )

    def _sets(self) -> dict[str, str]:
        ledger, found = self.asked.project.ledger, dict[str, str]()
        for run in self.asked.descent.runs.values():
            if run.kind == "train":
                for edge in ledger.list_edges(run=run.id):
                    version = ledger.get_version_by_id(edge.version)
                    if version.kind == "training_set":
                        found[version.ref] = version.id
        return found


@dataclass(frozen=True, slots=True)
class Routes:
    """Files by which servers answer: they hold samples of their models, encoded."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Say nothing: what the samples lose, these files lose."""
        return iter(())

    def forget(self) -> Iterator[Holding]:
        """Write the samples of every model anew, as its version has them now."""
        project = self.asked.project
        for folder in sorted((project.state / "deployments").glob("*/*")):
            if not (folder / ROUTE_FILE).is_file():
                continue
            route = read_record(folder / ROUTE_FILE, Route)
            try:
                models = tuple(
                    msgspec.structs.replace(
                        each,
                        samples=release_samples(
                            project.registry, project.ledger, project.storage, self._release(each.release)
                        ),
                    )
                    for each in route.models
                )
            except (NotFound, DigestMismatch) as err:
                told = f"it holds samples of a model that cannot be read: {err}; deploy another one"
                yield Holding(kind="route", name=_place(folder), state="left", told=told)
                continue
            if models != route.models:
                write_record(folder / ROUTE_FILE, msgspec.structs.replace(route, models=models))
                yield Holding(kind="route", name=_place(folder), state="rebuilt")

    def _release(self, ref: str) -> Release:
        wanted = VersionRef.parse(ref)
        return read_release(self.asked.project.ledger.get_version("release", wanted.name, wanted.number))
