"""Building what is stale, in order: what fails keeps its old table and holds up what reads it."""

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import ConfigError, NotFound
from noria.lake.blocked import BlockedDataset, list_blocked
from noria.ledger.store import Ledger
from noria.warehouse.commits import Commit, CommitLog
from noria.warehouse.deciding import Decider
from noria.warehouse.graph import Graph, make_graph
from noria.warehouse.keeping import Keeping
from noria.warehouse.models import Model, Models
from noria.warehouse.partitions import Span
from noria.warehouse.records import Built, ModelPlan, ModelResult, TransformPlan, TransformResult

if TYPE_CHECKING:
    from noria.warehouse.building import Builder
    from noria.warehouse.running import Runner
    from noria.warehouse.session import Session

__all__ = ["Settings", "Warehouse"]

_VIEW = "it is a query, and never stored"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a warehouse works and how much it may take."""

    url: str  # of the tables
    folder: Path  # for what does not fit into memory
    memory: str = ""
    threads: int = 0


@dataclass(slots=True)
class _Asked:
    """What is wanted, and what is known of it so far."""

    names: frozenset[str]
    decider: Decider
    blocked: dict[str, str]  # dataset -> why it is
    span: Span | None
    full: bool
    failed: dict[str, str] = field(default_factory=dict)  # model -> what those that read it are told

    def is_full(self, name: str) -> bool:
        """Tell whether a model is asked for as a whole."""
        return self.full and (not self.names or name in self.names)


class Warehouse:
    """Plans and builds the models of a project.

    Parameters
    ----------
    models
        As they were found.
    ledger
        Where builds are on record: each is a run of kind `transform`.
    """

    def __init__(self, models: Models, *, ledger: Ledger, settings: Settings) -> None:
        self.models = models
        self._ledger = ledger
        self._settings = settings
        self._spill = (
            settings.folder / f"spill-{os.getpid()}-{secrets.token_hex(4)}"
        )  # others may plan meanwhile
        self._log = CommitLog(settings.url)
        self.graph: Graph = make_graph(models, exists=self._log.exists, names=self._log.names)
        self._session: Session | None = None
        self._builder: Builder | None = None
        self._fresh: Decider | None = self.decider()
        self._refuse_foreign(self._fresh)

    def decider(self) -> Decider:
        """Give what compares models with their last builds."""
        return Decider(self.graph, self._ledger, self._log, touch=self._touch)

    def plan(
        self,
        names: Collection[str] = (),
        *,
        span: Span | None = None,
        full: bool = False,
        ignore_blocked: bool = False,
    ) -> TransformPlan:
        """Tell what `transform` would build, and why; nothing is built."""
        asked = self._asked(names, span=span, full=full, ignore_blocked=ignore_blocked)
        dirty: set[str] = set()
        try:
            items = [self._planned(name, asked, dirty) for name in self._chosen(asked.names)]
        finally:
            self.close()
        return TransformPlan(models=tuple(items), notes=(*self.models.notes, *self._timeless(asked)))

    def transform(
        self,
        names: Collection[str] = (),
        *,
        span: Span | None = None,
        full: bool = False,
        ignore_blocked: bool = False,
        cause: str | None = None,
        actor: str | None = None,
        tell: Callable[[ModelResult], None] | None = None,
    ) -> TransformResult:
        """Build what is stale. See `noria.workspace.project.Project.transform`."""
        tell = tell or _tell_nobody
        plan = self.plan(names, span=span, full=full, ignore_blocked=ignore_blocked)
        results: list[ModelResult] = []
        if not plan.stale:
            for each in plan.models:
                results.append(_unbuilt(each))
                tell(results[-1])
            return TransformResult(models=tuple(results), notes=plan.notes)
        with Keeping(self._ledger) as keeping:
            from noria.warehouse.running import Runner

            self._ledger.mark_killed()
            self._sweep()
            if cause is None:
                payload = {"models": [each.model for each in plan.stale], "full": full, "span": _told(span)}
                started = self._ledger.append(
                    "transform.started", subject="warehouse", payload=payload, actor=actor
                )
                cause = started.id
            asked = self._asked(names, span=span, full=full, ignore_blocked=ignore_blocked)
            runner = Runner(self._ledger, self._opened(), asked.decider, keeping, cause=cause)
            try:
                for name in self._chosen(asked.names):
                    keeping.check()
                    results.append(self._next(name, asked, runner))
                    tell(results[-1])
            finally:
                self.close()
        return TransformResult(models=tuple(results), notes=plan.notes)

    def has_made(self, name: str) -> bool:
        """Tell whether all that is in a table came from builds of a model."""
        if self.decider().built(name) is None:
            return False
        commits = self._log.since(name, 0) or []
        return all("model" in each.facts for each in commits)

    def sweep(self) -> None:
        """Remove what killed transforms have left: links keep files whose rows may have been forgotten.

        Raises
        ------
        LeaseHeld
            If another process transforms right now; it has done so when it began.
        """
        if any(self._settings.folder.glob("spill-*")):
            with Keeping(self._ledger):
                self._sweep()

    def close(self) -> None:
        """Let go of the engine."""
        if self._session is not None:
            self._session.close()
        self._session = self._builder = None

    def _asked(
        self, names: Collection[str], *, span: Span | None, full: bool, ignore_blocked: bool
    ) -> _Asked:
        blocked = {} if ignore_blocked else self._blocked_datasets()
        decider, self._fresh = self._fresh or self.decider(), None
        return _Asked(frozenset(each.lower() for each in names), decider, blocked, span, full)

    def _planned(self, name: str, asked: _Asked, dirty: set[str]) -> ModelPlan:
        stopped = self._stopped(name, asked)
        if stopped is not None:
            broken = name in self.graph.broken
            return ModelPlan(model=name, state="broken" if broken else "blocked", reason=stopped)
        if not self._is_built(name):
            return ModelPlan(model=name, state="view", reason=_VIEW)
        decision = asked.decider.decide(name, full=asked.is_full(name), span=asked.span)
        if decision.build:
            dirty.add(name)
            spans = (
                None if decision.spans is None else tuple((each.low, each.high) for each in decision.spans)
            )
            return ModelPlan(model=name, state="build", reason=decision.reason, spans=spans)
        waits = [each for each in self.graph.inputs_of(name) if each in dirty]
        if waits:
            dirty.add(name)
            return ModelPlan(model=name, state="may build", reason=f"{', '.join(waits)} is built first")
        return ModelPlan(model=name, state="unchanged", reason=decision.reason)

    def _next(self, name: str, asked: _Asked, runner: "Runner") -> ModelResult:
        stopped = self._stopped(name, asked)
        if stopped is not None:
            broken = name in self.graph.broken
            return ModelResult(model=name, state="broken" if broken else "blocked", reason=stopped)
        if not self._is_built(name):
            return ModelResult(model=name, state="view", reason=_VIEW)
        decision = asked.decider.decide(name, full=asked.is_full(name), span=asked.span)
        if not decision.build:
            return ModelResult(model=name, state="unchanged", reason=decision.reason)
        result = runner.run(self.graph.models[name], decision)
        if result.state == "failed":
            asked.failed[name] = f"model {name}: {result.reason}"
        return result

    def _chosen(self, names: Collection[str]) -> list[str]:
        """Give what is looked at, in order: the models named and all that they need; those broken first."""
        graph = self.graph
        if not graph.models and not graph.broken:
            raise ConfigError("the project has no model; write one: a SELECT in models/NAME.sql")
        for each in sorted(names):
            if each not in graph.models and each not in graph.broken:
                raise NotFound("model", each, {*graph.models, *graph.broken})
        chosen = graph.upstream(names) if names else {*graph.models, *graph.broken}
        return [
            *(name for name in sorted(graph.broken) if name in chosen),
            *(n for n in graph.order if n in chosen),
        ]

    def _timeless(self, asked: _Asked) -> list[str]:
        """Tell of models that a time is asked for, and that have no partitions of time."""
        if asked.span is None:
            return []
        known = self.graph.models
        named = sorted(asked.names & set(known)) or sorted(known)
        others = [each for each in named if known[each].header.materialize != "incremental"]
        if not others or (not asked.names and len(others) < len(named)):
            return []
        them = "it" if asked.names and len(others) == 1 else "them"
        told = (
            "no model is" if not asked.names else f"{', '.join(others)} {'is' if them == 'it' else 'are'} not"
        )
        return [
            f"{told} incremental: a time (--since, --until) chooses partitions of incremental models, others "
            f"are built where they are stale; build {them} as a whole by --full, or make {them} incremental "
            "(`-- materialize: incremental`, `-- partition: day(COLUMN)`)"
        ]

    def _is_built(self, name: str) -> bool:
        model = self.graph.models[name]
        return not model.is_view or bool(model.rules or self.graph.tests.get(name))

    def _stopped(self, name: str, asked: _Asked) -> str | None:
        """Tell why a model cannot be built now; None if it can."""
        if name in self.graph.broken:
            asked.failed[name] = f"model {name}: {self.graph.broken[name]}"
            return self.graph.broken[name]
        for each in self.graph.reads[name]:
            why = asked.failed.get(each) or (None if each in self.graph.models else asked.blocked.get(each))
            if why is not None:
                asked.failed[name] = why
                return f"blocked by {why}"
        return None

    def _blocked_datasets(self) -> dict[str, str]:
        """Give the datasets that lack a batch, and why."""
        return {name: _lacking(each) for name, each in list_blocked(self._ledger).items()}

    def _refuse_foreign(self, decider: Decider) -> None:
        """Break models whose name is that of a table which no build has made."""
        for name in list(self.graph.order):
            if decider.built(name) is not None or not self._log.exists(name):
                continue
            commits = self._log.since(name, 0) or []
            if any("model" not in each.facts for each in commits):
                self.graph.broken[name] = (
                    f"{self.graph.models[name].path}: {name!r} is the name of a table that no model has "
                    "made, such as a dataset; rename the model"
                )
                self.graph.order.remove(name)

    def _opened(self) -> "Builder":
        """Give what builds: with it the engines are loaded."""
        if self._builder is None:
            from noria.lake.files import open_files
            from noria.lake.tables import Tables
            from noria.warehouse.building import Builder
            from noria.warehouse.session import Session

            files = open_files(self._settings.url)
            self._session = Session(
                spill=self._spill, memory=self._settings.memory, threads=self._settings.threads
            )
            self._builder = Builder(self.models, self.graph, Tables(files), files, self._session)
        return self._builder

    def _sweep(self) -> None:
        """Do as `sweep`; only who has the right to transform may."""
        for each in self._settings.folder.glob("spill-*"):
            if each != self._spill:
                shutil.rmtree(each, ignore_errors=True)

    def _touch(
        self, model: Model, built: Built, changes: Mapping[str, Sequence[Commit]]
    ) -> tuple[list[Span] | None, str]:
        from noria.warehouse.touching import lookback_of, touched_spans

        builder = self._opened()
        columns, why = builder.local_columns(model)
        everywhere = sorted(set(changes) - set(columns))
        if everywhere:
            told = f", for {why}" if why else ""
            return None, f"rows of {', '.join(everywhere)} count in every partition{told}"
        assert model.header.partition is not None
        spans = touched_spans(
            builder.tables,
            changes,
            seen=built.seen,
            partition=model.header.partition,
            columns=columns,
            lookback=lookback_of(model.header.lookback),
        )
        return spans, "" if spans is not None else "rows without a time are among them"


def _unbuilt(plan: ModelPlan) -> ModelResult:
    match plan.state:
        case "unchanged" | "view" | "blocked" | "broken":
            return ModelResult(model=plan.model, state=plan.state, reason=plan.reason)
        case _:
            raise RuntimeError(f"{plan.model} was to be built")


def _lacking(blocked: BlockedDataset) -> str:
    why = "; ".join([*blocked.reasons, f"it came from {blocked.source}"])
    return (
        f"dataset {blocked.name}: its batch {blocked.batch} is blocked ({why}); repair and ingest it, go on "
        "without it once by --ignore-blocked, or for good by "
        f"`noria dataset release {blocked.name} --reason TEXT`"
    )


def _tell_nobody(_result: ModelResult) -> None:
    """Tell nobody."""


def _told(span: Span | None) -> list[str] | None:
    return None if span is None else [span.low.isoformat(), span.high.isoformat()]
