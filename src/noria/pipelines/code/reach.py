"""Which modules a module reaches, transitively: all that may be imported when its functions run."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from noria.pipelines.code.imports import Chain, PythonSource, Unseen, read_python
from noria.pipelines.code.modules import Module, ModuleFinder

__all__ = ["Broken", "ModuleReach", "Reach"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that does not parse."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reach:
    """What is reached from somewhere."""

    modules: frozenset[Module]
    broken: tuple[tuple[Module, Broken], ...]  # among those that are imported by name
    unseen: tuple[tuple[Module, Unseen], ...]  # where code runs that no source names: then all was taken


class ModuleReach:
    """Follows imports, names and attributes from module to module; each file is parsed once.

    Too much rather than too little: what a branch, a function or an `except` may import counts, and so does a
    submodule that is only used as an attribute of its package (`import package`, then `package.part.run()`),
    since another module may have imported it. Only the body of `if TYPE_CHECKING:` is left out.
    """

    def __init__(self, finder: ModuleFinder, read: Callable[[Path], bytes]) -> None:
        self._finder = finder
        self._read = read
        self._sources: dict[Path, PythonSource | Broken] = {}
        self._edges: dict[Module, tuple[Module, ...]] = {}
        self._reaches: dict[tuple[Module, ...], Reach] = {}
        self._locate = cache(finder.locate)

    def source(self, module: Module) -> PythonSource | Broken | None:
        """Give what a module says; None if it is compiled, or a folder."""
        if not module.is_source or module.file is None:
            return None
        if module.file not in self._sources:
            try:
                self._sources[module.file] = read_python(self._read(module.file))
            except SyntaxError as err:
                self._sources[module.file] = Broken(err.lineno or 1, err.msg)
        return self._sources[module.file]

    def of(self, start: tuple[Module, ...]) -> Reach:
        """Follow everything from `start` until nothing new is found."""
        if start not in self._reaches:
            self._reaches[start] = self._of(start)
        return self._reaches[start]

    def _of(self, start: tuple[Module, ...]) -> Reach:
        seen: set[Module] = set()
        self._follow(start, seen)
        broken = tuple((each, why) for each in seen if isinstance(why := self.source(each), Broken))
        unseen = tuple((each, place) for each in seen if (place := self._unseen(each)) is not None)
        if unseen:
            for module, _ in unseen:
                if module.file is not None and self._finder.relative(module.file) is None:
                    self._follow(self._finder.around(module), seen)
            self._follow(self._finder.everything(), seen)
        return Reach(frozenset(seen), broken, unseen)

    def _follow(self, start: Iterable[Module], seen: set[Module]) -> None:
        waiting = list(start)
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                if module not in self._edges:
                    self._edges[module] = tuple(dict.fromkeys(self._asked_by(module)))
                waiting += self._edges[module]

    def _unseen(self, module: Module) -> Unseen | None:
        match self.source(module):
            case PythonSource(unseen=unseen):
                return unseen
            case None if module.file is not None:
                return Unseen(0, "compiled")
            case _:
                return None

    def _asked_by(self, module: Module) -> Iterator[Module]:
        source = self.source(module)
        if not isinstance(source, PythonSource):
            return
        for each in source.imports:
            run, last = self._ask(module, each.module, each.level, is_below=each.is_below_itself)
            yield from run
            for found in last:
                if each.is_held:
                    yield from self._finder.below(found)
                for name in each.names:
                    yield from self._take(found, name)
        for chain in source.chains:
            yield from self._walk_along(module, chain)

    def _ask(
        self, module: Module, name: str, level: int, *, is_below: bool = False
    ) -> tuple[list[Module], list[Module]]:
        if level:
            parts = (module.name if is_below else module.package).split(".")
            kept = parts[: len(parts) - level + 1]
            if not kept or not kept[0]:
                return [], []  # beyond the top: an error once it runs
            name = ".".join([*kept, name] if name else kept)
        return self._locate(name, module.base)

    def _take(self, package: Module, name: str) -> Iterator[Module]:
        """Give the submodule that `from package import name` imports; for "*", those that it offers."""
        if name != "*":
            child = self._finder.child(package, name)
            if child is not None:
                yield child
            return
        source = self.source(package)
        if not package.folders or not isinstance(source, PythonSource):
            return
        if source.exports is None:
            yield from self._finder.below(package)
            return
        for each in source.exports:
            run, _ = self._locate(f"{package.name}.{each}", package.base)
            yield from run

    def _walk_along(self, module: Module, chain: Chain) -> Iterator[Module]:
        """Give the modules that a dotted name leads through; all of a package that is used as a value."""
        at = self._attribute(module, chain[0], set())
        for name in chain[1:]:
            if not at:
                return
            yield from at
            if name == "__dict__":
                break
            at = {found for each in at for found in self._attribute(each, name, set())}
        for each in at:
            yield each
            yield from self._finder.below(each)

    def _attribute(self, module: Module, name: str, seen: set[tuple[Module, str]]) -> set[Module]:
        """Give the modules that `module.name` may be."""
        if (module, name) in seen:
            return set()
        seen.add((module, name))
        child = self._finder.child(module, name) if module.folders else None
        found = set() if child is None else {child}
        source = self.source(module)
        if not isinstance(source, PythonSource):
            return found
        for target in source.targets.get(name, ()):
            _, last = self._ask(module, target.module, target.level)
            if target.attribute is None:
                found.update(last)
            else:
                for each in last:
                    found |= self._attribute(each, target.attribute, seen)
        for asked in source.imports:
            if "*" in asked.names:
                _, last = self._ask(module, asked.module, asked.level)
                for one in last:
                    found |= self._attribute(one, name, seen)
        return found
