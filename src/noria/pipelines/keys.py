"""The key of a task: everything that its result depends on, and which part of it has changed."""

import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path
from typing import Any, Protocol

from noria.pipelines.code.changes import first_change
from noria.pipelines.code.project import ProjectCode, StepCode
from noria.pipelines.declarations import Step
from noria.pipelines.graph import Literal, Node, results_of
from noria.pipelines.progression import UNKNOWN, Progression, Task, Unknown
from noria.pipelines.signatures import mentions, read_signature
from noria.pipelines.store import Ingredients, Latest, PipelineStore
from noria.pipelines.trees import (
    INLINE_BYTES,
    Keyed,
    Listed,
    Recorded,
    Stored,
    Tree,
    digest_of_tree,
    modules_in,
    recorded_in,
    stored_in,
    told_of,
)
from noria.pipelines.values.codec import Format, dump, summary
from noria.records import Version, digest_of
from noria.storage.contract import Storage

__all__ = ["KeyMaker", "Literals", "Made", "Resolver", "explain"]

_PLAIN = (bool, int, float, str, bytes, type(None))
_COARSE_NS = 50_000_000  # by which the instants of files may lag behind the clock


class Resolver(Protocol):
    """What stands between pipelines, which know no data, and versions of data."""

    def version_of(self, value: object) -> Version | None:
        """Give the newest version of what an argument declares (a dataset, a model); None: it is a value."""
        ...

    def exists(self, version: Recorded) -> bool:
        """Tell whether what a version stands for can still be read."""
        ...


class NoResolver:
    """Knows no versions."""

    def version_of(self, value: object) -> Version | None:
        """Take everything for a value."""
        return value if isinstance(value, Version) else None

    def exists(self, version: Recorded) -> bool:
        """Trust what is on record."""
        del version
        return True


class Literals:
    """Turns plain values into trees, each object once.

    Parameters
    ----------
    keep
        Whether large ones are put into the storage: a plan only wants their digests.
    """

    def __init__(self, storage: Storage, scratch: Path, resolver: Resolver, *, keep: bool) -> None:
        self._storage, self._scratch, self._resolver, self.keeps = storage, scratch, resolver, keep
        self._seen: dict[int, tuple[Any, Tree]] = {}

    def __call__(self, value: Any) -> Tree:
        """Give the tree of a value: one whose parts are kept apart if versions are among them."""
        known = self._seen.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        tree = self._tree(value)
        self._seen[id(value)] = (value, tree)  # holding the object keeps its id its own
        return tree

    def _tree(self, value: Any) -> Tree:
        kind = type(value)
        if kind in _PLAIN:
            return self._stored(value)
        version = self._resolver.version_of(value)
        if version is not None:
            return Recorded(version.id, version.sha256)
        if kind in (list, tuple) and self._has_versions(value):
            return Listed(tuple(self(each) for each in value), kind is tuple)
        if kind is dict and self._has_versions(value.values()):
            return Keyed(self._stored(list(value)), tuple(self(each) for each in value.values()))
        return self._stored(value)

    def _has_versions(self, values: Iterable[Any]) -> bool:
        for each in values:
            kind = type(each)
            if kind in (list, tuple, dict):
                if self._has_versions(each.values() if kind is dict else each):
                    return True
            elif kind not in _PLAIN and self._resolver.version_of(each) is not None:
                return True
        return False

    def _stored(self, value: Any) -> Stored:
        payload = dump(value, scratch=self._scratch, where="an argument")
        stored = Stored(
            payload.format, payload.sha256, payload.size_bytes, summary(value), None, payload.modules
        )
        if payload.data is not None and payload.size_bytes <= INLINE_BYTES:
            return stored.with_data(payload.data)
        if self.keeps:
            if payload.data is not None:
                self._storage.put(payload.data)
            elif payload.path is not None:
                self._storage.put_file(payload.path)
        if payload.path is not None and payload.format is not Format.FILE:
            payload.path.unlink()  # a file is the caller's own
        return stored


@dataclass(frozen=True, slots=True)
class Made:
    """A task's key with what it was made of."""

    key: str
    ingredients: Ingredients
    arguments: dict[str, Tree]
    code: StepCode


class KeyMaker:
    """Makes the keys of one graph's tasks.

    Parameters
    ----------
    once
        The run to which the results of steps with `cache=False` belong.
    """

    def __init__(
        self, progression: Progression, code: ProjectCode, literals: Literals, *, runtime: str, once: str
    ) -> None:
        self._progression, self._code, self.literals = progression, code, literals
        self._runtime, self._once = runtime, once
        self._codes: dict[str, StepCode] = {}
        self._codes_with: dict[tuple[str, frozenset[str]], StepCode] = {}
        self._began_ns = time.time_ns() - _COARSE_NS
        self._looked_at: dict[Path, tuple[int, int, int]] = {}  # instant of the last change, size, number

    def code_of(self, node: Node) -> StepCode:
        """Give the code of a node's step."""
        found = self._codes.get(node.name)
        if found is None:
            found = self._codes[node.name] = self.code_of_step(node.step)
        return found

    def code_with(self, node: Node, arguments: Iterable[Tree]) -> StepCode:
        """Give the code of a node's step, and that of the classes whose objects it is given.

        A step may call methods of an object without importing its class.
        """
        modules = frozenset(each for tree in arguments for each in modules_in(tree))
        if not modules:
            return self.code_of(node)
        found = self._codes_with.get((node.name, modules))
        if found is None:
            files = dict(self.code_of(node).files)
            for module in sorted(modules):
                file = getattr(sys.modules.get(module), "__file__", None)
                files |= self._code.of(module, file=None if file is None else Path(file)).files
            found = StepCode(digest_of(files), dict(sorted(files.items())), self.code_of(node).unseen)
            self._codes_with[node.name, modules] = found
        return found

    def code_of_graph(self) -> str:
        """Give the digest of all code that the graph reaches."""
        return digest_of({node.name: self.code_of(node).digest for node in self._progression.graph.nodes})

    def code_of_step(self, step: Step[Any, Any]) -> StepCode:
        """Give the code of a step; noria's own is part of the runtime."""
        module = step.function.__module__
        modules: dict[str, str | None] = dict.fromkeys(step.modules)
        if module.partition(".")[0] != "noria":
            # What a decorator has made may have come from elsewhere; the step is found by its module's name.
            loaded = getattr(sys.modules.get(module), "__file__", None)
            written = getattr(inspect.unwrap(step.function), "__globals__", {}).get("__file__")
            modules = {module: loaded or written, **modules}
        found = [
            self._code.of(module, file=None if file is None else Path(file), declared=step.files)
            for module, file in modules.items()
        ]
        if len(found) == 1:
            return found[0]
        files = dict(sorted((name, said) for each in found for name, said in each.files.items()))
        return StepCode(digest_of(files), files, next((each.unseen for each in found if each.unseen), None))

    def changed_since(self, code: StepCode, loaded: Mapping[str, str]) -> list[str]:
        """Name the files of a step that are not, or no longer, what its key says; sorted.

        A result that was made with them must not be kept under that key.

        Parameters
        ----------
        loaded
            The modules of the process that ran it: file -> sha256 of the source. Of source files none but
            these count; of all others, which a step may have read, what lies on disk.
        """
        return sorted(name for name in code.files if self._has_changed(name, loaded))

    def _has_changed(self, name: str, loaded: Mapping[str, str]) -> bool:
        path = self._code.path(name)
        if str(path) in loaded or path.suffix in SOURCE_SUFFIXES:
            return loaded.get(str(path), self._code.source_digest(name)) != self._code.source_digest(name)
        try:
            found = path.stat()
            signature = max(found.st_mtime_ns, found.st_ctime_ns), found.st_size, found.st_ino
            if signature[0] < self._began_ns or self._looked_at.get(path) == signature:
                return False
            with path.open("rb") as file:
                is_other = hashlib.file_digest(file, "sha256").hexdigest() != self._code.source_digest(name)
        except OSError:
            return True  # it is gone
        self._looked_at[path] = signature
        return is_other

    def conditions(self, task: Task) -> dict[str, Tree | Unknown]:
        """Give what a task's conditions are."""
        return {str(each): self._progression.argument(each, self.literals) for each in task.node.conditions}

    def arguments(self, task: Task) -> dict[str, Tree | Unknown]:
        """Give the trees of a task's arguments."""
        node, progression = task.node, self._progression
        found = {name: progression.argument(each, self.literals) for name, each in node.arguments.items()}
        found |= {name: progression.item(task, each, self.literals) for name, each in node.items.items()}
        return found

    def make(self, task: Task, arguments: dict[str, Tree]) -> Made:
        """Make the key of a task whose arguments are known."""
        ingredients = self.ingredients(task, arguments)
        code = self.code_with(task.node, arguments.values())
        return Made(key_of(ingredients), ingredients, arguments, code)

    def ingredients(self, task: Task, arguments: Mapping[str, Tree]) -> Ingredients:
        """Give what a key is made of, as far as arguments are known."""
        node, graph = task.node, self._progression.graph
        parameters = read_signature(node.step.function, provided=graph.provided).parameters
        return Ingredients(
            target=node.step.target,
            code=self.code_with(node, arguments.values()).digest,
            runtime=self._runtime,
            arguments={
                name: (_digest(tree, parameters[name].annotation), told_of(tree), _origin(node, name))
                for name, tree in sorted(arguments.items())
            },
            split=graph.parts_apart.get(node.name, ()),
            once=None if node.step.cache else self._once,
        )


def _digest(tree: Tree, annotation: Any) -> str:
    """Give the digest of an argument: what it says, and whatever else the step may see of it."""
    digest = digest_of_tree(tree)
    formats = [each.format for each in stored_in(tree) if each.format != Format.VALUE]
    is_version = annotation is Any or mentions(annotation, Version) or not isinstance(tree, Recorded)
    ids = [each.id for each in recorded_in(tree)] if is_version else []  # else it is given what that holds
    return digest_of({"content": digest, "formats": formats, "versions": ids}) if formats or ids else digest


def key_of(ingredients: Ingredients) -> str:
    """Give the key that ingredients make; words for people are no part of it."""
    return digest_of(
        {
            "target": ingredients.target,
            "code": ingredients.code,
            "runtime": ingredients.runtime,
            "arguments": {name: each[0] for name, each in ingredients.arguments.items()},
            "split": ingredients.split,
            "once": ingredients.once,
        }
    )


def _origin(node: Node, name: str) -> str | None:
    argument = node.arguments.get(name) or node.items.get(name)
    if argument is None or isinstance(argument, Literal):
        return None
    return ", ".join(dict.fromkeys(each.node for each in results_of(argument)))


def unknown_inputs(node: Node, arguments: dict[str, Tree | Unknown]) -> str:
    """Tell which arguments wait for something that has to run."""
    return ", ".join(
        f"input {name!r} comes from {_origin(node, name)}, which runs"
        for name, tree in arguments.items()
        if tree is UNKNOWN
    )


def explain(
    latest: Latest | None,
    now: Ingredients,
    *,
    store: PipelineStore,
    code: Callable[[], tuple[StepCode, ProjectCode]],
    storage: Storage,
    unknown: Collection[str] = (),
) -> str:
    """Tell why a task has no kept result: what differs from the last time it ran.

    Parameters
    ----------
    unknown
        Arguments that are not known yet. With some, "" is given where nothing else differs.
    """
    if latest is None:
        return "it has never run"
    before = latest.read()
    told = []
    if before.code != now.code or before.target != now.target:
        told.append(_told_code(before, now, *code(), store=store, storage=storage))
    for name in sorted({*before.arguments, *now.arguments}.difference(unknown)):
        old, new = before.arguments.get(name), now.arguments.get(name)
        if old is None and new is not None:
            told.append(f"parameter {name!r} is new: {new[1]}")
        elif new is None:
            told.append(f"parameter {name!r} is no longer given")
        elif old is not None and old[0] != new[0]:
            what = f"parameter {name!r}" if new[2] is None else f"input {name!r} (from {new[2]})"
            told.append(
                f"{what} changed: {old[1]} became {new[1]}"
                if old[1] != new[1]
                else f"{what} changed: {new[1]}"
            )
    if before.runtime != now.runtime:
        told.append(told_runtime(before.runtime, now.runtime, storage))
    if before.split != now.split:
        told.append(
            "its results are taken item by item now" if now.split else "its results are kept as one now"
        )
    if not told and before.once != now.once:
        told.append("it is declared with cache=False: each run runs it")
    if not told and latest.entry is not None and unknown:
        return ""
    return "; ".join(told) or "its kept result is gone, or cannot be trusted"


def _told_code(
    before: Ingredients,
    now: Ingredients,
    found: StepCode,
    project: ProjectCode,
    *,
    store: PipelineStore,
    storage: Storage,
) -> str:
    if before.target != now.target:
        return f"the step was {before.target}, now it is {now.target}"
    known = store.known_code(before.code)
    if known is None:
        return "its code changed"
    added = [name for name in found.files if name not in known]
    gone = [name for name in known if name not in found.files]
    changed = [name for name, digest in found.files.items() if name in known and known[name][0] != digest]
    told = []
    for name in changed[:2]:
        source = known[name][1]
        if storage.exists(source):
            told.append(first_change(name, storage.get(source), project.text(name)))
        else:
            told.append(f"{name} changed")
    told += [f"{name} is reached now" for name in added[:2]]
    told += [f"{name} is no longer reached" for name in gone[:2]]
    rest = len(changed[2:]) + len(added[2:]) + len(gone[2:])
    if rest:
        told.append(f"and {rest} more files")
    return "; ".join(told) or "its code changed"


def told_runtime(before: str, now: str, storage: Storage) -> str:
    """Tell which installed distributions differ."""
    if not (storage.exists(before) and storage.exists(now)):
        return "installed distributions changed"
    texts = (storage.get(each).decode() for each in (before, now))
    old, new = (dict(map(_pinned, text.splitlines())) for text in texts)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    shown = ", ".join(f"{name} {old.get(name, '(none)')} -> {new.get(name, '(none)')}" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"installed distributions changed: {shown}{more}"


def _pinned(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    return name, version
