"""Runs of pipelines in words: what they were called with, what became of their steps, what they gave."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from noria.cli import screen
from noria.pipelines.accounts import RunAccount, StepAccount
from noria.pipelines.records import AtWork, PipelineResult
from noria.records import Cost, Run, RunState, Version

__all__ = [
    "at_work_told",
    "block",
    "counts_told",
    "params_told",
    "show_steps",
    "show_versions",
    "tell_end",
    "tell_result",
    "took",
]

_ORDER = ("failed", "blocked", "killed", "cancelled", "running", "queued", "ran", "cached", "skipped")
_WORDS = {"cached": "kept"}
_SKIPPED_SHOWN = 5
_LINES_SHOWN = 12  # of a value
_ERROR_LINES_SHOWN = 30
_STEPS_SHOWN = 40  # rows; JSON gives all
_VERSIONS_SHOWN = 20
_APART = 4  # items of a mapped step that have rows of their own; more are summed up
_TROUBLE_SHOWN = 3  # of those that are summed up
_PARAM_CHARS = 40
_VALUE_CHARS = 200
_NOTE_CHARS = 160


def counts_told(counts: Mapping[str, int]) -> str:
    """Tell how many steps are in which state.

    Examples
    --------
    >>> counts_told({"cached": 7, "ran": 1, "failed": 2})
    '2 failed, 1 ran, 7 kept'
    """
    return ", ".join(
        f"{counts[each]:,} {_WORDS.get(each, each)}"
        for each in (*_ORDER, "waiting", "ready")
        if counts.get(each)
    )


def params_told(params: Mapping[str, Any], *, between: str = " ") -> str:
    """Tell what something was called with, each value in a few words.

    Examples
    --------
    >>> params_told({"month": "2026-01", "n": 5, "title": "two words"})
    "month=2026-01 n=5 title='two words'"
    """
    return between.join(f"{name}={_value_told(value)}" for name, value in params.items())


def _value_told(value: Any) -> str:
    is_plain = isinstance(value, str) and value and not any(each.isspace() for each in value)
    return _short(value if is_plain else repr(value), _PARAM_CHARS)


def took(run: Run) -> str:
    """Tell how long a run took, or takes already."""
    if run.cost is not None:
        return f"{run.cost.wall_s:.2f} s"
    if run.state is RunState.RUNNING:
        return f"{(datetime.now(UTC) - run.started_at).total_seconds():.0f} s"
    return "-" if run.ended_at is None else f"{(run.ended_at - run.started_at).total_seconds():.2f} s"


def block(text: str, *, at_most: int = _ERROR_LINES_SHOWN) -> None:
    """Write the lines of an error below one another, as they are and a little to the right."""
    lines = text.rstrip().splitlines()
    if len(lines) == 1:
        screen.line(lines[0], indent=2)
        return
    width = shutil.get_terminal_size().columns - 2
    for each in lines[:at_most]:
        screen.verbatim("  " + (_short(each, width) if sys.stdout.isatty() else each))
    if len(lines) > at_most:
        screen.line(f"... {screen.count(len(lines) - at_most, 'more line')}", indent=2)


def at_work_told(each: AtWork) -> str:
    """Tell of a step at work: since when, how far, which attempt."""
    told = each.task
    if each.attempts_at_most > 1 and each.attempt > 1:
        told += f" (attempt {each.attempt} of {each.attempts_at_most})"
    told += f" {(datetime.now(UTC) - each.since).total_seconds():.0f} s"
    if each.done is not None:
        told += f", {each.done:g}" + (f" of {each.total:g}" if each.total else "")
    return f"{told}, {each.note}" if each.note else told


def tell_result(result: PipelineResult) -> None:
    """Tell what became of a run that has just ended."""
    run = result.run
    after = "" if run.cost is None else f" in {run.cost.wall_s:.2f} s"
    screen.line(f"{run.name} is done{after}: {counts_told(result.counts) or 'nothing to do'}.")
    for task, because in list(result.skipped.items())[:_SKIPPED_SHOWN]:
        screen.line(f"{task} was skipped: {because}.")
    more = len(result.skipped) - _SKIPPED_SHOWN
    if more > 0:
        screen.line(f"{screen.count(more, 'more step')} skipped; `noria run show {run.id[:16]}` names them.")
    if result.value is not None:
        text = repr(result.value)
        if "\n" in text:
            screen.line(f"It gave {_a(type(result.value).__name__)}:")
            block(text, at_most=_LINES_SHOWN)
        else:
            screen.line(f"It gave {_short(text, _VALUE_CHARS)}")
    screen.line(f"run {run.id[:16]}")


def tell_end(run: Run, account: RunAccount | None) -> None:
    """Tell how a run that was followed has ended."""
    counts = "" if account is None else counts_told(account.counts)
    was = "was " if run.state in (RunState.CANCELLED, RunState.KILLED) else ""
    screen.line(f"{run.name} {was}{run.state} after {took(run)}" + (f": {counts}." if counts else "."))
    if account is not None and account.value is not None:
        screen.line(f"It gave {account.value}")
    if run.error is not None:
        block(run.error)
    if account is not None:
        screen.line(
            f"`noria run show {run.id[:16]}` shows its steps, `noria run logs {run.id[:16]}` their output."
        )


def show_steps(account: RunAccount) -> None:
    """Write the table of a run's steps: those of one mapped step are summed up where they are many."""
    at_work = {} if account.progress is None else {each.task: each for each in account.progress.at_work}
    rows: list[tuple[bool, tuple[str, ...]]] = []
    shown = 0
    for node, group in groupby(account.steps, key=lambda each: each.step.partition("[")[0]):
        steps = list(group)
        if len(steps) > _APART:
            trouble = [each for each in steps if _is_trouble(each)][:_TROUBLE_SHOWN]
            rows.append((False, _sum_row(node, steps)))
            rows += [(True, _step_row(each, at_work)) for each in trouble]
        else:
            rows += [(_is_trouble(each), _step_row(each, at_work)) for each in steps]
    first = sorted(range(len(rows)), key=lambda place: (not rows[place][0], place))[:_STEPS_SHOWN]
    chosen = [rows[place][1] for place in sorted(first)]
    shown = len(chosen)
    columns = ["step", "state", "took", "cpu", "attempts"]
    notes = any(row[-1] for row in chosen)
    screen.table(
        [*columns, "note"] if notes else columns,
        [row if notes else row[:-1] for row in chosen],
        right=columns[2:],
        wrap="note" if notes else None,
    )
    if len(rows) > shown:
        screen.line(f"and {len(rows) - shown:,} more; --json gives all")


def show_versions(pairs: Sequence[tuple[str, Version]]) -> None:
    """Write the table of versions that were read or written, data and models before results of steps."""
    rows: list[tuple[str, ...]] = []
    ordered = sorted(pairs, key=lambda pair: pair[1].kind == "output")
    for (role, kind, name), group in groupby(ordered, key=lambda pair: (pair[0], pair[1].kind, pair[1].name)):
        found = [each for _, each in group]
        if len(found) > _APART:
            rows.append((role, kind, f"{name} ({len(found):,})", "-"))
        else:
            rows += [(role, kind, each.ref, screen.digest(each.sha256)) for each in found]
    screen.table(["", "kind", "version", "sha256"], rows[:_VERSIONS_SHOWN])
    if len(rows) > _VERSIONS_SHOWN:
        screen.line(f"and {len(rows) - _VERSIONS_SHOWN:,} more; --json gives all")


def _step_row(step: StepAccount, at_work: Mapping[str, AtWork]) -> tuple[str, ...]:
    note = (step.because or "").partition("\n")[0]
    if step.step in at_work:
        note = at_work_told(at_work[step.step]).partition(" s")[2].removeprefix(", ")
    return (
        step.step,
        _WORDS.get(step.state, step.state),
        *_costs([] if step.cost is None else [step.cost]),
        str(step.attempts or "-"),
        _short(note, _NOTE_CHARS),
    )


def _sum_row(node: str, steps: Sequence[StepAccount]) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for each in steps:
        counts[each.state] = counts.get(each.state, 0) + 1
    state = counts_told(counts)
    costs = [each.cost for each in steps if each.cost is not None]
    attempts = sum(each.attempts for each in steps)
    return f"{node} ({len(steps):,})", state, *_costs(costs), f"{attempts:,}" if attempts else "-", ""


def _costs(costs: Sequence[Cost]) -> tuple[str, str]:
    if not costs:
        return "-", "-"
    return f"{sum(each.wall_s for each in costs):,.2f} s", f"{sum(each.cpu_s for each in costs):,.2f} s"


def _is_trouble(step: StepAccount) -> bool:
    return step.state not in ("ran", "cached", "skipped")


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
