"""kill -9 at random instants of an export, an import, a backup and a restore: the same command makes it good.

Every attempt is a fork of one process that has imported all, so that a kill costs no start.
"""

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workspace.backed_up import check_whole, fill_all, rows_of, sqlite_url
from tests.workspace.moving_stores import differences, make_project

import noria
from noria.errors import NotFound
from noria.workspace.moving.backup import backups_in
from noria.workspace.moving.checks import check_backups
from noria.workspace.moving.restoring_backup import restore_backup

_FORKS = """
import os, signal, sys, time
from pathlib import Path
import noria
import noria.workspace.moving.exporting
import noria.workspace.moving.importing_export_models
import noria.workspace.moving.backup
import noria.workspace.moving.importing_export_versions
import noria.workspace.moving.importing_export_runs
from noria.workspace.moving.restoring_backup import restore_backup

for line in sys.stdin:
    verb, root, folder, seconds = line.rstrip("\\n").split("\\t")
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        if float(seconds):
            signal.setitimer(signal.ITIMER_REAL, float(seconds))  # SIGALRM ends a process as SIGKILL does
        try:
            if verb == "restore":
                restore_backup(Path(folder), Path(root))
            else:
                with noria.open(root) as project:
                    getattr(project, verb)(folder)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - begun, flush=True)
"""
_COUNTS = [pytest.param(3, id="a slice"), pytest.param(60, id="whole", marks=pytest.mark.soak)]


class _Attempts:
    """Asks for a verb, and may kill who does it."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.kills = 0

    def close(self) -> None:
        self._process.communicate()
        self._log.close()

    def run(self, verb: str, root: Path, folder: Path, *, within_s: float = 0.0) -> tuple[bool, float]:
        """Tell whether it came to its end, and the seconds that it took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{verb}\t{root}\t{folder}\t{within_s}\n")
        self._process.stdin.flush()
        code, took = self._process.stdout.readline().split()
        self._log.seek(0)
        assert int(code) in {0, -signal.SIGALRM}, self._log.read()
        self.kills += int(code) != 0
        return int(code) == 0, float(took)


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[_Attempts]:
    found = _Attempts(tmp_path / "errors.txt")
    yield found
    found.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_all(tmp_path_factory.mktemp("killed") / "from")


@pytest.mark.parametrize("count", _COUNTS)
def test_an_export_that_is_killed_is_none_or_whole(
    filled: Path, tmp_path: Path, attempts: _Attempts, count: int
) -> None:
    draw, folder = random.Random(1), tmp_path / "out"
    _, took = attempts.run("export", filled, tmp_path / "first")
    while attempts.kills < count:
        attempts.run("export", filled, folder, within_s=draw.uniform(0.001, took))
        if folder.exists():
            assert differences(tmp_path / "first", folder) == []
            shutil.rmtree(folder)
    attempts.run("export", filled, folder)
    assert differences(tmp_path / "first", folder) == []
    assert not list(tmp_path.glob(".*exporting"))


@pytest.mark.parametrize("count", _COUNTS)
def test_an_import_that_is_killed_goes_on(
    filled: Path, tmp_path: Path, attempts: _Attempts, count: int
) -> None:
    draw, exported = random.Random(2), tmp_path / "exported"
    with noria.open(filled) as project:
        project.export(exported)
    _, took = attempts.run("import_export", make_project(tmp_path / "first"), exported)
    number = 0
    while attempts.kills < count:
        number += 1
        root = make_project(tmp_path / f"to{number}")
        for _ in range(4):
            if attempts.run("import_export", root, exported, within_s=draw.uniform(0.001, took))[0]:
                break
        attempts.run("import_export", root, exported)
        with noria.open(root) as project:
            assert project.ledger.verify().ok
            project.export(tmp_path / f"back{number}")
        assert differences(exported, tmp_path / f"back{number}") == []


@pytest.mark.parametrize("count", _COUNTS)
def test_a_backup_that_is_killed_leaves_whole_ones_alone(
    filled: Path, tmp_path: Path, attempts: _Attempts, count: int
) -> None:
    draw, took = random.Random(3), attempts.run("backup", filled, tmp_path / "first")[1]
    while attempts.kills < count:
        if draw.random() < 0.3:
            shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        attempts.run("backup", filled, tmp_path / "kept", within_s=draw.uniform(0.001, took))
        try:
            assert check_backups(tmp_path / "kept").damaged == ()
        except NotFound:
            continue  # it did not even begin
    attempts.run("backup", filled, tmp_path / "kept")
    with noria.open(filled) as project:
        project.backup(tmp_path / "kept", keep=1)
    assert len(backups_in(tmp_path / "kept")) == 1
    assert check_backups(tmp_path / "kept").damaged == ()
    restore_backup(tmp_path / "kept", tmp_path / "to")
    assert rows_of(sqlite_url(tmp_path / "to")) == rows_of(sqlite_url(filled))
    check_whole(tmp_path / "to")


@pytest.mark.parametrize("count", _COUNTS)
def test_a_restore_that_is_killed_again_and_again_goes_on(
    filled: Path, tmp_path: Path, attempts: _Attempts, count: int
) -> None:
    draw, kept = random.Random(4), tmp_path / "kept"
    with noria.open(filled) as project:
        project.backup(kept)
    _, took = attempts.run("restore", tmp_path / "first", kept)
    number = 0
    while attempts.kills < count:
        number += 1
        root = tmp_path / f"to{number}"
        for _ in range(4):
            if attempts.run("restore", root, kept, within_s=draw.uniform(0.001, took))[0]:
                break
        else:
            attempts.run("restore", root, kept)
        assert rows_of(sqlite_url(root)) == rows_of(sqlite_url(filled))
        check_whole(root)
