"""Runs of pipelines as child processes: started, collected, stopped.

A child outlives this process if that is killed, and the same job started again waits for it: so nothing is
lost and nothing is done twice. What a child prints goes to files without a name.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from noria.workspace.up.records import Job, Outcome, Working

__all__ = ["Argv", "Runner", "pipeline_argv", "signal_name"]

Argv = Callable[[Job], Sequence[str]]

_MOST_BYTES = 1 << 24
_TAIL_BYTES = 4_000
_POLL_S = 0.02
_EXIT_STORE = 9  # of `StoreError`: the database was away
_EXIT_CANCELLED = 11  # of `RunCancelled`
_EXIT_INTERRUPTED = 130


def pipeline_argv(root: Path) -> Argv:
    """Give what starts a job: `noria pipeline run`, which is idempotent by its key."""

    def argv(job: Job) -> Sequence[str]:
        params = ["--params-json", msgspec.json.encode(job.params).decode()]
        options = ["--project", str(root), "--key", job.key, "--cause", job.because, "--json"]
        # -P: the project's folder, where the child begins, does not hide modules of Python's own
        return [sys.executable, "-P", "-m", "noria", "pipeline", "run", job.pipeline, *params, *options]

    return argv


class _Child:
    def __init__(self, job: Job, argv: Sequence[str], *, folder: Path, at: datetime) -> None:
        self.job, self.at = job, at
        self.out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `outcome`
        self.err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=self.out,
                stderr=self.err,
                start_new_session=True,  # Ctrl-C goes to this process, which stops the child
            )
        except OSError:
            self.out.close()
            self.err.close()
            raise

    def outcome(self) -> Outcome:
        """Tell how it ended, from its exit code and what it printed."""
        code = self.process.wait()
        said, complained = _read(self.out), _read(self.err)
        self.out.close()
        self.err.close()
        answer, error = _record(said), _record(complained)
        run = _text(answer, "run", "id")
        if code == 0:
            return Outcome(outcome="finished", reason=f"run {run or self.job.key} finished", run=run)
        if code < 0:
            return Outcome(
                outcome="failed",
                reason=f"its process was ended by {signal_name(-code)}",
                run=run,
                may_be_repeated=True,
            )
        reason = (
            _text(answer, "error", "message")
            or _text(error, "error", "message")
            or _tail(complained)
            or _tail(said)
            or f"its process ended with code {code} and said nothing"
        )
        is_cancelled = code == _EXIT_CANCELLED
        return Outcome(
            outcome="cancelled" if is_cancelled else "failed",
            reason=reason,
            run=run,
            may_be_repeated=code in {_EXIT_STORE, _EXIT_INTERRUPTED},
        )

    def end(self, number: int) -> None:
        """Send a signal: SIGKILL to all that the child started too, others to the child alone."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)


class Runner:
    """Child processes, one for each job at work. For one thread.

    Parameters
    ----------
    folder
        Where children begin: the project's.
    argv
        What starts a job.
    """

    def __init__(self, folder: Path, argv: Argv) -> None:
        self._folder, self._argv = folder, argv
        self._children: dict[str, _Child] = {}

    def __len__(self) -> int:
        return len(self._children)

    def is_at_work(self, job: Job) -> bool:
        """Whether a job's process lives."""
        return job.key in self._children

    def has_pipeline(self, name: str) -> bool:
        """Whether a run of that pipeline is at work."""
        return any(child.job.pipeline == name for child in self._children.values())

    def working(self) -> tuple[Working, ...]:
        """List what is at work."""
        return tuple(
            Working(pipeline=child.job.pipeline, key=child.job.key, pid=child.process.pid, since=child.at)
            for child in self._children.values()
        )

    def start(self, job: Job, *, at: datetime) -> int:
        """Start a job's process and give its pid."""
        child = _Child(job, self._argv(job), folder=self._folder, at=at)
        self._children[job.key] = child
        return child.process.pid

    def reap(self) -> Iterator[tuple[Job, Outcome]]:
        """Give the jobs whose process has ended since the last call."""
        for key, child in list(self._children.items()):
            if child.process.poll() is not None:
                del self._children[key]
                yield child.job, child.outcome()

    def stop(self, *, within_s: float) -> list[tuple[Job, Outcome]]:
        """Ask all children to end, kill those that do not, and give what became of them."""
        for child in self._children.values():
            child.end(signal.SIGTERM)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and any(
            child.process.poll() is None for child in self._children.values()
        ):
            time.sleep(_POLL_S)
        self.kill()
        return list(self.reap())

    def kill(self) -> None:
        """End all children at once, with all that they started."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.end(signal.SIGKILL)
                child.process.wait()


def _read(file: IO[bytes]) -> bytes:
    """Give the end of what was printed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_BYTES))
    return file.read()


def _record(printed: bytes) -> dict[str, Any]:
    """Give the JSON object that was printed last; empty if there is none."""
    for start in (0, printed.rfind(b"\n{") + 1):
        try:
            return msgspec.json.decode(printed[start:], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return {}


def _text(record: dict[str, Any], *names: str) -> str | None:
    """Give a text by its name; where an object is found instead, the text of the next name inside it."""
    name, *more = names
    match record.get(name):
        case str(text) if text:
            return text
        case dict(inner) if more:
            return _text(inner, *more)
    return None


def _tail(text: bytes) -> str:
    """Give the last line that says something."""
    lines = text[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def signal_name(number: int) -> str:
    """Name a signal, such as `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
