"""A plan: what a run would do, and why. Nothing is run and nothing is written."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from noria.pipelines.code.project import ProjectCode
from noria.pipelines.deciding import Cached, Decider, Open, Skip, Stale, Verdict
from noria.pipelines.graph import Node, results_of
from noria.pipelines.keys import KeyMaker, explain
from noria.pipelines.progression import UNKNOWN, Progression, State, Task, Unknown
from noria.pipelines.records import Plan, PlanItem
from noria.pipelines.store import Ingredients, PipelineStore
from noria.pipelines.trees import Tree
from noria.storage.contract import Storage

__all__ = ["make_plan"]


def make_plan(
    progression: Progression,
    decider: Decider,
    keys: KeyMaker,
    code: ProjectCode,
    *,
    store: PipelineStore,
    storage: Storage,
    forced: frozenset[str] = frozenset(),
) -> Plan:
    """Walk through a graph as a run would."""
    return _Planning(progression, decider, keys, code, store, storage, forced).make()


@dataclass(slots=True)
class _Planning:
    progression: Progression
    decider: Decider
    keys: KeyMaker
    code: ProjectCode
    store: PipelineStore
    storage: Storage
    forced: frozenset[str]
    found: dict[str, PlanItem] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)  # nodes that may be skipped
    known: dict[str, bool] = field(default_factory=dict)  # digests of code -> whether it has run
    hidden: dict[str, str] = field(default_factory=dict)  # nodes behind one whose items are not known

    def make(self) -> Plan:
        ready = self.progression.ready
        while ready:
            tasks = list(ready)
            ready.clear()
            for task, verdict in zip(tasks, self.decider.decide(tasks), strict=True):
                self._take(task, verdict)
        items = [item for node in self.progression.graph.nodes for item in self._items_of(node)]
        return Plan(pipeline=self.progression.graph.name, items=tuple(items))

    def _take(self, task: Task, verdict: Verdict) -> None:
        match verdict:
            case Cached(entry=entry):
                told = f"nothing that it depends on has changed since run {entry.run[:16]}"
                self._note(task, "cached", told)
                self.progression.complete(task, entry.output, State.CACHED)
            case Skip(because=because):
                self._note(task, "skip", because)
                self.progression.skip(task, because)
            case Stale(made=made):
                self._note(task, "run", self._reason(task, made.ingredients, made.arguments))
                self.progression.complete(task, UNKNOWN, State.RAN)
            case Open(because=because, arguments=None):
                self.doubtful.add(task.node.name)
                self._note(task, "open", because)
                self.progression.complete(task, UNKNOWN, State.RAN)
            case Open(because=because, arguments=arguments):
                self._note(task, *self._foreseen(task, because, arguments or {}))
                self.progression.complete(task, UNKNOWN, State.RAN)

    def _note(self, task: Task, state: str, reason: str) -> None:
        self.found[task.id] = PlanItem(task=task.id, state=state, reason=reason)

    def _foreseen(self, task: Task, because: str, arguments: dict[str, Tree | Unknown]) -> tuple[str, str]:
        """Tell what becomes of a task some of whose inputs come from steps that run."""
        doubtful = self.doubtful.intersection(task.node.waits_for())
        if doubtful:
            self.doubtful.add(task.node.name)
            return "open", f"{min(doubtful)} may not be run"
        known = {name: tree for name, tree in arguments.items() if tree is not UNKNOWN}
        now = self.keys.ingredients(task, known)
        told = self._reason(task, now, known, arguments.keys() - known.keys())
        reason = f"{told}; {because}" if told else f"it runs only if something else comes of that: {because}"
        return "run" if told and self._is_certain(task, now) else "open", reason

    def _is_certain(self, task: Task, now: Ingredients) -> bool:
        """Tell whether no kept result can be found, whatever the inputs that are not known will be."""
        if task.node.name in self.forced:
            return True
        if now.once is not None:
            latest = self.decider.latest.get(task.id)
            return latest is None or latest.read().once != now.once
        if now.code not in self.known:
            self.known[now.code] = self.store.known_code(now.code) is not None
        # Has its code as it is now ever run, alone or with that of classes whose objects it was given?
        return not self.known[now.code] and not self._was_part_of_latest(task)

    def _was_part_of_latest(self, task: Task) -> bool:
        latest = self.decider.latest.get(task.id)
        files = None if latest is None else self.store.known_code(latest.read().code)
        if not files:
            return False
        now = self.keys.code_of(task.node).files
        return all(name in files and files[name][0] == said for name, said in now.items())

    def _reason(
        self, task: Task, now: Ingredients, arguments: Mapping[str, Tree], unknown: Collection[str] = ()
    ) -> str:
        if task.node.name in self.forced:
            return "it is asked to run again"
        return explain(
            self.decider.latest.get(task.id),
            now,
            store=self.store,
            storage=self.storage,
            code=lambda: (self.keys.code_with(task.node, arguments.values()), self.code),
            unknown=unknown,
        )

    def _items_of(self, node: Node) -> Iterator[PlanItem]:
        progression = self.progression
        behind = (self.hidden[each] for each in node.waits_for() if each in self.hidden)
        first = next(behind, node.name if node.name not in progression.tasks else None)
        if first is not None:
            self.hidden[node.name] = first
        if node.name not in progression.tasks:
            sources = [each.node for argument in node.items.values() for each in results_of(argument)]
            shown = ", ".join(dict.fromkeys(sources))
            told = f"how often it runs is known once {shown} has run"
            yield PlanItem(task=f"{node.name}[?]", state="open", reason=told)
            return
        for task in progression.tasks[node.name]:
            if task.id in self.found:
                yield self.found[task.id]
            elif task.state is State.WAITING:
                told = f"how often {self.hidden.get(node.name, 'what it waits for')} runs is not known yet"
                yield PlanItem(task=task.id, state="open", reason=told)
            elif node.name in progression.broken:
                told = f"it cannot run: {progression.broken[node.name]}"
                yield PlanItem(task=task.id, state="skip", reason=told)
            elif task.state is State.BLOCKED:
                yield PlanItem(task=task.id, state="skip", reason=f"{task.because} cannot run")
            else:
                yield PlanItem(task=task.id, state="skip", reason=task.because or "it is not needed")
