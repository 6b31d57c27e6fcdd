"""Runs the Python blocks of a page, as a reader would type them: `python page_runner.py PAGE`, in any folder.

One namespace, in order; a traceback names the page's own lines. A block that begins with `# not run` and
says why is left out.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"\s*# not run\b(.*)")


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Give the number of the line before each block that is run, and its code."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent, language, code = found.groups()
        if language not in {"python", "py"}:
            continue
        line = text.count("\n", 0, found.start(3))
        left_out = _NOT_RUN.match(code)
        if left_out is None:
            yield line, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        elif not re.search(r"\w{3}", left_out[1]):
            raise ValueError(f"{page.name}, line {line + 1}: say why the block is not run")


def run(page: Path) -> None:
    module = ModuleType("__main__")
    module.__file__ = str(page)
    sys.modules["__main__"] = module
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), module.__dict__)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
