"""Keeps a model as the next version of a light service, and lets it answer there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.deploy.releases import find_standing
from noria.errors import ConfigError, NotFound, SourceError
from noria.records import Version, sha256_hex
from noria.registry.catalogue import ModelCatalogue
from noria.registry.records import is_folder
from noria.registry.sources import SourceRoots
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.experiments import ExperimentBook
from noria.workspace.light.examples import ASK, fitting, made_up, read_example
from noria.workspace.light.folders import ENVIRONMENT
from noria.workspace.light.sources import Source
from noria.workspace.models.deploying import release_of
from noria.workspace.models.model_files import ModelFile, read_model_file

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Kept", "keep_model", "put_up"]

_EXPERIMENT = "light"
_KIND = "file"  # versions of files, which tell what model version was made of each
_IN_FOLDER = "model"


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a source.

    Attributes
    ----------
    version
        Of the model; one that was there where the source is the same.
    is_new
        Whether it was not there.
    """

    version: Version
    is_new: bool


def keep_model(
    project: "Project",
    source: Source,
    *,
    name: str,
    example: Any | None,
    trusts_pickle: bool,
    tell: Callable[[str], None],
) -> Kept:
    """Register what a source holds, and see that a server takes it; the same again is what is there.

    Parameters
    ----------
    project
        The service's own.
    example
        Rows, or the file of some. Default: of the version before, where they were given for it and fit; else
        made up of what the model says of its columns.
    tell
        Called with what is to be known of it.

    Raises
    ------
    SourceError
        If it, or the example, cannot be read, or does not fit.
    ConfigError
        If it is no model that is known, or does not say what it reads.
    RouteRefusedError
        If a server would not take it.
    """
    if source.kind == "version":
        return _copied(project, source, name=name)
    rows = None if example is None else read_example(example)
    sha256, of_rows = source.digest(), "" if rows is None else _digest(rows)
    known = _known(project, source, sha256, of_rows if rows is not None else None)
    if known is not None:
        return Kept(project.models.get(known), is_new=False)
    if source.kind == "folder":
        version = _folder(project, source.path, name=name)
        release_of(project, version, rows)
    else:
        found = read_model_file(source.path, trusts_pickle=trusts_pickle)
        for note in found.notes:
            tell(f"{source.label}: {note}")
        before = _rows_before(project, name, found) if rows is None else None
        chosen = fitting(found, rows) if rows is not None else before
        of_rows = of_rows or ("" if before is None else "before")
        rows_read = made_up(found, source.label) if chosen is None else chosen
        try:
            version = project.models.register(found.model, name=name, example=rows_read)
        except ConfigError as err:
            if chosen is None:
                err.add_note(f"The example was made up of what the model says of its columns; {ASK}.")
            raise
    project.ledger.record_version(
        _KIND,
        source.path.name,
        sha256=sha256_hex(f"{sha256} {of_rows}".encode()),
        uri=source.path.as_uri(),
        facts={"model": version.ref, "content": sha256, "example": of_rows},
    )
    return Kept(version, is_new=True)


def put_up(project: "Project", version: Version, *, reason: str) -> bool:
    """Let a version answer; tell whether another one did before, or none."""
    standing = find_standing(project.ledger, environment=ENVIRONMENT, deployment=version.name)
    if standing is not None and standing.model.id == version.id:
        return False
    project.deploy(version.ref, to=ENVIRONMENT, reason=reason)
    return True


def _known(project: "Project", source: Source, sha256: str, of_rows: str | None) -> str | None:
    """Give the model version that was made of this very file, of these rows where some are given."""
    for each in reversed(project.ledger.list_versions(kind=_KIND, name=source.path.name)):
        if each.facts.get("content") == sha256 and of_rows in (None, each.facts.get("example")):
            return str(each.facts["model"])
    return None


def _rows_before(project: "Project", name: str, found: ModelFile) -> pa.Table | None:
    """Give the rows that somebody gave for the version before, if they are such as this model reads."""
    files = [each for each in project.ledger.list_versions(kind=_KIND) if each.facts.get("example")]
    mine = [each for each in files if str(each.facts["model"]).rpartition(":")[0] == name]
    if not mine:
        return None
    version = project.models.get(str(max(mine, key=lambda each: each.recorded_at).facts["model"]))
    if is_folder(version):
        return None
    inputs = project.registry.read_manifest(version).signature.names
    rows = project.registry.read_samples(version).select(list(inputs))
    try:
        return fitting(found, rows)
    except SourceError:
        return None


def _digest(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sha256_hex(sink.getvalue().to_pybytes())


def _folder(project: "Project", folder: Path, *, name: str) -> Version:
    """Register a folder of MLflow as it is, by a run that keeps its files."""
    with project.start_run(f"light {name}", experiment=_EXPERIMENT, system_metrics=False) as run:
        run.log_artifacts(folder, _IN_FOLDER)
    experiment = ExperimentBook(project.ledger).get(_EXPERIMENT)
    kept_at = f"mlflow-artifacts:/{experiment.id}/{run.id}/artifacts"
    catalogue = ModelCatalogue(project.ledger)
    try:
        catalogue.get(name)
    except NotFound:
        catalogue.create(name)
    roots = SourceRoots(of_run=lambda _: kept_at, of_model=lambda _: None)
    versions = VersionCatalogue(project.ledger, project.storage, project.artifacts, roots)
    made = versions.register(name, f"runs:/{run.id}/{_IN_FOLDER}", run=run.id)
    return project.ledger.get_version_by_id(made.id)


def _copied(project: "Project", source: Source, *, name: str) -> Kept:
    """Copy a version of another project: the same bytes, by another name where one was chosen."""
    from noria.workspace.project import open as open_project

    with open_project(source.path) as other:
        version = other.model(source.reference)
        told = f"{other.name}/{version.ref}"
        sha256 = version.sha256
        for each in reversed(project.ledger.list_versions(kind=_KIND, name=told)):
            if each.facts.get("content") == sha256:
                return Kept(project.models.get(str(each.facts["model"])), is_new=False)
        if is_folder(version):
            with _laid_out(other, other.registry.read_folder(version).files) as folder:
                made = _folder(project, folder, name=name)
            release_of(project, made)
        else:
            manifest = other.registry.read_manifest(version)
            features = [each.name for each in manifest.signature.inputs if each.kind in ("feature", "text")]
            if features or "code" in manifest.parts:
                raise ConfigError(
                    f"{version.ref} reads features of a project ({', '.join(features[:3]) or 'on demand'}), "
                    f"looked up there: serve it by `noria deploy {version.ref}@ENVIRONMENT` and "
                    "`noria serve`"
                )
            made = project.registry.copy(other.registry, version, name=name)
    project.ledger.record_version(
        _KIND,
        told,
        sha256=sha256,
        uri=source.path.as_uri(),
        facts={"model": made.ref, "content": sha256, "example": ""},
    )
    return Kept(made, is_new=True)


@contextmanager
def _laid_out(project: "Project", files: Mapping[str, Any]) -> Iterator[Path]:
    with TemporaryDirectory(prefix="noria-") as folder:
        for path, part in files.items():
            to = Path(folder) / path
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(project.artifact_file(part.sha256).read_bytes())
        yield Path(folder)
