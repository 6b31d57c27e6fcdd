"""Finding what a project declares: objects at module level in the modules that `noria.toml` lists."""

import importlib
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from noria.clock import heed_time_zones
from noria.deploy.declarations import Gate
from noria.errors import ConfigError, NotFound
from noria.features.declarations import FeatureView
from noria.lake.declarations import Dataset
from noria.lake.file_declarations import Files
from noria.monitoring.declarations import Monitor
from noria.pipelines.declarations import Pipeline, Step
from noria.pipelines.loading import changed_modules, forget_modules, importing_from
from noria.replay.declarations import Replay
from noria.streams.declarations import Stream
from noria.training.declarations import Training
from noria.triggers.declarations import Trigger
from noria.value.declarations import Objective
from noria.warehouse.declarations import Model

__all__ = ["Declarations", "scan"]

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Declarations:
    """What a project declares, by kind and name."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    monitors: dict[str, Monitor] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    replays: dict[str, Replay] = field(default_factory=dict)
    objectives: dict[str, Objective] = field(default_factory=dict)
    pipelines: dict[str, Pipeline[Any, Any]] = field(default_factory=dict)
    steps: dict[str, Step[Any, Any]] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)  # of the warehouse
    streams: dict[str, Stream] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    modules: dict[str, ModuleType] = field(default_factory=dict)  # that were looked into

    def training(self, name: str) -> Training:
        """Give a training. Raises `NotFound`, which says what exists."""
        return _get("training", self.trainings, name)

    def dataset(self, name: str) -> Dataset:
        """Give a dataset. Raises `NotFound`, which says what exists."""
        return _get("dataset", self.datasets, name)

    def stream(self, name: str) -> Stream:
        """Give a stream. Raises `NotFound`, which says what exists."""
        return _get("stream", self.streams, name)

    def gate(self, name: str) -> Gate:
        """Give a gate. Raises `NotFound`, which says what exists."""
        return _get("gate", self.gates, name)


def _get(kind: str, found: Mapping[str, T], name: str) -> T:
    if name not in found:
        raise NotFound(kind, name, found)
    return found[name]


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
    heed_time_zones()
    return found


def _collect(  # noqa: PLR0912 - one case per kind
    found: Declarations, variable: str, thing: Any, *, module: str
) -> None:
    match thing:
        case Dataset():
            _add(found.datasets, thing.name, thing, kind="dataset", module=module)
        case Files():
            _add(found.files, thing.name, thing, kind="folder of files", module=module)
        case FeatureView():
            _add(found.views, thing.name, thing, kind="feature view", module=module)
        case Training():
            _add(found.trainings, thing.name, thing, kind="training", module=module)
        case Gate():
            named = thing.named(variable)
            _add(found.gates, named.name, named, kind="gate", module=module)
        case Monitor():
            _add(found.monitors, thing.name, thing, kind="monitor", module=module)
        case Trigger():
            _add(found.triggers, thing.name, thing, kind="trigger", module=module)
        case Replay():
            _add(found.replays, thing.name, thing, kind="replay", module=module)
        case Objective():
            _add(found.objectives, variable, thing, kind="objective", module=module)
        case Pipeline():
            _add(found.pipelines, thing.name, thing, kind="pipeline", module=module)
        case Model():
            _add(found.models, thing.name, thing, kind="model", module=module)
        case Stream():
            _add(found.streams, thing.name, thing, kind="stream", module=module)
        case Step():
            _add(found.steps, thing.name, thing, kind="step", module=module)
        case _:
            pass


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
