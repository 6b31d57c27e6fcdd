"""One build on record: a run with what it read and made, whatever becomes of it."""

import time
from collections.abc import Callable, Mapping

import msgspec

from noria.ledger.store import Ledger
from noria.records import Cost, Run, RunState, Version
from noria.warehouse.building import Builder, Made
from noria.warehouse.deciding import KIND, Decider, Decision
from noria.warehouse.keeping import Keeping
from noria.warehouse.models import Model
from noria.warehouse.records import Built, Ingredients, ModelResult, TestResult
from noria.warehouse.session import BuildFailed
from noria.warehouse.snapshots import Snapshot

__all__ = ["Runner", "told_test"]


class Runner:
    """Builds models, each as a run of kind `transform`."""

    def __init__(
        self, ledger: Ledger, builder: Builder, decider: Decider, keeping: Keeping, *, cause: str
    ) -> None:
        self._ledger, self._builder, self._decider = ledger, builder, decider
        self._keeping, self._cause = keeping, cause

    def run(self, model: Model, decision: Decision) -> ModelResult:
        """Build a model as it was decided; what is wrong with it is told in the result."""
        spans = [[each.low.isoformat(), each.high.isoformat()] for each in decision.spans or ()]
        params = {"reason": decision.reason, "spans": spans}
        run = self._ledger.start_run(KIND, model.name, cause=self._cause, params=params)
        cost = _clock()
        self._keeping.run = run.id
        try:
            made = self._builder.build(model.name, spans=decision.spans, run=run.id)
        except BuildFailed as err:
            self._ledger.finish_run(run.id, state=RunState.FAILED, error=err.recorded, cost=cost())
            return _failed(model, f"{model.path}: {err}", run, cost())
        except BaseException as err:
            stopped = isinstance(err, KeyboardInterrupt | SystemExit)
            state = RunState.CANCELLED if stopped else RunState.FAILED
            self._ledger.finish_run(run.id, state=state, error=type(err).__name__, cost=cost())
            raise
        finally:
            self._keeping.run = None
        if made.blocking:
            self._record_blocked(model, run, made, cost())
            worst = next(each for each in made.tests if each.severity == "block")
            kept = "its old table stays" if made.table is not None else "no table is made"
            return _failed(model, f"{told_test(worst)}; {kept}", run, cost(), made.tests)
        version = self._record(model, run, made, self._left(model, run, decision, made), cost())
        return ModelResult(
            model=model.name,
            state="built",
            reason=decision.reason,
            run=run.id,
            version=None if version is None else version.ref,
            rows=made.rows,
            partitions=made.partitions,
            seconds=cost().wall_s,
            tests=made.tests,
        )

    def _left(self, model: Model, run: Run, decision: Decision, made: Made) -> Built:
        """Give what the next decision compares with."""
        before = self._decider.built(model.name)
        table_version = None if made.table is None else made.table.version
        if made.is_whole:
            ingredients: Ingredients | None = self._decider.ingredients(model.name)
            seen: Mapping[str, int] = made.seen
        elif before is None:
            ingredients, seen = None, {}
        else:
            ingredients = before.ingredients
            # Not what was read: a commit since the decision may lie outside of the spans.
            seen = before.seen if decision.judged is None else decision.judged
            commits = self._decider.commits(model.name, before.table_version)
            if commits is None:  # the rest of the table is gone
                ingredients = None
            elif any(each.facts.get("run") != run.id for each in commits):
                table_version = before.table_version  # the rest was changed: the next build has to see it
        built = Built(ingredients=ingredients, seen=dict(seen), table_version=table_version, rows=made.rows)
        self._decider.note(model.name, built)
        return built

    def _record(self, model: Model, run: Run, made: Made, built: Built, cost: Cost) -> Version | None:
        with self._ledger.database.write():
            self._add_inputs(run, made)
            version = None
            if made.table is not None:
                facts = {"rows": made.rows, "files": len(made.table.files), "model": model.path}
                version = self._ledger.record_version(
                    "dataset",
                    model.name,
                    sha256=made.table.digest(),
                    uri=f"delta:{model.name}@{made.table.version}",
                    run=run.id,
                    facts=facts,
                )
            metrics = {"rows": float(made.rows), "warnings": float(len(made.tests))}
            if made.partitions is not None:
                metrics["partitions"] = float(len(made.partitions))
            params = {"built": msgspec.to_builtins(built)}
            self._ledger.finish_run(
                run.id, state=RunState.FINISHED, metrics=metrics, params=params, cost=cost
            )
        return version

    def _record_blocked(self, model: Model, run: Run, made: Made, cost: Cost) -> None:
        tests = [
            {"test": each.name, "severity": each.severity, "failing": each.failing} for each in made.tests
        ]
        told = "; ".join(f"test {each.name} fails for {each.failing} rows" for each in made.tests)
        with self._ledger.database.write():
            self._add_inputs(run, made)
            self._ledger.finish_run(run.id, state=RunState.FAILED, error=told, cost=cost)
            payload = {"run": run.id, "tests": tests}
            self._ledger.append("transform.blocked", subject=model.name, payload=payload, cause=self._cause)

    def _add_inputs(self, run: Run, made: Made) -> None:
        for name, read in made.read.items():
            self._ledger.add_input(run.id, self._version_of(name, read).id)

    def _version_of(self, name: str, read: Snapshot) -> Version:
        """Give the version that the rows read are on record as; where there is none, it is recorded."""
        digest = read.digest
        found = self._ledger.find_version("dataset", name, sha256=digest) or self._same_rows(name, read)
        if found is not None:
            return found
        uri = f"delta:{name}@{read.version}"
        return self._ledger.record_version("table", name, sha256=digest, uri=uri, facts={"rows": read.count})

    def _same_rows(self, name: str, read: Snapshot) -> Version | None:
        """Find the version that had the same rows in other files: a compaction makes no version."""
        known = {
            int(each.uri.rpartition("@")[2]): each
            for each in self._ledger.list_versions(kind="dataset", name=name)
        }
        number = max((each for each in known if each <= read.version), default=None)
        since = self._decider.commits(name, number)
        if number is None or since is None or any(each.version <= read.version for each in since):
            return None
        return known[number]


def told_test(test: TestResult) -> str:
    """Tell of a test that does not hold, with a row of it."""
    rows = "1 row" if test.failing == 1 else f"{test.failing:,} rows"
    return f"test {test.name} fails for {rows}, for example {test.example}"


def _failed(
    model: Model, reason: str, run: Run, cost: Cost, tests: tuple[TestResult, ...] = ()
) -> ModelResult:
    return ModelResult(
        model=model.name, state="failed", reason=reason, run=run.id, seconds=cost.wall_s, tests=tests
    )


def _clock() -> Callable[[], Cost]:
    wall, cpu = time.perf_counter(), time.process_time()
    return lambda: Cost(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)
