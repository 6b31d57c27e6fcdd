"""Consoles of rich, for what is drawn in colours or over and over."""

from rich.console import Console

__all__ = ["UnpipedConsole"]


class UnpipedConsole(Console):
    """A console that says when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Leave it to `entry.main` what happens then."""
        raise BrokenPipeError
