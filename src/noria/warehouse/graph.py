"""Which model needs which, and in what order they are built."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from noria.errors import NotFound
from noria.warehouse.models import Model, Models, Problem, TestQuery

__all__ = ["Graph", "make_graph"]


@dataclass(slots=True)
class Graph:
    """Models with what they read.

    Attributes
    ----------
    order
        Names, each after all that it reads. Models that are broken are not in it.
    reads
        Model -> the names that it names itself: of models, and of tables in the lake.
    broken
        Model -> why it cannot be built as it stands.
    tests
        Model -> queries that are run when it is built, for all that they name is there by then.
    """

    models: dict[str, Model]
    order: list[str] = field(default_factory=list)
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    tests: dict[str, list[TestQuery]] = field(default_factory=dict)

    def views_of(self, name: str) -> list[str]:
        """Give the views that a model needs, itself left out, each after those that it reads."""
        found: dict[str, None] = {}
        seen = {name}  # a circle, which is told as such, ends here

        def visit(each: str) -> None:
            for other in self.reads.get(each, ()):
                if other in self.models and self.models[other].is_view and other not in seen:
                    seen.add(other)
                    visit(other)
                    found[other] = None

        visit(name)
        return list(found)

    def changing_of(self, name: str) -> str:
        """Name what in a model, or a view it needs, gives something else each time; empty: nothing."""
        texts = (self.models[each].changing for each in (name, *self.views_of(name)))
        return next(filter(None, texts), "")

    def inputs_of(self, name: str) -> list[str]:
        """Give the stored tables whose rows a model reads, through views as well; sorted."""
        found = set()
        for each in (name, *self.views_of(name)):
            found |= {
                other
                for other in self.reads.get(each, ())
                if other not in self.models or not self.models[other].is_view
            }
        return sorted(found)

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Give models, and all that they need."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found and (name in self.models or name in self.broken):
                found.add(name)
                waiting.extend(self.reads.get(name, ()))
        return found


def make_graph(models: Models, *, exists: Callable[[str], bool], names: Callable[[], Iterable[str]]) -> Graph:
    """Put models into an order.

    Parameters
    ----------
    exists
        Tells whether the lake has a table.
    names
        Names the tables of the lake, to suggest the nearest.
    """
    graph = Graph(models=dict(models.found))
    for problem in models.problems:
        graph.broken.setdefault(problem.model, problem.message)
    named = set(graph.models) | set(graph.broken)
    for name, model in models.found.items():
        reads = []
        for each in model.tables:
            if (each.name in named and (each.name != name or model.is_exact)) or exists(each.name):
                reads.append(each.name)
            elif model.is_exact:
                unknown = NotFound("table", each.name, sorted({*named, *names()}))
                place = f"{model.path}, line {each.line}" if each.line else model.path
                graph.broken.setdefault(name, f"{place}: {unknown}")
        graph.reads[name] = tuple(reads)
    for name, path in _circles(graph.reads, named):
        graph.broken.setdefault(
            name,
            f"{graph.models[name].path}: models wait for each other in a circle: {' -> '.join(path)}; "
            "let one of them read something else",
        )
    for name, model in models.found.items():
        strange = sorted(set(model.header.inputs) - set(graph.inputs_of(name)))
        if strange and name not in graph.broken:
            told = NotFound("input", strange[0], graph.inputs_of(name))
            graph.broken[name] = f"{model.path}: {told}"
    graph.order = list(_ordered(graph))
    number_of = {name: number for number, name in enumerate(graph.order)}
    for test in models.tests:
        owners = [each.name for each in test.tables if each.name in number_of]
        missing = [each for each in test.tables if each.name not in named and not exists(each.name)]
        if missing or not owners:
            what = missing[0].name if missing else test.tables[0].name
            line = missing[0].line if missing else 1
            known = sorted({*named, *names()} if missing else graph.models)
            models.problems.append(
                Problem(f"tests/{test.name}", f"{test.path}, line {line}: {NotFound('table', what, known)}")
            )
            if not any(each.name in graph.broken for each in test.tables):
                graph.broken.setdefault(f"tests/{test.name}", models.problems[-1].message)
            continue
        owner = max(owners, key=number_of.__getitem__)
        graph.tests.setdefault(owner, []).append(test)
    return graph


def _circles(reads: Mapping[str, tuple[str, ...]], named: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Give each model that waits for itself, with the way."""
    for start in reads:
        before: dict[str, str] = {}
        waiting = [start]
        while waiting:
            name = waiting.pop(0)
            for other in reads.get(name, ()):
                if other == start:
                    path = [name]
                    while path[-1] != start:
                        path.append(before[path[-1]])
                    yield start, [*reversed(path), start]
                    waiting = []
                    break
                if other in named and other not in before:
                    before[other] = name
                    waiting.append(other)


def _ordered(graph: Graph) -> Iterator[str]:
    done: set[str] = set()
    waiting = sorted(name for name in graph.models if name not in graph.broken)
    left = {
        name: {each for each in graph.reads[name] if each in graph.models and each not in graph.broken}
        for name in waiting
    }
    while waiting:
        ready = [name for name in waiting if left[name] <= done]
        yield from ready
        done.update(ready)
        waiting = [name for name in waiting if name not in done]
