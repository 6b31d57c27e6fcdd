"""What a project writes about work: steps, and pipelines made of them. Light: no engine is loaded.

Both are functions. Called on their own they simply run; called inside of a pipeline that is being drawn, a
step becomes a node and its arguments become its edges.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.pipelines.calling import AT_ONCE, DRAWING, CallOptions, Drawing

__all__ = [
    "DRAWING",
    "CallOptions",
    "Drawing",
    "MappedStep",
    "Pipeline",
    "Resources",
    "Step",
    "StepRun",
    "pipeline",
    "step",
]

P = ParamSpec("P")
R = TypeVar("R")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class StepRun(Protocol):
    """The run of a step, for a step that asks for it: `def fit(rows: Table, run: StepRun = given)`.

    Attributes
    ----------
    id
        The run's id in the ledger.
    attempt
        1, and one more for each retry.
    seed
        The same whenever the step runs with the same code and inputs. Python's and NumPy's global generators
        are seeded with it before the step begins.
    folder
        An empty folder of this attempt, for files; it is removed when the step has ended.
    """

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    @property
    def attempt(self) -> int:
        """Counts from 1."""
        ...

    @property
    def seed(self) -> int:
        """Of the step's random numbers."""
        ...

    @property
    def folder(self) -> Path:
        """Of this attempt alone."""
        ...

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the step is."""
        ...

    def log_metric(self, name: str, value: float) -> None:
        """Keep a figure with the run."""
        ...


class _Given:
    """Stands for what noria hands to a step, and for a run where a step is called on its own."""

    id = ""
    attempt = 1
    seed = 0

    @property
    def folder(self) -> Path:
        """A fresh temporary folder; nobody removes it."""
        return Path(tempfile.mkdtemp(prefix="noria-step-"))

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell nobody."""

    def log_metric(self, name: str, value: float) -> None:
        """Keep nothing."""

    def __getattr__(self, name: str) -> Any:
        """Refuse what only a pipeline can give."""
        raise AttributeError(
            f"{name!r} is asked of what noria hands over inside of a pipeline; give it in the call"
        )


given: Any = _Given()


@dataclass(frozen=True, slots=True)
class Resources:
    """What a step needs while it runs."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None


_PLAIN = CallOptions()


@dataclass(frozen=True, slots=True)
class Step(Generic[P, R]):
    """A function whose result is kept, and found again as long as nothing that it depends on has changed.

    Made by `step`. Called on its own it runs the function; inside of a pipeline it adds a node.
    """

    function: Callable[P, R]
    name: str
    resources: Resources = Resources()
    timeout: timedelta | None = None
    retries: int = 0
    backoff: timedelta = timedelta(seconds=1)
    executor: str | None = None
    cache: bool = True
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # whose code counts as well, beside that of the function's own
    options: CallOptions = field(default=_PLAIN)

    @property
    def target(self) -> str:
        """Where the function is found: `module:name`."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; inside of a pipeline, add a node."""
        result: R = (DRAWING.get() or AT_ONCE).call(self, args, kwargs, {})
        return result

    def map(self, **items: Any) -> MappedStep[P, R]:
        """Let the next call run once for each item of these arguments, which are lists of one length.

        Examples
        --------
        >>> @step
        ... def power(base: int, exponent: int) -> int:
        ...     return base**exponent
        >>> power.map(base=[1, 2, 3])(exponent=2)
        [1, 4, 9]
        """
        if not items:
            raise ConfigError(f"step {self.name!r}: map() names the arguments that are taken item by item")
        return MappedStep(self, items)

    def when(self, condition: Any) -> Step[P, R]:
        """Let the next call run only where `condition`, the result of a step, is true.

        A step that was not run gives None to whoever accepts None; whoever does not is not run either.
        """
        return replace(self, options=replace(self.options, conditions=(*self.options.conditions, condition)))

    def after(self, *results: Any) -> Step[P, R]:
        """Let the next call wait for other steps whose results it does not read."""
        return replace(self, options=replace(self.options, after=(*self.options.after, *results)))

    def named(self, name: str) -> Step[P, R]:
        """Give the next call a name of its own."""
        return replace(self, options=replace(self.options, name=_checked_name(name, "call")))


@dataclass(frozen=True, slots=True)
class MappedStep(Generic[P, R]):
    """A step that takes some of its arguments item by item; see `Step.map`."""

    step: Step[P, R]
    items: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> list[R]:
        """Give the other arguments; the result is the list of results, in the order of the items."""
        results: list[R] = (DRAWING.get() or AT_ONCE).call(self.step, args, kwargs, self.items)
        return results

    def when(self, condition: Any) -> MappedStep[P, R]:
        """Let the next call run only where `condition` is true; see `Step.when`."""
        return replace(self, step=self.step.when(condition))

    def after(self, *results: Any) -> MappedStep[P, R]:
        """Let the next call wait for other steps; see `Step.after`."""
        return replace(self, step=self.step.after(*results))

    def named(self, name: str) -> MappedStep[P, R]:
        """Give the next call a name of its own."""
        return replace(self, step=self.step.named(name))


@dataclass(frozen=True, slots=True)
class Pipeline(Generic[P, R]):
    """A function that calls steps. Made by `pipeline`; called on its own it runs them one after the other."""

    function: Callable[P, R]
    name: str
    deadline: timedelta | None = None
    executor: str | None = None

    @property
    def target(self) -> str:
        """Where the function is found: `module:name`."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in this process without records; inside of another pipeline, nest it there."""
        result: R = (DRAWING.get() or AT_ONCE).nest(self, args, kwargs)
        return result


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    memory: str | int | None = None,
    timeout: str | None = None,
    retries: int = 0,
    backoff: str = "1s",
    executor: str | None = None,
    cache: bool = True,
    files: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    memory: str | int | None = None,
    timeout: str | None = None,
    retries: int = 0,
    backoff: str = "1s",
    executor: str | None = None,
    cache: bool = True,
    files: Sequence[str] = (),
    **unknown: Any,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Declare that a function is a step.

    Its result is kept under a key made of its code (all project modules that it reaches, and `files`), its
    arguments, and the installed distributions; the same key again gives the kept result.

    Parameters
    ----------
    name
        Default: the function's.
    cpus, gpus
        How many it keeps busy; a fraction lets several share one.
    memory
        The most it may have resident, such as `"2GiB"`; a step that takes more is ended.
    timeout
        How long an attempt may take, such as `"10m"`.
    retries, backoff
        How often it is tried again after a failure, and how long it waits before: each time twice as long.
    executor
        Where it runs, if not where its pipeline does: `inline`, `processes`, `ray`, `ray://HOST:PORT`.
    cache
        False: it does something rather than compute it, so every run of a pipeline runs it again (one that
        goes on after a kill does not).
    files
        Patterns below the project's folder of files that it reads, such as `"sql/*.sql"`.

    Raises
    ------
    ConfigError
        If a setting makes no sense or is unknown, or the function is not at the top of a module.

    Examples
    --------
    >>> @step(retries=2, timeout="10m")
    ... def total(values: list[int]) -> int:
    ...     return sum(values)
    >>> total([1, 2])
    3
    """
    _refuse_unknown("step", unknown, step)

    def declare(function: Callable[P, R]) -> Step[P, R]:
        chosen = _named(function, name, "step")
        if cpus < 0 or gpus < 0 or retries < 0:
            raise ConfigError(f"step {chosen!r}: cpus, gpus and retries cannot be negative")
        return Step(
            function=function,
            name=chosen,
            resources=Resources(float(cpus), float(gpus), _bytes(memory, chosen)),
            timeout=_duration(timeout, f"step {chosen!r} timeout"),
            retries=retries,
            backoff=_duration(backoff, f"step {chosen!r} backoff") or timedelta(seconds=1),
            executor=executor,
            cache=cache,
            files=(files,) if isinstance(files, str) else tuple(files),
        )

    return declare if function is None else declare(function)


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *, name: str | None = None, deadline: str | None = None, executor: str | None = None
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    deadline: str | None = None,
    executor: str | None = None,
    **unknown: Any,
) -> Pipeline[P, R] | Callable[[Callable[P, R]], Pipeline[P, R]]:
    """Declare that a function, which calls steps, is a pipeline.

    The function is called once to draw the graph, with what stands for results in place of results: it can
    hand them on, take their fields, and fan out over them, but not look into them.

    Parameters
    ----------
    name
        Default: the function's.
    deadline
        How long a run of it may take in all, such as `"2h"`. A run has one deadline, that of its outermost
        pipeline: nested in one without, or with a longer one, it is refused.
    executor
        Where its steps run; default: as `[compute] executor` says.

    Raises
    ------
    ConfigError
        If a setting makes no sense or is unknown.
    """
    _refuse_unknown("pipeline", unknown, pipeline)

    def declare(function: Callable[P, R]) -> Pipeline[P, R]:
        chosen = _named(function, name, "pipeline")
        limit = _duration(deadline, f"pipeline {chosen!r} deadline")
        return Pipeline(function=function, name=chosen, deadline=limit, executor=executor)

    return declare if function is None else declare(function)


def _refuse_unknown(what: str, unknown: Mapping[str, Any], declaring: Callable[..., Any]) -> None:
    """Refuse keywords that there are not."""
    if not unknown:
        return
    known = [
        each.name
        for each in inspect.signature(declaring).parameters.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    told = []
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        told.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    raise ConfigError(f"@{what} takes no {', '.join(told)}; it takes {', '.join(known)}")


def _named(function: Callable[..., Any], name: str | None, what: str) -> str:
    if inspect.isclass(function) or not callable(function) or not hasattr(function, "__qualname__"):
        raise ConfigError(f"@{what} wants a function, found {function!r}")
    told = f"{function.__module__}.{function.__qualname__}"
    if inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"@{what} wants a plain function, {told} is async; await inside of it with asyncio.run(...)"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"@{what} wants a plain function, {told} yields; let it return a list")
    if what == "step":
        _refuse_hidden(function.__qualname__, told)
    return _checked_name(function.__name__ if name is None else name, what)


def _refuse_hidden(qualname: str, told: str) -> None:
    """Refuse what other processes cannot find by module and name."""
    if "<lambda>" in qualname:
        raise ConfigError(f"@step: {told} has no name; write it with `def` at the top of a module")
    if "<locals>" in qualname:
        raise ConfigError(
            f"@step: {told} is local to a function, where other processes do not find it; put it at the top "
            "of a module"
        )
    if "." in qualname:
        raise ConfigError(f"@step: {told} is a method; put it at the top of a module, as a function")


def _checked_name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the {what} name {name!r} must have letters, digits and '_', no digit first")
    return name


def _duration(text: str | None, setting: str) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _bytes(size: str | int | None, step: str) -> int | None:
    if size is None or isinstance(size, int):
        if size is not None and size <= 0:
            raise ConfigError(f"step {step!r} memory is {size}; it must be positive")
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise ConfigError(f"step {step!r} memory is {size!r}; write for example '500MB' or '2GiB'")
    return int(float(match[1]) * _UNITS[match[2]])
