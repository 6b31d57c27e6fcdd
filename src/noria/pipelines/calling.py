"""What becomes of a call of a step or a pipeline: it runs at once, or it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from noria.errors import ConfigError
from noria.pipelines.signatures import admits_none, item_of, read_signature

if TYPE_CHECKING:
    from noria.pipelines.declarations import Pipeline, Step

__all__ = ["AT_ONCE", "DRAWING", "CallOptions", "Drawing", "items_of", "shorten"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call of a step differs from others."""

    name: str | None = None
    conditions: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()


class Drawing(Protocol):
    """A pipeline that is being drawn: takes calls instead of running them."""

    def call(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], items: Mapping[str, Any]
    ) -> Any:
        """Add a node; give what stands for its result. With `items` it runs once for each of them."""
        ...

    def nest(self, pipeline: Pipeline[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Draw a pipeline inside of the one that is being drawn; give what it returns."""
        ...


DRAWING: ContextVar[Drawing | None] = ContextVar("noria_drawing", default=None)


class _AtOnce:
    """Runs what is called, then and there."""

    def call(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], items: Mapping[str, Any]
    ) -> Any:
        if not items:
            return self.run(step, args, kwargs)
        columns = {name: items_of(values, name, f"step {step.name!r}") for name, values in items.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"step {step.name!r}: the lists of map() have different lengths: {lengths}")
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [self.run(step, args, {**kwargs, **row}) for row in rows]

    def run(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return step.function(*args, **kwargs) if all(step.options.conditions) else None

    def nest(self, pipeline: Pipeline[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        token = DRAWING.set(_IN_TURN)
        try:
            return pipeline.function(*args, **kwargs)
        finally:
            DRAWING.reset(token)


class _InTurn(_AtOnce):
    """Runs the steps of a pipeline; what gets nothing of a step that was not run is not run either."""

    _skipped = 0  # calls so far that were not run

    def call(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], items: Mapping[str, Any]
    ) -> Any:
        if any(values is None for values in items.values()):
            return None
        before = self._skipped
        results = super().call(step, args, kwargs, items)
        return None if items and results and self._skipped - before == len(results) else results

    def run(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        signature = read_signature(step.function)
        given = signature.inner.bind_partial(*args, **kwargs).arguments
        if any(_lacks(value, signature.parameters[name].annotation) for name, value in given.items()):
            self._skipped += 1
            return None
        token = DRAWING.set(None)
        try:
            return super().run(step, args, kwargs)
        finally:
            DRAWING.reset(token)


def _lacks(value: Any, annotation: Any) -> bool:
    if value is None:
        return not admits_none(annotation)
    if type(value) in (list, tuple):
        return any(_lacks(each, item_of(annotation)) for each in value)
    return type(value) is dict and any(_lacks(each, item_of(annotation)) for each in value.values())


AT_ONCE, _IN_TURN = _AtOnce(), _InTurn()


def items_of(values: Any, name: str, place: str) -> list[Any]:
    """Give what `map` takes one by one. Raises `ConfigError` for what is no list, or has no order."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigError(f"{place}: map() takes {name!r} item by item; give a list, not {shorten(values)}")
    if isinstance(values, AbstractSet):
        raise ConfigError(
            f"{place}: map() takes {name!r} item by item, and a {type(values).__name__} has no order; give "
            f"sorted({name})"
        )
    plain = getattr(values, "to_pylist", None) or getattr(values, "tolist", None)
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if plain is None or getattr(values, "ndim", 1) != 1 or kind in ("m", "M"):
        return list(values)  # instants, whose plain values are numbers, stay as they are
    return list(plain())  # of an array: Python's own numbers, as annotations name them


def shorten(value: object) -> str:
    """Write a value in a few letters, for messages."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
