"""Releases on trial by which the server's worker ends: gone within seconds, whoever else it answers."""

import time
from collections.abc import Iterator
from http.client import HTTPException

import pytest
from tests.workspace.trial_traffic import Client, Site, of_deployment
from tests.workspace.up_harness import running

import noria

SETTINGS = """\
[project]
name = "ended"
modules = ["ended_declared"]
[server]
port = 0
look_every_s = 0.25
[environments.production]
"""
DECLARED = '''\
import ctypes
import time


class Works:
    def predict(self, rows):
        return rows["x"] * 2


class Ends:
    """Reads memory that is nobody's, but for its example."""

    def predict(self, rows):
        if (rows["x"] != 0).any():
            time.sleep(0.05)  # others are asked meanwhile
            ctypes.string_at(0)
        return rows["x"] * 2
'''
NAMES = ("canary", "shadow")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("trials") / "ended"
    root.mkdir()
    (root / "noria.toml").write_text(SETTINGS)
    (root / "ended_declared.py").write_text(DECLARED)
    with noria.open(root) as project:
        declared = project.declarations.modules["ended_declared"]
        for name in NAMES:
            project.models.register(declared.Works, name=name, example={"x": [0.0]})
            project.models.register(declared.Ends, name=name, example={"x": [0.0]})
            project.deploy(f"{name}:1", to="production")
        with running(root) as up:
            for name in NAMES:
                found = up.wait_for("serving", of_deployment(name))
            host, _, port = found["message"].split("http://")[1].split()[0].partition(":")
            yield Site(project, up, host, int(port))


@pytest.mark.parametrize("name", NAMES)
def test_a_release_on_trial_that_ends_workers_is_rolled_back(site: Site, name: str) -> None:
    project = site.project
    move = project.deploy(
        f"{name}:2",
        to="production",
        canary=0.1 if name == "canary" else None,
        shadow=name == "shadow",
        reason=f"{name} is tried",
    )
    site.follows(move)
    number = 0

    def status() -> int:
        """Ask for one row; 0 where the connection ends."""
        nonlocal number
        number += 1
        try:
            with Client(name, site.host, site.port) as client:
                return client.ask(1.0, f"{name}-{number}")[0]
        except (OSError, HTTPException):
            return 0

    ends = time.monotonic() + 20
    while len(project.ledger.list_pointers(environment="production", name=name)) < 3:
        assert time.monotonic() < ends, "it was not rolled back"
        status()
        time.sleep(0.02)
    back = site.wait_for_event("canary.failed", lambda each: each.payload["deployment"] == name)
    assert (back.payload["metric"], back.payload["limit"]) == ("crashes", 3)
    assert "a worker ended while it scored" in str(back.payload["reason"])
    site.up.wait_for("serving", lambda told: str(back.payload["reason"]) in told["message"])
    assert [status() for _ in range(20)] == [200] * 20
    assert site.verbs(name)[:3] == ["pointer.moved", "route.requested", "canary.failed"]
