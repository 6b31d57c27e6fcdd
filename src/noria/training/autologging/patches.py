"""Functions of frameworks replaced by ones that tell of them, and put back."""

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["Patches", "is_patched"]

_MARK = "_noria_autolog"
_ABSENT = object()

Function = Callable[..., Any]


class Patches:
    """What was replaced."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, str, object, object]] = []

    def put(self, owner: Any, name: str, make: Callable[[Function], Function]) -> None:
        """Replace a function of a module or a class by what `make` gives for it, unless that was done."""
        held = vars(owner).get(name, _ABSENT)
        original = getattr(owner, name)
        if is_patched(held):
            return
        made = functools.wraps(original)(make(original))
        setattr(made, _MARK, True)
        self.put_value(owner, name, made)

    def put_value(self, owner: Any, name: str, made: object) -> None:
        """Set an attribute of a module or a class."""
        self._made.append((owner, name, vars(owner).get(name, _ABSENT), made))
        setattr(owner, name, made)

    def undo(self) -> None:
        """Put everything back that nobody else has replaced since."""
        while self._made:
            owner, name, held, made = self._made.pop()
            if vars(owner).get(name) is not made:
                continue
            if held is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, held)


def is_patched(function: object) -> bool:
    """Whether a function is one of ours."""
    return hasattr(function, "__dict__") and _MARK in vars(function)
