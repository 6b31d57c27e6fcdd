"""Which process this is, and whether another one still lives."""

import os
import socket
import subprocess
from functools import cache
from pathlib import Path

import msgspec

__all__ = ["Process", "is_gone", "this_process"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STARTED_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket; state is 0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process, told apart from a later one that gets its pid."""

    host: str
    boot: str  # of the machine, and the space of pids inside it (containers have their own)
    pid: int
    started: str  # by the operating system's account

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def this_process() -> Process:
    """Give the process that calls."""
    return _process(os.getpid())


def is_gone(process: Process) -> bool | None:
    """Tell whether a process has ended; None if that cannot be seen from here (another machine)."""
    here = this_process()
    if (process.host, process.boot) != (here.host, here.boot):
        return None
    return process != here and _started(process.pid) != process.started


@cache
def _process(pid: int) -> Process:
    return Process(host=socket.gethostname(), boot=_boot(), pid=pid, started=_started(pid) or "")


def _boot() -> str:
    try:
        return f"{_BOOT_ID.read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Give when a process began; None if there is none (or it has ended and waits to be collected)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X", b"x"} else fields[_STARTED_FIELD].decode()


def _started_by_ps(pid: int) -> str | None:
    """Ask `ps`, which systems without /proc have."""
    command = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return None if not words or words[-1].startswith("Z") else " ".join(words[:-1])
