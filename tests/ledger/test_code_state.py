import subprocess
import sys
from pathlib import Path

import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.code import capture_code
from noria.ledger.store import Ledger
from noria.records import sha256_hex
from noria.storage.local import LocalStorage


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    _git(root, "init", "-q")
    (root / "flights.py").write_text("a = 1\n")
    (root / ".gitignore").write_text("ignored.py\n")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "first")
    capture_code.cache_clear()
    return root


def test_a_clean_repository_is_its_commit(repository: Path) -> None:
    captured = capture_code(repository)
    assert captured.commit == _git(repository, "rev-parse", "HEAD")
    assert captured.state.diff is None


def test_uncommitted_code_can_be_rebuilt_from_commit_and_patch(repository: Path, tmp_path: Path) -> None:
    (repository / "flights.py").write_text("a = 2\n")
    (repository / "sub").mkdir()
    (repository / "sub" / "new.sql").write_text("SELECT 1\nFROM t")  # no newline at its end
    (repository / "empty.py").write_text("")
    (repository / "noria.toml").write_text("[project]\n")
    (repository / "ignored.py").write_text("secret\n")
    (repository / "data.csv").write_text("1,2\n")
    captured = capture_code(repository)
    clone = tmp_path / "clone"
    _git(tmp_path, "clone", "-q", str(repository), str(clone))
    (tmp_path / "patch").write_bytes(captured.patch)
    _git(clone, "apply", str(tmp_path / "patch"))
    for name in ("flights.py", "sub/new.sql", "empty.py", "noria.toml"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()
    assert not (clone / "ignored.py").exists()
    assert not (clone / "data.csv").exists()


def test_the_code_is_captured_once_per_process(repository: Path) -> None:
    before = capture_code(repository)
    (repository / "flights.py").write_text("a = 3\n")
    assert capture_code(repository) is before


@pytest.mark.parametrize("make", ["nothing", "empty repository", "missing"])
def test_without_a_commit_there_is_no_code(tmp_path: Path, make: str) -> None:
    root = tmp_path / "plain"
    if make != "missing":
        root.mkdir()
    if make == "empty repository":
        _git(root, "init", "-q")
    assert capture_code(root).commit == "none"
    assert capture_code(None).state.commit == "none"


def test_without_git_there_is_no_code(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert capture_code(repository).state.commit == "none"


def test_inside_a_hook_the_code_is_still_that_of_the_root(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert capture_code(repository).commit != "none"


def test_what_a_run_names_is_in_the_storage(repository: Path, database: Database, tmp_path: Path) -> None:
    (repository / "flights.py").write_text("a = 4\n")
    storage = LocalStorage(tmp_path / "blobs")
    ledger = Ledger(database, storage=storage, clock=WallClock(), code_root=repository)
    run = ledger.start_run("train", "late")
    assert run.code_diff is not None
    assert b"+a = 4" in storage.get(run.code_diff)
    distributions = storage.get(run.runtime).decode().splitlines()
    assert distributions == sorted(distributions)
    assert any(line.startswith("sqlalchemy==") for line in distributions)
    assert any(line.startswith("python==3.") for line in distributions)
    assert sha256_hex(storage.get(run.runtime)) == run.runtime


def test_the_list_of_distributions_is_that_of_the_metadata() -> None:
    import re
    from importlib.metadata import distributions

    folders = [each for each in sys.path if "site-packages" not in Path(each).parent.parts]
    wanted = {re.sub(r"[-_.]+", "-", each.name).lower() for each in distributions(path=folders)}
    capture_code.cache_clear()  # other tests put folders on the path
    listed = capture_code(None).distributions.decode().splitlines()
    assert {line.partition("==")[0] for line in listed} - {"python"} == wanted


def test_what_a_distribution_puts_on_the_path_for_itself_is_no_part_of_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "site-packages" / "big" / "third_party"
    (inner / "small-1.0.dist-info").mkdir(parents=True)
    capture_code.cache_clear()
    before = capture_code(None).state.runtime
    monkeypatch.setattr(sys, "path", [*sys.path, str(inner)])
    capture_code.cache_clear()
    assert capture_code(None).state.runtime == before
    outer = tmp_path / "libraries"
    (outer / "small-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(outer)])
    capture_code.cache_clear()
    assert b"small==1.0\n" in capture_code(None).distributions
    monkeypatch.undo()
    capture_code.cache_clear()
