"""Stores of MLflow in which models are registered."""

import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture
from tests.workspace.mlflow_stores import PROGRAMS

TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
_FILLED: list["Registered"] = []  # once, for all modules that import the fixture


@dataclass(frozen=True)
class Registered:
    """A store in which MLflow has registered models."""

    folder: Path
    told: dict[str, Any]  # what a client reads from it
    predictions: dict[str, list[float]]
    rows: list[list[float]]  # that they are of
    files: Path  # where the files of runs are

    def copy(self, folder: Path) -> "Registered":
        """Give a store of the same content that may be written."""
        folder.mkdir()
        shutil.copy(self.folder / "mlflow.db", folder)
        return Registered(folder, self.told, self.predictions, self.rows, self.files)

    def change(self, *statements: str) -> None:
        with sqlite3.connect(self.folder / "mlflow.db") as connection:
            for each in statements:
                connection.execute(each)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture
def registered(
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Registered:
    """Give a store; tests read it, or copy it."""
    if not _FILLED:
        folder = tmp_path_factory.mktemp("registry")
        url = f"sqlite:///{folder / 'mlflow.db'}"
        made = json.loads(mlflow_program(PROGRAMS / "fill_registry.py", url).splitlines()[-1])
        told = json.loads(mlflow_program(PROGRAMS / "dump_registry.py", url))
        filled = Registered(folder, told, made["predictions"], made["x"], Path(made["files"]))
        _FILLED.append(filled)
    return _FILLED[0]
