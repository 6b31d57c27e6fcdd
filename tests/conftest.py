"""The tiny project of `tests/projects`, fresh and lived through, for tests of whole loops."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECTS = Path(__file__).parent / "projects"
# Files that take longest go first, so that no process is left alone with one at the end.
LONGEST = (
    "replay/test_flights_demo.py",
    "house/test_examples.py",
    "workspace/test_mlflow_import.py",
    "serving/test_real_clients.py",
    "workspace/test_up.py",
    "pipelines/test_double_start.py",
    "features/test_offline_equals_online.py",
    "cli/test_up_command.py",
    "pipelines/test_ray.py",
    "workspace/test_mlflow_sources.py",
    "serving/test_load.py",
    "replay/test_on_demand.py",
    "workspace/test_predicting.py",
    "workspace/test_deploying.py",
    "workspace/test_large_training_sets.py",
    "workspace/test_forgetting.py",
    "api/test_mlflow_registry.py",
    "api/test_mlflow_client.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays as it was collected."""
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.fixture(scope="session", autouse=True)
def user_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the account a state of its own: what waits for servers on this machine is no matter of tests."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Give a fresh copy of the tiny project; nothing is recorded in it."""
    return Path(shutil.copytree(PROJECTS / "tiny", tmp_path / "tiny"))


@pytest.fixture(scope="session")
def tiny_lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny project after its whole replay, and beside it the report: read, never write."""
    folder = Path(shutil.copytree(PROJECTS / "tiny", tmp_path_factory.mktemp("lived") / "tiny"))
    command = [sys.executable, "-m", "noria", "replay", "--project", str(folder), "--json", "report.json"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder.parent / "screen.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture
def lived_copy(tiny_lived: Path, tmp_path: Path) -> Path:
    """Give a copy of the lived project, to do with as a test pleases."""
    return Path(shutil.copytree(tiny_lived, tmp_path / "lived"))


@pytest.fixture
def noria() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs `noria` as a process."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "noria", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)

    return run
