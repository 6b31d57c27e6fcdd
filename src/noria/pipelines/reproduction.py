"""Running a recorded step again, and what came of it: equal bits, equal figures, or different."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from noria.errors import StepFailed
from noria.pipelines.comparing import Difference
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Lost, Work, log_path
from noria.pipelines.recipes import Recipe
from noria.pipelines.trees import Stored, Tree, digest_of_tree, parts_of, told_of

__all__ = ["FailedThen", "Reproduction", "Verdict", "describe", "differing", "perform", "verdict_of"]

Verdict = Literal["bit-equal", "equal within tolerance", "fails alike", "different"]
FailedThen = Literal["fails alike", "succeeds now", "fails otherwise"]


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What became of running recorded steps again.

    Attributes
    ----------
    verdict
        `bit-equal`; `equal within tolerance` (figures differ by no more than that); `fails alike` (it failed
        when it was recorded, and does so again); `different`.
    failure
        Of a run that failed when it was recorded: whether it `fails alike` (the same step with the same kind
        of error), `succeeds now` or `fails otherwise`; None where that is not known, or it did not fail.
    steps
        How many steps ran again.
    notes
        Where the code came from, and what differs between then and now: runtime, code.
    """

    run: str
    verdict: Verdict
    steps: int
    told: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    failure: FailedThen | None = None


def perform(
    executor: Executor, recipe: Recipe, *, run: str, task: str, scratch: str, attempt: int = 1
) -> Done:
    """Make a recorded call again. Raises `StepFailed` if it fails now: its reason is `KIND: MESSAGE`."""
    log = Path(log_path(scratch, run))
    log.parent.mkdir(parents=True, exist_ok=True)
    work = Work(
        run=run, task=task, target=recipe.target, arguments=recipe.arguments, split=recipe.split,
        seed=recipe.seed, attempt=attempt, log=str(log),
    )  # fmt: skip
    executor.submit(work, Resources())
    while True:
        for report in executor.poll(1.0):
            if isinstance(report, Lost):
                raise StepFailed(task, run, [report.reason])
            if isinstance(report, Done):
                if report.failure is not None:
                    raise StepFailed(task, run, [f"{report.failure.kind}: {report.failure.message}"])
                return report
        time.sleep(0)


def differing(recorded: Mapping[str, str], made: Tree) -> Iterator[tuple[str, Tree | None]]:
    """Give the parts whose digest is not the recorded one; None where a part is not there any more."""
    parts = dict(parts_of(made))
    for name, sha256 in recorded.items():
        tree = parts.get(name)
        if tree is None or digest_of_tree(tree) != sha256:
            yield name, tree
    for name, tree in parts.items():
        if name not in recorded:
            yield name, tree


def describe(where: str, before: str, after: Tree | None) -> Difference:
    """Tell of a part of which only digests are known."""
    if after is None:
        return Difference(where=where, told="it is not given any more", within=False)
    now = told_of(after)
    size = f", {after.size_bytes:,} bytes ({after.sha256[:16]}…)" if isinstance(after, Stored) else ""
    told = f"{before} became {now}{size}" if before != now else f"other bytes: {now}{size}"
    return Difference(where=where, told=told, within=False)


def verdict_of(differences: Sequence[Difference]) -> Verdict:
    """Give the verdict."""
    if not differences:
        return "bit-equal"
    return "equal within tolerance" if all(each.within for each in differences) else "different"
