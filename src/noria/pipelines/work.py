"""What happens where a step runs: read its arguments, call it, keep what it gives.

The same code runs inline, in worker processes and on Ray, so that results are the same everywhere.
"""

import importlib
import importlib.machinery
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.errors import ConfigError, DigestMismatch, NoriaError, NotFound
from noria.pipelines.declarations import DRAWING, Step
from noria.pipelines.executor import Done, Failure, Place, Progressed, Work
from noria.pipelines.loading import count_loads, loaded_sources, watch_imports
from noria.pipelines.signatures import field_names, fits, item_of, read_signature, show
from noria.pipelines.surroundings import Surroundings
from noria.pipelines.trees import (
    INLINE_BYTES,
    Absent,
    Fields,
    Keyed,
    Listed,
    Recorded,
    Stored,
    Tree,
    stored_in,
)
from noria.pipelines.values.codec import Format, dump, load, summary
from noria.records import Version
from noria.storage.contract import Storage
from noria.storage.opening import open_storage

__all__ = ["ArgumentGone", "Bench", "find_target"]

_HWM = re.compile(rb"VmHWM:\s*(\d+) kB")
_TELL_EVERY_S = 0.05
_MOST_MESSAGE = 4_000
_MOST_TRACE = 20_000


class ArgumentGone(NoriaError, LookupError):
    """A kept value that a step reads is gone from the storage, or is damaged."""


class Bench:
    """Where one process runs steps of one project.

    Parameters
    ----------
    tell
        Takes what steps say of their progress.
    is_interruptible
        Whether a `KeyboardInterrupt` is Ctrl-C, and ends the process's work; else it is an error of the step.
    """

    def __init__(
        self,
        place: Place,
        *,
        tell: Callable[[Progressed], None] | None = None,
        is_interruptible: bool = True,
    ) -> None:
        self.place = place
        self._tell = tell or (lambda _: None)
        self._passing = (KeyboardInterrupt,) if is_interruptible else ()
        self._opened = ExitStack()
        self._folder: Path | None = None
        self._loads, self._loaded = -1, dict[str, str]()
        watch_imports()
        self._provided: dict[str, Any] = {}
        self._loader: Callable[[str, Any], Any] | None = None  # (version id, annotation) -> value

    @cached_property
    def _kept(self) -> Storage:
        """Where results go."""
        return self.storage if self.place.keep is None else open_storage(self.place.keep)

    @cached_property
    def storage(self) -> Storage:
        """Where large values are kept."""
        return open_storage(self.place.storage)

    def perform(self, work: Work) -> Done:
        """Make one attempt; what goes wrong in the step is in the answer, not raised."""
        began, cpu = time.perf_counter(), _cpu_s()
        _reset_peak()
        pid = os.getpid()
        run, output, failure = None, None, None
        surroundings = Surroundings(is_shared=bool(self._passing))
        if self.place.root not in sys.path:  # a step may import what nobody has imported before
            sys.path.insert(0, self.place.root)
        try:
            folder = self._empty_folder()
            run = _Run(work, folder, self._tell)
            output = self._call(work, run, folder)
        except self._passing:
            raise
        except BaseException as error:  # noqa: BLE001  # the outermost of a step: all of it is its answer
            failure = _failure(error, work)
        finally:
            if os.getpid() != pid:
                os._exit(0)  # the step has forked, and this is the child, which came back from it as well
            surroundings.restore()
            self._clear()
        return Done(
            run=work.run,
            output=output,
            failure=failure,
            metrics={} if run is None else run.metrics,
            cpu_s=_cpu_s() - cpu,
            wall_s=time.perf_counter() - began,
            memory_peak_bytes=_peak_bytes(),
            bytes_in=sum(each.size_bytes for tree in work.arguments.values() for each in stored_in(tree)),
            bytes_out=0 if output is None else sum(each.size_bytes for each in stored_in(output)),
            modules=self._newly_loaded(),
        )

    def close(self) -> None:
        """Close what was opened for steps."""
        self._opened.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _empty_folder(self) -> Path:
        """Give the folder for files of the step at work; it is emptied when that has ended."""
        if self._folder is None or not self._folder.is_dir():
            parent = Path(self.place.scratch)
            parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f"step-{os.getpid()}-", dir=parent))
        return self._folder

    def _clear(self) -> None:
        """Empty the folder; where that fails, the next step gets another one."""
        if self._folder is None:
            return
        try:
            if not os.listdir(self._folder):  # noqa: PTH208 - after every step
                return
            for each in self._folder.iterdir():
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each)
                else:
                    each.unlink()
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _call(self, work: Work, run: "_Run", folder: Path) -> Tree:
        step = find_target(work.target)
        function = step.function if isinstance(step, Step) else step
        signature = read_signature(function, provided=tuple(self.place.providers))
        arguments: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            if name in work.arguments:
                arguments[name] = self.load(work.arguments[name], parameter.annotation, folder)
            elif parameter.provided == "run":
                arguments[name] = run
            elif parameter.provided is not None:
                arguments[name] = self._provide(parameter.provided)
        token = DRAWING.set(None)
        try:
            with _seeded(work.seed):
                result = function(**arguments)
        finally:
            DRAWING.reset(token)
        _check_type(result, signature.returns, work.task)
        return self.keep(result, signature.returns, work, folder)

    # -- values

    def load(self, tree: Tree, annotation: Any, folder: Path) -> Any:  # noqa: PLR0911  # one for each kind
        """Give the value that a tree stands for.

        Raises
        ------
        ArgumentGone
            If a stored value is not there any more, or is not what was stored.
        """
        match tree:
            case Absent():
                return None
            case Stored(data=bytes() as data):
                return load(Format(tree.format), data)
            case Stored():
                return self._fetch(tree, folder)
            case Listed(items=items, is_tuple=is_tuple):
                inner = annotation if annotation is Version else item_of(annotation)
                values = [self.load(each, inner, folder) for each in items]
                return tuple(values) if is_tuple else values
            case Keyed(keys=keys, items=items):
                names, inner = self.load(keys, Any, folder), item_of(annotation)
                inner = annotation if annotation is Version else inner
                return dict(zip(names, (self.load(each, inner, folder) for each in items), strict=True))
            case Recorded():
                return self._load_version(tree, annotation)
            case Fields(kind=kind, names=names, items=items):
                inner = annotation if annotation is Version else Any
                parts = [self.load(each, inner, folder) for each in items]
                if kind == "tuple":
                    return tuple(parts)
                return _made_of(find_target(kind), names, parts)

    def _fetch(self, stored: Stored, folder: Path) -> Any:
        try:
            if stored.format == Format.VALUE:
                return load(Format.VALUE, self.storage.get(stored.sha256))
            return load(Format(stored.format), self.storage.fetch(stored.sha256), scratch=folder)
        except (NotFound, DigestMismatch) as error:
            raise ArgumentGone(f"a kept value ({stored.told}) cannot be read: {error}") from error

    def _load_version(self, recorded: Recorded, annotation: Any) -> Any:
        if self._loader is None:
            if self.place.loader is None:
                raise ConfigError(
                    f"{recorded.id} cannot be read here: this project has no loader of versions"
                )
            opened = find_target(self.place.loader)(self.place.root)
            self._loader = self._opened.enter_context(opened)
        return self._loader(recorded.id, annotation)

    def _provide(self, kind: str) -> Any:
        if kind not in self._provided:
            opened = find_target(self.place.providers[kind])(self.place.root)
            self._provided[kind] = self._opened.enter_context(opened)
        return self._provided[kind]

    def keep(self, value: Any, annotation: Any, work: Work, folder: Path) -> Tree:
        """Keep what a step gave, its parts apart where it has any."""
        if isinstance(value, Version):
            return Recorded(value.id, value.sha256)
        if isinstance(value, list) and value and all(isinstance(each, Version) for each in value):
            return Listed(tuple(Recorded(each.id, each.sha256) for each in value))
        names = field_names(annotation)
        if names is not None and "" not in work.split:
            return self._keep_fields(value, names, work, folder)
        return self._keep_part(value, work.task, "" in work.split, folder)

    def _keep_part(self, value: Any, where: str, apart: bool, folder: Path) -> Tree:
        if apart and isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            items = tuple(self._keep(each, f"{where}[{number}]", folder) for number, each in enumerate(value))
            return Listed(items, isinstance(value, tuple))
        return self._keep(value, where, folder)

    def _keep_fields(self, value: Any, names: tuple[str, ...], work: Work, folder: Path) -> Tree:
        if isinstance(value, tuple):
            if len(value) != len(names):
                raise TypeError(f"{work.task} gave {len(value)} values, declared are {len(names)}")
            parts = list(value)
        else:
            names = tuple(
                dict.fromkeys([*names, *(each.name for each in fields(value))])
            )  # of a subclass: more
            parts = [getattr(value, name) for name in names]
        kind = "tuple" if type(value) is tuple else f"{type(value).__module__}:{type(value).__qualname__}"
        items = tuple(
            self._keep_part(each, f"{work.task}.{name}", name in work.split, folder)
            for name, each in zip(names, parts, strict=True)
        )
        return Fields(kind, names, items)

    def _keep(self, value: Any, where: str, folder: Path) -> Tree:
        if isinstance(value, Version):
            return Recorded(value.id, value.sha256)
        payload = dump(value, scratch=folder, where=where)
        stored = Stored(
            payload.format, payload.sha256, payload.size_bytes, summary(value), None, payload.modules
        )
        if payload.data is not None and payload.size_bytes <= INLINE_BYTES:
            return stored.with_data(payload.data)
        if payload.data is not None:
            kept = self._kept.put(payload.data)
        else:
            assert payload.path is not None
            kept = self._kept.put_file(payload.path)
        if kept != payload.sha256:
            raise ConfigError(
                f"{where}: the file changed while it was kept; let the step end its writing first"
            )
        return stored

    def _newly_loaded(self) -> dict[str, str]:
        """Give the sources that were loaded since they were last asked for: file -> sha256."""
        if self._loads == count_loads():
            return {}
        self._loads = count_loads()
        found = loaded_sources(self._loaded)
        self._loaded |= found
        return found


def _made_of(kind: Any, names: Sequence[str], parts: Sequence[Any]) -> Any:
    """Make an object of its parts as a copy is made: what `__init__` and `__post_init__` did is in them."""
    if issubclass(kind, tuple):
        return kind._make(parts)
    made = object.__new__(kind)
    for name, value in zip(names, parts, strict=True):
        object.__setattr__(made, name, value)
    return made


class _Run:
    """The run as a step sees it; see `StepRun`."""

    def __init__(self, work: Work, folder: Path, tell: Callable[[Progressed], None]) -> None:
        self.id, self.attempt, self.seed = work.run, work.attempt, work.seed
        self.metrics: dict[str, float] = {}
        self._parent, self._tell = folder, tell
        self._told_at = 0.0

    @cached_property
    def folder(self) -> Path:
        """An empty folder of this attempt."""
        made = self._parent / "files"
        made.mkdir()
        return made

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the step is; what is said right after the last time is not handed on."""
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY_S and (total is None or done < total):
            return
        self._told_at = now
        self._tell(
            Progressed(
                run=self.id,
                done=float(done),
                total=None if total is None else float(total),
                note=_storable(str(note), _MOST_MESSAGE),
            )
        )

    def log_metric(self, name: str, value: float) -> None:
        """Keep a figure with the run."""
        self.metrics[_storable(str(name), _MOST_MESSAGE)] = float(value)


def find_target(target: str) -> Any:
    """Give what `module:name` names.

    Raises
    ------
    ConfigError
        If it is not there, or is local to a function.
    """
    module, _, name = target.partition(":")
    if "<locals>" in name:
        raise ConfigError(
            f"{name} of module {module!r} is local to a function; put it at the top of the module, where "
            "another process can find it"
        )
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"module {module!r} has no {name!r}; a step is found by its module and name")
        found = getattr(found, part)
    return found


def _check_type(result: Any, annotation: Any, task: str) -> None:
    if result is None and annotation is type(None):
        return
    if fits(type(result), annotation) is False and not (is_dataclass(annotation) and result is None):
        raise TypeError(f"{task} gave {type(result).__qualname__}, declared is {show(annotation)}")


def _failure(error: BaseException, work: Work) -> Failure:
    if isinstance(error, SystemExit):
        code = repr(error.code) if isinstance(error.code, int | str | None) else type(error.code).__name__
        message = f"the step called exit({_storable(code, _MOST_MESSAGE)}); return from it, or raise an error"
        return Failure(kind="SystemExit", message=message, trace=_trace(error))
    is_final = isinstance(error, ConfigError | ArgumentGone | TypeError) and not _in_step(error)
    kind = _storable(type(error).__name__, _MOST_MESSAGE)
    # an error whose own text cannot be written is told with a note that it cannot
    told = str(traceback.TracebackException(type(error), error, None, compact=True))
    return Failure(
        kind=kind,
        message=_storable(told, _MOST_MESSAGE) or f"{kind} in {work.task}",
        trace=_trace(error),
        is_final=is_final,
    )


def _storable(text: str, most: int) -> str:
    """Make a text one that can be sent and stored: whole characters only, not endless."""
    text = text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _in_step(error: BaseException) -> bool:
    """Tell whether an error came out of the step's own code rather than ours."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and not last.tb_frame.f_globals.get("__name__", "").startswith("noria.pipelines.")


def _trace(error: BaseException) -> str:
    """Write the way to an error, from the step's function on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not each.filename.endswith(("noria/pipelines/work.py",))]
    told = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
    return _storable(told, _MOST_TRACE)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's random numbers and NumPy's: also where NumPy is not loaded before the step wants it."""
    random.seed(seed)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(seed % 2**32)
        yield
        return
    waiting = _SeedsWhenLoaded(seed)
    sys.meta_path.insert(0, waiting)
    try:
        yield
    finally:
        if waiting in sys.meta_path:
            sys.meta_path.remove(waiting)


class _SeedsWhenLoaded:
    """Seeds NumPy's random numbers as soon as they are loaded."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "numpy.random":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_seed(module: ModuleType) -> None:
            execute(module)
            module.seed(self._seed % 2**32)

        spec.loader.exec_module = execute_and_seed  # type: ignore[method-assign]
        return spec


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _reset_peak() -> None:
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the whole process
    try:
        os.write(descriptor, b"5")
    finally:
        os.close(descriptor)


def _peak_bytes() -> int:
    try:
        descriptor = os.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    try:
        found = _HWM.search(os.read(descriptor, 8_192))
    finally:
        os.close(descriptor)
    return 0 if found is None else int(found[1]) * 1024
