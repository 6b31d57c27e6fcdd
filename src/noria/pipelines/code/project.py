"""The code of a step: all modules of the project that its function reaches, and files that it declares."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from noria.errors import ConfigError, NotFound, SourceError
from noria.pipelines.code.imports import PythonSource
from noria.pipelines.code.modules import Module, ModuleFinder
from noria.pipelines.code.patterns import match_files
from noria.pipelines.code.reach import ModuleReach
from noria.records import digest_of, sha256_hex

__all__ = ["ProjectCode", "ReachedSource", "StepCode"]

_KEPT_BYTES = 1_048_576  # files up to this stay in memory once they are read


@dataclass(frozen=True, slots=True)
class StepCode:
    """What a step's code says, by file."""

    digest: str  # over `files`
    files: Mapping[str, str]  # name below the root, or of a module elsewhere -> digest of what it says
    unseen: str | None = (
        None  # where code runs that no source names: then all Python files of the project count
    )


@dataclass(frozen=True, slots=True)
class ReachedSource:
    """A module that is reached, as it lies on disk."""

    name: str
    path: Path | None  # None: a folder without `__init__`
    text: bytes
    is_package: bool
    imports: tuple[str, ...]  # top-level names of what it imports

    @property
    def sha256(self) -> str:
        """Of the text."""
        return sha256_hex(self.text)


class ProjectCode:
    """The code in a project's folder as it lies on disk now.

    Each file is read once, so that the digest of a step and the text that is kept of it agree; a new instance
    sees what was changed since. Nothing is imported. For use by one thread.

    A module counts if Python finds it below the root, beside a step's module that lies elsewhere, or anywhere
    on the import path where nothing is installed. What counts of a Python file is its syntax tree without
    positions: comments and layout are free, docstrings are not, for a program can read them. A module that
    runs code which its source does not name (`import_module(name)`, `exec`, a pickle) makes every Python file
    below the root count: a step may run too often, never too seldom. What a step opens by itself is not seen;
    it is to be declared.

    Parameters
    ----------
    root
        The project's folder, first on the import path.
    """

    def __init__(self, root: Path) -> None:
        self._finder = ModuleFinder(root)
        self._reach = ModuleReach(self._finder, self._read)
        self._steps: dict[tuple[str, Path | None, tuple[str, ...]], StepCode] = {}
        self._reached: dict[tuple[Module, ...], tuple[dict[str, str], str | None]] = {}
        self._kept: dict[Path, bytes] = {}
        self._digests: dict[Path, str] = {}  # of the bytes
        self._names: dict[Path, str] = {}
        self._paths: dict[str, Path] = {}
        self._matched: dict[str, tuple[Path, ...]] = {}

    def of(self, module: str, *, file: Path | None = None, declared: Sequence[str] = ()) -> StepCode:
        """Give the code of a step.

        Parameters
        ----------
        module
            The name of the module that holds the step's function.
        file
            Where it was loaded from, if known.
        declared
            Patterns of files below the root: `conf.json`, `sql/*.sql`, `data/**`; a folder stands for all
            files in it. Their bytes count.

        Raises
        ------
        ConfigError
            If the module is nowhere, a file that it reaches does not parse (names file and line), or a
            pattern leads out of the root or matches nothing.
        """
        key = (module, file, tuple(declared))
        if key not in self._steps:
            self._steps[key] = self._of(*key)
        return self._steps[key]

    def sources(self, module: str, *, file: Path | None = None) -> Iterator[ReachedSource]:
        """Give every module that a module reaches and that can be read as text, by name.

        Raises `ConfigError` like `of`.
        """
        start = self._start(module, file)
        self._said_by(start)  # refuses what does not parse
        for each in sorted(self._reach.of(start).modules, key=lambda each: (each.name, str(each.file))):
            if not all(part.isidentifier() for part in each.name.split(".")):
                continue  # no import statement can name it
            source = self._reach.source(each)
            if each.file is None:
                yield ReachedSource(each.name, None, b"", is_package=True, imports=())
            elif isinstance(source, PythonSource):
                asked = {one.module.partition(".")[0] for one in source.imports if not one.level}
                imports = tuple(sorted(asked - {""}))
                yield ReachedSource(each.name, each.file, self._read(each.file), bool(each.folders), imports)

    def text(self, name: str) -> bytes:
        """Give the bytes of a file that a step's `files` names.

        Raises
        ------
        NotFound
            If no step named it.
        SourceError
            If it is a large file that was changed since its digest was taken.
        """
        return self._read(self._path(name))

    def source_digest(self, name: str) -> str:
        """Give the sha256 of the bytes of a file that a step's `files` names. Raises `NotFound`."""
        return self._digests[self._path(name)]

    def path(self, name: str) -> Path:
        """Give the place of a file that a step's `files` names. Raises `NotFound`."""
        return self._path(name)

    def _of(self, module: str, file: Path | None, declared: tuple[str, ...]) -> StepCode:
        reached, unseen = self._said_by(self._start(module, file))
        files = dict(reached)
        for pattern in declared:
            if pattern not in self._matched:
                self._matched[pattern] = match_files(self._finder, pattern)
            for path in self._matched[pattern]:
                files[self._name(path, path.name)] = self._digest(path)
        files = dict(sorted(files.items()))
        return StepCode(digest_of(files), files, unseen)

    def _start(self, module: str, file: Path | None) -> tuple[Module, ...]:
        """Find a step's module and the packages around it; none where it is installed."""
        if file is None:
            run, last = self._finder.locate(module, self._finder.root)
            if not last:
                raise ConfigError(
                    f"no module {module!r} in {self._finder.root} or beside it; write the step into a module "
                    "of the project"
                )
            return tuple(run)
        path = file.absolute()
        if not path.is_file():
            raise ConfigError(
                f"module {module!r} lies in no file ({file}); write the step into a module of the project"
            )
        if self._finder.is_installed(path):
            return ()
        name = self._finder.relative(path)
        if module != "__main__" or name is None:
            return tuple(self._finder.at(path, module))
        # As `python -m` names it, for relative imports; and as a script, whose folder is on the import path.
        parts = PurePosixPath(name).with_suffix("").parts
        found = self._finder.at(path, ".".join(parts))
        script = Module(found[-1].name, path, found[-1].folders, path.parent)
        return (*found, script)

    def _said_by(self, start: tuple[Module, ...]) -> tuple[dict[str, str], str | None]:
        """Give digests of all files reached from `start`, and the first place that may lead anywhere."""
        if start not in self._reached:
            reach = self._reach.of(start)
            modules = sorted(reach.modules, key=lambda each: (each.name, str(each.file)))
            files = {self._name_of(each): self._say(each) for each in modules if each.file is not None}
            if reach.broken:
                raise ConfigError(
                    min(f"{self._name_of(each)}, line {why.line}: {why.reason}" for each, why in reach.broken)
                )
            places = [
                f"{self._name_of(module)} line {place.line}: {place.what}"
                if place.line
                else f"{self._name_of(module)} is {place.what}"
                for module, place in reach.unseen
            ]
            self._reached[start] = (files, min(places, default=None))
        return self._reached[start]

    def _say(self, module: Module) -> str:
        source = self._reach.source(module)
        if isinstance(source, PythonSource):
            return source.digest
        return "" if module.file is None else self._digest(module.file)

    def _name_of(self, module: Module) -> str:
        return module.name if module.file is None else self._name(module.file, module.name)

    def _name(self, path: Path, module: str) -> str:
        """Give the name of a file: its path below the root, or the name of its module."""
        if path not in self._names:
            name = self._finder.relative(path) or next(filter(self._is_free, _names_elsewhere(path, module)))
            self._names[path] = name
            self._paths.setdefault(name, path)
        return self._names[path]

    def _is_free(self, name: str) -> bool:
        return name not in self._paths and not (self._finder.root / name).exists()

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            raise NotFound("file", name, self._paths)
        return self._paths[name]

    def _digest(self, path: Path) -> str:
        """Give the sha256 of a file's bytes; a large file is streamed."""
        if path not in self._digests:
            try:
                if path.stat().st_size <= _KEPT_BYTES:
                    self._read(path)
                else:
                    with path.open("rb") as file:
                        self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as err:
                raise _unreadable(path, err) from err
        return self._digests[path]

    def _read(self, path: Path) -> bytes:
        if path in self._kept:
            return self._kept[path]
        try:
            data = path.read_bytes()
        except OSError as err:
            raise _unreadable(path, err) from err
        if self._digests.setdefault(path, sha256_hex(data)) != sha256_hex(data):
            raise SourceError(f"{path} was changed while it was looked at; run the command again")
        if len(data) <= _KEPT_BYTES:
            self._kept[path] = data
        return data


def _names_elsewhere(path: Path, module: str) -> Iterator[str]:
    """Give the name of a module that lies elsewhere, then longer ones for where another has it already."""
    yield module
    for start in range(len(path.parts) - 2, -1, -1):
        yield f"{module} ({'/'.join(path.parts[start:])})"


def _unreadable(path: Path, err: OSError) -> ConfigError:
    return ConfigError(f"{path}, which a step reaches, cannot be read: {err.strerror or err}")
