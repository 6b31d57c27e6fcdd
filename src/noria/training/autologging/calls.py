"""One call of a function of a framework: what it was given, and how to make it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """A function, and what it is called with."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> Any:
        """Make it."""
        return self.function(*self.args, **self.kwargs)

    def given(self) -> Mapping[str, Any]:
        """Give the arguments by name, defaults included. Raises `TypeError` as the function would."""
        bound = inspect.signature(self.function).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return bound.arguments

    def with_callbacks(self, change: Callable[[Any], Any]) -> "Call":
        """Give the same call with other `callbacks`; a call that cannot be made stays as it is."""
        try:
            bound = inspect.signature(self.function).bind(*self.args, **self.kwargs)
        except TypeError:  # which the function itself tells
            return self
        bound.arguments["callbacks"] = change(bound.arguments.get("callbacks"))
        return Call(self.function, bound.args, bound.kwargs)
