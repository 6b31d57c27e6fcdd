"""Attempts at tasks as runs for the record: what they read and made, what they cost, how they ended."""

from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

from noria.errors import NotFound, StoreError
from noria.ledger.store import Ledger
from noria.ledger.whole_runs import OutputOf, WholeRun
from noria.pipelines.attempts import Attempt
from noria.pipelines.executor import Done
from noria.pipelines.graph import Graph, Node, results_of
from noria.pipelines.keys import KeyMaker
from noria.pipelines.progression import Progression
from noria.pipelines.recipes import keep_recipe
from noria.pipelines.recording import Finished
from noria.pipelines.signatures import read_signature
from noria.pipelines.trees import Tree, parts_of, recorded_in
from noria.records import Cost, RunId, RunState, VersionId
from noria.storage.contract import Storage

__all__ = ["Keeper"]

_EDGES_AT_MOST = 64  # of the results of a mapped node that is read as a whole

Versions = dict[str, VersionId | OutputOf]  # by field, "" for the whole


@dataclass(slots=True)
class Keeper:
    """Makes the records of one run's attempts.

    Parameters
    ----------
    cause
        The event that started the run.
    """

    graph: Graph
    progression: Progression
    keys: KeyMaker
    storage: Storage
    run: RunId
    cause: str | None
    ledger: Ledger
    versions: dict[str, Versions] = field(default_factory=dict)  # of tasks

    def finished(
        self,
        attempt: Attempt,
        done: Done | None,
        *,
        state: RunState,
        output: Tree | None = None,
        error: str | None = None,
    ) -> Finished:
        """Make the record of an attempt that has ended."""
        task, step, made = attempt.task, attempt.task.node.step, attempt.made
        elapsed = max(monotonic() - attempt.began, 0.0)  # a wall clock may jump meanwhile
        metrics: dict[str, float] = {}
        cost = Cost(cpu_s=0.0, wall_s=elapsed)
        if done is not None:
            cost = Cost(cpu_s=done.cpu_s, wall_s=done.wall_s)
            metrics = {
                **done.metrics,
                "memory_peak_bytes": done.memory_peak_bytes,
                "bytes_in": done.bytes_in,
                "bytes_out": done.bytes_out,
            }
        code = made.code
        params: dict[str, Any] = {
            "target": step.target,
            "key": made.key,
            "executor": attempt.executor,
            "arguments": {name: told for name, (_, told, _) in made.ingredients.arguments.items()},
        }
        if attempt.work is not None:
            acts = self._acts(task.node)
            params |= keep_recipe(attempt.work, code.digest, self.storage, acts=acts, output=output)
        whole = WholeRun(
            id=attempt.run,
            kind="step",
            name=f"{self.graph.name}/{task.id}",
            state=state,
            started_at=attempt.started_at,
            ended_at=attempt.started_at + timedelta(seconds=elapsed),
            attempt=attempt.number,
            cause=self.cause,
            parent=self.run,
            params=params,
            metrics=metrics,
            seed=None if attempt.work is None else attempt.work.seed,
            error=error,
            cost=cost,
            inputs=tuple(self._inputs(attempt)),
            is_open=attempt.is_open or (attempt.is_unsure and self._is_on_record(attempt.run)),
        )
        if output is not None:
            made_now = enumerate(parts_of(output))
            self.versions[task.id] = {name: OutputOf(attempt.run, number) for number, (name, _) in made_now}
        return Finished(
            task=task.id,
            node=task.node.name,
            run=whole,
            made=made if output is not None else None,
            output=output,
            log=None if attempt.work is None else attempt.work.log,
            code=code,
        )

    def _is_on_record(self, run: RunId) -> bool:
        """Tell whether a run was started although that was reported as failed."""
        try:
            self.ledger.get_run(run)
        except (NotFound, StoreError):
            return False
        return True

    def _acts(self, node: Node) -> str | None:
        """Tell that a step does something rather than compute it."""
        if not node.step.cache:
            return "it is declared with cache=False"
        signature = read_signature(node.step.function, provided=self.graph.provided)
        for each in signature.parameters.values():
            if each.provided not in (None, "run"):
                return f"it works on the project itself (its {each.name!r})"
        return None

    def note_versions(self, task: str, versions: dict[str, VersionId]) -> None:
        """Note what a task's versions are called, now that they are on record."""
        if versions or task not in self.versions:
            self.versions[task] = dict(versions)

    def _inputs(self, attempt: Attempt) -> list[VersionId | OutputOf]:
        """Give the versions that an attempt reads."""
        node, found = attempt.task.node, dict[VersionId | OutputOf, None]()
        for argument in node.arguments.values():
            for each in results_of(argument):
                found.update(dict.fromkeys(self._versions_of(each.node, each.field)))
        for argument in node.items.values():
            for each in results_of(argument):
                mapped = self.graph.by_name[each.node].is_mapped and each.field is None
                name = f"{each.node}[{attempt.task.index}]" if mapped else each.node
                found.update(dict.fromkeys(_chosen(self.versions.get(name, {}), each.field)))
        for tree in attempt.made.arguments.values():
            found.update(dict.fromkeys(each.id for each in recorded_in(tree)))
        return list(found)

    def _versions_of(self, node: str, name: str | None) -> list[VersionId | OutputOf]:
        found: list[VersionId | OutputOf] = []
        for task in self.progression.tasks.get(node, [])[:_EDGES_AT_MOST]:
            found.extend(_chosen(self.versions.get(task.id, {}), name))
        return found


def _chosen(versions: Versions, name: str | None) -> list[VersionId | OutputOf]:
    return [versions[name]] if name is not None and name in versions else list(versions.values())
