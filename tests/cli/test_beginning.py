from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[..., Any]


def test_an_empty_project_runs(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "my-table"
    made = say("init", folder)
    assert made.code == 0
    assert "read project.py, then `noria status`" in " ".join(made.out.split())
    found = say("status", "--project", folder)
    assert found.code == 0
    assert "Project my-table" in found.out
    assert "orders" in found.out
    assert "Nothing is recorded yet" in found.out
    assert say("doctor", "--project", folder).code == 0
    assert not (folder / ".noria").exists()  # nothing was made by looking


def test_the_flights_can_be_copied(say: Say, tmp_path: Path) -> None:
    assert say("init", tmp_path / "flights", "--template", "flights").code == 0
    found = say("status", "--project", tmp_path / "flights")
    assert "Replay late_arrival: not begun" in found.out
    assert "`noria replay` begins" in found.out


def test_init_overwrites_nothing(say: Say, tmp_path: Path) -> None:
    assert say("init", tmp_path).code == 0
    found = say("init", tmp_path)
    assert found.code == 4
    assert "is a project already" in found.err
    other = tmp_path / "other"
    other.mkdir()
    (other / "project.py").write_text("mine = 1\n", encoding="utf-8")
    found = say("init", other)
    assert found.code == 4
    assert "project.py exists and would be overwritten" in found.err
    assert (other / "project.py").read_text(encoding="utf-8") == "mine = 1\n"
    assert not (other / "noria.toml").exists()
    found = say("init", other, "--template", "fligts")
    assert (found.code, "did you mean 'flights'?" in found.err) == (3, True)
