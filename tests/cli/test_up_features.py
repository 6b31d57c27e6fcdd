"""`noria up` keeps online features up: real processes, real streams, real kills."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.workspace.up_harness import Up, running

import noria
from noria.errors import NoriaError

DECLARED = """
import noria
from noria import agg

clicks = noria.Dataset("clicks", key="id", event_at="at",
                       schema={"id": "string", "at": "timestamp[us, tz=UTC]", "page": "string"})
stream = noria.Stream("clicks", into=clicks, every="100ms")
page = noria.FeatureView("page", source=stream, entity="page", freshness="30s", features={
    "n_1d": agg.count("1d")})
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "noria.toml").write_text(
        '[project]\nname = "site"\nmodules = ["up_features_declared"]\n'
        "[server]\nport = 0\nlook_every_s = 0.2\nlease_s = 3\nfeatures_every_s = 0.05\n"
    )
    (root / "up_features_declared.py").write_text(DECLARED)
    return root


class Visitors:
    """Pushes clicks over HTTP, and knows how many there were."""

    def __init__(self, up: Up) -> None:
        self.up, self.sent = up, 0

    def click(self, number: int = 10) -> None:
        now = datetime.now(UTC).isoformat()
        events = [
            {"id": f"{self.sent + each}", "at": now, "page": "ab"[(self.sent + each) % 2]}
            for each in range(number)
        ]
        self.sent += number
        status, _ = self.up.ask("/streams/clicks", events)  # type: ignore[arg-type]
        assert status in (200, 202), status


def counted(root: Path) -> float | str:
    with noria.open(root) as project:
        try:
            found = project.features.get(["page"], {"page": ["a", "b"]})
        except NoriaError as error:
            return str(error)
        return float(sum(found.column("page__n_1d").to_pylist()))


def wait_for(holds: Callable[[], bool], what: Callable[[], Any], *, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


def wait_until_counted(up: Up, root: Path, number: int) -> None:
    wait_for(lambda: counted(root) == number, lambda: (counted(root), number, up.told[-6:]))


def follower(up: Up) -> int:
    """Give the process that follows now."""
    begun = [each for each in up.told if "online features are kept up by process" in str(each.get("message"))]
    return int(begun[-1]["message"].rpartition(" ")[2])


def test_events_count_online_soon_and_whoever_is_killed(site: Path) -> None:
    with running(site) as up:
        visitors = Visitors(up)
        visitors.click()
        wait_until_counted(up, site, visitors.sent)
        for _ in range(3):
            visitors.click()
            pid = follower(up)
            os.kill(pid, signal.SIGKILL)
            visitors.click()
            wait_for(lambda gone=pid: follower(up) != gone, lambda: up.told[-5:])  # type: ignore[misc]
            wait_until_counted(up, site, visitors.sent)
        state = up.ask("/api/noria/status")[1]["up"]["features"]
        assert [(each["view"], each["error"], each["is_stale"]) for each in state] == [("page", None, False)]
        with noria.open(site) as project:
            (listed,) = project.features.list()
            assert (listed.online, listed.behind_s, listed.is_stale) == ("current", 0.0, False)
            assert project.features.compare("page").different == 0
        assert up.stop() == 0
        assert up.errors == ""


def test_a_store_that_is_deleted_or_overwritten_is_made_anew(site: Path) -> None:
    path = site / ".noria" / "online" / "data.mdb"
    with running(site) as up:
        visitors = Visitors(up)
        visitors.click()
        wait_until_counted(up, site, visitors.sent)
        path.unlink()
        assert isinstance(counted(site), str)
        told = up.wait_for("warning", lambda told: "deleted" in told["message"])
        assert told["message"].startswith("page made anew from the tables")
        visitors.click()
        wait_until_counted(up, site, visitors.sent)
        path.write_bytes(b"\xff" * path.stat().st_size)
        up.wait_for("warning", lambda told: "made anew" in told["message"] and told is not None)
        visitors.click()
        wait_until_counted(up, site, visitors.sent)
        assert up.stop() == 0
    with noria.open(site) as project:
        assert len(project.ledger.list_events(verb="features.rebuilt")) == 2


def test_of_two_processes_one_follows_and_materialize_and_a_new_definition_go_between(site: Path) -> None:
    with running(site) as one:
        visitors = Visitors(one)
        visitors.click()
        wait_until_counted(one, site, visitors.sent)
        with running(site) as other:
            with noria.open(site) as project:
                assert project.features.materialize()[0].rows == visitors.sent
            visitors.click()
            wait_until_counted(one, site, visitors.sent)
            assert not [each for each in other.told if each["kind"] == "features"]
            one.kill()
            visitors.up = other
            other.wait_for("features")
            visitors.click()
            wait_until_counted(other, site, visitors.sent)
            path = site / "up_features_declared.py"
            path.write_text(path.read_text().replace('"1d"', '"2d"'))
            other.wait_for("features", lambda told: "is loaded" in told["message"])
            wait_until_counted(other, site, visitors.sent)
            assert other.stop() == 0
    told = json.dumps(other.told)
    assert "Traceback" not in told
