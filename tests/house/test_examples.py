"""What the documentation shows is run: docstring examples, and the Python blocks of README and guide."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.house.conftest import ROOT, module_of, source_files
from tests.house.page_runner import python_blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if "```py" in page.read_text(encoding="utf-8")]
WITH_EXAMPLES = [module_of(each) for each in source_files() if ">>> " in each.read_text(encoding="utf-8")]


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


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.name)
def test_code_blocks(page: Path, tmp_path: Path) -> None:
    """A reader's session: a new process in an empty folder, warnings as errors."""
    runner = Path(__file__).with_name("page_runner.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(runner), str(page)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}"


def test_a_block_is_found_with_its_line_and_left_out_only_with_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\na = 1\n```\n\n- so:\n\n  ```python\n  b = 2\n  ```\n\n```sh\nls\n```\n"
    )
    assert list(python_blocks(page)) == [(3, "a = 1\n"), (9, "b = 2\n")]
    page.write_text("```python\n# not run: it needs a cluster\na = 1\n```\n")
    assert list(python_blocks(page)) == []
    page.write_text("```python\n# not run\na = 1\n```\n")
    with pytest.raises(ValueError, match="line 2: say why"):
        list(python_blocks(page))
