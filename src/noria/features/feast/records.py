"""What is found in a Feast repository, and what becomes of it: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

__all__ = ["Made", "Note", "Opaque", "Picked", "Place", "Symbol"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written: a file below the repository, and a line."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name of Feast's that stands for itself: `Float32`, `ValueType.INT64`."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """What is not known without running the code."""

    text: str


@dataclass(eq=False, slots=True)
class Made:
    """A call of something of Feast's: `Entity(...)`, `@on_demand_feature_view(...)`.

    Attributes
    ----------
    kind
        What is called.
    variable
        What it was first called by.
    function
        The name of the function that it decorates.
    """

    kind: str
    place: Place
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    variable: str | None = None
    function: str | None = None

    def get(self, name: str, position: int | None = None) -> Any:
        """Give an argument, None if it is not there."""
        if name in self.named:
            return self.named[name]
        return self.args[position] if position is not None and position < len(self.args) else None

    def text(self, name: str, position: int | None = None) -> str | None:
        """Give an argument that is a text and not empty."""
        value = self.get(name, position)
        return value if isinstance(value, str) and value else None

    @property
    def name(self) -> str:
        """What Feast calls it, else its variable."""
        return self.text("name", 0) or self.function or self.variable or self.kind


@dataclass(frozen=True, slots=True)
class Picked:
    """Some features of a view: `view[["conv_rate"]]`."""

    of: Made
    names: tuple[str, ...]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not map as it is.

    Attributes
    ----------
    kind
        `left out`: it is not in the module. `differs`: it is, and means something else in a way that is told.
    what, why, instead
        What it is about, why it does not map, and what to do.
    """

    file: str
    line: int
    kind: Literal["left out", "differs"]
    what: str
    why: str
    instead: str
