"""Which model a batch is scored by: a version, what stands in an environment, a release, or a file."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from noria.config import EnvironmentSettings
from noria.deploy.releases import find_standing, record_route, serve_release
from noria.errors import ConfigError, SourceError
from noria.features.reading import located
from noria.records import Version, sha256_hex
from noria.registry.folders.trust import PickleTrust
from noria.serving.records import Route, RouteEntry
from noria.workspace.endpoints import make_deployment
from noria.workspace.models.deploying import release_of
from noria.workspace.models.model_files import read_model_file
from noria.workspace.models.names import find_version

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["BATCH", "BatchModel", "find_model"]

BATCH = "batch"  # the environment of predictions that no environment's deployment gave
_RELEASE = "release:"


@dataclass(frozen=True, slots=True)
class BatchModel:
    """A model as a worker loads it.

    Attributes
    ----------
    version, release
        On record.
    route
        One release that answers all; of an environment, its id and number are those of the route that stands.
    """

    version: Version
    release: Version
    route: Route
    online: str | None
    settings: EnvironmentSettings


def find_model(
    project: "Project", reference: str | Path, example: Callable[[], pa.Table], *, log: bool
) -> BatchModel:
    """Give the model that `NAME`, `NAME:3`, `NAME@ENVIRONMENT` or `release:NAME:2` names, or a file holds.

    Parameters
    ----------
    example
        Gives some rows of the input, by which a file is verified.
    log
        Whether predictions are logged: they then name a route that is on record, as others do.

    Raises
    ------
    NotFound
        If there is none; says what exists.
    ConfigError
        If it is none that is served.
    """
    if isinstance(reference, Path):
        reference = _register_file(project, reference, example)
    name, _, environment = reference.partition("@")
    settings, route_id, number = EnvironmentSettings(), "", 0
    if reference.startswith(_RELEASE):
        release = _release(project, reference.removeprefix(_RELEASE))
        environment = BATCH
    elif environment and not reference.startswith("models:/"):
        find_version(project, reference)  # raises for what does not stand
        standing = find_standing(project.ledger, environment=environment, deployment=name)
        assert standing is not None
        release, settings = standing.release, project.environment(environment)
        route_id, number = standing.route.sha256, standing.route.number
    else:
        release = release_of(project, find_version(project, reference))
        environment = BATCH
    if log and environment == BATCH:
        entries: list[tuple[Version, float, Literal["answer"]]] = [(release, 1.0, "answer")]
        found = record_route(project.ledger, environment=BATCH, deployment=release.name, entries=entries)
        route_id, number = found.sha256, found.number
    place = make_deployment(
        project.ledger,
        project.registry,
        project.storage,
        environment=environment,
        name=release.name,
        supervisor=None,
        trust=PickleTrust.of(project.settings.registry.trust_pickle),
        artifact=project.artifact_file,
    )
    served = serve_release(release, fetch=place.fetch, samples=place.samples, trusts=place.trusts)
    route = Route(
        environment=environment,
        deployment=release.name,
        number=number,
        id=route_id or release.sha256,
        entries=(RouteEntry(release=release.ref),),
        models=(served,),
    )
    version = project.ledger.get_version_by_id(release.facts["model"])
    online = located(project.settings.stores.online, root=project.root) if served.views else None
    return BatchModel(version, release, route, online, settings)


def _release(project: "Project", reference: str) -> Version:
    name, _, number = reference.partition(":")
    if number and not number.isdecimal():
        raise ConfigError(f"{reference!r} names no release; write release:NAME or release:NAME:2")
    return project.ledger.get_version("release", name, int(number) if number else None)


def _register_file(project: "Project", path: Path, example: Callable[[], pa.Table]) -> str:
    """Register a model's file by its name, and give the reference of the version; the same file is the same.

    Parameters
    ----------
    example
        Gives some rows of the input: those columns that the model reads are kept with it, to verify it by.

    Raises
    ------
    ConfigError
        If the file is none that is known by its name.
    SourceError
        If the rows lack a column that the model reads.
    """
    if not path.is_file():
        raise ConfigError(f"there is no model file {path}; name one, or a registered model as NAME or NAME:3")
    sha256 = sha256_hex(path.read_bytes())
    known = project.ledger.find_version("file", path.name, sha256=sha256)
    if known is not None and "model" in known.facts:
        return str(known.facts["model"])
    found = read_model_file(path)
    model, names = found.model, list(found.columns)
    rows = example()
    if names:
        if missing := [each for each in names if each not in rows.column_names]:
            raise SourceError(
                f"the model {path.name} reads {', '.join(map(repr, missing))}, which the input lacks. Found "
                f"{', '.join(rows.column_names)}"
            )
        rows = rows.select(names)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_-") or "model"
    version = project.models.register(model, name=name, example=rows)
    project.ledger.record_version(
        "file", path.name, sha256=sha256, uri=path.absolute().as_uri(), facts={"model": version.ref}
    )
    return version.ref
