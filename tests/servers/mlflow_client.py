"""A real MLflow client, in an environment of its own: programs that know nothing of noria."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PYTHON = _ROOT / ".venv-mlflow" / "bin" / "python"
_SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_ENABLE_ASYNC_LOGGING": "false"}
_LIMIT_S = 240

RunProgram = Callable[..., str]


@pytest.fixture
def mlflow_program(tmp_path: Path) -> RunProgram:
    """Give a function that runs a program with the client, and gives what it printed."""
    return program_runner(tmp_path / "client")


def program_runner(home: Path) -> RunProgram:
    """Give what `mlflow_program` does, for fixtures of several tests; the client lives in a new folder."""
    if not _PYTHON.exists():
        pytest.skip("there is no MLflow client: `make servers` installs it")
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}

    def run(program: Path | str, url: str, *arguments: str, **variables: str) -> str:
        command = [str(_PYTHON), "-W", "ignore", str(program), *arguments]
        environment = {**kept, **_SILENT, "MLFLOW_TRACKING_URI": url, "HOME": str(home), **variables}
        done = subprocess.run(
            command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    return run
