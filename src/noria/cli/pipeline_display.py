"""A run of a pipeline as it goes: a tree on a terminal, a line now and then elsewhere."""

import sys
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from noria.cli import screen
from noria.pipelines.records import PipelineResult, Progress, TaskTally

__all__ = ["PipelineDisplay", "tell_result"]

_SAY_EVERY_S = 10.0
_BAR = 20
_SKIPPED_SHOWN = 5
_STYLES = {
    "cached": "cyan",
    "ran": "green",
    "running": "yellow",
    "failed": "bold red",
    "blocked": "red",
    "skipped": "dim",
}
_ORDER = ("failed", "blocked", "running", "queued", "ran", "cached", "skipped")


class PipelineDisplay:
    """Shows how far a run is.

    Parameters
    ----------
    quiet
        Show nothing: the answer is for programs.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = screen.console(stderr=True)
        self._live: Live | None = None
        self._last: Progress | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away again."""
        if self._live is not None:
            self._live.stop()

    def tell(self, progress: Progress) -> None:
        """Take up how far the run is."""
        waits = progress.waiting_for is not None and (
            self._last is None or progress.waiting_for != self._last.waiting_for
        )
        self._last = progress
        if self._quiet or self._live is not None:
            return
        if waits:
            print(_waiting(progress), file=sys.stderr, flush=True)
        elif time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            print(f"{progress.pipeline}: {_counts(progress.counts)}", file=sys.stderr, flush=True)

    def _render(self) -> RenderableType:
        return Text("drawing ...") if self._last is None else render(self._last)


def render(progress: Progress) -> RenderableType:
    """Draw the tree of a run."""
    seconds = (datetime.now(UTC) - progress.started_at).total_seconds()
    head = Text(f"{progress.pipeline}  {progress.run[:16]}  {seconds:.0f} s", style="bold")
    lines: list[RenderableType] = [head]
    if progress.waiting_for is not None:
        lines.append(Text(_waiting(progress), style="yellow"))
    working: dict[str, list[Text]] = {}
    now = datetime.now(UTC)
    for each in progress.at_work:
        share = ""
        if each.done is not None:
            share = f" {each.done:g}" + (f"/{each.total:g}" if each.total else "")
        told = f"{each.task}  {(now - each.since).total_seconds():.0f} s{share} {each.note}"
        again = f"  attempt {each.attempt}" if each.attempt > 1 else ""
        working.setdefault(each.task.partition("[")[0], []).append(Text(f"    {told}{again}", style="yellow"))
    for node in progress.nodes:
        lines.append(_line(node))
        lines.extend(working.get(node.node, [])[:4])
    return Group(*lines)


def _line(node: TaskTally) -> Text:
    if node.total is None:
        return Text(f"  · {node.node}  ?", style="dim")
    states = [each for each in _ORDER if node.counts.get(each)]
    main = states[0] if states else "waiting"
    mark = {"ran": "✓", "cached": "=", "failed": "✗", "blocked": "✗", "skipped": "-"}.get(main, "·")
    line = Text(f"  {mark} {node.node}", style=_STYLES.get(main, "dim"))
    if node.total > 1:
        done = sum(node.counts.get(each, 0) for each in ("ran", "cached", "skipped", "failed", "blocked"))
        filled = round(_BAR * done / node.total)
        line.append(f"  {'━' * filled}{'─' * (_BAR - filled)} {done}/{node.total}", style="default")
    line.append(f"  {_counts(node.counts)}", style="dim")
    return line


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[each]} {each}" for each in (*_ORDER, "waiting", "ready") if counts.get(each))


def _waiting(progress: Progress) -> str:
    return f"{progress.pipeline}: waiting for {progress.waiting_for}"


def tell_result(result: PipelineResult) -> None:
    """Tell what became of a run."""
    run = result.run
    took = "" if run.cost is None else f" in {run.cost.wall_s:.2f} s"
    screen.line(f"{run.name} is done{took}: {_counts(result.counts) or 'nothing to do'}.")
    for task, because in list(result.skipped.items())[:_SKIPPED_SHOWN]:
        screen.line(f"{task} was skipped: {because}.")
    if result.value is not None:
        text = repr(result.value)
        screen.line(f"It gave {text if len(text) <= 200 else text[:197] + '...'}")
    screen.line(f"run {run.id[:16]}")
