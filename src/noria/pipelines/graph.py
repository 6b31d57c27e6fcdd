"""Steps that depend on one another: the graph that is run, and what is checked before anything runs."""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from noria.errors import ConfigError
from noria.pipelines.calling import shorten
from noria.pipelines.declarations import Step
from noria.pipelines.signatures import Parameter, field_names, fits, item_of, read_signature, show, takes
from noria.records import Version

__all__ = [
    "Argument",
    "Graph",
    "Keyed",
    "Listed",
    "Literal",
    "Node",
    "Result",
    "results_of",
    "stands_for_version",
    "told",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is known when the graph is drawn."""

    value: Any


@dataclass(frozen=True, slots=True)
class Result:
    """What a node gives, or one field of it."""

    node: str
    field: str | None = None

    def __str__(self) -> str:
        """As `node` or `node.field`."""
        return self.node if self.field is None else f"{self.node}.{self.field}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A list (or tuple) of arguments."""

    items: tuple["Argument", ...]
    is_tuple: bool = False


@dataclass(frozen=True, slots=True)
class Keyed:
    """A dict of arguments."""

    items: Mapping[Any, "Argument"]


Argument = Literal | Result | Listed | Keyed


def results_of(argument: Argument | None) -> Iterator[Result]:
    """Give the results that an argument is made of."""
    match argument:
        case Result():
            yield argument
        case Listed(items=items):
            for each in items:
                yield from results_of(each)
        case Keyed(items=items):
            for each in items.values():
                yield from results_of(each)


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a step.

    Attributes
    ----------
    name
        Unique in its graph; of a nested pipeline's steps `PIPELINE/STEP`.
    arguments
        By parameter.
    items
        By parameter: arguments that are lists, of which it takes one item at a time.
    conditions
        It runs only where all of these are true.
    after
        Nodes that it waits for without reading them.
    """

    name: str
    step: Step[Any, Any]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    items: Mapping[str, Argument] = field(default_factory=dict)
    conditions: tuple[Result, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def is_mapped(self) -> bool:
        """Whether it runs once for each item."""
        return bool(self.items)

    def reads(self) -> list[Result]:
        """Give every result that it reads."""
        given = (*self.arguments.values(), *self.items.values())
        return [*(each for argument in given for each in results_of(argument)), *self.conditions]

    def waits_for(self) -> list[str]:
        """Name the nodes that have to be done before, each once."""
        return list(dict.fromkeys([*(each.node for each in self.reads()), *self.after]))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, and what the whole gives.

    Raises
    ------
    ConfigError
        If two nodes have one name, a node reads one that is not there, nodes wait for each other in a circle,
        an argument is missing or unknown, or one cannot be what the parameter is annotated with. The message
        names the path from the end of the graph to the place.
    """

    name: str
    nodes: tuple[Node, ...]
    result: Argument | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    deadline: timedelta | None = None
    executor: str | None = None
    provided: tuple[str, ...] = ()
    target: str | None = None  # what it was asked for as, where that is not its name
    # node and part ("": the whole) whose lists are kept item by item, whoever reads them
    kept_apart: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        """Put the nodes in order and refuse what cannot run."""
        self._refuse_twins()
        self._refuse_strangers()
        object.__setattr__(self, "nodes", tuple(self._in_order()))
        for node in self.nodes:
            self._check_arguments(node)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {each.name: each for each in self.nodes}

    def until(self, targets: Sequence[str]) -> "Graph":
        """Give the part of the graph that these nodes need."""
        missing = [each for each in targets if each not in self.by_name]
        if missing:
            raise ConfigError(
                f"pipeline {self.name!r} has no step {missing[0]!r}; it has {', '.join(self.by_name)}"
            )
        wanted, left = set[str](), list(targets)
        while left:
            name = left.pop()
            if name not in wanted:
                wanted.add(name)
                left.extend(self.by_name[name].waits_for())
        result = Result(targets[-1]) if targets else self.result
        nodes = tuple(each for each in self.nodes if each.name in wanted)
        target = f"{self.name}/{targets[-1]}" if targets else self.target
        # Lists are kept as the whole graph would keep them, so that either finds the results of the other.
        return replace(self, nodes=nodes, result=result, target=target, kept_apart=self.split)

    def downstream(self, name: str) -> set[str]:
        """Name a node and all that wait for it, directly or not."""
        if name not in self.by_name:
            raise ConfigError(
                f"pipeline {self.name!r} has no step {name!r}; it has {', '.join(self.by_name)}"
            )
        found = {name}
        for node in self.nodes:  # in order: whatever a node waits for was looked at before it
            if found.intersection(node.waits_for()):
                found.add(node.name)
        return found

    @cached_property
    def split(self) -> frozenset[tuple[str, str]]:
        """Name nodes and their parts ("": the whole) that are taken item by item: items are kept apart.

        Those of a mapped node are apart as it is.
        """
        taken = [each for node in self.nodes for each in node.items.values() if isinstance(each, Result)]
        lists = [each for each in taken if not self.by_name[each.node].is_mapped]
        return self.kept_apart.union((each.node, each.field or "") for each in lists)

    @cached_property
    def parts_apart(self) -> dict[str, tuple[str, ...]]:
        """Give, by node, the parts of its result whose items are kept apart."""
        found: dict[str, tuple[str, ...]] = {}
        for node, part in sorted(self.split):
            found[node] = (*found.get(node, ()), part)
        return found

    # -- what is checked

    def _refuse_twins(self) -> None:
        seen: dict[str, Node] = {}
        for node in self.nodes:
            other = seen.setdefault(node.name, node)
            if other is not node:
                raise ConfigError(
                    f"pipeline {self.name!r}: two steps produce {node.name!r} ({other.step.target} and "
                    f"{node.step.target}); give one another name with .named(...)"
                )

    def _refuse_strangers(self) -> None:
        names = {each.name for each in self.nodes}
        for node in self.nodes:
            for wanted in node.waits_for():
                if wanted not in names:
                    raise ConfigError(
                        f"pipeline {self.name!r}: {node.name} reads {wanted!r}, which no step produces; "
                        f"path: {' <- '.join(self._path_to(node.name))} <- {wanted}"
                    )

    def _in_order(self) -> list[Node]:
        """Order the nodes so that each comes after those it waits for; ties as they were given."""
        by_name = {each.name: each for each in self.nodes}
        state: dict[str, int] = {}  # 1: on the way, 2: placed
        placed: list[Node] = []
        for start in self.nodes:
            stack: list[tuple[str, Iterator[str]]] = []
            if start.name not in state:
                state[start.name] = 1
                stack.append((start.name, iter(start.waits_for())))
            while stack:
                name, waits = stack[-1]
                following = next(waits, None)
                if following is None:
                    state[name] = 2
                    placed.append(by_name[name])
                    stack.pop()
                elif state.get(following) == 1:
                    way = [each for each, _ in stack]
                    circle = [*way[way.index(following) :], following]
                    raise ConfigError(
                        f"pipeline {self.name!r} goes in a circle: {' <- '.join(circle)}; "
                        "a step cannot wait for itself: take one of these edges away"
                    )
                elif following not in state:
                    state[following] = 1
                    stack.append((following, iter(by_name[following].waits_for())))
        return placed

    def _path_to(self, name: str) -> list[str]:
        """Name the nodes from the end of the graph to `name`."""
        way = [name]
        while True:
            reader = next((each for each in self.nodes if way[0] in each.waits_for()), None)
            if reader is None or reader.name in way:
                return way
            way.insert(0, reader.name)

    def _check_arguments(self, node: Node) -> None:
        signature = read_signature(node.step.function, provided=self.provided)
        given = {**node.arguments, **node.items}
        for name in given:
            if name not in signature.parameters:
                raise ConfigError(
                    f"{self._place(node)}: {node.step.name}() has no parameter {name!r}; it has "
                    f"{', '.join(signature.parameters) or 'none'}"
                )
        for parameter in signature.parameters.values():
            if parameter.name not in given:
                if parameter.is_required:
                    raise ConfigError(
                        f"{self._place(node)}: the input {parameter.name!r} of {node.step.name}() is "
                        "missing; give it in the call, or give the parameter a default"
                    )
            elif parameter.provided is not None:
                raise ConfigError(
                    f"{self._place(node)}: {parameter.name!r} of {node.step.name}() is handed over by noria; "
                    "leave it out of the call"
                )
        for name, argument in node.arguments.items():
            parameter = signature.parameters[name]
            self._check_type(node, parameter, argument, parameter.annotation)
        self._check_lengths(node)
        for name, argument in node.items.items():
            self._check_items(node, signature.parameters[name], argument)
        for condition in node.conditions:
            gives = self._annotation(condition)
            if gives is int or fits(gives, bool) is False:
                raise ConfigError(
                    f"{self._place(node)}: its condition {condition} gives {show(gives)}, wanted is bool; "
                    "let a step decide"
                )

    def _check_type(self, node: Node, parameter: Parameter, argument: Argument, wanted: Any) -> None:
        """Refuse what plainly cannot be given where `wanted` is: a parameter's annotation, or its items'."""
        named = f"{parameter.name!r} of {node.step.name}()"
        match argument:
            case Result():
                produced = self._annotation(argument)
                if fits(produced, wanted) is False:
                    raise ConfigError(
                        f"{self._place(node)}: {argument} gives {show(produced)}, but {named} wants "
                        f"{show(wanted)}; give another result, or correct an annotation"
                    )
            case Literal(value=value):
                if not stands_for_version(value) and takes(wanted, value) is False:
                    raise ConfigError(
                        f"{self._place(node)}: {named} is {told(value)}, wanted is {show(wanted)}"
                    )
            case Listed(items=items, is_tuple=is_tuple):
                self._check_container(node, named, () if is_tuple else [], wanted)
                for each in items:
                    self._check_type(node, parameter, each, item_of(wanted))
            case Keyed(items=items):
                self._check_container(node, named, {}, wanted)
                for each in items.values():
                    self._check_type(node, parameter, each, item_of(wanted))

    def _check_container(self, node: Node, named: str, empty: object, wanted: Any) -> None:
        if takes(wanted, empty) is False:
            raise ConfigError(
                f"{self._place(node)}: {named} is a {type(empty).__name__} of results, wanted is "
                f"{show(wanted)}"
            )

    def _check_lengths(self, node: Node) -> None:
        lengths = {}
        for name, argument in node.items.items():
            match argument:
                case Literal(value=list() | tuple() as values):
                    lengths[name] = len(values)
                case Listed(items=items):
                    lengths[name] = len(items)
                case Literal() | Keyed():
                    raise ConfigError(
                        f"{self._place(node)}: map() takes {name!r} of {node.step.name}() item by item; "
                        "give a list"
                    )
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise ConfigError(
                f"{self._place(node)}: the lists of map() have different lengths: {shown}; make them equal"
            )

    def _check_items(self, node: Node, parameter: Parameter, argument: Argument) -> None:
        match argument:
            case Result():
                produced, wanted = self._annotation(argument), parameter.annotation
                if _is_no_list(produced):
                    raise ConfigError(
                        f"{self._place(node)}: map() takes {parameter.name!r} item by item, but {argument} "
                        f"gives {show(produced)}; let it give a list"
                    )
                if fits(item_of(produced), wanted) is False:
                    raise ConfigError(
                        f"{self._place(node)}: items of {argument} are {show(item_of(produced))}, but "
                        f"{parameter.name!r} of {node.step.name}() wants {show(wanted)}"
                    )
            case Listed(items=items):
                for each in items:
                    self._check_type(node, parameter, each, parameter.annotation)
            case Literal(value=values):
                for value in values:
                    self._check_type(node, parameter, Literal(value), parameter.annotation)

    def _annotation(self, result: Result) -> Any:
        node = self.by_name[result.node]
        produced = read_signature(node.step.function, provided=self.provided).returns
        if result.field is not None:
            names = None if node.is_mapped else field_names(produced)
            if names is None or result.field not in names:
                gives = f"a list of {show(produced)}" if node.is_mapped else show(produced)
                raise ConfigError(
                    f"pipeline {self.name!r}: the field {result.field!r} is asked of {result.node}, which "
                    f"gives {gives} and has {', '.join(names or ()) or 'no fields'}"
                )
            return _field_annotation(produced, names.index(result.field), result.field)
        if node.is_mapped and produced is not Any:
            return types.GenericAlias(list, (produced,))
        return list if node.is_mapped else produced

    def _place(self, node: Node) -> str:
        way = self._path_to(node.name)
        path = f" (path: {' <- '.join(way)})" if len(way) > 1 else ""
        return f"pipeline {self.name!r}, step {node.name!r}{path}"


def _is_no_list(annotation: Any) -> bool:
    """Tell whether it is plainly nothing whose items can be taken one by one."""
    return annotation in (str, bytes) or fits(annotation, Sequence) is False


def _field_annotation(annotation: Any, index: int, name: str) -> Any:
    if get_origin(annotation) is tuple:
        return get_args(annotation)[index]
    try:
        return get_type_hints(annotation).get(name, Any)
    except (NameError, AttributeError, TypeError):
        return Any


def stands_for_version(value: Any) -> bool:
    """Tell whether a value is a version, declares what has versions, or is a list or dict with one inside."""
    if type(value) in (list, tuple):
        return any(map(stands_for_version, value))
    if type(value) is dict:
        return any(map(stands_for_version, value.values()))
    return isinstance(value, Version) or getattr(type(value), "stands_for_version", False)


def told(value: object) -> str:
    """Write a value with its type, for messages."""
    return f"{shorten(value)} ({type(value).__qualname__})"
