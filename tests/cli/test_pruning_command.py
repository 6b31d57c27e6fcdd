import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Say = Callable[..., Any]

DECLARED = """
import noria


@noria.step
def double(n: int) -> int:
    return 2 * n


@noria.step
def text(n: int) -> str:
    return "x" * n


@noria.pipeline
def twice(n: int = 3) -> str:
    return text(double(n))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "small"\nmodules = ["prune_declared"]\n[compute]\nexecutor = "inline"\n'
    )
    (tmp_path / "prune_declared.py").write_text(DECLARED)
    return tmp_path


def time_passes(folder: Path) -> None:
    """Let everything on record be forty days older."""
    forty_days_us = 40 * 86_400 * 1_000_000
    with closing(sqlite3.connect(folder / ".noria" / "noria.db")) as database:
        database.execute("update step_cache set at = at - ?", [forty_days_us])
        database.execute("update runs set ended_at = ended_at - ?", [forty_days_us])
        database.commit()


def test_it_says_what_it_would_forget_and_what_it_forgot(say: Say, folder: Path) -> None:
    assert say("pipeline", "run", "twice", "--project", folder).code == 0
    young = say("pipeline", "prune", "--project", folder)
    assert (young.code, "Nothing to forget" in young.out) == (0, True)
    time_passes(folder)
    would = say("pipeline", "prune", "--dry-run", "--project", folder)
    assert would.out.startswith("Would forget 2 results that no run since ")
    assert "twice/double" in would.out
    told = json.loads(say("pipeline", "prune", "--older-than", "59m", "--json", "--project", folder).out)
    assert (told["results"], told["kept"], told["steps"]) == (2, 0, {"twice/double": 1, "twice/text": 1})
    assert say("pipeline", "run", "twice", "--plan", "--project", folder).out.startswith(
        "1 step of 2 would run"
    )


def test_an_age_that_is_none_is_refused(say: Say, folder: Path) -> None:
    told = say("pipeline", "prune", "--older-than", "soon", "--project", folder)
    assert (told.code, "older_than: 'soon' is no duration" in told.err) == (2, True)
