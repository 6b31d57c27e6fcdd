"""Loading a project's modules so that what runs is what lies on disk.

Python trusts the bytecode that it has kept of a file by the second of its last change and its size: what was
edited within that second is not seen. And what a process has imported stays as it was, whatever becomes of
the file. The key of a step is made of the file, so the code that runs has to be the file's as well. Here
modules that are not installed are compiled from their source each time, and remembered by the sha256 of it.
"""

import importlib
import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from noria.pipelines.code.modules import ModuleFinder
from noria.records import sha256_hex

__all__ = [
    "changed_modules",
    "count_loads",
    "forget_modules",
    "importing_from",
    "loaded_sources",
    "watch_imports",
]

_OURSELVES = __name__.partition(".")[0]
_MAIN = {"__main__", "__mp_main__"}
_STANDARD = tuple(f"{sysconfig.get_path(each)}{os.sep}" for each in ("stdlib", "platstdlib"))
_Signature = tuple[int, int, int]  # instant of the last change, size, number of the file


_LOADS: list[str] = []  # names of modules, each time that one was loaded


class _Loader(SourceFileLoader):
    """Compiles what it reads, and remembers what that was."""

    sha256: str | None = None
    signature: _Signature | None = None

    def get_code(self, fullname: str) -> CodeType:
        _LOADS.append(fullname)
        path = self.get_filename(fullname)
        signature = _signature(path)  # before it is read: a later change is seen
        data = self.get_data(path)
        self.sha256, self.signature = sha256_hex(data), signature
        code: CodeType = self.source_to_code(data, path)
        return code


class _Finder(MetaPathFinder):
    """Finds what `PathFinder` finds, and has source files loaded by `_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or _is_ours(fullname):
            return spec
        if spec.origin is not None and not _is_installed(spec.origin):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def watch_imports() -> None:
    """Have modules that are not installed compiled from their source, from now on, in this process."""
    if any(isinstance(each, _Finder) for each in sys.meta_path):
        return
    at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    sys.meta_path.insert(at, _Finder())  # after those of others, which know better


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Have `folder` first on the path of imports."""
    place = str(folder)
    watch_imports()
    importlib.invalidate_caches()  # a file may be newer than the listing that Python keeps of its folder
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def count_loads() -> int:
    """Tell how often a source was loaded so far: where it stays, `loaded_sources` does as well."""
    return len(_LOADS)


def loaded_sources(seen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the sha256 of the sources that modules of this process were made of: file -> sha256.

    Parameters
    ----------
    seen
        What was given before: only what differs from it is given.
    """
    found = {}
    for module in list(sys.modules.values()):
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if type(loader) is _Loader and loader.sha256 is not None:
            found[loader.path] = loader.sha256
    known = seen or {}
    return {path: sha256 for path, sha256 in found.items() if known.get(path) != sha256}


def changed_modules(folder: Path) -> list[str]:
    """Name the modules below a folder whose source is no longer what was loaded; sorted.

    One that was loaded before imports were watched is unchanged if its file is older than this process.
    """
    return sorted(name for name, module in _modules_below(folder) if _has_changed(module))


def forget_modules(folder: Path) -> None:
    """Drop all modules below a folder, so that the next import loads what lies there now."""
    for name, _ in list(_modules_below(folder)):
        if name not in _MAIN:
            del sys.modules[name]


def _modules_below(folder: Path) -> Iterator[tuple[str, ModuleType]]:
    finder = ModuleFinder(folder)
    root = f"{finder.root}{os.sep}"
    for name, module in sys.modules.copy().items():  # at once: other threads import
        if _is_ours(name):
            continue
        file = getattr(module, "__file__", None)
        places = [file] if isinstance(file, str) else _folders_of(module)
        if any(each.startswith(root) and not finder.is_installed(Path(each)) for each in places):
            yield name, module


def _folders_of(module: ModuleType) -> list[str]:
    """Give the folders of a package without `__init__`."""
    try:
        return [str(each) for each in getattr(module, "__path__", ())]
    except (TypeError, KeyError):
        return []  # no package, or one whose parent is gone


def _has_changed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    try:
        signature = _signature(file)
        if type(loader) is not _Loader or loader.sha256 is None:
            return signature[0] / 1e9 > _began_at()
        if signature == loader.signature:
            return False
        if sha256_hex(Path(file).read_bytes()) != loader.sha256:
            return True
        loader.signature = signature
    except OSError:
        return True  # it is gone
    return False


def _signature(path: str) -> _Signature:
    found = Path(path).stat()
    return max(found.st_mtime_ns, found.st_ctime_ns), found.st_size, found.st_ino


def _began_at() -> float:
    """Tell when this process began; 0 where that cannot be known."""
    try:
        told = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(told.rpartition(")")[2].split()[19])
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def _is_installed(path: str) -> bool:
    parts = Path(path).parts
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(_STANDARD)


def _is_ours(name: str) -> bool:
    return name == _OURSELVES or name.startswith(f"{_OURSELVES}.")
