"""Stores that a real MLflow has filled, and projects that take them in."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_control_plane import SINCE
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.workspace.up.records import Role, UpState

PROGRAMS = Path(__file__).parent / "mlflow_programs"
POINTS = 21_000  # more than a page


@dataclass(frozen=True)
class Filled:
    """A store that MLflow has filled."""

    folder: Path
    told: dict[str, Any]  # what a client reads from it
    runs: tuple[str, str, str]  # outer, inner, many points

    def copy(self, folder: Path) -> "Filled":
        """Give a store of the same content that may be written; files of runs stay where they are."""
        folder.mkdir()
        shutil.copy(self.folder / "mlflow.db", folder)
        return Filled(folder, self.told, self.runs)

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Filled]:
    return {}


@pytest.fixture
def filled(
    made: dict[str, Filled],
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Filled:
    """Give a store; tests read it, or copy it."""
    if "store" not in made:
        folder = tmp_path_factory.mktemp("mlflow")
        url = f"sqlite:///{folder / 'mlflow.db'}"
        ids = mlflow_program(PROGRAMS / "fill.py", url, POINTS=str(POINTS)).split()
        told = json.loads(mlflow_program(PROGRAMS / "dump.py", url))
        made["store"] = Filled(folder, told, (ids[0], ids[1], ids[2]))
    return made["store"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    with noria.open(make_project(tmp_path / "site")) as opened:
        yield opened


def make_project(root: Path, database: str | None = None) -> Path:
    root.mkdir()
    stores = "" if database is None else f'\n[stores]\ndatabase = "{database}"\n'
    (root / "noria.toml").write_text(f'[project]\nname = "{root.name}"\nmodules = []\n{stores}')
    return root


@contextmanager
def serving(project: noria.Project) -> Iterator[str]:
    """Give the URL of a control plane of a project."""
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        yield plane.url


def read_back(project: noria.Project, program: RunProgram) -> dict[str, Any]:
    """Give what a client reads from a project."""
    with serving(project) as url:
        found: dict[str, Any] = json.loads(program(PROGRAMS / "dump.py", url))
        return found


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Tell at which places two told stores differ."""
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        return [told for key in wanted for told in differences(found[key], wanted[key], f"{place}/{key}")]
    return [] if found == wanted else [f"{place}: {str(found)[:400]} != {str(wanted)[:400]}"]
