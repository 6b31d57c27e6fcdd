"""Finding what a project declares: objects at module level in the modules that `noria.toml` lists."""

import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from noria.clock import heed_time_zones
from noria.errors import ConfigError
from noria.pipelines.loading import changed_modules, forget_modules, importing_from
from noria.workspace.declared import Declarations

__all__ = ["is_current", "scan"]

T = TypeVar("T")

# Module, class, field of `Declarations`, how messages call it.
_KINDS = (
    ("lake.declarations", "Dataset", "datasets", "dataset"),
    ("lake.file_declarations", "Files", "files", "folder of files"),
    ("features.declarations", "FeatureView", "views", "feature view"),
    ("features.on_demand", "OnDemand", "on_demand", "on-demand feature"),
    ("training.declarations", "Training", "trainings", "training"),
    ("deploy.declarations", "Gate", "gates", "gate"),
    ("deploy.declarations", "ABTest", "ab_tests", "A/B test"),
    ("deploy.bandit_declarations", "Bandit", "bandits", "bandit"),
    ("monitoring.declarations", "Monitor", "monitors", "monitor"),
    ("triggers.declarations", "Trigger", "triggers", "trigger"),
    ("replay.declarations", "Replay", "replays", "replay"),
    ("value.declarations", "Objective", "objectives", "objective"),
    ("pipelines.declarations", "Pipeline", "pipelines", "pipeline"),
    ("warehouse.declarations", "Model", "models", "model"),
    ("streams.declarations", "Stream", "streams", "stream"),
    ("pipelines.declarations", "Step", "steps", "step"),
)

# What a module raises when it is wrong.
_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def is_current(found: Declarations, folder: Path) -> bool:
    """Tell whether the modules below `folder`, and their files, are still those that were looked into."""
    loaded = all(sys.modules.get(name) is module for name, module in found.modules.items())
    return loaded and not changed_modules(folder)


def scan(folder: Path, modules: tuple[str, ...]) -> Declarations:
    """Import `modules` from `folder` and collect what they declare.

    An object may be seen under several variables and in several modules; two different ones of a kind may
    not have one name. If a module below `folder` was changed since this process has loaded it, all of them
    are loaded anew, for what they hold of one another is old as well.

    Raises
    ------
    ConfigError
        If a module is missing or fails (names file and line), or two declarations clash.
    """
    found = Declarations()
    if changed_modules(folder):
        forget_modules(folder)
    _forget_other_projects(folder)
    with importing_from(folder):
        for name in modules:
            found.modules[name] = _load(folder, name)
            for variable, thing in vars(found.modules[name]).copy().items():
                if not variable.startswith("_"):
                    _collect(found, variable, thing, module=name)
    if twice := sorted(found.views.keys() & found.on_demand.keys()):
        raise ConfigError(f"a feature view and an on-demand feature are both called {twice[0]!r}; rename one")
    if twice := sorted(found.ab_tests.keys() & found.bandits.keys()):
        raise ConfigError(f"an A/B test and a bandit are both called {twice[0]!r}; rename one")
    heed_time_zones()
    return found


def _collect(found: Declarations, variable: str, thing: Any, *, module: str) -> None:
    for declared, where, kind in _loaded_kinds():
        if isinstance(thing, declared):
            named = thing.named(variable) if kind == "gate" else thing
            name = variable if kind == "objective" else named.name
            _add(getattr(found, where), name, named, kind=kind, module=module)
            return


def _loaded_kinds() -> Iterator[tuple[type[Any], str, str]]:
    """Give the kinds of which there may be an object: what nobody has loaded, nobody has declared."""
    for package, declared, where, kind in _KINDS:
        loaded = sys.modules.get(f"noria.{package}")
        if loaded is not None:
            yield getattr(loaded, declared), where, kind


def _add(found: dict[str, T], name: str, thing: T, *, kind: str, module: str) -> None:
    before = found.get(name)
    if before is not None and before is not thing and before != thing:
        raise ConfigError(
            f"two declarations of the {kind} {name!r}, the second in module {module!r}; rename one"
        )
    found[name] = thing


def _load(folder: Path, name: str) -> ModuleType:
    _refuse_namesakes(folder, name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name == name:
            raise ConfigError(
                f"noria.toml lists the module {name!r}, but there is no {name}.py in {folder}; "
                "make it, or correct [project] modules"
            ) from err
        raise ConfigError(
            f"module {name!r} of the project imports {err.name!r}, which is not installed"
        ) from err
    except ConfigError as err:
        raise ConfigError(f"{_where(err, folder)}: {err}") from err
    except SyntaxError as err:
        raise ConfigError(f"{err.filename}, line {err.lineno}: {err.msg}") from err
    except _MISTAKES as err:
        raise ConfigError(f"{_where(err, folder)}: {type(err).__name__}: {err}") from err


def _refuse_namesakes(folder: Path, name: str) -> None:
    loaded = sys.modules.get(name)
    if loaded is not None and not _is_below(loaded, folder):
        origin = getattr(loaded, "__file__", None) or "built in"
        raise ConfigError(
            f"the project's module {name!r} has the name of a module that Python has loaded already "
            f"({origin}); rename {name}.py and correct [project] modules"
        )


def _forget_other_projects(folder: Path) -> None:
    """Drop what was loaded for other projects under names that stand for modules of this one."""
    roots = set()
    for name, module in sys.modules.copy().items():
        file = getattr(module, "__file__", None)
        if "." in name or not isinstance(file, str) or _is_below(module, folder):
            continue
        place = Path(file).parent.parent if Path(file).stem == "__init__" else Path(file).parent
        here = folder / name
        if (here.with_name(f"{name}.py").is_file() or here.is_dir()) and (place / "noria.toml").is_file():
            roots.add(place)
    for root in roots:
        forget_modules(root)


def _is_below(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    places = [file] if isinstance(file, str) else list(getattr(module, "__path__", ()))
    return any(Path(each).is_relative_to(folder) for each in places)


def _where(err: BaseException, folder: Path) -> str:
    """Name the last line of the project's own code on the way to `err`."""
    frames = [
        frame for frame in traceback.extract_tb(err.__traceback__) if Path(frame.filename).parent == folder
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else str(folder)
