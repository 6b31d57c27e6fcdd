"""How a page of `--help` is laid out: an entry is a paragraph, its later lines indented."""

import textwrap
from typing import TYPE_CHECKING

from cyclopts.help.formatters import PlainFormatter

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HelpPages"]

_UNSAID = (" [default: False]", ' [default: ""]')  # of a flag, and of a text that need not be given
_FURTHER = "    "


class HelpPages(PlainFormatter):
    """Cyclopts' plain pages, without the line breaks of docstrings and defaults that tell nothing."""

    def _print_plain(self, console: "Console", text: str) -> None:
        for each in _UNSAID:
            text = text.replace(each, "")
        indent = text[: len(text) - len(text.lstrip(" "))]
        told = textwrap.fill(
            " ".join(text.split()),
            width=max(console.width, 40),
            initial_indent=indent,
            subsequent_indent=indent + _FURTHER if indent else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(told, highlight=False, markup=False, soft_wrap=True)
