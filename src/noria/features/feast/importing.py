"""A Feast repository as a module of noria, with a report of what does not map."""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from noria.errors import ConfigError, NotFound, SourceError
from noria.features.feast.datasets import KnownAt, Source, Sources
from noria.features.feast.evaluating import Evaluator
from noria.features.feast.naming import quoted, unused_name
from noria.features.feast.records import Made, Note, Picked, Place
from noria.features.feast.views import VIEW_KINDS, View, Views

__all__ = ["Imported", "import_feast"]

_SETTINGS = "feature_store.yaml"
_SKIPPED = {".git", ".venv", "venv", "__pycache__", ".ipynb_checkpoints", "node_modules"}
_SETTING = re.compile(r"(?P<indent>\s*)(?P<key>[\w.-]+):\s*(?P<value>[^#]*?)\s*(#.*)?")
_PLAIN = re.compile(r"[\w .,:/-]+")
_STORES = {"redis": '[stores] online = "redis://HOST:6379/0"', "sqlite": "", "": ""}
_LAKE = {"", "file", "dask", "duckdb"}
_OTHERS = {
    "LabelView": ("labels are outcomes of predictions in noria", "declare a noria.Label of its source"),
    "Permission": ("noria has no permissions of its own", "guard the stores by their own credentials"),
    "SavedDataset": ("training sets are kept as versions", "project.features.training_set(..., name=...)"),
    "ValidationReference": (
        "it refers to a kept set",
        "checks of the dataset, or a noria.Monitor with drift",
    ),
}


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a repository.

    Attributes
    ----------
    module
        Python: the declarations.
    datasets, streams, views, services
        Names of what is in it.
    notes
        What is not, or means something else: with file, line, and what to do.
    """

    project: str
    module: str
    datasets: tuple[str, ...]
    streams: tuple[str, ...]
    views: tuple[str, ...]
    services: tuple[str, ...]
    notes: tuple[Note, ...]


def import_feast(path: str | Path, *, root: str | Path, known_at: KnownAt = "created") -> Imported:
    """Read a Feast repository, and write what it declares as a module of noria.

    Feast need not be installed, and no code of the repository is run.

    Parameters
    ----------
    path
        The folder with `feature_store.yaml`.
    root
        The project's folder: files below it are declared as patterns.
    known_at
        `created`: a row is known from its `created_timestamp_column`, where there is one, for that is what
        point-in-time means. `event`: from when it happened, as Feast has it.

    Raises
    ------
    ConfigError
        If `known_at` is neither.
    NotFound
        If there is no such repository.
    SourceError
        If a file of it cannot be read, or is no Python.
    """
    folder = Path(path).resolve()
    if known_at not in ("created", "event"):
        raise ConfigError(f"known_at is {known_at!r}; choose 'created' or 'event'")
    if not (folder / _SETTINGS).is_file():
        error = NotFound("Feast repository", str(path), [])
        error.add_note(f"Name the folder that holds {_SETTINGS}.")
        raise error
    evaluator = Evaluator(folder)
    for file in _files(folder):
        evaluator.read(file)
    return _Import(folder, Path(root), evaluator, known_at=known_at).all()


class _Import:
    """One import on its way."""

    def __init__(self, folder: Path, root: Path, evaluator: Evaluator, *, known_at: KnownAt) -> None:
        self._folder, self._made, self._notes = folder, evaluator.made, evaluator.notes
        names = {each.name for each in self._made if each.kind in VIEW_KINDS}
        self._taken = {"agg", "noria"}
        self._sources = Sources(
            folder, root, known_at=known_at, taken=self._taken, views=names, tell=self._tell
        )

    def all(self) -> Imported:
        settings = dict(_settings(self._folder / _SETTINGS))
        entities = {each.name: each for each in self._made if each.kind == "Entity"}
        views = Views(self._sources, entities, taken=self._taken, tell=self._tell)
        found: list[View] = []
        for made in self._made:
            if made.kind in VIEW_KINDS:
                view = views.of(made)
                if view is not None:
                    found.append(view)
        by_made = {id(each.made): each for each in found}
        services = [each for each in self._made if each.kind == "FeatureService"]
        written = [line for each in services if (line := self._service(each, by_made)) is not None]
        for made in self._made:
            self._other(made, by_made)
        self._unread()
        self._stores(settings)
        project = settings.get("project", ("", 1))[0]
        sources = self._sources.all
        return Imported(
            project=project,
            module=_module(project, sources=sources, views=found, services=written),
            datasets=tuple(each.variable for each in sources),
            streams=tuple(each.stream for each in sources if each.stream is not None),
            views=tuple(each.name for each in found),
            services=tuple(line.partition(" ")[0] for line in written),
            notes=tuple(sorted(self._notes, key=lambda each: (each.file, each.line))),
        )

    def _service(self, made: Made, views: Mapping[int, View]) -> str | None:
        members = made.get("features", 1)
        chosen: list[View] = []
        for each in members if isinstance(members, list) else []:
            of = each.of if isinstance(each, Picked) else each
            view = views.get(id(of))
            if view is None:
                name = of.name if isinstance(of, Made) else getattr(of, "text", of)
                self._tell(
                    made,
                    what=f"{name} in service {made.name}",
                    why="it is no view of the module",
                    instead="see the note about it, and add it to the list",
                )
                continue
            if isinstance(each, Picked):
                self._tell(
                    made,
                    kind="differs",
                    what=f"{view.name} in service {made.name}",
                    why=f"Feast picks {', '.join(each.names)}; a training of noria takes all of a view",
                    instead="make a view of those, or leave the other columns out of the model",
                )
            chosen.append(view)
        if not chosen:
            return None
        variable = unused_name(made.variable or made.name, self._taken)
        self._taken.add(variable)
        return f"{variable} = [{', '.join(dict.fromkeys(each.variable for each in chosen))}]"

    def _other(self, made: Made, views: Mapping[int, View]) -> None:
        if made.kind in ("OnDemandFeatureView", "on_demand_feature_view"):
            self._on_demand(made, views)
        elif made.kind in _OTHERS:
            why, instead = _OTHERS[made.kind]
            self._tell(made, what=f"{made.kind} {made.name}", why=why, instead=instead)

    def _on_demand(self, made: Made, views: Mapping[int, View]) -> None:
        """Tell how its function is declared; its code works on frames, and is not changed."""
        given = made.get("sources") or made.get("inputs")
        inputs: list[str] = []
        for each in given.values() if isinstance(given, dict) else given if isinstance(given, list) else []:
            of = each.of if isinstance(each, Picked) else each
            if isinstance(of, Made) and of.kind == "RequestSource":
                inputs += [quoted(name) for name in _field_names(of.get("schema", 1))]
            elif isinstance(of, Made):
                view = views.get(id(of))
                inputs.append(of.variable or of.name if view is None else view.variable)
        outputs = ", ".join(quoted(each) for each in _field_names(made.get("schema")))
        self._tell(
            made,
            what=f"on-demand view {made.name}",
            why="its function works on a frame of pandas, or on lists; noria's works on columns of numpy",
            instead=f"write @noria.on_demand(inputs=[{', '.join(inputs)}], outputs=[{outputs}]) above "
            f"def {made.name}(columns), which gives a dict of arrays; columns of views are VIEW__FEATURE",
        )

    def _unread(self) -> None:
        """Tell of sources that no view of the module reads."""
        read = {id(each.made) for each in self._sources.all}
        inner = {
            id(each.get("batch_source")) for each in self._made if isinstance(each.get("batch_source"), Made)
        }
        told = {(each.file, each.line) for each in self._notes}
        for made in self._made:
            is_table = made.kind.endswith("Source") and made.kind not in ("PushSource", "RequestSource")
            at = (made.place.file, made.place.line)
            if is_table and not {id(made)} & (read | inner) and at not in told and made.kind != "KafkaSource":
                self._tell(
                    made,
                    what=f"source {made.name}",
                    why="no view of the module reads it",
                    instead="declare a noria.Dataset, if it is needed",
                )

    def _stores(self, settings: Mapping[str, tuple[str, int]]) -> None:
        online, line = settings.get("online_store.type", settings.get("online_store", ("", 1)))
        if online not in _STORES or _STORES[online]:
            self._tell(
                Made(_SETTINGS, Place(_SETTINGS, line)),
                kind="differs" if online in _STORES else "left out",
                what=f"online store {online}",
                why="the online store is a setting of the project"
                if online in _STORES
                else "noria keeps online features in LMDB or Redis",
                instead=_STORES.get(online)
                or "begin with the default, LMDB; or `[stores] online = redis://...`",
            )
        offline, line = settings.get("offline_store.type", settings.get("offline_store", ("", 1)))
        if offline not in _LAKE:
            self._tell(
                Made(_SETTINGS, Place(_SETTINGS, line)),
                what=f"offline store {offline}",
                why="rows are kept in the project's lake, Delta tables on a disk or an object store",
                instead='take them in; `[stores] storage = "s3://BUCKET/PREFIX"` puts the lake there',
            )

    def _tell(self, made: Made, *, what: str, why: str, instead: str, kind: Any = "left out") -> None:
        note = Note(
            file=made.place.file,
            line=made.place.line,
            kind=kind,
            what=what,
            why=why,
            instead=instead,
        )
        if note not in self._notes:
            self._notes.append(note)


def _module(
    project: str, *, sources: Sequence[Source], views: Sequence[View], services: Sequence[str]
) -> str:
    told = (
        f"Declarations of {f'the Feast project {project}' if project else 'a Feast repository'}, as imported."
    )
    parts = [
        f'"""{told}"""' if _PLAIN.fullmatch(told) else quoted(told),
        "import noria\nfrom noria import agg" if views else "",
    ]
    parts += ["\n".join(each.lines()) for each in sources]
    parts += ["\n".join(each.lines) for each in views]
    if services:
        parts.append("# Feature services: name them as `features` of a training.\n" + "\n".join(services))
    return "\n\n".join(each for each in parts if each) + "\n"


def _field_names(given: Any) -> list[str]:
    if not isinstance(given, list):
        return []
    return [each.name for each in given if isinstance(each, Made)]


def _files(folder: Path) -> list[Path]:
    """List the repository's Python files, as Feast does: not what `.feastignore` names."""
    ignore = folder / ".feastignore"
    lines = _lines(ignore) if ignore.is_file() else []
    patterns = [each.strip().rstrip("/") for each in lines if each.strip() and not each.startswith("#")]
    found = []
    for file in sorted(folder.rglob("*.py")):
        relative = file.relative_to(folder)
        parents = [each.as_posix() for each in (relative, *relative.parents)][:-1]
        ignored = any(fnmatch.fnmatch(each, pattern) for each in parents for pattern in patterns)
        if not ignored and not _SKIPPED & set(relative.parts):
            found.append(file)
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name} cannot be read: {error}; it has to be a text in UTF-8") from error


def _settings(path: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Give the plain values of the settings and of their parts: `online_store.type` -> value and line."""
    part = ""
    for number, line in enumerate(_lines(path), start=1):
        found = _SETTING.fullmatch(line)
        if found is None or not line.strip():
            continue
        key, value = found["key"], found["value"].strip("'\"")
        if not found["indent"]:
            part = key
            yield key, (value, number)
        else:
            yield f"{part}.{key}", (value, number)
