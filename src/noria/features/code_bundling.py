"""Making a bundle: what the functions of on-demand features reach in their project, as it was loaded."""

import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from noria.errors import ConfigError
from noria.features.code_bundle import write_bundle
from noria.features.on_demand import OnDemand
from noria.pipelines.code.project import ProjectCode, ReachedSource
from noria.pipelines.loading import loaded_sources

__all__ = ["bundle_modules", "code_digest", "folder_of", "make_bundle"]

_OURSELVES = __name__.partition(".")[0]  # the runtime of a release names its version


def make_bundle(on_demand: Sequence[OnDemand]) -> bytes:
    """Give the code of on-demand features: every module of the project that their modules may import.

    Parameters
    ----------
    on_demand
        Each behind those that it reads.

    Raises
    ------
    ConfigError
        If a module lies in no file, does not parse, or was changed since this process has loaded it.
    """
    modules = [each.function.__module__ for each in on_demand]
    return bundle_modules(modules, on_demand=on_demand, what="an on-demand feature")


def bundle_modules(modules: Sequence[str], *, what: str, on_demand: Sequence[OnDemand] = ()) -> bytes:
    """Give the code of modules: every module of the project that they may import.

    Parameters
    ----------
    modules
        By name, as they are loaded.
    what
        What is in them, for messages.
    on_demand
        Features that the code computes, each behind those that it reads. Without, modules of installed
        distributions are left out.

    Raises
    ------
    ConfigError
        If a module lies in no file, does not parse, or was changed since this process has loaded it.
    """
    sources: dict[str, tuple[bytes, bool]] = {}
    imported: set[str] = {"numpy"}
    for module in dict.fromkeys(modules):
        root, file = _place(module, what)
        if not on_demand and root in _installed():
            imported.add(module.partition(".")[0])  # a server has it installed too: its version is told
            continue
        for found in _as_loaded(ProjectCode(root), module, file):
            given = found.text, found.is_package
            if sources.setdefault(found.name, given) != given:
                raise ConfigError(
                    f"{'on-demand features reach' if on_demand else 'they reach'} two modules called "
                    f"{found.name!r}, one is {found.path}; rename one"
                )
            imported |= set(found.imports)
    tops = {name.partition(".")[0] for name in sources}
    return write_bundle([each.spec() for each in on_demand], sources, _distributions(imported - tops))


def code_digest(feature: OnDemand) -> str:
    """Give the digest of the code that an on-demand feature reaches, free of comments and layout.

    Raises `ConfigError` like `make_bundle`.
    """
    module = feature.function.__module__
    root, file = _place(module, "an on-demand feature")
    code = ProjectCode(root)
    for _ in _as_loaded(code, module, file):
        pass  # refuses what was changed
    return code.of(module, file=file).digest


def _as_loaded(code: ProjectCode, module: str, file: Path) -> Iterator[ReachedSource]:
    """Give the modules that a module reaches. Raises `ConfigError` if one was changed since it was loaded."""
    loaded = loaded_sources()
    for found in code.sources(module, file=file):
        if loaded.get(str(found.path), found.sha256) != found.sha256:
            raise ConfigError(
                f"{found.path} was changed since it was loaded, so that what runs is not what it says; "
                "run the command again"
            )
        yield found


def _place(module: str, what: str) -> tuple[Path, Path]:
    """Give the folder from which a module was imported, and its file."""
    told = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or told is None:
        raise ConfigError(
            f"{what} is in {module!r}, which a serving process cannot import; write it into a "
            "module of the project"
        )
    file = Path(told).absolute()
    return folder_of(module, file), file


def folder_of(module: str, file: Path) -> Path:
    """Give the folder of the import path from which a module was loaded."""
    depth = module.count(".") + (file.stem == "__init__")
    return file.parents[min(depth, len(file.parents) - 1)]


@cache
def _installed() -> frozenset[Path]:
    return frozenset(Path(sysconfig.get_path(each)).absolute() for each in ("purelib", "platlib", "stdlib"))


def _distributions(imported: set[str]) -> Mapping[str, str]:
    return {name: version(name) for name in _names(imported) if name != _OURSELVES}


def _names(imported: set[str]) -> Iterator[str]:
    known = _known()
    for top in sorted(imported - sys.stdlib_module_names):
        yield from known.get(top, ())


@cache
def _known() -> Mapping[str, list[str]]:
    return packages_distributions()
