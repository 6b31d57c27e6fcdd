"""A run of a pipeline as it goes: a tree on a terminal, lines as steps end elsewhere."""

import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from noria.cli import screen
from noria.cli.pipeline_lines import ENDED, PipelineLines, retry_told, waiting_told
from noria.cli.run_screens import at_work_told, counts_told
from noria.pipelines.records import Progress, TaskTally

__all__ = ["PipelineDisplay", "render"]

_BAR = 20
_AT_WORK_SHOWN = 4  # of each step
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
        self._lines = PipelineLines(self.say)

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

    def say(self, text: str) -> None:
        """Write a line where there is no tree."""
        if not self._quiet and self._live is None:
            print(text, file=sys.stderr, flush=True)

    def tell(self, progress: Progress) -> None:
        """Take up how far the run is."""
        self._last = progress
        if not self._quiet and self._live is None:
            self._lines.take(progress)

    def _render(self) -> RenderableType:
        return Text("drawing ...") if self._last is None else render(self._last)


def render(progress: Progress) -> RenderableType:
    """Draw the tree of a run."""
    seconds = (datetime.now(UTC) - progress.started_at).total_seconds()
    head = Text(f"{progress.pipeline}  {progress.run[:16]}  {seconds:.0f} s", style="bold")
    lines: list[RenderableType] = [head]
    if progress.waiting_for is not None:
        lines.append(Text(waiting_told(progress), style="yellow"))
    below: dict[str, list[Text]] = {}
    for each in progress.at_work:
        below.setdefault(_node(each.task), []).append(Text(f"    {at_work_told(each)}", style="yellow"))
    for again in progress.retrying:
        below.setdefault(_node(again.task), []).append(Text(f"    {retry_told(again)}", style="yellow"))
    for node in progress.nodes:
        lines.append(_line(node))
        lines.extend(below.get(node.node, [])[:_AT_WORK_SHOWN])
    return Group(*lines)


def _node(task: str) -> str:
    return task.partition("[")[0]


def _line(node: TaskTally) -> Text:
    if node.total is None:
        return Text(f"  · {node.node}  ?", style="dim")
    states = [each for each in _ORDER if node.counts.get(each)]
    main = states[0] if states else "waiting"
    mark = {"ran": "✓", "cached": "=", "failed": "✗", "blocked": "✗", "skipped": "-"}.get(main, "·")
    line = Text(f"  {mark} {node.node}", style=_STYLES.get(main, "dim"))
    if node.total > 1:
        done = sum(node.counts.get(each, 0) for each in ENDED)
        filled = round(_BAR * done / node.total)
        line.append(f"  {'━' * filled}{'─' * (_BAR - filled)} {done}/{node.total}", style="default")
    line.append(f"  {counts_told(node.counts)}", style="dim")
    return line
