"""Starts processes of `noria up` for tests, and reads what they tell."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger

UP_PROCESS = Path(__file__).with_name("up_process.py")
PATIENCE_S = 30.0

Told = dict[str, Any]


class Up:
    """One process, and the lines that it printed."""

    def __init__(self, command: list[str], *, cwd: Path) -> None:
        self.told: list[Told] = []
        self.errors = ""
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._readers = [
            threading.Thread(target=each, daemon=True) for each in (self._read, self._read_errors)
        ]
        for each in self._readers:
            each.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self.told.append(
                        json.loads(line) if line.startswith("{") else {"kind": "line", "text": line}
                    )
                    self._news.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.errors = lines.read()

    def wait_for(self, kind: str, holds: Callable[[Told], bool] = lambda told: True) -> Told:
        """Give the first thing of this kind that was told, as soon as it is."""
        until = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                found = [each for each in self.told if each["kind"] == kind and holds(each)]
                if found:
                    return found[0]
                left = until - time.monotonic()
                assert left > 0 and self.process.poll() is None, f"{kind}: {self.told[-8:]}\n{self.errors}"
                self._news.wait(min(left, 0.2))

    def wait_for_role(self, role: str) -> Told:
        return self.wait_for("role", lambda told: told["facts"]["role"] == role)

    @property
    def url(self) -> str:
        return str(self.wait_for("started")["facts"]["url"])

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        """Send SIGTERM and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_S)
        for each in self._readers:
            each.join(PATIENCE_S)
        return code

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask the control plane; give status and answer. With a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, dict(headers or {"content-type": "application/json"}))
        try:
            with urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


class Site:
    """A project in a folder, with a place where the stand-in writes down what it did."""

    def __init__(self, folder: Path, database: str) -> None:
        self.root, self.runs, self.database = folder / "site", folder / "runs", database
        self.root.mkdir()
        self.runs.mkdir()
        self.settings = {"look_every_s": 0.25, "lease_s": 3, "stop_within_s": 1}
        self.declare()

    def declare(
        self, *, period: str = "1s", policy: str = "all", pipelines: tuple[str, ...] = ("beat",)
    ) -> None:
        """Write the project: each pipeline with a trigger, every so often."""
        server = "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        (self.root / "noria.toml").write_text(
            f'[project]\nname = "site"\nmodules = ["site_declared"]\n'
            f'[stores]\ndatabase = "{self.database}"\n[server]\n{server}',
            encoding="utf-8",
        )
        lines = ["import noria", ""]
        for name in pipelines:
            lines += ["@noria.pipeline", f"def {name}(month: str = '2024-01') -> None: ...", ""]
            lines += [
                f"by_{name} = noria.Trigger(noria.every('{period}', catch_up='{policy}'), run={name})",
                "",
            ]
        (self.root / "site_declared.py").write_text("\n".join(lines), encoding="utf-8")

    @contextmanager
    def up(self) -> Iterator[Up]:
        """Give a process that leads or waits; it is killed at the end of the block, if it still lives."""
        command = [sys.executable, str(UP_PROCESS), str(self.root), str(self.runs)]
        process = Up(command, cwd=self.root)
        try:
            process.wait_for("role")
            yield process
        finally:
            process.kill()

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        url = self.database
        if url.startswith("sqlite:///"):
            url = f"sqlite:///{self.root / url.removeprefix('sqlite:///')}"
        with Database.open(url) as database:
            yield Ledger(database, clock=WallClock())

    def keys(self, file: str) -> list[str]:
        """List the keys of the runs that `began`, or are `done`."""
        path = self.runs / file
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, file: str, number: int) -> None:
        """Wait until so many runs `began`, or are `done`."""
        until = time.monotonic() + PATIENCE_S
        while len(self.keys(file)) < number:
            assert time.monotonic() < until
            time.sleep(0.05)


@contextmanager
def running(root: Path, *options: str) -> Iterator[Up]:
    """Give `noria up` as people run it; it is killed at the end of the block, if it still lives."""
    up = Up([sys.executable, "-m", "noria", "up", "--json", *options], cwd=root)
    try:
        up.wait_for("role")
        yield up
    finally:
        up.kill()
