"""An ingest as it goes: rows, what could not be read, megabytes a second; on a terminal only."""

import time
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from noria.cli import screen
from noria.workspace.ingesting import Taken
from noria.workspace.source_openings import Sighted

__all__ = ["IngestDisplay"]


class IngestDisplay:
    """Shows how far an ingest is, on standard error.

    Parameters
    ----------
    quiet
        Show nothing: the answer is for programs.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = screen.console(stderr=True)
        self._quiet = quiet or not self._console.is_terminal
        self._live: Live | None = None
        self._last: Sighted | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        if not self._quiet:
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

    def tell(self, sighted: Sighted) -> None:
        """Take up how far a source is."""
        if self._last is None or self._last.source != sighted.source:
            self._began = time.monotonic()
        self._last = sighted

    def done(self, taken: Taken) -> Taken:
        """Note that a source is done; gives it back."""
        self._last = None
        return taken

    def _render(self) -> Text:
        return Text("looking for what is new ..." if self._last is None else told(self._last, self._began))


def told(sighted: Sighted, began: float) -> str:
    """Tell how far a source is, in a line."""
    seconds = max(time.monotonic() - began, 1e-3)
    parts = [sighted.source, screen.count(sighted.rows, "row")]
    if sighted.unreadable:
        parts.append(f"{screen.number(sighted.unreadable)} unreadable")
    if sighted.size_bytes:
        parts.append(f"{min(sighted.bytes_read / sighted.size_bytes, 1):.0%}")
    parts.append(f"{sighted.bytes_read / 1e6 / seconds:,.0f} MB/s")
    return "  ".join(parts)
