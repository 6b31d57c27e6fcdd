"""What the documentation shows is run: docstring examples, and the Python blocks of README and guide."""

import doctest
import importlib
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.house.conftest import ROOT, module_of, source_files

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_EXAMPLES = [module_of(each) for each in source_files() if ">>> " in each.read_text(encoding="utf-8")]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"\s*# not run\b(.*)")


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Give the number of the line before each block that is run, and its code."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent, language, code = found.groups()
        if language in {"python", "py"}:
            line = text.count("\n", 0, found.start(3))
            left_out = _NOT_RUN.match(code)
            if left_out is None:
                yield line, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
            else:
                assert re.search(r"\w{3}", left_out[1]), f"{page.name}:{line + 1}: say why it is not run"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for each in doctest.DocTestFinder().find(module):
        runner.run(each, out=told.append)
    tried = runner.summarize(verbose=False)
    assert not tried.failed, "".join(told)
    assert tried.attempted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One namespace per page, in order, in an empty folder; a traceback names the page's own lines."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"blocks_of_{page.stem}")
    module.__file__ = str(page)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    linecache.checkcache(str(page))
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), module.__dict__)
