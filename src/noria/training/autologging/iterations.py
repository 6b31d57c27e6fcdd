"""Metrics of a model that learns in steps, logged while it does."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.guarding import guarded
from noria.training.autologging.plain_values import metric_name

__all__ = ["Iterations", "awaiting", "take_awaited"]

_AWAITED: "ContextVar[Iterations | None]" = ContextVar("noria_iterations", default=None)


class Iterations:
    """Takes what is measured after each iteration: every such one is logged, and the last."""

    def __init__(self, run: ActiveRun, framework: str, *, every: int) -> None:
        self._run: ActiveRun | None = run
        self._framework, self._every = framework, every
        self._names: dict[tuple[str, str], str] = {}
        self._left: tuple[int, Mapping[str, float]] | None = None
        self.count = 0

    def put(self, number: int, values: Iterable[tuple[str, str, float]]) -> None:
        """Take the values of an iteration: data, metric, value."""
        self.put_named(number, {self._name(data, kind): value for data, kind, value in values})

    def put_named(self, number: int, values: Mapping[str, float]) -> None:
        """Take the values of an iteration by the names that they are logged under."""
        self.count = number + 1
        if not values or self._run is None:
            return
        if number % self._every:
            self._left = number, values
            return
        self._left = None
        self._log(number, values)

    def finish(self) -> None:
        """Log the last iteration if it was left out."""
        if self._left is not None:
            self._log(*self._left)
            self._left = None

    def _log(self, number: int, values: Mapping[str, float]) -> None:
        run, self._run = self._run, None  # where logging fails once, it is not tried again
        if run is None:
            return
        with guarded(self._framework, "log an iteration"):
            run.log_metrics(values, step=number)
            self._run = run

    def _name(self, data: str, kind: str) -> str:
        name = self._names.get((data, kind))
        if name is None:
            name = self._names[data, kind] = metric_name(f"{data}-{kind}")
        return name


class awaiting:  # noqa: N801 - reads as a verb
    """Hand iterations to the training function that is called in the block."""

    def __init__(self, iterations: Iterations | None) -> None:
        self._iterations = iterations

    def __enter__(self) -> None:
        self._token = _AWAITED.set(self._iterations)

    def __exit__(self, *_: object) -> None:
        _AWAITED.reset(self._token)


def take_awaited() -> Iterations | None:
    """Give the iterations that this call is to tell; once."""
    found = _AWAITED.get()
    if found is not None:
        _AWAITED.set(None)
    return found
