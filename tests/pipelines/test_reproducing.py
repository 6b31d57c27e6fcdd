"""A recorded run again: from git with its uncommitted changes, or from the sources that were kept."""

import subprocess
from pathlib import Path

import pytest

import noria
from noria.errors import ConfigError, NotFound
from noria.pipelines.comparing import compare_values
from noria.pipelines.reproduction import verdict_of

WORK = """
import numpy as np

import noria
import rates


@noria.step
def draw(n: int, run: noria.StepRun = noria.given) -> np.ndarray:
    run.log_metric("first", float(np.random.random()))
    return np.random.random(n)


@noria.step
def total(values: np.ndarray) -> float:
    return float(values.sum()) * rates.RATE


@noria.step(cache=False)
def note(total: float, project: noria.Project) -> None:
    (project.root / "notes.txt").write_text(str(total))


@noria.pipeline
def sums(n: int = 100) -> float:
    found = total(draw(n))
    note(found)
    return found
"""
TOML = '[project]\nname = "sums"\nmodules = ["work"]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "repository" / "inner"
    root.mkdir(parents=True)
    (root / "work.py").write_text(WORK)
    (root / "rates.py").write_text("RATE = 2.0\n")
    (root / "noria.toml").write_text(TOML)
    (root / ".gitignore").write_text(".noria/\n__pycache__/\nnotes.txt\n")
    return root


def git(folder: Path, *arguments: str) -> str:
    person = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *person, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def run_it(folder: Path) -> str:
    with noria.open(folder) as project:
        return project.run_pipeline("sums").run.id


def test_from_git_with_what_was_not_committed(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "one")
    (folder / "rates.py").write_text("RATE = 3.0\n")
    (folder / "more.py").write_text("X = 1\n")  # new and not added
    (folder / "work.py").write_text(WORK.replace("import rates", "import more\nimport rates"))
    run = run_it(folder)
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "two")
    (folder / "rates.py").write_text("RATE = 4.0\n")
    (folder / "notes.txt").unlink()
    before = sorted(path for path in folder.rglob("*") if ".noria" not in path.parts)
    with noria.open(folder) as project:
        told = project.runs.reproduce(run)
        assert told.verdict == "bit-equal", told
        assert told.steps == 2
        assert any("commit" in each and "uncommitted changes of then" in each for each in told.notes), told
        assert any("`RATE = 3.0` became `RATE = 4.0`" in each for each in told.notes), told
        assert any("left out: sums/note" in each for each in told.notes), told
        now = project.runs.reproduce(run, current=True)
        assert now.verdict == "different"
        assert [each.where for each in now.differences] == ["total"]
        assert project.ledger.verify().ok
    assert sorted(path for path in folder.rglob("*") if ".noria" not in path.parts) == before
    assert git(folder.parent, "worktree", "list").count("\n") == 1


def test_without_git_from_the_sources_that_were_kept(folder: Path) -> None:
    run = run_it(folder)
    (folder / "rates.py").unlink()
    (folder / "work.py").write_text("X = 1\n")
    with noria.open(folder) as project:
        told = project.runs.reproduce(run)
        assert told.verdict == "bit-equal", told
        assert any("sources that were kept" in each for each in told.notes)


def test_a_commit_that_git_has_forgotten_is_taken_from_the_record(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    run = run_it(folder)
    subprocess.run(["rm", "-rf", str(folder / ".git")], check=True)
    with noria.open(folder) as project:
        assert project.runs.reproduce(run).verdict == "bit-equal"


def test_figures_within_the_tolerance_are_told_as_such(folder: Path) -> None:
    run = run_it(folder)
    (folder / "rates.py").write_text("RATE = 2.0 * (1 + 1e-12)\n")
    with noria.open(folder) as project:
        assert project.runs.reproduce(run, current=True).verdict == "equal within tolerance"
        assert project.runs.reproduce(run, current=True, tolerance=1e-15).verdict == "different"


def test_what_cannot_be_reproduced_says_why(folder: Path) -> None:
    run_it(folder)
    again = run_it(folder)
    with noria.open(folder) as project:
        steps = {each.name: each for each in project.ledger.list_runs(kind="step")}
        with pytest.raises(ConfigError, match="declared with cache=False, so that would do it again"):
            project.runs.reproduce(steps["sums/note"].id)
        with pytest.raises(NotFound, match="no run named 'nothing'"):
            project.runs.reproduce("nothing")
        told = project.runs.get(again)
        assert told.metrics["tasks_cached"] == 2


def test_steps_of_several_modules_and_of_the_project_itself(tmp_path: Path) -> None:
    files = {
        "a.py": "import noria\n\n\n@noria.step\ndef one(x: int) -> int:\n    return x + 1\n",
        "b.py": "import noria\n\n\n@noria.step\ndef two(x: int) -> int:\n    return x * 10**400\n",
        "c.py": (
            "import noria\n\n\n@noria.step\n"
            "def act(x: int, project: noria.Project = noria.given) -> int:\n"
            "    project.ledger.append('thing.happened')\n    return 1\n"
        ),
        "work.py": (
            "import noria\nfrom a import one\nfrom b import two\nfrom c import act\n\n\n@noria.pipeline\n"
            "def both(x: int = 1) -> int:\n    found = two(one(x))\n    act(found)\n    return found\n"
        ),
        "noria.toml": '[project]\nname = "both"\nmodules = ["work"]\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with noria.open(tmp_path) as project:
        run = project.run_pipeline("both").run.id
        acting = next(each for each in project.ledger.list_runs(kind="step") if each.name == "both/act")
    (tmp_path / "c.py").write_text(files["c.py"].replace("def act(", "def acts("))
    (tmp_path / "work.py").write_text("import c\n")
    (tmp_path / "b.py").write_text(files["b.py"].replace("10**400", "(10**400 + 1)"))
    with noria.open(tmp_path) as project:
        happened = len(project.ledger.list_events(verb="thing.happened"))
        told = project.runs.reproduce(run)
        assert (told.verdict, told.steps) == ("bit-equal", 2), told
        assert any("works on the project itself (its 'project')" in each for each in told.notes)
        with pytest.raises(ConfigError, match="works on the project itself"):
            project.runs.reproduce(acting.id)
        assert project.runs.reproduce(run, current=True).verdict == "different"
        assert len(project.ledger.list_events(verb="thing.happened")) == happened == 1


def test_values_are_compared_figure_by_figure() -> None:
    before = {"auc": 0.75, "names": ["a", "b"], "n": 3}
    assert compare_values(before, dict(before), "x", 1e-9) == []
    near = compare_values(before, {**before, "auc": 0.75 + 1e-12}, "x", 1e-9)
    assert verdict_of(near) == "equal within tolerance"
    far = compare_values(before, {**before, "auc": 0.8, "names": ["a", "c"]}, "x", 1e-9)
    assert verdict_of(far) == "different"
    assert {each.where for each in far} == {"x['auc']", "x['names'][1]"}
    assert compare_values(float("nan"), float("nan"), "x", 0.0) == []
    assert verdict_of(compare_values(10**400, 10**400 + 1, "x", 1e-9)) == "different"
    assert verdict_of(compare_values(1, 1.0 + 1e-12, "x", 1e-9)) == "equal within tolerance"
