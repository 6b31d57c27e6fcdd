"""Drawing: a pipeline's function is called with what stands for results in the place of results."""

import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as fields_of
from dataclasses import is_dataclass, replace
from inspect import Signature
from pathlib import Path
from typing import Any

from noria.errors import ConfigError, NoriaError
from noria.pipelines.calling import DRAWING, CallOptions, items_of
from noria.pipelines.declarations import MappedStep, Pipeline, Step
from noria.pipelines.graph import (
    Argument,
    Graph,
    Keyed,
    Listed,
    Literal,
    Node,
    Result,
    stands_for_version,
    told,
)
from noria.pipelines.handles import Handle
from noria.pipelines.signatures import field_names, read_signature, show, takes

__all__ = ["checked_params", "draw", "draw_step"]

_DEEPEST = 20  # how far results are looked for within values
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
# What a pipeline's function raises when it is wrong.
_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Drawing:
    """The nodes so far."""

    def __init__(self, pipeline: Pipeline[Any, Any], provided: Iterable[str]) -> None:
        self.name = pipeline.name
        self.provided = tuple(provided)
        self.nodes: list[Node] = []
        self._names: dict[str, int] = {}
        self._way = [pipeline]  # to where we are
        self._prefix = ""

    def call(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], items: Mapping[str, Any]
    ) -> Handle:
        place = f"pipeline {self._told_way()!r}, step {step.name!r}"
        signature = read_signature(step.function, provided=self.provided)
        named = self._bound(place, step, signature.inner, args, {**kwargs, **items})
        options = step.options
        node = Node(
            name=self._named(step),
            step=self._settled(step),
            arguments={
                name: as_argument(value, f"{place}, {name!r}")
                for name, value in named.items()
                if name not in items
            },
            items={name: _as_items(value, place, name) for name, value in items.items()},
            conditions=tuple(_as_condition(each, place) for each in options.conditions),
            after=tuple(_as_result(each, place).node for each in options.after),
        )
        self.nodes.append(node)
        fields = None if node.is_mapped else field_names(signature.returns)
        return Handle(Result(node.name), fields)

    def nest(self, pipeline: Pipeline[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        for number, each in enumerate(self._way):
            if each.function is not pipeline.function:
                continue
            circle = " -> ".join([*(one.name for one in self._way[number:]), pipeline.name])
            raise ConfigError(f"pipelines go in a circle: {circle}; a pipeline cannot contain itself")
        place = f"pipeline {self._told_way()!r}"
        self._refuse_deadline(pipeline, place)
        signature = read_signature(pipeline.function, provided=self.provided)
        given = self._bound(f"{place}, pipeline {pipeline.name!r}", pipeline, signature.inner, args, kwargs)
        before = self._prefix
        self._prefix = f"{self._unique(before + pipeline.name)}/"
        self._way.append(pipeline)
        try:
            return pipeline.function(**checked_params(pipeline, given, self._told_way()))
        finally:
            self._way.pop()
            self._prefix = before

    def _refuse_deadline(self, pipeline: Pipeline[Any, Any], place: str) -> None:
        """Refuse the deadline of a nested pipeline where that of the run does not come before it."""
        outer, limit = self._way[0], pipeline.deadline
        if limit is None or (outer.deadline is not None and outer.deadline <= limit):
            return
        has = "none" if outer.deadline is None else f"{outer.deadline.total_seconds():g} s"
        raise ConfigError(
            f"{place}: the nested pipeline {pipeline.name!r} has a deadline of {limit.total_seconds():g} s, "
            f"and only a run as a whole can have one (that of {outer.name!r} is {has}); give {outer.name!r} "
            f"a deadline that is no longer, or the steps of {pipeline.name!r} a timeout"
        )

    def _told_way(self) -> str:
        return " > ".join(each.name for each in self._way)

    def _settled(self, step: Step[Any, Any]) -> Step[Any, Any]:
        """Give the step with the executor of the nested pipeline that it is called in, if it names none."""
        inner = [each.executor for each in self._way[1:] if each.executor is not None]
        executor = step.executor or (inner[-1] if inner else None)
        return replace(step, executor=executor, options=CallOptions())  # the options are the node's now

    def _bound(
        self,
        place: str,
        called: Step[Any, Any] | Pipeline[Any, Any],
        signature: Signature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        try:
            bound: dict[str, Any] = signature.bind_partial(*args, **kwargs).arguments
        except TypeError as error:
            names = ", ".join(signature.parameters) or "none"
            raise ConfigError(f"{place}: {error}; {called.name}() has the parameters: {names}") from error
        return bound

    def _named(self, step: Step[Any, Any]) -> str:
        if step.options.name is None:
            return self._unique(self._prefix + step.name)
        name = self._prefix + step.options.name
        if name in self._names:
            raise ConfigError(
                f"pipeline {self.name!r}: two steps produce {name!r}; give one another name with .named(...)"
            )
        self._names[name] = 1
        return name

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        if count == 1:
            return name
        numbered = f"{name}_{count}"
        if numbered in self._names:  # somebody has given it
            return self._unique(name)
        self._names[numbered] = 1
        return numbered


def draw(
    pipeline: Pipeline[Any, Any], params: Mapping[str, Any] | None = None, *, provided: Iterable[str] = ()
) -> Graph:
    """Draw the graph of a pipeline for these parameters, and check it.

    Raises
    ------
    ConfigError
        If a parameter is missing or unknown, the function fails (names the line), or the graph cannot run;
        see `Graph`.
    """
    given = checked_params(pipeline, dict(params or {}), pipeline.name)
    drawing = _Drawing(pipeline, provided)
    token = DRAWING.set(drawing)
    try:
        returned = pipeline.function(**given)
    except UnboundLocalError as error:
        raise ConfigError(
            f"pipeline {pipeline.name!r} uses a result before the step that gives it ({_line_of(error)}): "
            f"{error}; a step cannot wait for one that waits for it"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"pipeline {pipeline.name!r} calls itself without end") from error
    except NoriaError:
        raise
    except _MISTAKES as error:
        raise ConfigError(
            f"pipeline {pipeline.name!r} failed while it was drawn ({_line_of(error)}): "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        DRAWING.reset(token)
    if not drawing.nodes:
        raise ConfigError(f"pipeline {pipeline.name!r} calls no step; call one in its function")
    return Graph(
        pipeline.name,
        tuple(drawing.nodes),
        None if returned is None else as_argument(returned, f"what pipeline {pipeline.name!r} returns"),
        given,
        pipeline.deadline,
        pipeline.executor,
        tuple(provided),
    )


def draw_step(
    step: Step[Any, Any], params: Mapping[str, Any] | None = None, *, provided: Iterable[str] = ()
) -> Graph:
    """Draw the graph of one step alone."""
    arguments = {name: as_argument(value, repr(name)) for name, value in (params or {}).items()}
    node = Node(step.name, step, arguments)
    return Graph(step.name, (node,), Result(step.name), dict(params or {}), None, None, tuple(provided))


def as_argument(value: Any, place: str) -> Argument:
    """Turn what was handed to a step into an argument of the graph.

    What is written out is taken as it is now: a list that the pipeline's function changes later stays.
    """
    match value:
        case Handle():
            return value._noria_result
        case list() | tuple() if type(value) in (list, tuple) and _holds_handle(value):
            return Listed(tuple(as_argument(each, place) for each in value), isinstance(value, tuple))
        case dict() if type(value) is dict and _holds_handle(value.values()):
            _refuse_hidden(list(value), place)
            return Keyed({_copied(key): as_argument(each, place) for key, each in value.items()})
        case _:
            _refuse_hidden(value, place)
            return Literal(_copied(value))


def _holds_handle(values: Iterable[Any]) -> bool:
    return any(
        isinstance(each, Handle)
        or (type(each) in (list, tuple) and _holds_handle(each))
        or (type(each) is dict and _holds_handle(each.values()))
        for each in values
    )


def _refuse_hidden(value: Any, place: str) -> None:
    """Refuse a result within something that is no list, tuple or dict, and a step that was not called."""
    for each in _inside(value, 0):
        match each:
            case Handle():
                raise ConfigError(
                    f"{place}: {each!r} lies in a {type(value).__qualname__}, where its result cannot be put "
                    "in; hand it over by itself, or in a list, a tuple or a dict (as a value)"
                )
            case MappedStep():
                raise ConfigError(
                    f"{place}: {each.step.name}.map(...) is not called yet; add its other arguments, or (): "
                    f"{each.step.name}.map(...)()"
                )
            case Step() | Pipeline():
                raise ConfigError(
                    f"{place}: {each.name} is handed over, not its result; call it: {each.name}(...)"
                )


def _inside(value: Any, depth: int) -> Iterator[Any]:
    yield value
    if depth > _DEEPEST or isinstance(value, Handle | MappedStep | Step | Pipeline):
        return
    inner: Iterable[Any] = ()
    match value:
        case list() | tuple() | set() | frozenset():
            inner = value
        case dict():
            inner = [*value.keys(), *value.values()]
        case _ if is_dataclass(value) and not isinstance(value, type):
            inner = [getattr(value, each.name, None) for each in fields_of(value)]
    for each in inner:
        if type(each) not in _PLAIN:
            yield from _inside(each, depth + 1)


def _copied(value: Any) -> Any:
    """Copy plain containers, so that a later change to them is not seen."""
    match value:
        case list() if type(value) is list:
            return [each if type(each) in _PLAIN else _copied(each) for each in value]
        case dict() if type(value) is dict:
            return {key: each if type(each) in _PLAIN else _copied(each) for key, each in value.items()}
        case tuple() if type(value) is tuple:
            return tuple(each if type(each) in _PLAIN else _copied(each) for each in value)
        case set() | bytearray() if type(value) in (set, bytearray):
            return value.copy()
        case _:
            return value


def _as_items(value: Any, place: str, name: str) -> Argument:
    if isinstance(value, Handle):
        return value._noria_result
    items = items_of(value, name, place)
    return as_argument(items, f"{place}, {name!r}")


def _as_result(value: Any, place: str) -> Result:
    if not isinstance(value, Handle):
        raise ConfigError(f"{place}: it can wait for the result of a step only, not for {told(value)}")
    return value._noria_result


def _as_condition(value: Any, place: str) -> Result:
    if not isinstance(value, Handle):
        raise ConfigError(f"{place}: when() wants the result of a step; use a plain `if` for {told(value)}")
    return value._noria_result


def checked_params(pipeline: Pipeline[Any, Any], params: dict[str, Any], place: str) -> dict[str, Any]:
    """Give the parameters of a pipeline with its defaults. Raises `ConfigError` where they do not fit."""
    known = read_signature(pipeline.function).parameters
    for name, value in params.items():
        if name not in known:
            raise ConfigError(
                f"pipeline {place!r} has no parameter {name!r}; it has {', '.join(known) or 'none'}"
            )
        if isinstance(value, Handle) or _holds_handle([value]) or stands_for_version(value):
            continue
        if takes(known[name].annotation, value) is False:
            raise ConfigError(
                f"pipeline {place!r}: {name!r} is {told(value)}, wanted is {show(known[name].annotation)}"
            )
    for each in known.values():
        if each.name not in params:
            if each.is_required:
                raise ConfigError(
                    f"pipeline {place!r}: the parameter {each.name!r} is missing; give it, or a default"
                )
            params[each.name] = each.default
    return {name: params[name] for name in known}


def _line_of(error: BaseException) -> str:
    """Name the last line of somebody else's code on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if Path(each.filename).parent != Path(__file__).parent]
    return f"{Path((own or frames)[-1].filename).name}, line {(own or frames)[-1].lineno}"
