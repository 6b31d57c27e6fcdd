"""Reproducing a run: its recorded code in a folder of its own, its recorded inputs, and a fresh process."""

import ast
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from noria.errors import ConfigError, NotFound, StepFailed
from noria.pipelines.code.changes import first_change
from noria.pipelines.comparing import Difference, compare_values
from noria.pipelines.executor import Done, Executor, Place, open_executor
from noria.pipelines.keys import told_runtime
from noria.pipelines.recipes import Recipe, read_recipe
from noria.pipelines.reproduction import (
    FailedThen,
    Reproduction,
    Verdict,
    describe,
    differing,
    perform,
    verdict_of,
)
from noria.pipelines.store import PipelineStore
from noria.pipelines.trees import Absent, Recorded, Stored, Tree, filled, parts_of, told_of
from noria.pipelines.work import Bench
from noria.records import Run, RunId, RunState, new_id
from noria.workspace.restoring import restored

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["reproduce"]


@dataclass(slots=True)
class _Comparison:
    """What came out so far."""

    steps: int = 0  # that had finished, and ran again
    differences: list[Difference] = field(default_factory=list)
    failures: dict[FailedThen, list[str]] = field(default_factory=dict)  # of steps that had failed
    notes: dict[str, None] = field(default_factory=dict)


def reproduce(
    project: "Project", run: Run, *, tolerance: float = 1e-9, current: bool = False
) -> Reproduction:
    """Run a recorded run again and compare what it gives with what is on record.

    Parameters
    ----------
    run
        Of a step, of a pipeline (then every step that it ran), or of a training. Steps that failed have to
        fail alike.
    tolerance
        How far figures may differ, relative, to count as equal where bits are not.
    current
        Run the project's code as it is now instead of the recorded one.

    Raises
    ------
    ConfigError
        If its code cannot be restored, or a step works on the project itself: running it again would change
        what is on record.
    NotFound
        If the record does not hold how it was called.
    StepFailed
        If a step that had finished fails now.
    """
    steps = _steps_of(project, run)
    found = _Comparison()
    with ExitStack() as stack:
        root = project.root
        if not current:
            place = stack.enter_context(restored(project, steps))
            root = place.root
            found.notes[place.told] = None
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-reproduce-"))
        again = _Again(project, root, Path(scratch), tolerance)
        executor = stack.enter_context(again.executor())
        for step in steps:
            acts = _left_out(step, project)
            if acts is None and step.state is RunState.FAILED:
                again.fail(executor, step, found)
            elif acts is None:
                again.compare(executor, step, found)
            elif len(steps) == 1:
                raise ConfigError(f"step {step.name} is not run again: {acts}; reproduce steps that compute")
            else:
                found.notes[f"left out: {step.name}, for {acts}"] = None
    _note_runtime(project, steps[0], found)
    failure = _failure_of(found)
    verdict = verdict_of(found.differences)
    if failure == "fails alike" and verdict != "different":
        verdict = failure
    return Reproduction(
        run=run.id,
        verdict=verdict,
        steps=found.steps + sum(map(len, found.failures.values())),
        told=_told(run, found, verdict, tolerance),
        differences=tuple(found.differences),
        notes=tuple(found.notes),
        failure=failure,
    )


def _failure_of(found: _Comparison) -> FailedThen | None:
    """Tell what became of the steps that had failed: the worst of it."""
    order: tuple[FailedThen, ...] = ("fails otherwise", "succeeds now", "fails alike")
    return next((each for each in order if each in found.failures), None)


def _told(run: Run, found: _Comparison, verdict: Verdict, tolerance: float) -> str:
    what = f"{run.kind} {run.name} ({run.id[:16]})"
    same = {
        "bit-equal": f"{_counted(found.steps)} bit-equal",
        "equal within tolerance": f"{_counted(found.steps)} equal within {tolerance:g}",
    }.get(verdict_of(found.differences))
    if run.state is RunState.FINISHED:
        return f"{what} comes out differently." if same is None else f"{what} is reproduced: {same}."
    told = [f"{what} was recorded as {run.state}."]
    told += [f"It {each}: {'; '.join(steps)}." for each, steps in found.failures.items()]
    if same is not None and found.steps:
        told.append(f"Of what it had finished, {same}.")
    elif verdict == "different" and not found.failures:
        told.append("What it had finished comes out differently.")
    return " ".join(told)


def _left_out(step: Run, project: "Project") -> str | None:
    """Tell why a step is not run again, if so."""
    acts = read_recipe(step, project.storage).acts
    if acts is not None:
        return f"{acts}, so that would do it again"
    if step.state is RunState.FAILED and "memory_peak_bytes" not in step.metrics:
        return f"it was ended from outside ({_reason(step)}), which another time may not be so"
    return None


def _reason(step: Run) -> str:
    """Give the first line of how a step failed: `KIND: MESSAGE`."""
    return (step.error or "").partition("\n")[0]


def _steps_of(project: "Project", run: Run) -> list[Run]:
    """Give the runs of steps that a run consists of."""
    ledger = project.ledger
    if run.kind == "train":
        if "step_run" not in run.params:
            raise NotFound("recipe", f"of run {run.id}: it was not fitted as a step of a pipeline")
        return [ledger.get_run(RunId(run.params["step_run"]))]
    steps = [run] if run.kind == "step" else project.runs.steps(run)
    last = {each.name: each for each in steps if each.kind == "step"}  # of several attempts
    ended = {RunState.FINISHED, RunState.FAILED}
    done = [each for each in last.values() if each.state in ended and _has_recipe(each)]
    if not done:
        raise ConfigError(
            f"run {run.id} ({run.kind} {run.name}, {run.state}) has run no step to its end; what it "
            "found kept was made by earlier runs: reproduce those"
        )
    return done


def _has_recipe(step: Run) -> bool:
    """Tell whether a step came as far as being called: one that was stopped before that has no recipe."""
    return "recipe" in step.params or "recipe_sha256" in step.params


class _Again:
    """Runs steps again below `root` and compares."""

    def __init__(self, project: "Project", root: Path, scratch: Path, tolerance: float) -> None:
        self._project, self._root, self._scratch, self._tolerance = project, root, scratch, tolerance
        ledger = project.ledger
        self._store = PipelineStore(ledger.database, ledger.scope)
        now = project.engine.place
        path = [str(root) if each == str(project.root) else each for each in now.path]
        self._place: Place = msgspec.structs.replace(
            now,
            root=str(root),
            scratch=str(scratch),
            path=tuple(dict.fromkeys([str(root), *path])),
            keep=str(scratch / "kept"),
        )

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """Open one worker process."""
        executor = open_executor("processes", self._place, workers=1)
        try:
            yield executor
        finally:
            executor.close()

    def compare(self, executor: Executor, step: Run, found: _Comparison) -> None:
        """Run one step again."""
        recipe = read_recipe(step, self._project.storage)
        done, task = self._perform(executor, recipe, step, found), _task_of(step)
        assert done.output is not None
        found.steps += 1
        entry = self._store.find([step.params["key"]]).get(step.params["key"])
        before = {} if entry is None or entry.run != step.id else dict(parts_of(entry.output))
        for name, tree in differing(recipe.outputs, done.output):
            where = task + (f".{name}" if name else "")
            found.differences.extend(self._differences(where, before.get(name), tree))
        for name, value in done.metrics.items():
            if name in step.metrics:
                found.differences.extend(
                    compare_values(step.metrics[name], value, f"{task} metric {name}", self._tolerance)
                )

    def fail(self, executor: Executor, step: Run, found: _Comparison) -> None:
        """Run a step that failed again: it has to fail with an error of the same kind."""
        recipe, task, then = read_recipe(step, self._project.storage), _task_of(step), _reason(step)
        try:
            self._perform(executor, recipe, step, found)
        except StepFailed as failed:
            now = failed.reasons[0].partition("\n")[0]
        else:
            found.failures.setdefault("succeeds now", []).append(f"{task}, which failed with {then}")
            told = f"failed with {then}; succeeds now"
            found.differences.append(Difference(where=task, told=told, within=False))
            return
        if now.partition(":")[0] == then.partition(":")[0]:
            found.failures.setdefault("fails alike", []).append(f"{task} with {now}")
            if now != then:
                found.notes[f"{task} said then: {then}"] = None
        else:
            found.failures.setdefault("fails otherwise", []).append(f"{task} with {now}, then with {then}")
            told = f"failed with {then}; fails now with {now}"
            found.differences.append(Difference(where=task, told=told, within=False))

    def _perform(self, executor: Executor, recipe: Recipe, step: Run, found: _Comparison) -> Done:
        self._note_code(recipe, step, found)
        called = msgspec.structs.replace(
            recipe, arguments={name: filled(tree, self._data_of) for name, tree in recipe.arguments.items()}
        )
        return perform(
            executor,
            called,
            run=new_id(),
            task=step.name,
            scratch=str(self._scratch),
            attempt=step.attempt,
        )

    def _differences(self, where: str, before: Tree | None, after: Tree | None) -> list[Difference]:
        if before is not None and after is not None and not isinstance(before, Recorded | Absent):
            old = self._value(self._project.engine.place, before)
            new = self._value(self._place, after)
            found = compare_values(old, new, where, self._tolerance)
            if found:
                return found
        return [describe(where, "what it was" if before is None else told_of(before), after)]

    def _value(self, place: Place, tree: Tree) -> Any:
        folder = self._scratch / "compared"
        folder.mkdir(exist_ok=True)
        reading = msgspec.structs.replace(place, storage=place.keep or place.storage)
        return Bench(reading).load(filled(tree, self._data_of), Any, folder)

    def _data_of(self, stored: Stored) -> bytes:
        values = self._store.values([stored.sha256])
        if stored.sha256 not in values:
            raise NotFound("kept value", f"{stored.told} ({stored.sha256[:16]}…)")
        return values[stored.sha256]

    def _note_code(self, recipe: Recipe, step: Run, found: _Comparison) -> None:
        """Say whether the code that runs now is the recorded one, and if not, which line differs."""
        known = self._store.known_code(recipe.code)
        if not known:
            return
        places = {self._root: "restored", self._project.root: "the project's"}
        for root, what in places.items():
            for name, (_, source) in known.items():
                told = _change(root / name, name, self._project.storage.get(source))
                if told is not None:
                    found.notes[f"{what} code differs from the recorded: {told}"] = None


def _task_of(step: Run) -> str:
    return step.name.partition("/")[2]


def _counted(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def _change(path: Path, name: str, before: bytes) -> str | None:
    """Tell how a file differs from what it said then; None if it says the same."""
    if not path.is_file():
        return f"{name} is not there" if path.suffix else None  # else a module that lies elsewhere
    now = path.read_bytes()
    if before == now or (name.endswith(".py") and _says(before) == _says(now)):
        return None
    return first_change(name, before, now)


def _says(source: bytes) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"


def _note_runtime(project: "Project", step: Run, found: _Comparison) -> None:
    now = project.ledger.code_state().runtime
    if step.runtime != now:
        found.notes[told_runtime(step.runtime, now, project.storage)] = None
