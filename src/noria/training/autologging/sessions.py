"""Where a fit meets its run: the outermost fit is logged, what is fitted within it is part of it."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.guarding import guarded, unmoved_randomness
from noria.training.autologging.options import Options
from noria.training.autologging.plain_values import plain_params

__all__ = ["Fit", "is_within_fit", "watched", "within_fit"]

_R = TypeVar("_R")
_WITHIN: ContextVar[bool] = ContextVar("noria_within_fit", default=False)
_TAKEN: "WeakSet[ActiveRun]" = WeakSet()  # runs that a fit was logged to


class Fit(Protocol):
    """What is to be told of one fit."""

    framework: str

    @property
    def name(self) -> str:
        """How a run of its own is called."""
        ...

    def params(self) -> Mapping[str, Any]:
        """Give parameters, before the fit."""
        ...

    def tags(self) -> Mapping[str, str]:
        """Give tags."""
        ...

    def before(self, run: ActiveRun) -> None:
        """Tell of what is read."""
        ...

    def after(self, run: ActiveRun, result: Any) -> None:
        """Tell of what has become of it."""
        ...


def is_within_fit() -> bool:
    """Whether this code runs within a fit that is watched."""
    return _WITHIN.get()


def within_fit(call: Callable[[], _R]) -> _R:
    """Call as part of a fit, such as in a thread that works for it."""
    token = _WITHIN.set(True)
    try:
        return call()
    finally:
        _WITHIN.reset(token)


def watched(fit: Fit, options: Options, call: Callable[[ActiveRun | None], _R]) -> _R:
    """Call what trains, and log it; give what it gives and raise what it raises.

    Parameters
    ----------
    call
        Is given the run, or None where there can be none.
    """
    token = _WITHIN.set(True)
    try:
        session = _Session(fit, options)
        with guarded(fit.framework, "begin a run"), unmoved_randomness():
            session.begin()
        try:
            result = call(session.run)
        except BaseException as err:
            with guarded(fit.framework, "close the run"), unmoved_randomness():
                session.end(err)
            raise
        with guarded(fit.framework, "close the run"), unmoved_randomness():
            try:
                session.tell(result)
            finally:
                session.end(None)
        return result
    finally:
        _WITHIN.reset(token)


class _Session:
    """A fit that is logged: into the run around it, or into one of its own."""

    def __init__(self, fit: Fit, options: Options) -> None:
        self._fit, self._options = fit, options
        self._own: ActiveRun | None = None
        self.run: ActiveRun | None = None

    def begin(self) -> None:
        current = ActiveRun.current()
        if current is None or current in _TAKEN:
            name = self._fit.name
            own = self._options.start(name) if current is None else current.within(name)
            own.__enter__()
            self._own = self.run = own
        else:
            self.run = current
        _TAKEN.add(self.run)
        framework, run = self._fit.framework, self.run
        with guarded(framework, "tell of parameters"):
            run.log_params(plain_params(self._fit.params()))
        with guarded(framework, "tell of tags"):
            run.put_tags({"mlflow.autologging": framework, **self._fit.tags()})
        with guarded(framework, "describe the data"):
            self._fit.before(run)

    def tell(self, result: Any) -> None:
        if self.run is not None:
            with guarded(self._fit.framework, "tell of what was trained"):
                self._fit.after(self.run, result)

    def end(self, error: BaseException | None) -> None:
        if self._own is not None:
            kind = None if error is None else type(error)
            self._own.__exit__(kind, error, None if error is None else error.__traceback__)
