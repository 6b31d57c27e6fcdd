"""What an MLflow store holds, taken into a project: experiments, runs, logged and registered models.

Each run is one transaction and keeps its id: what is here already is not taken again, so that an import which
was cut off goes on where it was, and a second one adds what is new.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from noria.errors import BadPath, ConfigError, Conflict, SourceError
from noria.registry.importing import RegistryImporter
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.tracking.importing import ForeignExperiment, ForeignRun, PointsAside, RunImporter, Standing
from noria.tracking.importing_models import ForeignModel, ModelImporter
from noria.tracking.models.records import ModelStatus
from noria.workspace.mlflow.registry import RegistryTaking
from noria.workspace.mlflow.source import LeftBehind, MlflowSource, SourceFile, UnreadRun

if TYPE_CHECKING:
    from noria.ledger.store import Ledger
    from noria.storage.contract import Storage

__all__ = ["MlflowImport", "MlflowLeft", "import_mlflow"]

_MOST_NAMED = 1_000  # of what was left; all of it is counted
_MOST_NESTED = 100  # runs within runs that are taken from the outermost in


class MlflowLeft(msgspec.Struct, frozen=True):
    """Something that was not taken, and why."""

    what: str
    why: str


class MlflowImport(msgspec.Struct, kw_only=True):
    """What an import took, or would take.

    Attributes
    ----------
    experiments, runs, points, params, tags, datasets, models, registered_models, model_versions, files
        What was not here before; `models` are logged ones.
    file_bytes
        Of files that were copied.
    runs_known, runs_continued
        Runs that were here already; and of these, that had been at work and are brought up to date.
    left
        What was not taken: the first thousand.
    left_count
        All of it.
    """

    source: str  # without a password
    is_dry: bool = False
    experiments: int = 0
    runs: int = 0
    runs_known: int = 0
    runs_continued: int = 0
    points: int = 0
    params: int = 0
    tags: int = 0
    datasets: int = 0
    models: int = 0
    registered_models: int = 0
    model_versions: int = 0
    files: int = 0
    file_bytes: int = 0
    left_count: int = 0
    left: list[MlflowLeft] = []


def import_mlflow(
    source: str,
    *,
    ledger: "Ledger",
    storage: "Storage",
    store: ArtifactStore,
    artifacts: Path | None = None,
    dry_run: bool = False,
    tell: Callable[[MlflowImport], None] | None = None,
) -> MlflowImport:
    """Take in an MLflow store; see `noria.workspace.tracking_verbs.TrackingVerbs.import_mlflow`."""
    opened = _open(source, artifacts)
    try:
        registry = RegistryImporter(ledger, storage)
        runs, models = RunImporter(ledger), ModelImporter(ledger)
        taking = _Taking(opened, runs, models, registry, store, is_dry=dry_run, tell=tell)
        done = taking.run()
    finally:
        opened.close()
    if not dry_run:
        counts = msgspec.to_builtins(done)
        payload = {name: counts[name] for name in counts if name not in {"left", "is_dry"}}
        ledger.append("mlflow.imported", subject="mlflow", payload=payload)
    return done


def _open(source: str, artifacts: Path | None) -> MlflowSource:
    scheme = source.partition("://")[0].partition("+")[0]
    if scheme in {"http", "https"}:
        from noria.workspace.mlflow.server import MlflowServer

        if artifacts is not None:
            raise ConfigError("files come from the server itself; leave `artifacts` out")
        return MlflowServer(source)
    if "://" not in source:
        raise ConfigError(
            f"{source!r} is no URL; write sqlite:///PATH/mlflow.db, postgresql://..., or http://... of a "
            "running server (of a folder `mlruns`: start `mlflow server --backend-store-uri mlruns`)"
        )
    from noria.workspace.mlflow.database import MlflowDatabase

    return MlflowDatabase(source, copied=artifacts)


class _Taking:
    """One import on its way."""

    def __init__(
        self,
        source: MlflowSource,
        importer: RunImporter,
        models: ModelImporter,
        registry: RegistryImporter,
        store: ArtifactStore,
        *,
        is_dry: bool,
        tell: Callable[[MlflowImport], None] | None,
    ) -> None:
        self._source, self._importer, self._models, self._store = source, importer, models, store
        self._registry = registry
        self._is_dry, self._tell = is_dry, tell
        self._numbers: dict[str, int | None] = {}  # of experiments here, by their ids there
        self._left_out: set[str] = set()  # experiments that cannot be taken, by their ids there
        self._ahead: set[str] = set()  # runs that were taken before their turn, as parents
        self._done = MlflowImport(source=source.location, is_dry=is_dry)

    def run(self) -> MlflowImport:
        """Take everything."""
        found = list(self._source.experiments())
        for each in found:
            try:
                self._numbers[each.id] = self._take_experiment(each)
            except ConfigError as err:
                self._left_out.add(each.id)
                self._leave(f"experiment {each.name!r}", str(err))
        for each in found:
            for page in self._source.run_pages(each):
                for run in page:
                    self._take_in_turn(run)
                if self._tell is not None:
                    self._tell(self._done)
        for each in found:
            for models in self._source.model_pages(each):
                for model in models:
                    self._take_model(model)
        if not self._is_dry:
            self._link()
        self._take_registry()
        for what, count in self._source.count_others().items():
            if count:
                self._leave(f"{count:,} {what}", "they are not imported; they stay where they are")
        return self._done

    def _take_registry(self) -> None:
        taking = RegistryTaking(
            self._source,
            self._registry,
            self._importer,
            self._models,
            self._store,
            take_files=self._take_files,
            leave=self._leave,
            is_dry=self._is_dry,
        )
        for _ in taking.pages():
            self._done.registered_models = taking.counts.models
            self._done.model_versions = taking.counts.versions
            if self._tell is not None:
                self._tell(self._done)

    def _link(self) -> None:
        """Keep which models the runs read and made."""
        for links in self._source.link_pages():
            for each in self._models.link(links):
                self._leave(
                    f"run {each.run}", f"its {each.role}, logged model {each.model.model}, is not here"
                )

    def _take_experiment(self, foreign: ForeignExperiment) -> int | None:
        known = self._importer.find_experiment(foreign.name)
        if known is None:
            first = next(iter(self._source.run_pages(foreign)), ())
            known = self._importer.experiment_of([each.id for each in first])
        if self._is_dry:
            self._done.experiments += known is None
            return known
        number, is_new = self._importer.take_experiment(foreign, known)
        self._done.experiments += is_new
        return number

    def _take_in_turn(self, run: ForeignRun | UnreadRun) -> None:
        if isinstance(run, UnreadRun):
            self._leave(f"run {run.id}", run.why)
        elif run.id in self._ahead:
            self._ahead.remove(run.id)
        else:
            self._take_run(run, (run.id,))

    def _take_run(self, run: ForeignRun, children: tuple[str, ...]) -> None:
        """Take a run with its files, and what it is part of before it."""
        standing = self._importer.standing(run)
        parent_id = run.parent if standing is Standing.NEW and not self._is_dry else None
        is_there = parent_id in children or parent_id in self._ahead or len(children) > _MOST_NESTED
        if parent_id is not None and not is_there:
            parent = self._source.find_run(parent_id)
            if isinstance(parent, ForeignRun) and self._importer.standing(parent) is Standing.NEW:
                self._ahead.add(parent.id)
                self._take_run(parent, (*children, parent.id))
        match standing:
            case Standing.UNFIT:
                self._leave(f"run {run.id!r}", "its id can be none of a run")
                return
            case Standing.OTHER:
                self._leave(f"run {run.id}", "another run of this project has its id")
                return
            case Standing.KNOWN:
                self._done.runs_known += 1
            case Standing.NEW | Standing.OPEN:
                if not self._take_logged(run, standing):
                    return
        self._take_run_files(run)

    def _take_logged(self, run: ForeignRun, standing: Standing) -> bool:
        """Take what a run logged; tell whether the run is there now."""
        if run.experiment in self._left_out:
            self._leave(f"run {run.id}", "its experiment is not taken")
            return False
        datasets = self._source.read_datasets(run)
        with PointsAside() as points:
            self._source.read_points(run.id, points)
            if points.refused:
                self._leave(f"run {run.id}", f"{points.refused} points whose instant no database holds")
            number = self._numbers.get(run.experiment)
            if not self._is_dry:
                if number is None:
                    self._leave(f"run {run.id}", "its experiment was made after the import began")
                    return False
                try:
                    standing = self._importer.take(run, number, points, datasets)
                except ConfigError as err:
                    self._leave(f"run {run.id}", str(err))
                    return False
        done = self._done
        if standing is Standing.NEW:
            done.runs += 1
            done.points += points.count
            done.params += len(run.params)
            done.tags += len(run.tags)
            done.datasets += len(datasets)
        else:
            done.runs_known += 1
            done.runs_continued += standing is Standing.OPEN
        return True

    def _take_model(self, model: ForeignModel) -> None:
        """Take a logged model with its files."""
        standing = self._models.standing(model)
        match standing:
            case Standing.UNFIT | Standing.OTHER:
                self._leave(f"logged model {model.id!r}", "its id can be none, or another one has it")
                return
            case Standing.KNOWN:
                return
        if model.experiment in self._left_out:
            self._leave(f"logged model {model.id}", "its experiment is not taken")
            return
        number = self._numbers.get(model.experiment)
        if self._is_dry or number is None:
            self._done.models += standing is Standing.NEW
            self._take_files(model.id, self._source.model_files(model), lambda: None)
            return
        try:
            self._models.take(model, number)
        except ConfigError as err:
            self._leave(f"logged model {model.id}", str(err))
            return
        self._done.models += standing is Standing.NEW
        files = self._source.model_files(model)
        are_found = self._take_files(model.id, files, lambda: self._models.files_folder(model.id))
        if (
            are_found or model.status is not ModelStatus.READY
        ):  # else it stays pending: a later import goes on
            self._models.finish(model)

    def _take_run_files(self, run: ForeignRun) -> None:
        def folder() -> str | None:
            is_here = self._importer.standing(run) is not Standing.NEW
            return self._importer.files_folder(run.id) if is_here else None

        self._take_files(run.id, self._source.files(run), folder)

    def _take_files(self, owner: str, files: Iterator[SourceFile], folder: Callable[[], str | None]) -> bool:
        """Take the files of a run or a model; tell whether they could be looked for.

        The folder here is `None` where nothing is written.
        """
        place: tuple[str, set[str]] | None = None
        try:
            for file in files:
                if file.put is None:
                    self._leave(f"{owner}/{file.path}", file.fault or "")
                    continue
                if place is None:
                    root = folder()
                    known = () if root is None else self._store.tree(root)
                    place = (root or owner, {each.path for each in known})
                path = f"{place[0]}/{file.path}"
                if path not in place[1]:
                    self._take_file(f"{owner}/{file.path}", path, file.put)
        except (LeftBehind, ConfigError) as err:
            self._leave(f"files of {owner}", str(err))
            return False
        return True

    def _take_file(self, name: str, path: str, put: Callable[[ArtifactStore, str], Artifact]) -> None:
        try:
            checked_path(path)
            if not self._is_dry:
                self._done.file_bytes += put(self._store, path).size_bytes
            self._done.files += 1
        except (BadPath, Conflict, SourceError) as err:
            self._leave(name, str(err))

    def _leave(self, what: str, why: str) -> None:
        self._done.left_count += 1
        if len(self._done.left) < _MOST_NAMED:
            self._done.left.append(MlflowLeft(_clean(what), _clean(why)))


def _clean(text: str) -> str:
    """Make a text printable that may hold the bytes of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode()
