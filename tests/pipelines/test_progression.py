"""What follows when a task ends, held against a plain evaluation of the same graph."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from noria.pipelines.code.project import ProjectCode, StepCode
from noria.pipelines.deciding import Decider, Skip, Stale
from noria.pipelines.declarations import Step, step
from noria.pipelines.graph import Argument, Graph, Listed, Literal, Node, Result, results_of
from noria.pipelines.keys import KeyMaker
from noria.pipelines.progression import Progression, State, Task
from noria.pipelines.store import PipelineStore
from noria.pipelines.trees import Listed as ListedTree
from noria.pipelines.trees import Stored, Tree
from noria.pipelines.values.codec import dump
from noria.storage.contract import Storage


@step
def strict(a: int = 0, b: int = 0) -> int:
    return a + b


@step
def lenient(a: int | None = 0, b: int | None = 0) -> int:
    return (a or 0) + (b or 0)


@step
def decide(a: int = 0) -> bool:
    return a > 0


@step
def listing(a: int = 0) -> list[int]:
    return [a]


@step
def total(xs: list[int]) -> int:
    return sum(xs)


@step
def gather(xs: list[int | None] | None) -> int:
    return len(xs or ())


KINDS: dict[str, list[Step[..., Any]]] = {
    "int": [strict, lenient],
    "bool": [decide],
    "list": [listing],
}
ABSENT, BROKEN = object(), object()


@dataclass
class World:
    """A graph, and what its tasks would give: what is false, how long lists are, which tasks fail."""

    graph: Graph
    falses: Collection[str]
    lengths: Mapping[str, int]
    failing: Collection[str]

    def gives(self, task: str, step: Step[..., Any]) -> Any:
        """Give the value of a task that ran."""
        if step is decide:
            return task not in self.falses
        return [7] * self.lengths.get(task.partition("[")[0], 1) if step is listing else 7


# -- the reference: node by node, in order, as the guide tells it


@dataclass
class Reference:
    """States of tasks, and what nodes gave: a value, ABSENT, or BROKEN where it failed or was blocked."""

    world: World
    states: dict[str, str] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    items: dict[str, list[Any]] = field(default_factory=dict)  # of mapped nodes that could be expanded

    def evaluate(self) -> dict[str, str]:
        for node in self.world.graph.nodes:
            if not node.is_mapped:
                self.given[node.name] = self._task(node, node.name, {})
            else:
                self.given[node.name] = self._mapped(node)
        return self.states

    def _mapped(self, node: Node) -> Any:
        columns: dict[str, list[Any]] = {}
        for name, argument in node.items.items():
            match argument:
                case Literal(value=values):
                    columns[name] = list(values)
                case Listed(items=items):
                    columns[name] = [self._value(each) for each in items]
                case Result(node=source):
                    columns[name] = self.items[source] if source in self.items else self.given[source]
        if any(each is BROKEN for each in columns.values()):
            return self._single(node, "blocked", BROKEN)
        if any(each is ABSENT for each in columns.values()):
            return self._single(node, "skipped", ABSENT)
        if len({len(each) for each in columns.values()}) > 1:
            return self._single(node, "failed", BROKEN)
        count = len(next(iter(columns.values())))
        results = [
            self._task(node, f"{node.name}[{index}]", {name: each[index] for name, each in columns.items()})
            for index in range(count)
        ]
        self.items[node.name] = results
        if any(each is BROKEN for each in results):
            return BROKEN
        if not results and any(self.given[each] is BROKEN for each in self._shared(node)):
            return BROKEN
        return ABSENT if results and all(each is ABSENT for each in results) else results

    def _shared(self, node: Node) -> set[str]:
        read = [each for argument in node.arguments.values() for each in results_of(argument)]
        return {each.node for each in (*read, *node.conditions)} | set(node.after)

    def _single(self, node: Node, state: str, gives: object) -> object:
        self.states[node.name] = state
        return gives

    def _task(self, node: Node, task: str, items: dict[str, Any]) -> Any:
        arguments = {**{name: self._value(each) for name, each in node.arguments.items()}, **items}
        if any(self.given[each] is BROKEN for each in self._shared(node)) or BROKEN in map(
            _worst, items.values()
        ):
            self.states[task] = "blocked"
            return BROKEN
        if any(self.given[each.node] in (ABSENT, False) for each in node.conditions):
            self.states[task] = "skipped"
            return ABSENT
        if any(self._lacks(node.step, each) for each in arguments.values()):
            self.states[task] = "skipped"
            return ABSENT
        if task in self.world.failing:
            self.states[task] = "failed"
            return BROKEN
        self.states[task] = "ran"
        return self.world.gives(task, node.step)

    def _value(self, argument: Argument) -> Any:
        match argument:
            case Literal(value=value):
                return value
            case Result(node=node):
                return self.given[node]
            case Listed(items=items):
                return [self._value(each) for each in items]
        raise AssertionError(argument)

    def _lacks(self, step: Step[..., Any], value: Any) -> bool:
        if step in (lenient, gather):
            return False
        return value is ABSENT or (isinstance(value, list) and ABSENT in value)


def _worst(value: Any) -> Any:
    return BROKEN if isinstance(value, list) and BROKEN in value else value


# -- graphs


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes: list[Node] = []
    by_kind: dict[str, list[str]] = {"int": [], "bool": [], "list": [], "mapped": []}
    for number in range(draw(st.integers(1, 9))):
        name = f"n{number}"
        kind = draw(st.sampled_from(["int", "int", "bool", "list", "mapped", "mapped", "gather"]))
        node, gives = _drawn_node(draw, name, kind, by_kind)
        earlier = [each.name for each in nodes]
        if by_kind["bool"] and draw(st.integers(0, 2)) == 0:
            node = _with(node, conditions=(Result(draw(st.sampled_from(by_kind["bool"]))),))
        if earlier and draw(st.integers(0, 4)) == 0:
            node = _with(node, after=(draw(st.sampled_from(earlier)),))
        nodes.append(node)
        by_kind[gives].append(name)
    names = [each.name for each in nodes]
    tasks = [*names, *(f"{each}[{index}]" for each in names for index in range(3))]
    return World(
        Graph("g", tuple(nodes)),
        draw(st.sets(st.sampled_from(names))),
        draw(st.dictionaries(st.sampled_from(names), st.integers(0, 3))),
        draw(st.sets(st.sampled_from(tasks), max_size=4)),
    )


def _with(node: Node, *, conditions: tuple[Result, ...] = (), after: tuple[str, ...] = ()) -> Node:
    return Node(node.name, node.step, node.arguments, node.items, conditions or node.conditions, after)


def _drawn_node(draw: st.DrawFn, name: str, kind: str, by_kind: Mapping[str, list[str]]) -> tuple[Node, str]:
    numbers: st.SearchStrategy[Argument] = st.just(Literal(3))
    if by_kind["int"]:
        numbers |= st.sampled_from(by_kind["int"]).map(Result)
    lists: st.SearchStrategy[Argument] = st.lists(numbers, max_size=3).map(_listed)
    for source in (by_kind["list"], by_kind["mapped"]):
        if source:
            lists |= st.sampled_from(source).map(Result)
    match kind:
        case "gather":
            gathering: list[Step[..., Any]] = [total, gather]
            return Node(name, draw(st.sampled_from(gathering)), {"xs": draw(lists)}), "int"
        case "mapped":
            mapping: list[Step[..., Any]] = [strict, lenient]
            step = draw(st.sampled_from(mapping))
            items = {"a": draw(lists)}
            sources = by_kind["list"] + by_kind["mapped"]
            if sources and draw(st.integers(0, 2)) == 0:  # lists whose lengths are known once they are there
                items["b"] = Result(draw(st.sampled_from(sources)))
            arguments = {"b": draw(numbers)} if "b" not in items and draw(st.booleans()) else {}
            return Node(name, step, arguments, items), "mapped"
    step = draw(st.sampled_from(KINDS[kind]))
    return Node(name, step, {"a": draw(numbers)}), kind


def _listed(items: Sequence[Argument]) -> Argument:
    if any(isinstance(each, Result) for each in items):
        return Listed(tuple(items))
    return Literal([cast(Literal, each).value for each in items])


# -- the real thing, one task at a time in any order


class _Nothing:
    """A store and a storage that hold nothing."""

    def latest(self, pipeline: str) -> dict[str, Any]:
        return {}

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def values(self, digests: Collection[str]) -> dict[str, bytes]:
        return {}

    def known_values(self, digests: Collection[str]) -> set[str]:
        return set()

    def version_of(self, value: object) -> None:
        return None

    def of(self, *_: object, **__: object) -> StepCode:
        return StepCode("code", {})


NOTHING = _Nothing()


def stored(value: Any) -> Tree:
    if isinstance(value, list):
        return ListedTree(tuple(stored(each) for each in value))
    payload = dump(value, scratch=Path(), where="a test")
    return Stored(payload.format, payload.sha256, payload.size_bytes, repr(value), payload.data)


def run(world: World, choose: Callable[[int], int]) -> dict[str, str]:
    """Go through a graph; `choose` picks which of the tasks at work ends next."""
    progression = Progression(world.graph)
    keys = KeyMaker(progression, cast(ProjectCode, NOTHING), stored, runtime="", once="")  # type: ignore[arg-type]
    decider = Decider(
        progression,
        keys,
        cast(PipelineStore, NOTHING),
        cast(Storage, NOTHING),
        NOTHING,  # type: ignore[arg-type]
    )
    at_work: list[Task] = []
    for _ in range(10_000):
        ready = list(progression.ready)
        progression.ready.clear()
        for task, verdict in zip(ready, decider.decide(ready), strict=True):
            assert task.state is State.READY
            match verdict:
                case Skip(because=because):
                    progression.skip(task, because)
                case Stale():
                    task.state = State.RUNNING
                    at_work.append(task)
                case other:
                    raise AssertionError(other)
        if not at_work and not progression.ready:
            break
        if at_work:
            task = at_work.pop(choose(len(at_work)))
            if task.id in world.failing:
                progression.fail(task)
            else:
                progression.complete(task, stored(world.gives(task.id, task.node.step)), State.RAN)
    assert progression.is_finished
    assert not progression.unexpanded()
    return {each.id: each.state.value for each in progression.all_tasks()}


@given(world=worlds(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_states_are_those_of_a_plain_evaluation_in_every_order(world: World, data: st.DataObject) -> None:
    expected = Reference(world).evaluate()
    assert run(world, lambda count: data.draw(st.integers(0, count - 1))) == expected


# -- what hypothesis may not find


def test_a_long_chain_of_maps_needs_no_deep_stack() -> None:
    nodes = [Node("n0", strict, {}, {"a": Literal([1])})]
    nodes += [Node(f"n{each}", strict, {}, {"a": Result(f"n{each - 1}")}) for each in range(1, 2_000)]
    world = World(Graph("g", tuple(nodes)), (), {}, ())
    assert set(run(world, lambda count: 0).values()) == {"ran"}
    broken = World(world.graph, (), {}, ["n0[0]"])
    assert sorted(set(run(broken, lambda count: 0).values())) == ["blocked", "failed"]


def test_a_map_over_nothing_comes_after_what_it_waits_for() -> None:
    nodes = (
        Node("first", strict),
        Node("none", strict, {}, {"a": Literal([])}, after=("first",)),
        Node("last", total, {"xs": Result("none")}),
    )
    progression = Progression(Graph("g", nodes))
    assert [each.id for each in progression.ready] == ["first"]
    assert run(World(progression.graph, (), {}, ["first"]), lambda count: 0) == {
        "first": "failed",
        "last": "blocked",
    }


def test_lists_of_other_lengths_fail_the_step_that_takes_them_alone() -> None:
    nodes = (
        Node("one", listing),
        Node("two", listing, {"a": Literal(2)}),
        Node("both", strict, {}, {"a": Result("one"), "b": Result("two")}),
        Node("after", strict, {}, {"a": Result("both")}),
        Node("other", total, {"xs": Result("one")}),
    )
    graph = Graph("g", nodes)
    states = run(World(graph, (), {"one": 1, "two": 2}, ()), lambda count: 0)
    assert states == {"one": "ran", "two": "ran", "both": "failed", "after": "blocked", "other": "ran"}


def test_items_of_what_gave_no_list_fail_the_step() -> None:
    graph = Graph("g", (Node("one", untyped), Node("two", strict, {}, {"a": Result("one")})))
    progression = Progression(graph)
    task = progression.ready.popleft()
    progression.complete(task, stored(3), State.RAN)
    assert progression.broken == {"two": "two takes 'a' item by item, but one gave 3, no list"}
    assert progression.tasks["two"][0].state is State.FAILED
    assert progression.is_finished


@step
def untyped(a: Any = None) -> Any:
    return a
