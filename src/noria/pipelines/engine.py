"""The engine: runs a graph to its end, once for each thing that is stale, whatever happens on the way."""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from noria.errors import ConfigError, Conflict, StepFailed, StoreError
from noria.ledger.store import Ledger
from noria.pipelines.code.project import ProjectCode
from noria.pipelines.deciding import Decider, SmallValues
from noria.pipelines.executor import Place, check_executor, open_executor
from noria.pipelines.executor_pool import ExecutorPool
from noria.pipelines.graph import Graph
from noria.pipelines.holding import held
from noria.pipelines.keys import KeyMaker, Literals, NoResolver, Resolver
from noria.pipelines.planning import make_plan
from noria.pipelines.progression import Progression
from noria.pipelines.records import PipelineResult, Plan, Progress, StepFailure
from noria.pipelines.results import Outcome, keep_outcome, read_outcome, value_of
from noria.pipelines.run_loop import ArtifactsGone, RunLoop
from noria.pipelines.store import PipelineStore
from noria.pipelines.values.codec import digest, summary
from noria.records import Run, RunId, RunState, canonical_json, digest_of, new_id
from noria.storage.contract import Storage

__all__ = ["Engine"]

_REBUILDS = 5  # how often a run begins anew because kept results turned out to be gone


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Runs and plans graphs of one project.

    Parameters
    ----------
    ledger, storage
        Where runs, versions and values are kept.
    place
        How other processes find the project.
    executor
        Where steps run that do not say otherwise, as a URL; see `open_executor`.
    workers
        How many CPUs to use; 0: all.
    resolver
        Knows versions of data.
    """

    ledger: Ledger
    storage: Storage
    place: Place
    executor: str = "processes"
    workers: int = 0
    resolver: Resolver = field(default_factory=NoResolver)

    @cached_property
    def pool(self) -> ExecutorPool:
        """Executors that are kept open between runs."""
        pool = ExecutorPool(partial(open_executor, place=self.place, workers=self.workers))
        weakref.finalize(self, pool.close)  # a project that nobody closes leaves no process behind either
        return pool

    def with_providers(self, providers: Mapping[str, str]) -> "Engine":
        """Give an engine that hands more to steps; see `Place.providers`."""
        place = msgspec.structs.replace(self.place, providers={**self.place.providers, **providers})
        return replace(self, place=place)

    def close(self) -> None:
        """Close the executors that are kept open."""
        self.pool.close()

    @property
    def store(self) -> PipelineStore:
        """The kept results."""
        return PipelineStore(self.ledger.database, self.ledger.scope)

    @property
    def scratch(self) -> Path:
        """A local folder for files on their way."""
        return Path(self.place.scratch)

    @property
    def root(self) -> Path:
        """The project's folder."""
        return Path(self.place.root)

    # -- plan

    def plan(self, graph: Graph, *, force: Collection[str] = ()) -> Plan:
        """Tell what a run would do, and why; nothing is run."""
        progression = Progression(graph)
        forced = self._forced(graph, force)
        once = self._last_key(graph) or ""
        code = ProjectCode(self.root)
        keys = self._keys(progression, code, once=once, keep=False)
        decider = Decider(progression, keys, self.store, self.storage, self.resolver, force=forced)
        return make_plan(
            progression, decider, keys, code, store=self.store, storage=self.storage, forced=forced
        )

    # -- run

    def run(
        self,
        graph: Graph,
        *,
        key: str | None = None,
        cause: str | None = None,
        force: Collection[str] = (),
        tell: Callable[[Progress], None] | None = None,
        executor: str | None = None,
        at: datetime | None = None,
    ) -> PipelineResult:
        """Run what is stale.

        Parameters
        ----------
        key
            Names this very run: called again with it, a run that has finished is given as it is. Without one,
            a run of the same pipeline and parameters that did not finish is taken up again.
        cause
            The event that started it.
        force
            Nodes that run, with all that depend on them, whatever is kept.
        tell
            Called now and then with how far it is.
        executor
            Where steps run that do not say otherwise.
        at
            The project's instant.

        Returns
        -------
        PipelineResult

        Raises
        ------
        ConfigError
            If it cannot run: a step is not found by its name, or wants more than there is.
        StepFailed
            If a step failed for good; whatever did not need it has run.
        RunCancelled
            If somebody cancelled it.
        """
        self._forced(graph, force)
        for url in {each.step.executor for each in graph.nodes} | {
            executor or graph.executor or self.executor
        }:
            if url is not None:
                check_executor(url)
        with self._alone(graph, tell) as renew:
            name = key or self._key_of(graph)
            params = {**_kept_params(graph.params), "executor": executor or graph.executor or self.executor}
            if graph.target is not None:
                params["target"] = graph.target
            running = self.ledger.running("pipeline", graph.name, cause=cause, params=params, key=name, at=at)
            with running:
                if running.is_done:
                    return self._finished(graph, running.run)
                loop = self._looped(
                    graph, running.run, key=name, force=force, tell=tell, executor=executor, renew=renew
                )
                running.metrics.update({f"tasks_{state}": count for state, count in loop.counts().items()})
                outcome = loop.outcome()
                running.params.update(keep_outcome(outcome, self))
                if loop.failures:
                    raise StepFailed(graph.name, running.run.id, [each.told for each in loop.failures])
            return self._result(running.run, outcome, loop.failures, loop.values)

    def _looped(
        self,
        graph: Graph,
        run: Run,
        *,
        key: str,
        force: Collection[str],
        tell: Callable[[Progress], None] | None,
        executor: str | None,
        renew: Callable[[], None],
    ) -> RunLoop:
        """Go through the graph; again from the start where kept results turn out to be gone."""
        forced = self._forced(graph, force)
        for _ in range(_REBUILDS):
            loop = RunLoop(
                engine=self,
                graph=graph,
                run=run,
                once=key,
                forced=forced,
                executor=executor or graph.executor or self.executor,
                tell=tell,
                renew=renew,
            )
            try:
                loop.go()
            except ArtifactsGone as gone:
                forced = frozenset(forced - loop.done_nodes())
                self.store.forget(gone.keys)
                continue
            return loop
        raise StoreError(
            f"kept results of pipeline {graph.name!r} are gone as soon as they are made; check the storage"
        )

    def _finished(self, graph: Graph, run: Run) -> PipelineResult:
        """Give what a run gave that had finished before, as its record has it."""
        if run.params.get("params") != _kept_params(graph.params)["params"]:
            raise Conflict(
                f"the key {run.key!r} is that of run {run.id}, which had other parameters; give this one a "
                "key of its own"
            )
        return self._result(run, read_outcome(run, self), (), SmallValues(self.store))

    def _result(
        self, run: Run, outcome: Outcome, failures: Sequence[StepFailure], values: SmallValues
    ) -> PipelineResult:
        return PipelineResult(
            run=run,
            counts=outcome.counts,
            skipped=outcome.skipped,
            outputs=outcome.outputs,
            runs=outcome.runs,
            failures=tuple(failures),
            value=value_of(outcome.value, self, values),
        )

    # -- what runs and plans share

    def keys_for(self, progression: Progression, code: ProjectCode, *, once: str) -> KeyMaker:
        """Make what makes keys, for a run."""
        return self._keys(progression, code, once=once, keep=True)

    def _keys(self, progression: Progression, code: ProjectCode, *, once: str, keep: bool) -> KeyMaker:
        scratch = Path(self.place.scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        literals = Literals(self.storage, scratch, self.resolver, keep=keep)
        return KeyMaker(progression, code, literals, runtime=self.ledger.code_state().runtime, once=once)

    def _forced(self, graph: Graph, force: Collection[str]) -> frozenset[str]:
        return frozenset(name for each in force for name in graph.downstream(each))

    # -- which run this is

    def _identity(self, graph: Graph) -> str:
        scratch = Path(self.place.scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        params = {name: _digest(value, scratch) for name, value in graph.params.items()}
        return digest_of({"params": params, "nodes": [each.name for each in graph.nodes]})

    def _last_key(self, graph: Graph) -> str | None:
        """Give the key of the last run of this graph, if it did not finish: that one goes on."""
        key = self.store.run_key(graph.name, self._identity(graph))
        if key is None:
            return None
        last = self.ledger.find_run(key=key)
        return key if last is not None and last.state is not RunState.FINISHED else None

    def _key_of(self, graph: Graph) -> str:
        key = self._last_key(graph)
        if key is None:
            key = f"pipeline/{graph.name}/{new_id()}"
            self.store.put_run_key(graph.name, self._identity(graph), key)
        return key

    @contextmanager
    def _alone(self, graph: Graph, tell: Callable[[Progress], None] | None) -> Iterator[Callable[[], None]]:
        """Hold the right to run this graph; wait while another process has it."""

        def wait(holder: str) -> None:
            if tell is not None:
                tell(_waiting(graph, holder))

        with held(self.ledger, f"pipeline:{graph.name}:{self._identity(graph)[:16]}", wait=wait) as check:
            yield check


def _waiting(graph: Graph, holder: str) -> Progress:
    return Progress(
        run=RunId(new_id()),
        pipeline=graph.name,
        state="waiting",
        started_at=datetime.now(UTC),
        counts={},
        nodes=(),
        at_work=(),
        waiting_for=holder,
    )


def _digest(value: Any, scratch: Path) -> str:
    try:
        return digest(value, scratch=scratch, where="a parameter")
    except ConfigError:
        return repr(value)  # a declaration with a function inside, say: it is told apart by what it shows


def _kept_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Write parameters as the record can hold them, and name those that it cannot."""
    kept: dict[str, Any] = {}
    unkept = []
    for name, value in params.items():
        try:
            if msgspec.json.decode(canonical_json(value)) != value:
                unkept.append(name)
        except (TypeError, ValueError):
            unkept.append(name)
        kept[name] = summary(value) if name in unkept else value
    return {"params": kept} | ({"unkept": unkept} if unkept else {})
