"""What becomes of tasks that can go on: their kept result stands, they run, or they are skipped."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from noria.errors import ConfigError, DigestMismatch, NotFound
from noria.pipelines.graph import Node, results_of
from noria.pipelines.keys import KeyMaker, Made, Resolver, unknown_inputs
from noria.pipelines.progression import UNKNOWN, Progression, Task, Unknown
from noria.pipelines.signatures import admits_none, item_of, read_signature
from noria.pipelines.store import CacheEntry, Latest, PipelineStore
from noria.pipelines.trees import Absent, Fields, Keyed, Listed, Stored, Tree, recorded_in, stored_in, told_of
from noria.pipelines.values.codec import Format, load
from noria.storage.contract import Storage

__all__ = ["Cached", "Decider", "Open", "Skip", "SmallValues", "Stale", "Verdict", "damaged"]


@dataclass(frozen=True, slots=True)
class Cached:
    """Its kept result stands."""

    made: Made
    entry: CacheEntry


@dataclass(frozen=True, slots=True)
class Stale:
    """It has to run."""

    made: Made


@dataclass(frozen=True, slots=True)
class Skip:
    """It is not run."""

    because: str


@dataclass(frozen=True, slots=True)
class Open:
    """It cannot be told yet: in a plan, since something that it waits for has to run.

    `arguments`: where its conditions are known, but not all of these.
    """

    because: str
    arguments: dict[str, Tree | Unknown] | None = None


Verdict = Cached | Stale | Skip | Open


class SmallValues:
    """Bytes of small values: those of this run, and others as they are asked for."""

    def __init__(self, store: PipelineStore) -> None:
        self._store = store
        self._data: dict[str, bytes] = {}

    def add(self, data: Iterable[tuple[str, bytes]]) -> None:
        """Take up what a step has just given."""
        self._data.update(data)

    def fill(self, trees: Iterable[Tree]) -> None:
        """Fetch what is not there yet."""
        wanted = {
            each.sha256
            for tree in trees
            for each in stored_in(tree)
            if each.is_small and each.data is None and each.sha256 not in self._data
        }
        if not wanted:
            return
        try:
            self._data |= self._store.values(wanted)
        except DigestMismatch:
            for each in wanted:  # what is damaged is gone
                with suppress(DigestMismatch):
                    self._data |= self._store.values([each])

    def get(self, stored: Stored) -> bytes | None:
        """Give the bytes of one; None if they are gone."""
        return stored.data if stored.data is not None else self._data.get(stored.sha256)


class Decider:
    """Decides about the tasks of one graph, many at a time.

    Parameters
    ----------
    force
        Nodes that run whatever is kept.
    """

    def __init__(
        self,
        progression: Progression,
        keys: KeyMaker,
        store: PipelineStore,
        storage: Storage,
        resolver: Resolver,
        *,
        force: Collection[str] = (),
    ) -> None:
        self._progression, self._keys, self._store, self._storage = progression, keys, store, storage
        self._resolver = resolver
        self._force = frozenset(force)
        self.values = SmallValues(store)
        graph = progression.graph
        latest = store.latest(graph.name)
        self.latest: dict[str, Latest] = {name: latest[name] for name in latest if not name.startswith("@")}
        self._asked = {each.node for node in graph.nodes for each in node.conditions}
        self._given = {each.node for each in results_of(graph.result)}
        self._there: dict[str, bool] = {}  # digests of stored values -> whether they can be read
        self._look_for(each.entry.output for each in self.latest.values() if each.entry is not None)

    def decide(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Decide about tasks that are ready, in their order."""
        verdicts: list[Verdict | None] = [self._without_key(task) for task in tasks]
        made: dict[int, Made] = {}
        for number, task in enumerate(tasks):
            if verdicts[number] is None:
                arguments = self._keys.arguments(task)
                known = {name: tree for name, tree in arguments.items() if tree is not UNKNOWN}
                if len(known) < len(arguments):
                    verdicts[number] = Open(unknown_inputs(task.node, arguments), arguments)
                elif missing := self._missing(task.node, known):
                    verdicts[number] = Skip(missing)
                else:
                    made[number] = self._keys.make(task, known)
        entries = self._find(tasks, made)
        self._look_for(each.output for each in entries.values())
        self._read_through(
            entries[each.key].output
            for number, each in made.items()
            if each.key in entries and tasks[number].node.name in self._asked | self._given
        )
        for number, each in made.items():
            entry = entries.get(each.key)
            stands = entry is not None and tasks[number].node.name not in self._force and self._stands(entry)
            verdicts[number] = Cached(each, entry) if entry is not None and stands else Stale(each)
        return [each for each in verdicts if each is not None]

    def forget(self, digests: Collection[str]) -> None:
        """Note that stored values turned out to be gone or damaged."""
        self._there.update(dict.fromkeys(digests, False))

    def _find(self, tasks: Sequence[Task], made: dict[int, Made]) -> dict[str, CacheEntry]:
        found: dict[str, CacheEntry] = {}
        unknown = []
        for number, each in made.items():
            latest = self.latest.get(tasks[number].id)
            if latest is not None and latest.key == each.key and latest.entry is not None:
                found[each.key] = latest.entry
            else:
                unknown.append(each.key)
        if unknown:
            found |= self._store.find(unknown)
        return found

    def _without_key(self, task: Task) -> Verdict | None:
        """Decide by conditions, before anything is read."""
        conditions = self._keys.conditions(task)
        for name, tree in conditions.items():
            if tree is UNKNOWN:
                continue
            if isinstance(tree, Absent):
                return Skip(f"its condition {name} was not run")
            if not self._is_true(name, tree):
                return Skip(f"its condition {name} is false")
        unknown = [name for name, tree in conditions.items() if tree is UNKNOWN]
        return Open(f"its condition {unknown[0]} is not known yet") if unknown else None

    def _is_true(self, name: str, tree: Tree) -> bool:
        """Tell whether a condition holds; its value was read through before its result was taken up."""
        match tree:
            case Listed(items=items) | Keyed(items=items) | Fields(items=items):
                return bool(items)
            case Stored():
                self.values.fill([tree])
                data = self.values.get(tree)
                try:
                    if data is not None:
                        return bool(load(Format(tree.format), data))
                except (TypeError, ValueError):
                    pass  # as of an array: neither true nor false
        raise ConfigError(
            f"the condition {name} gave {told_of(tree)}, wanted is true or false; let it give a bool"
        )

    def _missing(self, node: Node, arguments: dict[str, Tree]) -> str | None:
        """Tell which argument was not run where something is wanted."""
        for name, tree in arguments.items():
            if _has_gaps(tree):
                signature = read_signature(node.step.function, provided=self._progression.graph.provided)
                if _lacks(tree, signature.parameters[name].annotation):
                    return f"what gives its input {name!r} was not run"
        return None

    def _stands(self, entry: CacheEntry) -> bool:
        return all(self._there.get(each.sha256, False) for each in stored_in(entry.output)) and all(
            self._resolver.exists(each) for each in recorded_in(entry.output)
        )

    def _read_through(self, trees: Iterable[Tree]) -> None:
        """Read what the run itself will look into: a condition, what the pipeline gives; it has to be right.

        Whatever else is damaged is found by the step that reads it.
        """
        found = list(trees)
        self.values.fill(found)
        for each in (one for tree in found for one in stored_in(tree)):
            if each.is_small:
                self._there[each.sha256] = self.values.get(each) is not None
            elif self._keys.literals.keeps and self._there.get(each.sha256):
                self._there[each.sha256] = not damaged([each], self._store, self._storage)

    def _look_for(self, trees: Iterable[Tree]) -> None:
        """Find out which stored values are there."""
        small, large = set[str](), set[str]()
        for tree in trees:
            for each in stored_in(tree):
                if each.sha256 not in self._there:
                    (small if each.is_small else large).add(each.sha256)
        if small:
            known = self._store.known_values(small)
            self._there.update((sha256, sha256 in known) for sha256 in small)
        for sha256 in large:
            self._there[sha256] = self._storage.exists(sha256)


def _has_gaps(tree: Tree) -> bool:
    match tree:
        case Absent():
            return True
        case Listed(items=items) | Keyed(items=items):
            return any(_has_gaps(each) for each in items)
    return False


def _lacks(tree: Tree, annotation: Any) -> bool:
    """Tell whether something was not run where no None is accepted: by itself, or in a list or a dict."""
    match tree:
        case Absent():
            return not admits_none(annotation)
        case Listed(items=items) | Keyed(items=items):
            return any(_lacks(each, item_of(annotation)) for each in items)
    return False


def damaged(trees: Iterable[Tree], store: PipelineStore, storage: Storage) -> set[str]:
    """Read stored values through, and give the digests of those that are gone or damaged."""
    bad = set()
    for tree in trees:
        for each in stored_in(tree):
            try:
                if each.is_small:
                    if each.data is None and each.sha256 not in store.values([each.sha256]):
                        bad.add(each.sha256)
                else:
                    storage.fetch(each.sha256)
            except (NotFound, DigestMismatch):
                bad.add(each.sha256)
    return bad
