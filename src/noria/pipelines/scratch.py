"""The folder for files on their way: what belongs to which process, and what dead ones left there.

Below the scratch folder lie `logs/RUN.log`, what steps at work have printed, and `work/OWNER…`, a folder for
each executor and each loop at work. Its name tells which process made it, so others see whether that lives; a
loop notes in its folder whose logs are its own.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noria.ledger.processes import Process, is_gone, this_process
from noria.pipelines.executor import log_path
from noria.records import sha256_hex

__all__ = ["Desk", "own_folder", "remove_folder", "sweep", "working_below"]

_RUNS = "runs"  # file of a loop's folder: the runs whose logs it may have left
_FOREIGN_AFTER_S = 7 * 86_400.0  # a folder whose process cannot be seen from here is left alone for so long


class Desk:
    """What a loop has below the scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.folder = own_folder(scratch)
        (scratch / "logs").mkdir(exist_ok=True)
        self._scratch, self._scratch_text = scratch, str(scratch)
        self._runs = os.open(self.folder / _RUNS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log_of(self, run: str) -> str:
        """Give the file for the log of a run, which is removed if this process dies."""
        os.write(self._runs, f"{run}\n".encode())
        return log_path(self._scratch_text, run)

    def clear(self) -> None:
        """Remove all that is left of it."""
        os.close(self._runs)
        _remove_loop(self._scratch, self.folder)


def own_folder(scratch: Path) -> Path:
    """Make a folder that belongs to this process."""
    parent = scratch / "work"
    parent.mkdir(parents=True, exist_ok=True)
    process = this_process()
    name = f"{_place(process)}-{process.pid}-{process.started.replace(' ', '_')}-"
    return Path(tempfile.mkdtemp(prefix=name, dir=parent))


def remove_folder(folder: Path) -> None:
    """Remove a folder with what is in it, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def working_below(scratch: Path) -> Iterator[Desk]:
    """Have a desk; what dead processes left beside it is removed."""
    sweep(scratch)
    desk = Desk(scratch)
    try:
        yield desk
    finally:
        desk.clear()


def sweep(scratch: Path) -> None:
    """Remove what dead processes left."""
    try:
        folders = list((scratch / "work").iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        if _is_abandoned(folder):
            _remove_loop(scratch, folder)


def _remove_loop(scratch: Path, folder: Path) -> None:
    try:
        runs = (folder / _RUNS).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        runs = []  # of an executor, or another process removes it as well
    for run in runs:
        Path(log_path(str(scratch), run)).unlink(missing_ok=True)
    remove_folder(folder)


def _place(process: Process) -> str:
    return sha256_hex(f"{process.host} {process.boot}".encode())[:8]


def _is_abandoned(folder: Path) -> bool:
    parts, here = folder.name.split("-"), this_process()
    if len(parts) >= 4 and parts[0] == _place(here) and parts[1].isdecimal():
        started = parts[2].replace("_", " ")
        return is_gone(Process(host=here.host, boot=here.boot, pid=int(parts[1]), started=started)) is True
    try:
        return time.time() - folder.stat().st_mtime > _FOREIGN_AFTER_S
    except FileNotFoundError:
        return False
