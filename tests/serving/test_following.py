"""Servers follow the pointer of their environment within a second, and go on without a ledger."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.postgres import Postgres, postgres_server, postgres_url
from tests.serving.load_client import ROWS
from tests.serving.loaded_project import free_port, make_project, register
from tests.workspace.up_harness import running

import noria
from noria.errors import DeploymentError
from noria.serving.client import InferError, ServingClient
from noria.workspace.project import Project

__all__ = ["postgres_server", "postgres_url"]  # fixtures

PATIENCE_S = 20.0


def answering(port: int) -> str:
    """Give the version that answers for the first row."""
    client = ServingClient("127.0.0.1", port)
    try:
        columns = {name: [value] for name, value in zip("abc", ROWS[0], strict=True)}
        return str(client.infer("late", columns).versions[0])
    finally:
        client.close()


def follows_after(project: Project, port: int, version: str) -> float:
    """Move the pointer; give how long after it an answer is by the version, in seconds."""
    project.deploy(f"late:{version}", to="production")
    moved = time.monotonic()
    while answering(port) != version:
        assert time.monotonic() - moved < PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - moved


def wait_until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 3 * PATIENCE_S
    while True:
        try:
            answering(port)
        except (OSError, DeploymentError, InferError):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@contextmanager
def serving(root: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "noria", "serve", "late@production", "--project", str(root)]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_noria_up_follows_a_move_within_a_second(tmp_path: Path) -> None:
    root, port = tmp_path / "loaded", free_port()
    make_project(root, "sqlite:///.noria/noria.db", port)
    with noria.open(root) as project:
        register(project)
        project.deploy("late:1", to="production")
        with running(root) as up:
            wait_until_it_answers(port)
            lags = [follows_after(project, port, version) for version in ("2", "1", "2", "1")]
            assert min(lags) < 1.0  # the least: this machine may be busy
            assert up.stop() == 0


def test_noria_serve_follows_and_goes_on_while_the_ledger_is_away(
    tmp_path: Path, postgres_server: Postgres, postgres_url: str
) -> None:
    root, port = tmp_path / "loaded", free_port()
    make_project(root, postgres_url, port)
    with noria.open(root) as project:
        register(project)
        project.deploy("late:1", to="production")
        with serving(root, port) as process:
            wait_until_it_answers(port)
            assert min(follows_after(project, port, version) for version in ("2", "1", "2")) < 1.0
            postgres_server.stop()
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert answering(port) == "2"
                time.sleep(0.05)
            postgres_server.start()
            with noria.open(root) as again:
                follows_after(again, port, "1")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE_S)
        assert "answers as before: " in output, output + errors
        with noria.open(root) as again:
            rows = again.query("select count(*), count(distinct prediction_id) from predictions").to_pylist()
    (counted,) = (tuple(each.values()) for each in rows)
    assert counted[0] == counted[1] > 30
