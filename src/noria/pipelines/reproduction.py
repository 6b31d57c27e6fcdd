"""Running a recorded step again and comparing what it gives: equal bits, equal figures, or different."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from noria.errors import StepFailed
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Lost, Work, log_path
from noria.pipelines.recipes import Recipe
from noria.pipelines.trees import Stored, Tree, digest_of_tree, parts_of, told_of

__all__ = ["Difference", "Reproduction", "Verdict", "compare_values", "perform", "verdict_of"]

Verdict = Literal["bit-equal", "equal within tolerance", "different"]
_SHOWN = 12


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that came out otherwise."""

    where: str
    told: str
    within: bool  # the tolerance


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What became of running recorded steps again.

    Attributes
    ----------
    verdict
        `bit-equal`; `equal within tolerance` (figures differ by no more than that); `different`.
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


def perform(executor: Executor, recipe: Recipe, *, run: str, task: str, scratch: str) -> Done:
    """Make a recorded call again. Raises `StepFailed` if it fails now."""
    log = Path(log_path(scratch, run))
    log.parent.mkdir(parents=True, exist_ok=True)
    work = Work(
        run=run, task=task, target=recipe.target, arguments=recipe.arguments, split=recipe.split,
        seed=recipe.seed, attempt=1, log=str(log),
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
    size = f", {after.size_bytes:,} bytes" if isinstance(after, Stored) else ""
    told = f"{before} became {now}{size}" if before != now else f"other bytes: {now}{size}"
    return Difference(where=where, told=told, within=False)


def compare_values(before: Any, after: Any, where: str, tolerance: float) -> list[Difference]:
    """List how two values differ, figure by figure."""
    return list(_compare(before, after, where, tolerance))[: _SHOWN + 1]


def _compare(before: Any, after: Any, where: str, tolerance: float) -> Iterator[Difference]:
    if isinstance(before, pa.Table) and isinstance(after, pa.Table):
        yield from _compare_tables(before, after, where, tolerance)
    elif isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        yield from _compare_arrays(before, after, where, tolerance)
    elif _is_number(before) and _is_number(after):
        yield from _compare_numbers(before, after, where, tolerance)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(each for each in after if each not in before)]:
            place = f"{where}[{key!r}]"
            if key not in after or key not in before:
                told = "it is gone" if key not in after else "it is new"
                yield Difference(where=place, told=told, within=False)
            else:
                yield from _compare(before[key], after[key], place, tolerance)
    elif isinstance(before, Sequence) and isinstance(after, Sequence) and not isinstance(before, str | bytes):
        if len(before) != len(after):
            told = f"{len(before)} items became {len(after)}"
            yield Difference(where=where, told=told, within=False)
            return
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _compare(one, other, f"{where}[{number}]", tolerance)
    elif type(before) is not type(after) or before != after:
        told = f"{_short(before)} became {_short(after)}"
        yield Difference(where=where, told=told, within=False)


def _compare_numbers(before: Any, after: Any, where: str, tolerance: float) -> Iterator[Difference]:
    whole = isinstance(before, int) and isinstance(after, int)  # these may be larger than a float can be
    if before != after and not (not whole and math.isnan(before) and math.isnan(after)):
        within = not whole and math.isclose(before, after, rel_tol=tolerance, abs_tol=0.0)
        yield Difference(where=where, told=f"{_short(before)} became {_short(after)}", within=within)


def _compare_tables(before: pa.Table, after: pa.Table, where: str, tolerance: float) -> Iterator[Difference]:
    if before.schema != after.schema or before.num_rows != after.num_rows:
        told = (
            f"{before.num_rows:,} rows x {before.num_columns} columns became {after.num_rows:,} x "
            f"{after.num_columns}"
        )
        yield Difference(where=where, told=told, within=False)
        return
    for name in before.column_names:
        one, other = before[name].combine_chunks(), after[name].combine_chunks()
        if not one.equals(other):
            place = f"{where}.{name}"
            if pa.types.is_floating(one.type):
                yield from _compare_arrays(
                    one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), place, tolerance
                )
            else:
                yield Difference(where=place, told="other values", within=False)


def _compare_arrays(before: Any, after: Any, where: str, tolerance: float) -> Iterator[Difference]:
    if before.shape != after.shape or before.dtype != after.dtype:
        told = f"{before.dtype}{before.shape} became {after.dtype}{after.shape}"
        yield Difference(where=where, told=told, within=False)
        return
    if before.dtype.kind not in "fc":
        count = int(np.count_nonzero(before != after))
        if count:
            yield Difference(where=where, told=f"{count} of {before.size} values differ", within=False)
        return
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if not same.all():
        within = bool(np.isclose(before, after, rtol=tolerance, atol=0, equal_nan=True).all())
        apart = float(np.nanmax(np.abs(before - after)))
        told = f"{int((~same).sum())} of {before.size} values differ, by at most {apart:.3g}"
        yield Difference(where=where, told=told, within=within)


def verdict_of(differences: Sequence[Difference]) -> Verdict:
    """Give the verdict."""
    if not differences:
        return "bit-equal"
    return "equal within tolerance" if all(each.within for each in differences) else "different"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = f"{len(value):,} bytes" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
