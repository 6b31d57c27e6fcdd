"""Where the modules of a project lie: what Python would find for a name, without importing anything."""

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path

__all__ = ["Module", "ModuleFinder", "is_skipped"]

_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # in the order in which Python looks
_SKIPPED = {".noria", ".git", ".venv", "node_modules", "__pycache__"}
_INSTALLED = {"site-packages", "dist-packages"}
_OURSELVES = __name__.partition(".")[0]  # covered by the list of distributions, also where it is editable


@dataclass(frozen=True, slots=True)
class Module:
    """A module as it lies on disk."""

    name: str
    file: Path | None  # None: a folder without `__init__`
    folders: tuple[Path, ...]  # where its submodules lie; none in a module that is no package
    base: Path  # the folder of the import path below which it was found

    @property
    def is_source(self) -> bool:
        """Whether it can be read as text."""
        return self.file is not None and self.file.suffix in SOURCE_SUFFIXES

    @property
    def package(self) -> str:
        """What its relative imports begin with."""
        return self.name if self.folders else self.name.rpartition(".")[0]


class ModuleFinder:
    """Finds modules of a project and of what lies beside it; each folder is listed once.

    Modules that are installed (below `site-packages`, or of Python itself) are not given.
    """

    def __init__(self, root: Path) -> None:
        importlib.invalidate_caches()  # Python's finders list folders once, too
        self.root = root.absolute()  # not resolved: Python names files by the path that it was given
        self._real_root = Path(os.path.realpath(root))
        self._listings: dict[Path, dict[str, bool] | None] = {}
        self._tops: dict[tuple[str, Path], tuple[Module, ...]] = {}
        self._children: dict[tuple[Module, str], Module | None] = {}
        self._below: dict[Module, tuple[Module, ...]] = {}
        self._everything: tuple[Module, ...] | None = None

    def list_folder(self, folder: Path) -> dict[str, bool] | None:
        """Give the names in a folder and whether each is a folder; None where it cannot be listed."""
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    kinds = {each.name: _is_folder(each) for each in entries}
            except OSError:
                self._listings[folder] = None
            else:
                self._listings[folder] = {
                    name: is_folder
                    for name, is_folder in kinds.items()
                    if is_folder is not None and not (is_folder and is_skipped(folder / name))
                }
        return self._listings[folder]

    def relative(self, path: Path) -> str | None:
        """Give a file's name below the root, "/"-separated; None if it lies elsewhere."""
        for place, root in ((path, self.root), (Path(os.path.realpath(path)), self._real_root)):
            if place.is_relative_to(root):
                return place.relative_to(root).as_posix()
        return None

    def is_installed(self, path: Path) -> bool:
        """Whether a file is covered by the list of distributions."""
        if any(path.is_relative_to(each) for each in _own_folders() if not self.root.is_relative_to(each)):
            return True
        name = self.relative(path)
        if name is not None:
            folders = [self.root.joinpath(*name.split("/")[:end]) for end in range(1, name.count("/") + 1)]
            return any(each.name in _INSTALLED or is_skipped(each) for each in folders)
        return bool(_INSTALLED & set(path.parts))

    def locate(self, name: str, base: Path) -> tuple[list[Module], list[Module]]:
        """Find the modules that `import name` runs, and among them those that `name` itself may be.

        They are more than one where the path of the process that imports is not known: a script's folder and
        the root hold the same name.

        Parameters
        ----------
        base
            A folder that may be on the path, beside the root: where the importing module's package was found.
        """
        top, *rest = name.split(".")
        last = list(self._top(top, base))
        run = list(last)
        for part in rest:
            last = [child for each in last if (child := self.child(each, part)) is not None]
            run += last
        return run, last

    def child(self, package: Module, name: str) -> Module | None:
        """Find the submodule of a package; None if there is none of that name."""
        key = (package, name)
        if key not in self._children:
            full = f"{package.name}.{name}"
            self._children[key] = self._search(name, full, package.folders, package.base)
        return self._children[key]

    def below(self, package: Module) -> tuple[Module, ...]:
        """Give all modules in a package and in the packages in it."""
        if package not in self._below:
            self._below[package] = tuple(self._walk(package, frozenset()))
        return self._below[package]

    def around(self, module: Module) -> Iterator[Module]:
        """Give all modules of a module's package, or those that lie beside it if it is in none."""
        tops = [each for each in self._top(module.name.partition(".")[0], module.base) if each.folders]
        for each in tops:
            yield from self.below(each)
        if not tops:
            for name, is_dir in (self.list_folder(module.base) or {}).items():
                if not is_dir and name.endswith(_SUFFIXES):
                    yield Module(_bare(name), module.base / name, (), module.base)

    def everything(self) -> tuple[Module, ...]:
        """Give every file below the root that Python can run, as a module."""
        if self._everything is None:
            self._everything = tuple(self._files_in(self.root, ()))
        return self._everything

    def at(self, file: Path, name: str) -> list[Module]:
        """Give the packages around the module that was loaded from `file` as `name`, and last the module."""
        is_package = file.stem == "__init__"
        parts = name.split(".")
        depth = len(parts) if is_package else len(parts) - 1
        base = file.parents[min(depth, len(file.parents) - 1)]
        run, _ = self.locate(name, base)
        for each in run:
            if each.file is not None and each.name == name and _is_same(each.file, file):
                return [one for one in run if one.base == each.base]
        folders = (file.parent,) if is_package else ()
        return [Module(name, file, folders, file.parent.parent if is_package else file.parent)]

    def _top(self, name: str, base: Path) -> tuple[Module, ...]:
        key = (name, base)
        if key not in self._tops:
            self._tops[key] = () if name in sys.builtin_module_names else tuple(self._find_top(name, base))
        return self._tops[key]

    def _find_top(self, name: str, base: Path) -> Iterator[Module]:
        here = [
            found
            for folder in dict.fromkeys((self.root, base))
            if (found := self._search(name, name, (folder,), folder)) is not None
        ]
        whole = [each for each in here if each.file is not None]
        if whole:
            yield from whole
            return
        if name in sys.stdlib_module_names or name == _OURSELVES:
            return  # a folder without `__init__` never stands before a module
        spec = _ask_finders(name)
        if spec is None or spec.origin is None:  # none but folders without `__init__`
            yield from here
            known = {folder for each in here for folder in each.folders}
            places = tuple(each for each in _folders_of(spec) if each not in known)
            places = tuple(each for each in places if not self.is_installed(each / "__init__.py"))
            if places:
                yield Module(name, None, places, places[0].parent)
        elif spec.has_location:
            yield from self._counted(name, spec, Path(spec.origin).absolute())

    def _counted(self, name: str, spec: ModuleSpec, file: Path) -> Iterator[Module]:
        folders = _folders_of(spec)
        base = file.parent.parent if folders else file.parent
        beside = () if self.relative(file) is not None else self.list_folder(base) or ()
        if any(each.endswith(".dist-info") for each in beside) or not file.is_file():
            return  # a folder that distributions were installed into, or an archive
        if not self.is_installed(file):
            yield Module(name, file, folders, base)

    def _search(self, name: str, full: str, folders: tuple[Path, ...], base: Path) -> Module | None:
        """Look through folders of the path as Python's `FileFinder` does."""
        portions: list[Path] = []
        for folder in folders:
            listing = self.list_folder(folder) or {}
            inside = folder / name
            if listing.get(name):
                within = self.list_folder(inside) or {}
                for suffix in _SUFFIXES:
                    if within.get(f"__init__{suffix}") is False:
                        return Module(full, inside / f"__init__{suffix}", (inside,), base)
            for suffix in _SUFFIXES:
                if listing.get(f"{name}{suffix}") is False:
                    return Module(full, folder / f"{name}{suffix}", (), base)
            if listing.get(name):
                portions.append(inside)
        return Module(full, None, tuple(portions), base) if portions else None

    def _files_in(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Module]:
        for name, is_dir in sorted((self.list_folder(folder) or {}).items()):
            path = folder / name
            if not is_dir and name.endswith(_SUFFIXES):
                is_package = _bare(name) == "__init__"
                full = ".".join(parts if is_package else (*parts, _bare(name)))
                yield Module(full, path, (folder,) if is_package else (), self.root)
            elif is_dir and name not in _INSTALLED and not path.is_symlink():  # else it lies elsewhere
                yield from self._files_in(path, (*parts, name))

    def _walk(self, package: Module, above: frozenset[str]) -> Iterator[Module]:
        real = frozenset(map(os.path.realpath, package.folders))
        if real & above:
            return  # a link that leads back up
        names = {
            _bare(name) if not is_dir else name
            for folder in package.folders
            for name, is_dir in (self.list_folder(folder) or {}).items()
            if is_dir or name.endswith(_SUFFIXES)
        }
        for name in sorted(names - {"__init__"}):
            found = self.child(package, name)
            if found is not None:
                yield found
                yield from self._walk(found, above | real)


def is_skipped(folder: Path) -> bool:
    """Whether a folder holds no code of the project: an environment, a store, what tools keep."""
    return folder.name in _SKIPPED or any(
        os.path.exists(folder / each)  # noqa: PTH110 - a folder that may not be entered is no error
        for each in ("pyvenv.cfg", "conda-meta")
    )


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """Tell a folder from a file, through links; None for what is neither."""
    try:
        return entry.is_dir() or (False if entry.is_file() else None)
    except OSError:
        return None  # a link to itself


def _folders_of(spec: ModuleSpec | None) -> tuple[Path, ...]:
    places = () if spec is None else spec.submodule_search_locations or ()
    return tuple(Path(each).absolute() for each in places)


def _bare(name: str) -> str:
    return next(name[: -len(suffix)] for suffix in _SUFFIXES if name.endswith(suffix))


def _is_same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


@cache
def _own_folders() -> tuple[Path, ...]:
    """Give where Python keeps its own modules and the installed ones."""
    paths = sysconfig.get_paths()
    return tuple(Path(paths[each]) for each in ("stdlib", "platstdlib", "purelib", "platlib"))


def _ask_finders(name: str) -> ModuleSpec | None:
    """Ask Python's own finders for a top-level name; they run no code of the module."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(name, None)
        except (ImportError, AttributeError, TypeError, ValueError, OSError):
            continue  # a finder of somebody else's that does not answer, or a name that is none
        if isinstance(spec, ModuleSpec):
            return spec
    return None
