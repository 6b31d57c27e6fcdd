"""What a step's or pipeline's signature says: parameters, their types, and whether a result fits one."""

import builtins
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Union, get_args, get_origin

from noria.errors import ConfigError

__all__ = [
    "Parameter",
    "Signature",
    "admits_none",
    "asks_for",
    "field_names",
    "fits",
    "item_of",
    "mentions",
    "read_signature",
    "show",
    "takes",
]

_LOOKED_AT = 1_000  # items of a list that is written out
_PLAIN_MODULES = {"builtins", "collections", "collections.abc"}
_NUMBERS = {float: (int,), complex: (int, float)}  # the numeric tower of PEP 484
_NAMES_OF_RUN = ("StepRun", "noria.StepRun")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `annotation` is `Any` where there is none, or none that can be evaluated."""

    name: str
    annotation: Any
    default: Any
    provided: str | None  # what the engine hands over: "run", or "module:name" of an annotated class

    @property
    def is_required(self) -> bool:
        """Whether a call has to give it."""
        return self.default is inspect.Parameter.empty and self.provided is None


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters by name, and what comes back."""

    parameters: Mapping[str, Parameter]
    returns: Any
    inner: inspect.Signature


def read_signature(function: Callable[..., Any], *, provided: Sequence[str] = ()) -> Signature:
    """Read a function's signature.

    Parameters
    ----------
    provided
        Classes, as `module:name`, of which an instance is handed over by the engine.

    Raises
    ------
    ConfigError
        If it takes `*args` or `**kwargs`, whose edges nobody could name, or positional-only parameters.
    """
    return _read(function, tuple(provided))


@lru_cache(maxsize=4096)
def _read(function: Callable[..., Any], provided: tuple[str, ...]) -> Signature:
    signature = inspect.signature(function)
    space = getattr(inspect.unwrap(function), "__globals__", {})  # where its annotations were written
    parameters = {}
    for name, each in signature.parameters.items():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
            raise ConfigError(
                f"{function.__qualname__}() takes {each}; a step's parameters are its edges and need names: "
                "write each one out"
            )
        raw = each.annotation
        annotation = _evaluated(raw, space)
        parameters[name] = Parameter(name, annotation, each.default, _provider(raw, annotation, provided))
    return Signature(parameters, _evaluated(signature.return_annotation, space), signature)


def _evaluated(annotation: Any, space: Mapping[str, Any]) -> Any:
    if annotation is inspect.Signature.empty:
        return Any
    if not isinstance(annotation, str):
        return type(None) if annotation is None else annotation
    value: Any = annotation
    while isinstance(value, str):  # one within quotes, in a module whose annotations are texts anyway
        try:
            value = eval(value, dict(space), {})
        except (NameError, AttributeError, TypeError, SyntaxError):
            return Any  # a name that is imported for type checkers only
    return type(None) if value is None else value


def _provider(raw: Any, annotation: Any, provided: Sequence[str]) -> str | None:
    if isinstance(raw, str) and annotation is Any:
        if raw in _NAMES_OF_RUN:
            return "run"
        return next((each for each in provided if raw.rpartition(".")[2] == each.rpartition(":")[2]), None)
    named = f"{getattr(annotation, '__module__', '')}:{getattr(annotation, '__qualname__', '')}"
    if named == "noria.pipelines.declarations:StepRun":
        return "run"
    return named if named in provided else None


def admits_none(annotation: Any) -> bool:
    """Tell whether None may be given where `annotation` is wanted."""
    return annotation is Any or takes(annotation, None) is True


def takes(wanted: Any, value: object) -> bool | None:
    """Tell whether a value may be given where `wanted` is; None if that cannot be told.

    Examples
    --------
    >>> takes(list[int], [1, 2]), takes(list[int], [1, "2"]), takes(bool, 1), takes(float, 1)
    (True, False, False, True)
    """
    kind, inner = get_origin(wanted), get_args(wanted)
    if kind is typing.Annotated:
        return takes(inner[0], value)
    if kind is typing.Literal:
        return any(type(each) is type(value) and each == value for each in inner)
    if _is_union(wanted):
        return _any(takes(each, value) for each in inner)
    verdict = _fits(type(value), wanted, is_exact=True)
    if verdict is True and type(value) in (list, tuple, dict):
        items = value.values() if isinstance(value, dict) else typing.cast("Iterable[object]", value)
        item = item_of(wanted)
        if item is not Any and any(takes(item, each) is False for each in islice(items, _LOOKED_AT)):
            return False
    return verdict


def fits(produced: Any, wanted: Any) -> bool | None:
    """Tell whether what is annotated as `produced` may be given where `wanted` is.

    Returns
    -------
    bool or None
        None where annotations do not tell: an unknown one, a protocol, a type variable. Only what is plainly
        wrong is False.
    """
    return _fits(produced, wanted, is_exact=False)


def _fits(produced: Any, wanted: Any, *, is_exact: bool) -> bool | None:
    if produced is Any or wanted is Any or wanted is object or produced == wanted:
        return True
    if isinstance(produced, str | typing.TypeVar) or isinstance(wanted, str | typing.TypeVar):
        return None
    produced, is_one_of = _bare(produced), get_origin(wanted) is typing.Literal
    wanted = _bare(wanted)
    if is_one_of:
        return _fits(produced, wanted, is_exact=is_exact) and None
    if _is_union(produced):
        return _all(_fits(each, wanted, is_exact=is_exact) for each in get_args(produced))
    if _is_union(wanted):
        return _any(_fits(produced, each, is_exact=is_exact) for each in get_args(wanted))
    return _fits_class(produced, wanted, is_exact=is_exact)


def _bare(annotation: Any) -> Any:
    """Give an annotation without what is noted beside it, and what kinds of values a list of them names."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is typing.Annotated:
        return _bare(inner[0])
    return Union[tuple(map(type, inner))] if kind is typing.Literal else annotation  # noqa: UP007


def _fits_class(produced: Any, wanted: Any, *, is_exact: bool) -> bool | None:
    made, asked = get_origin(produced) or produced, get_origin(wanted) or wanted
    if not isinstance(made, type) or not isinstance(asked, type) or _is_structural(made, asked):
        return None
    try:
        related = issubclass(made, asked) or any(issubclass(made, each) for each in _NUMBERS.get(asked, ()))
        is_wider = not related and not is_exact and issubclass(asked, made)
    except TypeError:
        return None
    if not related:
        return None if is_wider else False  # a wider annotation may still give the right thing
    return _fits_inside(made, asked, get_args(produced), get_args(wanted))


def _fits_inside(made: type, asked: type, produced: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool | None:
    """Compare what is in the brackets of two related classes."""
    if not produced or not wanted:
        return True
    if made is tuple:
        if asked is not tuple:
            wanted = (wanted[0], ...)
        produced, wanted = _same_length(produced, wanted)
    elif made is not asked and not {made.__module__, asked.__module__} <= _PLAIN_MODULES:
        return None  # what its brackets mean is its own affair
    if len(produced) != len(wanted):
        return False if made is tuple else None
    return _all(_fits(one, other, is_exact=False) for one, other in zip(produced, wanted, strict=True))


def _same_length(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Write out `X, ...` as long as the other tuple is."""
    if one[-1] is ...:
        one = one[:1] * (1 if other[-1] is ... else len(other))
    if other[-1] is ...:
        other = other[:1] * len(one)
    return one, other


def _is_structural(made: type, asked: type) -> bool:
    """Tell whether one of them says what something can do rather than what it is."""
    return getattr(asked, "_is_protocol", False) or typing.is_typeddict(asked) or typing.is_typeddict(made)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _all(verdicts: typing.Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True


def _any(verdicts: typing.Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return True if True in found else None if None in found else False


def asks_for(annotation: Any, kind: type) -> bool:
    """Tell whether an annotation names a class, alone or as one of several: `Version | None`."""
    return annotation is kind or (
        _is_union(annotation) and any(each is kind for each in get_args(annotation))
    )


def mentions(annotation: Any, kind: type) -> bool:
    """Tell whether an annotation names a class anywhere: `list[Version]`."""
    return annotation is kind or any(mentions(each, kind) for each in get_args(annotation))


def item_of(annotation: Any) -> Any:
    """Give what the items of a list or tuple are annotated with, or the values of a dict; `Any` if unsaid.

    Examples
    --------
    >>> item_of(list[int]), item_of(dict[str, float] | None)
    (<class 'int'>, <class 'float'>)
    """
    if _is_union(annotation):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return item_of(rest[0]) if len(rest) == 1 else Any
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is typing.Annotated:
        return item_of(inner[0])
    if not isinstance(kind, type) or not inner:
        return Any
    if kind is tuple:
        return inner[0] if len(inner) == 2 and inner[1] is ... else Any
    if issubclass(kind, Mapping):
        return inner[1] if len(inner) == 2 else Any
    return inner[0] if issubclass(kind, Iterable) and len(inner) == 1 else Any


def field_names(annotation: Any) -> tuple[str, ...] | None:
    """Name the parts of a result that is given as several: of a NamedTuple, dataclass, or `tuple[A, B]`."""
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        return None if len(inner) == 2 and inner[1] is ... else tuple(map(str, range(len(inner))))
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        return tuple(annotation._fields)
    if is_dataclass(annotation):
        return tuple(annotation.__dataclass_fields__)
    return None


def show(annotation: Any) -> str:
    """Write an annotation as people do.

    Examples
    --------
    >>> show(list[int]), show(int), show(Any)
    ('list[int]', 'int', 'anything')
    """
    if annotation is Any:
        return "anything"
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        name = annotation.__qualname__
        is_namesake = annotation.__module__ != "builtins" and hasattr(builtins, name)
        return f"{annotation.__module__}.{name}" if is_namesake else name
    return str(annotation).replace("typing.", "")
