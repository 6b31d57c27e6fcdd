"""How far a graph is: which tasks exist, which can go on, and what follows when one ends.

It runs nothing and knows no keys. A task is one attempt-to-be at a node: the node itself, or one item of a
node that is mapped. What is not known while a plan is made is `UNKNOWN`.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from noria.pipelines.graph import Argument, Graph, Keyed, Listed, Literal, Node, Result, results_of
from noria.pipelines.trees import Absent, Tree, part, told_of
from noria.pipelines.trees import Fields as FieldsTree
from noria.pipelines.trees import Keyed as KeyedTree
from noria.pipelines.trees import Listed as ListedTree

__all__ = ["UNKNOWN", "Progression", "State", "Task", "Unknown"]


class Unknown(Enum):
    """What will be known once something has run."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN
Known = Tree | Unknown


class State(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    CACHED = "cached"
    RAN = "ran"
    FAILED = "failed"
    SKIPPED = "skipped"  # its condition is false, or nobody gives what it needs
    BLOCKED = "blocked"  # something that it waits for failed


ENDED = frozenset({State.CACHED, State.RAN, State.FAILED, State.SKIPPED, State.BLOCKED})


@dataclass(slots=True, eq=False)
class Task:
    """One thing to do."""

    id: str  # the node's name, with [index] where it is mapped
    node: Node
    index: int | None
    state: State = State.WAITING
    output: Known | None = None
    waits: int = 0
    because: str | None = None  # why it was skipped or blocked


@dataclass(slots=True, eq=False)
class _Expansion:
    """A mapped node that waits for its items."""

    node: Node
    waits: int = 0


@dataclass(slots=True, eq=False)
class _Closing:
    """A mapped node without items: nothing is run, but what it waits for comes before what reads it."""

    node: Node
    waits: int = 0


_Waiter = Task | _Expansion | _Closing
_Signal = tuple[str, str, int | None]  # "done" or "expanded" or "task", node, index


@dataclass(eq=False)
class Progression:
    """All tasks of a graph; `ready` holds those that can go on."""

    graph: Graph
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    ready: deque[Task] = field(default_factory=deque)
    broken: dict[str, str] = field(default_factory=dict)  # nodes that cannot be expanded, and why
    _waiters: dict[_Signal, list[_Waiter]] = field(default_factory=dict)
    _given: set[_Signal] = field(default_factory=set)
    _left: dict[str, int] = field(default_factory=dict)  # open tasks by node
    _failed: dict[str, str] = field(default_factory=dict)  # node -> the task that failed
    _unexpanded: dict[str, Node] = field(default_factory=dict)
    _open: int = 0  # tasks that have not ended
    _whole: dict[str, Tree] = field(default_factory=dict)  # outputs of mapped nodes that are done
    _to_block: deque[tuple[_Signal, str]] = field(default_factory=deque)
    _is_blocking: bool = False
    _to_give: deque[_Signal] = field(default_factory=deque)
    _is_giving: bool = False

    def __post_init__(self) -> None:
        """Expand what can be, and find what is ready."""
        expansions = [_Expansion(node) for node in self.graph.nodes]
        for each in expansions:
            self._unexpanded[each.node.name] = each.node
            signals: set[_Signal] = set()
            for argument in each.node.items.values():
                if isinstance(argument, Result):
                    mapped = self.graph.by_name[argument.node].is_mapped and argument.field is None
                    signals.add(("expanded" if mapped else "done", argument.node, None))
            each.waits = len(signals)
            for signal in signals:
                self._waiters.setdefault(signal, []).append(each)
        for each in expansions:  # now that all wait: nobody misses a node that cannot be expanded
            if not each.waits:
                self._go_on(each)

    # -- what is asked

    def all_tasks(self) -> Iterator[Task]:
        """Give the tasks that are known, in the order of the graph."""
        for node in self.graph.nodes:
            yield from self.tasks.get(node.name, ())

    def unexpanded(self) -> list[Node]:
        """Give mapped nodes whose items are not known."""
        return list(self._unexpanded.values())

    def counts(self) -> dict[str, int]:
        """Count tasks by state."""
        return dict(Counter(task.state.value for task in self.all_tasks()))

    def nodes_that_ran(self) -> set[str]:
        """Name the nodes all of whose tasks have run."""
        return {
            name
            for name, tasks in self.tasks.items()
            if tasks and all(each.state is State.RAN for each in tasks)
        }

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return not self.ready and not self._unexpanded and not self._open

    def output_of(self, node: str) -> Known:
        """Give what a node that is done gave: of a mapped one, all of it."""
        if node in self._whole:
            return self._whole[node]
        tasks = self.tasks.get(node)
        if tasks is None:
            return UNKNOWN
        if not self.graph.by_name[node].is_mapped:
            return UNKNOWN if tasks[0].output is None else tasks[0].output
        outputs = [each.output for each in tasks]
        if any(each is UNKNOWN or each is None for each in outputs):
            return UNKNOWN
        if tasks and all(each.state is State.SKIPPED for each in tasks):
            return Absent()
        whole = ListedTree(tuple(each for each in outputs if each is not None and each is not UNKNOWN))
        if node not in self._failed and not self._left[node]:
            self._whole[node] = whole
        return whole

    def argument(self, argument: Argument, literals: Any) -> Known:
        """Give the tree of an argument; `literals` keeps plain values and gives their trees."""
        match argument:
            case Literal(value=value):
                tree: Tree = literals(value)
                return tree
            case Result(node=node, field=name):
                output = self.output_of(node)
                return output if output is UNKNOWN or name is None else part(output, name)
            case Listed(items=items, is_tuple=is_tuple):
                trees = [self.argument(each, literals) for each in items]
                known = tuple(each for each in trees if each is not UNKNOWN)
                return UNKNOWN if len(known) < len(trees) else ListedTree(known, is_tuple)
            case Keyed(items=items):
                return self._keyed(items, literals)

    def _keyed(self, items: Any, literals: Any) -> Known:
        trees = [self.argument(each, literals) for each in items.values()]
        known = tuple(each for each in trees if each is not UNKNOWN)
        return UNKNOWN if len(known) < len(trees) else KeyedTree(literals(list(items)), known)

    def item(self, task: Task, argument: Argument, literals: Any) -> Known:
        """Give the tree of the item that a mapped task takes."""
        assert task.index is not None
        match argument:
            case Literal(value=values):
                tree: Tree = literals(values[task.index])
                return tree
            case Listed(items=items):
                return self.argument(items[task.index], literals)
            case Result(node=node, field=None) if self.graph.by_name[node].is_mapped:
                output = self.tasks[node][task.index].output
                return UNKNOWN if output is None else output
            case _:
                whole = self.argument(argument, literals)
                if isinstance(whole, ListedTree | FieldsTree):
                    return whole.items[task.index]
                return whole

    # -- what happens

    def complete(self, task: Task, output: Known, state: State) -> None:
        """Note that a task has its output."""
        task.output, task.state = output, state
        self._end(task)

    def skip(self, task: Task, because: str) -> None:
        """Note that a task is not run."""
        task.because = because
        self.complete(task, Absent(), State.SKIPPED)

    def fail(self, task: Task) -> None:
        """Note that a task has failed for good; what needs it is blocked."""
        task.state = State.FAILED
        self._fail_node(task.node.name, task.id)
        self._end(task)

    def _end(self, task: Task) -> None:
        name = task.node.name
        if task.index is not None:
            if task.state in (State.FAILED, State.BLOCKED):
                self._block_waiters(("task", name, task.index), task.id)
            else:
                self._give(("task", name, task.index))
        self._left[name] -= 1
        self._open -= 1
        if not self._left[name]:
            self._close(name)

    def _close(self, node: str) -> None:
        if node in self._failed:
            self._block_waiters(("done", node, None), self._failed[node])
        else:
            self._give(("done", node, None))

    def _fail_node(self, node: str, because: str) -> None:
        if node not in self._failed:
            self._failed[node] = because
            self._block_waiters(("done", node, None), because)

    def _block_waiters(self, signal: _Signal, because: str) -> None:
        """Block what waits, and what waits for that: a queue, since a chain may be longer than the stack."""
        self._to_block.append((signal, because))
        if self._is_blocking:
            return
        self._is_blocking = True
        while self._to_block:
            signal, because = self._to_block.popleft()
            for waiter in self._waiters.pop(signal, ()):
                if isinstance(waiter, _Closing):
                    self._fail_node(waiter.node.name, because)
                elif isinstance(waiter, _Expansion):
                    if waiter.node.name in self._unexpanded:
                        self._block_node(waiter.node, because)
                elif waiter.state is State.WAITING:
                    waiter.state, waiter.because = State.BLOCKED, because
                    self._fail_node(waiter.node.name, because)
                    self._end(waiter)
        self._is_blocking = False

    def _block_node(self, node: Node, because: str) -> None:
        del self._unexpanded[node.name]
        task = Task(node.name, node, None, State.BLOCKED, because=because)
        self.tasks[node.name], self._left[node.name] = [task], 0
        self._fail_node(node.name, because)
        self._block_waiters(("expanded", node.name, None), because)

    def _await(self, waiter: _Waiter, signals: set[_Signal]) -> None:
        open_signals = [each for each in signals if each not in self._given]
        waiter.waits = len(open_signals)
        for each in open_signals:
            self._waiters.setdefault(each, []).append(waiter)
        if not open_signals:
            self._go_on(waiter)

    def _give(self, signal: _Signal) -> None:
        """Let go on what waits for this alone by now: a queue as well."""
        self._given.add(signal)
        self._to_give.append(signal)
        if self._is_giving:
            return
        self._is_giving = True
        while self._to_give:
            for waiter in self._waiters.pop(self._to_give.popleft(), ()):
                waiter.waits -= 1
                if not waiter.waits:
                    self._go_on(waiter)
        self._is_giving = False

    def _go_on(self, waiter: _Waiter) -> None:
        if isinstance(waiter, _Closing):
            self._close(waiter.node.name)
        elif isinstance(waiter, _Expansion):
            if waiter.node.name in self._unexpanded:
                self._expand(waiter.node)
        elif waiter.state is State.WAITING:
            waiter.state = State.READY
            self.ready.append(waiter)

    def _expand(self, node: Node) -> None:
        try:
            count = self._count(node)
        except (TypeError, ValueError) as error:
            self.broken[node.name] = str(error)
            self._block_node(node, node.name)
            self.tasks[node.name][0].state = State.FAILED
            return
        if count is UNKNOWN:
            return  # a plan: the items come out of something that has to run
        del self._unexpanded[node.name]
        if isinstance(count, str):  # what it would take items of was not run
            task = Task(node.name, node, None, State.SKIPPED, Absent(), because=count)
            self.tasks[node.name], self._left[node.name] = [task], 0
            self._give(("expanded", node.name, None))
            self._give(("done", node.name, None))
            return
        if count is None:
            made = [Task(node.name, node, None)]
        else:
            made = [Task(f"{node.name}[{index}]", node, index) for index in range(count)]
        self.tasks[node.name], self._left[node.name] = made, len(made)
        self._open += len(made)
        self._give(("expanded", node.name, None))
        shared = self._signals(node)
        for task in made:
            self._await_task(task, shared)
        if not made:
            failed = next((each for each in shared if self._is_broken(each)), None)
            if failed is None:
                self._await(_Closing(node), shared)
            else:
                self._fail_node(node.name, self._failed[failed[1]])

    def _await_task(self, task: Task, shared: set[_Signal]) -> None:
        signals = shared | (self._item_signals(task) if task.index is not None else set())
        failed = next((each for each in signals if self._is_broken(each)), None)
        if failed is not None:
            task.state, task.because = State.BLOCKED, self._failed[failed[1]]
            self._fail_node(task.node.name, task.because)
            self._end(task)
            return
        self._await(task, signals)

    def _is_broken(self, signal: _Signal) -> bool:
        kind, node, index = signal
        if kind == "task":
            assert index is not None
            return self.tasks[node][index].state in (State.FAILED, State.BLOCKED)
        return node in self._failed

    def _signals(self, node: Node) -> set[_Signal]:
        """Name what every task of a node waits for."""
        read: set[_Signal] = {("done", name, None) for name in node.after}
        read |= {("done", each.node, None) for each in node.conditions}
        for argument in node.arguments.values():
            read |= {("done", each.node, None) for each in results_of(argument)}
        return read

    def _item_signals(self, task: Task) -> set[_Signal]:
        """Name what one item waits for: of a mapped node, its item alone."""
        found: set[_Signal] = set()
        for argument in task.node.items.values():
            match argument:
                case Listed(items=items):
                    assert task.index is not None
                    found |= {("done", each.node, None) for each in results_of(items[task.index])}
                case Result(node=node, field=None) if self.graph.by_name[node].is_mapped:
                    found.add(("task", node, task.index))
                case _:
                    found |= {("done", each.node, None) for each in results_of(argument)}
        return found

    def _count(self, node: Node) -> int | Unknown | str | None:
        """Count a node's tasks. None: it is not mapped. A text: why there is nothing to map over."""
        if not node.is_mapped:
            return None
        counts: dict[str, int] = {}
        for name, argument in node.items.items():
            match argument:
                case Literal(value=values):
                    counts[name] = len(values)
                case Listed(items=items):
                    counts[name] = len(items)
                case Result(node=given, field=None) if self.graph.by_name[given].is_mapped:
                    tasks = self.tasks[given]
                    if tasks and tasks[0].index is None:
                        return f"{given} was not run"
                    counts[name] = len(tasks)
                case _:
                    tree = self.argument(argument, None)
                    if tree is UNKNOWN:
                        return UNKNOWN
                    if isinstance(tree, Absent):
                        return f"{argument} was not run"
                    if not isinstance(tree, ListedTree | FieldsTree):
                        raise TypeError(
                            f"{node.name} takes {name!r} item by item, but {argument} gave {told_of(tree)}, "
                            "no list"
                        )
                    counts[name] = len(tree.items)
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name!r} has {length}" for name, length in counts.items())
            raise ValueError(f"the lists that {node.name} takes item by item have different lengths: {shown}")
        return next(iter(counts.values()))
