import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noria.cli.commands import COMMANDS, overview

ROOT = Path(__file__).parents[2]
Say = Callable[..., Any]


def undocumented(text: str) -> list[str]:
    """List the commands that a text does not show."""
    return [each.words for each in COMMANDS if f"noria {each.words}" not in text]


def test_overview_lists_every_command_within_80_columns() -> None:
    told = overview()
    assert all(f"  {each.words}" in told for each in COMMANDS)
    assert max(map(len, told.splitlines())) <= 80


def test_every_command_is_in_the_guide() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert undocumented(text) == []


@pytest.mark.parametrize("words", [each.words for each in COMMANDS])
def test_every_command_explains_itself(say: Say, words: str) -> None:
    told = say(*words.split(), "--help")
    assert told.code == 0
    assert told.out.startswith(f"Usage: noria {words}")
    assert "--json" in told.out
    assert "--debug" in told.out
    assert "[default: False]" not in told.out
    assert "--empty-" not in told.out
    entries = [each for each in told.out.splitlines() if each.startswith(" ")]
    assert all(each[2] != " " or each.startswith("      ") for each in entries), "an entry is one paragraph"


def test_no_arguments_show_the_overview(say: Say) -> None:
    assert say().out == say("--help").out == overview()
    assert say("--version").out == "noria 0.1.0\n"


def test_help_is_quick_and_loads_no_engine() -> None:
    code = (
        "import json, sys, time; from noria.cli import main; main(['--help']);"
        "loaded = sorted({name.split('.')[0] for name in sys.modules});"
        "print(json.dumps([time.process_time(), loaded]), file=sys.stderr)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        cpu_s, loaded = json.loads(done.stderr)
        heavy = {"alembic", "cyclopts", "deltalake", "duckdb", "lightgbm", "numpy", "pyarrow", "rich"}
        assert not {*heavy, "sklearn", "sqlalchemy"} & set(loaded)
        times.append(cpu_s)
    assert min(times) <= 0.20


def test_importing_noria_is_quick() -> None:
    code = "import noria, time; print(time.process_time())"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert min(float(each.stdout) for each in runs) <= 0.10
