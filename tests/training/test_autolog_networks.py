"""`noria.autolog()` of Keras and Lightning, where `make frameworks` has installed them."""

import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PYTHON = _ROOT / ".venv-frameworks" / "bin" / "python"
_PROGRAMS = Path(__file__).parent / "framework_programs"


@pytest.mark.soak
@pytest.mark.parametrize("name", ["keras", "lightning"])
def test_a_training_logs_itself_and_is_the_same(name: str, tmp_path: Path) -> None:
    if not _PYTHON.exists():
        pytest.skip("there are no Keras and Lightning: `make frameworks` installs them (6 GB)")
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    kept = {each: value for each, value in os.environ.items() if not each.startswith("PYTHON")}
    done = subprocess.run(
        [_PYTHON, _PROGRAMS / f"{name}_fit.py"],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(_ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.stdout.splitlines()[-1].endswith("is followed")
