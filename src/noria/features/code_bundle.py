"""Code that travels with a model: the modules of a project as a zip, imported under names of their own.

Whoever serves a model imports from its bundle and not from the project, whose code may be another by now. Two
bundles, or a bundle and the project, stand side by side in one process. Imports no engine.
"""

import builtins
import importlib
import importlib.util
import io
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, ModuleType
from typing import Any, cast

import msgspec

from noria.errors import ConfigError
from noria.features.on_demand import Bound, Function, OnDemand, OnDemandSpec
from noria.records import canonical_json, sha256_hex

__all__ = [
    "Bundle",
    "differing_distributions",
    "find_kept",
    "import_kept",
    "load_functions",
    "read_bundle",
    "write_bundle",
]

_CONTENT = "noria.json"
_CODE = "code/"
_INIT = "__init__.py"
_PRIVATE = "_noria_code_"
_MANGLED = (ValueError, RuntimeError, EOFError, OSError)  # what zipfile raises where bytes were changed
_INSTANT = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold: equal sources are equal bytes


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself."""

    on_demand: tuple[OnDemandSpec, ...]
    distributions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules as they were when a model was trained.

    Attributes
    ----------
    digest : str
        The sha256 of its bytes.
    on_demand : tuple of OnDemandSpec
        The features that its code computes, each behind those that it reads.
    sources : mapping
        By a module's name: its source, and whether it is a package.
    distributions : mapping
        The version of each installed distribution that it imports, by name.
    """

    digest: str
    on_demand: tuple[OnDemandSpec, ...]
    sources: Mapping[str, tuple[bytes, bool]]
    distributions: Mapping[str, str]


def write_bundle(
    on_demand: Sequence[OnDemandSpec],
    sources: Mapping[str, tuple[bytes, bool]],
    distributions: Mapping[str, str],
) -> bytes:
    """Write a bundle; the same content gives the same bytes."""
    content = _Content(on_demand=tuple(on_demand), distributions=dict(sorted(distributions.items())))
    files = {_CONTENT: canonical_json(content)}
    for name, (source, is_package) in sources.items():
        path = name.replace(".", "/")
        files[f"{_CODE}{path}/{_INIT}" if is_package else f"{_CODE}{path}.py"] = source
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(path, _INSTANT), data)
    return sink.getvalue()


def read_bundle(data: bytes) -> Bundle:
    """Read what `write_bundle` wrote. Raises `ConfigError` if it is something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed, and may be larger than memory")
            content = msgspec.json.decode(archive.read(_CONTENT), type=_Content)
            sources = {}
            for path in archive.namelist():
                if path.startswith(_CODE):
                    inner = path.removeprefix(_CODE)
                    is_package = inner.endswith(f"/{_INIT}")
                    name = inner.removesuffix(f"/{_INIT}" if is_package else ".py").replace("/", ".")
                    sources[name] = archive.read(path), is_package
    except (zipfile.BadZipFile, KeyError, msgspec.MsgspecError, *_MANGLED) as err:
        raise ConfigError(f"{len(data)} bytes are no code of on-demand features: {err}") from err
    return Bundle(sha256_hex(data), content.on_demand, sources, content.distributions)


def load_functions(bundle: Bundle) -> tuple[Bound, ...]:
    """Import the functions of a bundle; nothing of the project's folder is imported.

    Raises
    ------
    ConfigError
        If a module cannot be imported or has no such function.
    """
    prefix = _stand(bundle)
    try:
        return tuple(Bound(spec, _function(bundle, prefix, spec)) for spec in bundle.on_demand)
    except BaseException:
        _forget(prefix)
        raise


def import_kept(bundle: Bundle, module: str) -> ModuleType:
    """Import a module of a bundle as it was kept; one that is none of its own as it is installed.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    prefix = _stand(bundle)
    try:
        return importlib.import_module(f"{prefix}.{module}" if module in bundle.sources else module)
    except (Exception, SystemExit) as err:
        _forget(prefix)
        beside = "; files beside a module do not travel: declare them as artifacts of the model"
        raise ConfigError(
            f"module {module!r} cannot be imported from the code kept with the model: "
            f"{type(err).__name__}: {err}{beside if isinstance(err, OSError) else ''}"
        ) from err


def find_kept(bundle: Bundle, module: str, name: str) -> Any:
    """Give what a module of a bundle calls by a name, such as `Outer.Inner`. Raises `ConfigError`."""
    found: Any = import_kept(bundle, module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ConfigError(f"module {module!r} of the code kept with the model has no {name!r}")
    return found


def differing_distributions(bundle: Bundle) -> list[str]:
    """Tell which installed distributions are not those that the code was trained with."""
    found = []
    for name, wanted in bundle.distributions.items():
        try:
            there = version(name)
        except PackageNotFoundError:
            there = "none"
        if there != wanted:
            found.append(f"{name} {wanted} (here: {there})")
    return found


def _function(bundle: Bundle, prefix: str, spec: OnDemandSpec) -> Function:
    where = f"{prefix}.{spec.module}" if spec.module in bundle.sources else spec.module
    try:
        module = importlib.import_module(where)
    except (Exception, SystemExit) as err:
        beside = "; files beside a module do not travel: write tables into a module"
        raise ConfigError(
            f"module {spec.module!r}, which holds the on-demand feature {spec.name!r}, cannot be imported "
            f"from the code kept with the model: {type(err).__name__}: {err}"
            f"{beside if isinstance(err, OSError) else ''}"
        ) from err
    found = getattr(module, spec.function, None)
    if isinstance(found, OnDemand):
        return found.function
    if not callable(found):
        raise ConfigError(
            f"module {spec.module!r} of the code kept with the model has no function {spec.function!r}"
        )
    return cast("Function", found)


def _forget(prefix: str) -> None:
    """Take the modules of a bundle away, so that another attempt imports them anew."""
    for name in [each for each in sys.modules if each == prefix or each.startswith(f"{prefix}.")]:
        del sys.modules[name]


def _stand(bundle: Bundle) -> str:
    """Make a bundle importable below a name of its own; give that."""
    prefix = _PRIVATE + bundle.digest[:32]
    if prefix not in sys.modules:
        root = ModuleType(prefix, "Code that was kept with a model.")
        root.__path__ = []
        sys.modules[prefix] = root
    _FINDER.loaders[prefix] = _Loader(bundle, prefix)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return prefix


class _Loader(InspectLoader):
    """Runs the sources of a bundle; what they import of one another comes from it as well."""

    def __init__(self, bundle: Bundle, prefix: str) -> None:
        self._bundle, self._prefix = bundle, prefix
        self._tops = frozenset(name.partition(".")[0] for name in bundle.sources)
        self._folders = frozenset(
            name[:end] for name in bundle.sources for end in range(len(name)) if name[end] == "."
        )
        self._builtins = {**vars(builtins), "__import__": self._import}

    def find(self, fullname: str) -> ModuleSpec | None:
        name = self._own(fullname)
        if name not in self._bundle.sources and name not in self._folders:
            return None
        is_package = name in self._folders or self.is_package(fullname)
        spec = ModuleSpec(fullname, self, origin=self._path(fullname), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = []
        return spec

    def is_package(self, fullname: str) -> bool:
        found = self._bundle.sources.get(self._own(fullname))
        return found is None or found[1]

    def get_source(self, fullname: str) -> str:
        source, _ = self._bundle.sources.get(self._own(fullname), (b"", True))  # else a folder
        return importlib.util.decode_source(source)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_source(fullname), self._path(fullname))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._path(module.__name__)
        vars(module)["__builtins__"] = self._builtins
        exec(self.get_code(module.__name__), vars(module))

    def _own(self, fullname: str) -> str:
        return fullname.removeprefix(f"{self._prefix}.")

    def _path(self, fullname: str) -> str:
        """Name a file for messages; none of that name is there."""
        end = f"/{_INIT}" if self.is_package(fullname) else ".py"
        return f"<{self._prefix}>/{self._own(fullname).replace('.', '/')}{end}"

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Import for the bundle's own modules: its names mean its modules, wherever the statement stands."""
        top = name.partition(".")[0]
        names = tuple(fromlist or ())
        if level or top not in self._tops:
            return builtins.__import__(name, globals, locals, names, level)
        found = builtins.__import__(f"{self._prefix}.{name}", globals, locals, names)
        return found if names else sys.modules[f"{self._prefix}.{top}"]


class _Finder(MetaPathFinder):
    """Finds modules of bundles."""

    def __init__(self) -> None:
        self.loaders: dict[str, _Loader] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        prefix, dot, _ = fullname.partition(".")
        loader = self.loaders.get(prefix) if dot else None
        return None if loader is None else loader.find(fullname)


_FINDER = _Finder()
