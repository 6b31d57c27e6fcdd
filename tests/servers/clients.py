"""Real clients of model servers (tritonclient, kserve, schemathesis), in an environment of their own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_BIN = Path(__file__).parents[2] / ".venv-clients" / "bin"
_LIMIT_S = 120

RunClient = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run_client(tmp_path_factory: pytest.TempPathFactory) -> RunClient:
    """Give a function that runs a command of the environment, such as `python`, with its arguments."""
    if not (_BIN / "python").exists():
        pytest.skip("there are no clients of model servers: `make servers` installs them")
    home = tmp_path_factory.mktemp("clients")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(command: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(_BIN / command), *map(str, arguments)],
            env={**kept, "HOME": str(home), "DO_NOT_TRACK": "1"},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )

    return run
