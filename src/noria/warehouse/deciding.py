"""What is stale, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from noria.ledger.store import Ledger
from noria.records import RunState, digest_of
from noria.warehouse.commits import Commit, CommitLog
from noria.warehouse.graph import Graph
from noria.warehouse.models import Model
from noria.warehouse.partitions import Span, whole_partitions
from noria.warehouse.records import Built, Ingredients

__all__ = ["KIND", "Decider", "Decision"]

KIND = "transform"  # of runs

# Tells the touched spans of a model from commits to its inputs; None with a reason: all of it.
Touch = Callable[[Model, Built, Mapping[str, Sequence[Commit]]], tuple[list[Span] | None, str]]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a model is built, and how much of it.

    Attributes
    ----------
    spans
        Whole partitions; None: all of it.
    judged
        Input -> Delta's version up to which its rows are in once those spans are built; None: as before.
    """

    build: bool
    reason: str
    spans: tuple[Span, ...] | None = None
    judged: Mapping[str, int] | None = None


_UNCHANGED = Decision(False, "nothing that it depends on has changed")


class Decider:
    """Compares models with what their last builds left on record.

    Parameters
    ----------
    touch
        Reads the rows that came to inputs; it is called for incremental models only.
    """

    def __init__(self, graph: Graph, ledger: Ledger, log: CommitLog, *, touch: Touch) -> None:
        self._graph, self._ledger, self._log, self._touch = graph, ledger, log, touch
        self._engines = {each: version(each) for each in ("duckdb", "noria")}
        self._known: dict[str, Built | None] = {}

    def built(self, name: str) -> Built | None:
        """Give what the last finished build of a model left."""
        if name not in self._known:
            runs = self._ledger.list_runs(kind=KIND, name=name, state=RunState.FINISHED, limit=1)
            self._known[name] = msgspec.convert(runs[0].params["built"], Built) if runs else None
        return self._known[name]

    def note(self, name: str, built: Built) -> None:
        """Take up what a build has left just now."""
        self._known[name] = built

    def ingredients(self, name: str) -> Ingredients:
        """Give what a model is made by, as it stands now."""
        model = self._graph.models[name]
        header = model.header
        rules = {
            f"{each.kind} {each.name}": digest_of({"rule": [each.sql, each.severity]}) for each in model.rules
        }
        rules |= {f"tests/{each.name}": each.digest for each in self._graph.tests.get(name, ())}
        counts = {
            "materialize": header.materialize,
            "partition": str(header.partition or ""),
            "key": header.key,
            "lookback": header.lookback,
            "inputs": header.inputs,
        }
        return Ingredients(
            code=model.digest,
            header=digest_of(counts),
            rules=rules,
            views={each: self._graph.models[each].digest for each in self._graph.views_of(name)},
            inputs=tuple(self._graph.inputs_of(name)),
            engines=self._engines,
            runtime=self._ledger.code_state().runtime if model.language == "python" else "",
        )

    def decide(self, name: str, *, full: bool = False, span: Span | None = None) -> Decision:
        """Decide about a model whose inputs are all as they will be."""
        model, built = self._graph.models[name], self.built(name)
        is_incremental = model.header.materialize == "incremental" and model.header.partition is not None
        if full:
            return Decision(True, "it is asked for as a whole")
        usual = self._usual(model, built)
        if span is None or not is_incremental:
            return usual
        assert model.header.partition is not None
        asked = whole_partitions(span, model.header.partition)
        within = not usual.build or (
            usual.spans is not None
            and all(asked.low <= each.low and each.high <= asked.high for each in usual.spans)
        )
        return Decision(
            True, "this time is asked for", spans=(asked,), judged=usual.judged if within else None
        )

    def _usual(self, model: Model, built: Built | None) -> Decision:
        if built is None or built.ingredients is None:
            told = "it was never built" if built is None else "only a part of it was ever built"
            return Decision(True, told)
        changed = (
            _difference(built.ingredients, self.ingredients(model.name))
            or self._own_change(model, built)
            or self._changing(model)
        )
        if changed:
            return Decision(True, changed)
        changes: dict[str, list[Commit]] = {}
        judged: dict[str, int] = {}
        for each in self._graph.inputs_of(model.name):
            found = self.commits(each, built.seen.get(each))
            if found is None:
                return Decision(True, f"{each} was made anew, or its history is gone")
            judged[each] = found[-1].version if found else built.seen[each]
            if found:
                changes[each] = found
        told = ", ".join(f"{each} changed {_times(len(found))} since" for each, found in changes.items())
        if not changes or model.header.materialize != "incremental":
            return Decision(True, told) if changes else _UNCHANGED
        spans, why = self._touch(model, built, changes)
        if spans is None:
            return Decision(True, f"{told}; {why}")
        return Decision(bool(spans), told if spans else _UNCHANGED.reason, spans=tuple(spans), judged=judged)

    def _own_change(self, model: Model, built: Built) -> str:
        """Tell what has become of a model's table since its last build."""
        if built.table_version is None:
            return ""
        if not self._log.exists(model.name):
            return "its table is gone"
        found = self.commits(model.name, built.table_version)
        return "its table was changed since, or a build of it was cut off" if found is None or found else ""

    def _changing(self, model: Model) -> str:
        found = self._graph.changing_of(model.name)
        return f"it has {found}, which gives something else each time" if found else ""

    def commits(self, name: str, seen: int | None) -> list[Commit] | None:
        """Give the commits to a table after `seen` that changed rows; None if that cannot be told."""
        if seen is None:
            return None
        if not self._log.has_moved(name, since=seen) and self._log.exists(name):
            return []
        return self._log.since(name, seen)


def _difference(before: Ingredients, now: Ingredients) -> str:
    """Tell the first thing that is not as it was."""
    views = sorted(name for name, digest in now.views.items() if before.views.get(name) != digest)
    engines = sorted(name for name, number in now.engines.items() if before.engines.get(name) != number)
    rules = sorted(
        name.partition(" ")[2] or name
        for name in {*before.rules, *now.rules}
        if before.rules.get(name) != now.rules.get(name)
    )
    told = (
        (before.code != now.code, "its code changed"),
        (views, f"the view {', '.join(views)} changed"),
        (before.header != now.header, "its header changed"),
        (rules, f"its tests changed ({', '.join(rules)})"),
        (engines, f"{', '.join(f'{each} is {now.engines[each]} now' for each in engines)}"),
        (before.runtime != now.runtime, "installed distributions changed"),
        (before != now, "what it reads changed"),
    )
    return next((text for holds, text in told if holds), "")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
