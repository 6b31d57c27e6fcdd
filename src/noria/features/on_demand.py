"""On-demand features as a user writes them: one function of request fields and other features.

The same function is called with the columns of many rows offline and of one request online. Importing this
loads no engine, not even numpy.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from noria.errors import ConfigError
from noria.features.declarations import FeatureView
from noria.features.fields import Field
from noria.records import digest_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Bound",
    "OnDemand",
    "OnDemandSpec",
    "fields_of",
    "on_demand",
    "on_demand_of",
    "views_of",
]

Columns = Mapping[str, "npt.NDArray[Any]"]
Function = Callable[[Columns], Mapping[str, "npt.NDArray[np.generic]"]]
Errors = Literal["missing", "refuse"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class OnDemandSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An on-demand feature as plain data; the code of its function travels beside it.

    Attributes
    ----------
    name
        Columns outside are `<name>__<output>`.
    module, function
        Where the function is found.
    numbers, texts
        Columns of the request that it reads.
    features
        Columns of views, and of other on-demand features, that it reads.
    outputs
        What it gives, in the order of the columns.
    errors
        What becomes of a request with a row for which the function raises: its values are missing, or the
        request is refused.
    """

    name: str
    module: str
    function: str
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    outputs: tuple[str, ...]
    errors: Errors = "missing"

    @property
    def digest(self) -> str:
        """The sha256 of the definition, without the code of its function."""
        return digest_of(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it gives, in order."""
        return tuple(f"{self.name}__{output}" for output in self.outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all columns that it reads."""
        return (*self.numbers, *self.texts, *self.features)


@dataclass(frozen=True, slots=True)
class Bound:
    """An on-demand feature with the function that computes it."""

    spec: OnDemandSpec
    function: Function


@dataclass(frozen=True, slots=True, eq=False)
class OnDemand:
    """Features of the columns of a request and of other features; made by `on_demand`.

    Calling it calls the function.
    """

    name: str
    inputs: "tuple[Field | FeatureView | OnDemand, ...]"
    outputs: tuple[str, ...]
    errors: Errors
    function: Function
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return self.spec().columns

    def spec(self) -> OnDemandSpec:
        """Give the feature as plain data."""
        fields = [each for each in self.inputs if isinstance(each, Field)]
        return OnDemandSpec(
            name=self.name,
            module=self.function.__module__,
            function=self.function.__name__,
            numbers=tuple(each.name for each in fields if each.kind == "number"),
            texts=tuple(each.name for each in fields if each.kind == "category"),
            features=tuple(
                column for each in self.inputs if not isinstance(each, Field) for column in _columns(each)
            ),
            outputs=self.outputs,
            errors=self.errors,
        )

    def bound(self) -> Bound:
        """Give the feature with its function."""
        return Bound(self.spec(), self.function)

    def __call__(self, columns: Columns) -> "Mapping[str, npt.NDArray[np.generic]]":
        """Compute the features."""
        return self.function(columns)


def on_demand(
    *,
    inputs: Sequence[str | Field | FeatureView | OnDemand],
    outputs: Sequence[str],
    errors: Errors = "missing",
    owner: str | None = None,
    description: str | None = None,
    tags: Sequence[str] = (),
) -> Callable[[Function], OnDemand]:
    """Declare that the decorated function computes features of a request, offline and online alike.

    The function is given a mapping of column names to numpy arrays of one length: float64 with NaN where a
    number is missing, and of texts an object array of str and None. They cannot be written to. It gives a
    mapping with an array of numbers of that length for each of `outputs`; NaN is missing. Each row's values
    may depend on that row alone.

    Parameters
    ----------
    inputs : sequence of str, Field, FeatureView or OnDemand
        Columns of the request (a plain name is a number, `noria.category(name)` a text), views with all of
        their numbers, and other on-demand features with their outputs.
    outputs : sequence of str
        What it gives; columns are called `<name of the function>__<output>`.
    errors : {"missing", "refuse"}
        What becomes of a row for which the function raises or gives an infinite value: its values are
        missing, or whoever asked is refused.
    owner, description, tags
        For people, and no part of the definition; the description is the function's docstring if none is
        given.

    Raises
    ------
    ConfigError
        If the names make no sense, or the function is a lambda, or inside of another one: a serving process
        finds it by its module and name.

    Examples
    --------
    >>> @on_demand(inputs=["distance"], outputs=["km"])
    ... def trip(columns):
    ...     return {"km": columns["distance"] * 1.609}
    >>> trip.columns
    ('trip__km',)
    """
    given = tuple(Field(each) if isinstance(each, str) else each for each in inputs)
    named = (outputs,) if isinstance(outputs, str) else tuple(outputs)

    def declare(function: Function) -> OnDemand:
        name = _check_function(function)
        _check_names(name, given, named)
        if errors not in ("missing", "refuse"):
            raise ConfigError(f"on-demand feature {name!r} has errors={errors!r}; give 'missing' or 'refuse'")
        for what, given_text in (("owner", owner), ("description", description)):
            if not isinstance(given_text, str | None):
                raise ConfigError(f"on-demand feature {name!r}: {what} is {given_text!r}; give a text")
        if isinstance(tags, str) or not all(isinstance(each, str) for each in tags):
            raise ConfigError(f"on-demand feature {name!r}: tags is {tags!r}; give a tuple of texts")
        made = OnDemand(
            name=name,
            inputs=given,
            outputs=named,
            errors=errors,
            function=function,
            owner=owner,
            description=inspect.getdoc(function) if description is None else description,
            tags=tuple(tags),
        )
        fields_of([made])
        return made

    return declare


def views_of(features: Iterable[FeatureView | OnDemand]) -> tuple[FeatureView, ...]:
    """Give the views among `features`, and those that on-demand features read, each once.

    Raises
    ------
    ConfigError
        If two of them have one name.
    """
    found: dict[str, FeatureView] = {}
    for each in _within(features):
        if isinstance(each, FeatureView):
            before = found.setdefault(each.name, each)
            if before is not each and before != each:
                raise ConfigError(f"two feature views are called {each.name!r}; rename one")
    return tuple(found.values())


def on_demand_of(features: Iterable[FeatureView | OnDemand]) -> tuple[OnDemand, ...]:
    """Give the on-demand features among `features`, and those that they read: each once, behind those.

    Raises
    ------
    ConfigError
        If two of them, or one and a view, have one name.
    """
    found: dict[str, OnDemand] = {}
    given = list(features)
    views = {each.name for each in views_of(given)}
    for each in _within(given):
        if not isinstance(each, OnDemand):
            continue
        if found.setdefault(each.name, each) is not each or each.name in views:
            raise ConfigError(f"two features are called {each.name!r}; rename one")
    return tuple(found.values())


def fields_of(features: Iterable[FeatureView | OnDemand]) -> tuple[Field, ...]:
    """Give the columns of a request that on-demand features read, each once.

    Raises
    ------
    ConfigError
        If one is read as a number and as a text, as an entity is one, or is called as a feature is.
    """
    found: dict[str, Field] = {}
    given = list(features)
    made = {column for each in _within(given) for column in each.columns}
    entities = {column for view in views_of(given) for column in view.spec().entity}
    for each in on_demand_of(given):
        for field in each.inputs:
            if isinstance(field, Field) and found.setdefault(field.name, field) != field:
                raise ConfigError(f"{field.name!r} is read as a number and as a text; declare it once")
            if isinstance(field, Field) and field.name in made:
                raise ConfigError(
                    f"on-demand feature {each.name!r} reads {field.name!r} of the request, and a feature is "
                    "called so; give the view or the on-demand feature as an input, or rename the column"
                )
            if isinstance(field, Field) and field.kind == "number" and field.name in entities:
                raise ConfigError(
                    f"on-demand feature {each.name!r} reads {field.name!r} as a number, and it is an entity, "
                    f"which comes as a text; give `noria.category({field.name!r})`"
                )
    return tuple(found.values())


def _within(features: Iterable[FeatureView | OnDemand]) -> Iterator[FeatureView | OnDemand]:
    """Give features, before each on-demand one those that it reads."""
    for each in features:
        if isinstance(each, OnDemand):
            yield from _within(one for one in each.inputs if not isinstance(one, Field))
        yield each


def _check_function(function: object) -> str:
    if not isinstance(function, FunctionType):
        raise ConfigError(f"noria.on_demand decorates a function; it was given {function!r}")
    name, place = function.__name__, f"{function.__module__}.{function.__qualname__}"
    if name == "<lambda>":
        raise ConfigError(f"{place} is a lambda; write `def name(columns):` at the top of a module")
    if hasattr(function, "__wrapped__"):
        raise ConfigError(
            f"{place} is wrapped by another decorator; leave that out, or do within the function what it does"
        )
    if function.__closure__ or "." in function.__qualname__:
        raise ConfigError(
            f"{place} is inside of another function or a class; write it at the top of its module, where a "
            "serving process finds it by its name"
        )
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        raise ConfigError(f"{place} is asynchronous or a generator; write a function that returns a mapping")
    try:
        inspect.signature(function).bind({})
    except TypeError as err:
        raise ConfigError(
            f"{place}{inspect.signature(function)} is called with one argument, the mapping of columns: {err}"
        ) from err
    return name


def _check_names(name: str, inputs: Sequence[Field | FeatureView | OnDemand], outputs: Sequence[str]) -> None:
    told = f"on-demand feature {name!r}"
    if "__" in name or not _NAME.fullmatch(name):
        raise ConfigError(f"{told}: its name begins with a letter and may not hold '__'; rename the function")
    for each in inputs:
        if not isinstance(each, Field | FeatureView | OnDemand):
            raise ConfigError(
                f"{told} has the input {each!r}; give a name, `noria.category(name)`, a feature view or "
                "another on-demand feature"
            )
    if not inputs or not outputs:
        raise ConfigError(f"{told} has no {'outputs' if inputs else 'inputs'}; name one or more")
    for output in outputs:
        if not isinstance(output, str) or not _NAME.fullmatch(output) or "__" in output:
            raise ConfigError(
                f"{told}: {output!r} names no output; it has letters, digits and single underscores"
            )
    read = [each.name if isinstance(each, Field) else column for each in inputs for column in _columns(each)]
    for names, what in ((outputs, "gives"), (read, "reads")):
        if twice := sorted({each for each in names if names.count(each) > 1}):
            raise ConfigError(f"{told} {what} {', '.join(twice)} twice")
    if empty := [each for each in read if not each]:
        raise ConfigError(f"{told} reads a column without a name ({len(empty)} of its inputs)")


def _columns(each: Field | FeatureView | OnDemand) -> tuple[str, ...]:
    """Name what an input gives to read: of a view, its numbers."""
    if isinstance(each, FeatureView):
        return each.spec().number_columns
    return (each.name,) if isinstance(each, Field) else each.columns
