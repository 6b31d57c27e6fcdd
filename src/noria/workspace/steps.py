"""Wiring of pipelines: what a project hands to steps, and which versions its declarations stand for.

A process that runs steps opens the project by its folder, by the functions here that are named in
`Place.providers` and `Place.loader`.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from noria.errors import ConfigError, NotFound
from noria.lake.declarations import Dataset
from noria.ledger.redacted import expected_digest
from noria.pipelines.declarations import Pipeline, Step
from noria.pipelines.engine import Engine
from noria.pipelines.executor import Place
from noria.pipelines.graph import Graph
from noria.pipelines.loading import importing_from
from noria.pipelines.signatures import asks_for, fits, read_signature, show
from noria.pipelines.tracing import checked_params, draw, draw_step
from noria.pipelines.trees import Recorded
from noria.records import Version
from noria.registry.records import is_folder
from noria.training.declarations import Training
from noria.workspace.project import Project
from noria.workspace.project import open as open_project

__all__ = [
    "check_params",
    "drawn",
    "load_version",
    "open_engine",
    "place_of",
    "project_for_steps",
    "working_on",
]

_PROVIDERS = {"noria.workspace.project:Project": "noria.workspace.steps:project_for_steps"}
_LOADER = "noria.workspace.steps:load_version"
_HERE: ContextVar[Project | None] = ContextVar("noria_project", default=None)


@contextmanager
def working_on(project: Project) -> Iterator[None]:
    """Let steps that run in this very process have this very project."""
    token = _HERE.set(project)
    try:
        yield
    finally:
        _HERE.reset(token)


@contextmanager
def project_for_steps(root: str) -> Iterator[Project]:
    """Give the project to a step: the one at work in this process, or one that is opened for it."""
    here = _HERE.get()
    if here is not None and str(here.root) == root:
        yield here
        return
    with open_project(root) as project, working_on(project):
        yield project


@contextmanager
def load_version(root: str) -> Iterator[Callable[[str, Any], Any]]:
    """Give what reads versions for steps: (id, the parameter's annotation) -> value."""
    with project_for_steps(root) as project:

        def load(id: str, annotation: Any) -> Any:
            version = project.ledger.get_version_by_id(id)
            if asks_for(annotation, Version):
                return version
            match version.kind:
                case "dataset" | "features":
                    reader = project.lake.reader(version.name, version=version)
                    return reader if annotation is pa.dataset.Dataset else reader.to_table()
                case "model":
                    return _loaded(project, version)
                case _:
                    return version

        yield load


def _loaded(project: Project, version: Version) -> Any:
    """Give a model in memory: as it scores matrices; where it is none of noria's own, as it predicts rows."""
    registry = project.registry
    if is_folder(version) or registry.read_manifest(version).signature.is_as_given:
        return project.load_model(version.ref)
    return registry.load(version)


class _Versions:
    """Which versions a project's declarations stand for; see `Resolver`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def version_of(self, value: object) -> Version | None:
        """Give a version as it is, and the newest one of a dataset or a model that is declared."""
        match value:
            case Version():
                return value
            case Dataset(name=name):
                return self._newest("dataset", name, "ingest rows into it first")
            case Training(name=name):
                return self._newest("model", name, "train it first")
        return None

    def exists(self, version: Recorded) -> bool:
        """Tell whether a version's rows, or its bytes, are there."""
        ledger = self._project.ledger
        try:
            found = ledger.get_version_by_id(version.id)
        except NotFound:
            return False
        match found.kind:
            case "dataset" | "features":
                return self._project.lake.exists(found.name)
            case "model":
                return self._project.storage.exists(expected_digest(ledger, found))
        return True

    def _newest(self, kind: str, name: str, todo: str) -> Version:
        try:
            return self._project.ledger.get_version(kind, name)
        except NotFound as error:
            raise ConfigError(
                f"a pipeline reads {kind} {name!r}, which has no version yet; {todo}"
            ) from error


def place_of(project: Project) -> Place:
    """Tell a process that runs steps where the project lives."""
    storage = project.settings.stores.storage
    return Place(
        root=str(project.root),
        storage=storage if "://" in storage else str(project.root / storage),
        scratch=str(project.state / "pipelines"),
        providers=_PROVIDERS,
        loader=_LOADER,
        path=tuple(dict.fromkeys([str(project.root), *sys.path])),
    )


def open_engine(project: Project) -> Engine:
    """Open the engine over a project's stores."""
    settings = project.settings
    return Engine(
        ledger=project.ledger,
        storage=project.storage,
        place=place_of(project),
        executor=settings.compute.executor,
        workers=settings.compute.workers,
        resolver=_Versions(project),
    )


def drawn(
    project: Project, target: str | Pipeline[Any, Any] | Step[Any, Any], params: Mapping[str, Any]
) -> Graph:
    """Draw the graph of a target for these parameters, by the code as it lies on disk now."""
    until: str | None = None
    project.refresh()
    if isinstance(target, str):
        name, _, rest = target.partition("/")
        until = rest or None
        target = _found(project, name)
    else:
        target = _newest(project, target)
    provided = tuple(_PROVIDERS)
    with importing_from(project.root):
        if isinstance(target, Step):
            if until is not None:
                raise ConfigError(f"{target.name!r} is a step and has no step {until!r} inside")
            return draw_step(target, _read_params(target.function, params, target.name), provided=provided)
        graph = draw(target, _read_params(target.function, params, target.name), provided=provided)
    return graph if until is None else graph.until([until])


def check_params(pipeline: Pipeline[Any, Any], params: Mapping[str, Any]) -> None:
    """Raise the `ConfigError` that `drawn` would, if a pipeline does not take such parameters."""
    checked_params(pipeline, _read_params(pipeline.function, params, pipeline.name), pipeline.name)


def _newest(
    project: Project, target: Pipeline[Any, Any] | Step[Any, Any]
) -> Pipeline[Any, Any] | Step[Any, Any]:
    """Give what stands in the target's module now: the caller may hold what was there before an edit."""
    function = target.function
    file = getattr(function, "__globals__", {}).get("__file__")
    if function.__module__ == "__main__" or not file or not Path(file).is_relative_to(project.root):
        return target
    project.declarations  # noqa: B018 - loads what was changed
    with importing_from(project.root):
        found = getattr(importlib.import_module(function.__module__), function.__qualname__, None)
    if found is function or getattr(found, "function", None) is function:
        return target
    if isinstance(found, type(target)):
        return found
    raise ConfigError(
        f"{target.name!r} is no longer {target.target}, which was changed since it was imported; import it "
        "again, or run it by its name"
    )


def _found(project: Project, name: str) -> Pipeline[Any, Any] | Step[Any, Any]:
    declared = project.declarations
    known: dict[str, Pipeline[Any, Any] | Step[Any, Any]] = {**declared.steps, **declared.pipelines}
    if name not in known:
        raise NotFound("pipeline", name, known)
    return known[name]


def _read_params(function: Callable[..., Any], params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Read texts as annotations say: `n=3` of a command line is a number where one is wanted."""
    known = read_signature(function, provided=tuple(_PROVIDERS)).parameters
    found = dict(params)
    for key, value in params.items():
        if isinstance(value, str) and key in known and fits(str, known[key].annotation) is not True:
            found[key] = _read_text(value, known[key].annotation, f"{name}: the parameter {key!r}")
    return found


def _read_text(text: str, annotation: Any, what: str) -> Any:
    """Read a plain value, or JSON where a list or the like is wanted."""
    try:
        return msgspec.convert(text, annotation, strict=False)
    except (msgspec.ValidationError, TypeError):
        pass
    try:
        return msgspec.json.decode(text, type=annotation)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ConfigError(f"{what} is {text!r}, wanted is {show(annotation)}") from error
