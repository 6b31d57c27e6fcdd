"""Finding what a project declares: objects at module level in the modules that `noria.toml` lists."""

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from noria.deploy.declarations import Gate
from noria.errors import ConfigError, NotFound
from noria.features.declarations import FeatureView
from noria.lake.declarations import Dataset
from noria.monitoring.declarations import Monitor
from noria.replay.declarations import Replay
from noria.training.declarations import Training
from noria.triggers.declarations import Trigger
from noria.value.declarations import Objective

__all__ = ["Declarations", "scan"]

T = TypeVar("T")


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

    def training(self, name: str) -> Training:
        """Give a training. Raises `NotFound`, which says what exists."""
        return _get("training", self.trainings, name)

    def dataset(self, name: str) -> Dataset:
        """Give a dataset. Raises `NotFound`, which says what exists."""
        return _get("dataset", self.datasets, name)

    def gate(self, name: str) -> Gate:
        """Give a gate. Raises `NotFound`, which says what exists."""
        return _get("gate", self.gates, name)


def _get(kind: str, found: Mapping[str, T], name: str) -> T:
    if name not in found:
        raise NotFound(kind, name, found)
    return found[name]


def scan(folder: Path, modules: tuple[str, ...]) -> Declarations:
    """Import `modules` from `folder` and collect what they declare.

    An object may be seen under several variables and in several modules; two different ones of a kind may
    not have one name.

    Raises
    ------
    ConfigError
        If a module is missing or fails (names file and line), or two declarations clash.
    """
    found = Declarations()
    with _importing_from(folder):
        for name in modules:
            for variable, thing in vars(_load(folder, name)).items():
                if not variable.startswith("_"):
                    _collect(found, variable, thing, module=name)
    return found


def _collect(found: Declarations, variable: str, thing: Any, *, module: str) -> None:
    match thing:
        case Dataset():
            _add(found.datasets, thing.name, thing, kind="dataset", module=module)
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
        case _:
            pass


def _add(found: dict[str, T], name: str, thing: T, *, kind: str, module: str) -> None:
    before = found.get(name)
    if before is not None and before is not thing and before != thing:
        raise ConfigError(
            f"two declarations of the {kind} {name!r}, the second in module {module!r}; rename one"
        )
    found[name] = thing


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    place = str(folder)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _load(folder: Path, name: str) -> ModuleType:
    _forget_other_projects(folder, name)
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
    except (TypeError, ValueError, AttributeError, NameError, ImportError, KeyError, OSError) as err:
        raise ConfigError(f"{_where(err, folder)}: {type(err).__name__}: {err}") from err


def _forget_other_projects(folder: Path, name: str) -> None:
    """Drop a module of the same name, and what lay beside it, that was loaded for another project."""
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if loaded is None or (origin is not None and Path(origin).parent == folder):
        return
    if origin is None or not (Path(origin).parent / "noria.toml").exists():
        raise ConfigError(
            f"the project's module {name!r} has the name of a module that Python has loaded already "
            f"({origin or 'built in'}); rename {name}.py and correct [project] modules"
        )
    beside = Path(origin).parent
    for other, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if place is not None and Path(place).parent == beside and "." not in other:
            del sys.modules[other]


def _where(err: BaseException, folder: Path) -> str:
    """Name the last line of the project's own code on the way to `err`."""
    frames = [
        frame for frame in traceback.extract_tb(err.__traceback__) if Path(frame.filename).parent == folder
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else str(folder)
