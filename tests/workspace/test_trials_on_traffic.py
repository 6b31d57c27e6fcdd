"""Trials on real traffic: `noria up` serves, guards, judges and moves; clients ask, and tell what came of it.

All trials of this file live in one process of `noria up`, each at a deployment of its own.
"""

import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.workspace.trial_traffic import Client, Site, of_deployment, what_will_be
from tests.workspace.up_harness import running

import noria
from noria.deploy.environments import Move
from noria.errors import NotFound

PATIENCE_S = 40.0
SETTINGS = """\
[project]
name = "tried"
modules = ["trials_declared"]
[server]
port = 0
look_every_s = 0.25
judge_every_s = 1.0
verify_share = 0.0
[environments.production]
gate = "proven"
"""
DECLARED = '''\
import time

import noria
import numpy as np
from noria import check
from noria.deploy import ABTest, Bandit

proven = noria.Gate(
    checks=[check.samples_reproduced()],
    canary=noria.Canary(
        share=0.3, days=4 / 86_400, max_days=0.01, min_rows=200, max_worse=0.05,
        max_latency_ratio=4.0, latency="p50",
    ),
)
spring = ABTest(name="spring", metric="conversion", min_effect=0.05, sticky="customer", min_units=100)
prices = Bandit(name="prices", metric="conversion", every="1s", floor=0.1, min_units=40, max_days=0.01)


class Knows:
    """Says what will be."""

    def predict(self, rows):
        return np.where(rows["x"] > 0, 0.9, 0.1)


class Guesses:
    def predict(self, rows):
        return np.where(rows["x"] > 0, 0.6, 0.4)


class Errs:
    """Says the opposite."""

    def predict(self, rows):
        return np.where(rows["x"] > 0, 0.1, 0.9)


class Fails:
    """Answers its example, and nothing else."""

    def predict(self, rows):
        if (rows["x"] != 0).any():
            raise RuntimeError("out of order")
        return rows["x"] * 0.5


class Slow:
    def predict(self, rows):
        time.sleep(0.004)
        return np.where(rows["x"] > 0, 0.9, 0.1)
'''
FIRST, SECOND = (
    {"worse": "Knows", "better": "Guesses", "fails": "Knows", "slow": "Knows", "shaded": "Knows",
     "offers": "Knows", "prices": "Knows"},
    {"worse": "Errs", "better": "Knows", "fails": "Fails", "slow": "Slow", "shaded": "Fails",
     "offers": "Guesses", "prices": "Guesses"},
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("trials") / "tried"
    make_project(root)
    with noria.open(root) as project:
        declared = project.declarations.modules["trials_declared"]
        for version in (FIRST, SECOND):
            for name, model in version.items():
                project.models.register(getattr(declared, model), name=name, example={"x": [0.0]})
        for name in FIRST:
            project.deploy(f"{name}:1", to="production")
        with running(root) as up:
            for name in FIRST:
                found = up.wait_for("serving", of_deployment(name))
            address = found["message"].split("http://")[1].split()[0]
            host, _, port = address.partition(":")
            yield Site(project, up, host, int(port))


def make_project(root: Path) -> None:
    root.mkdir()
    (root / "noria.toml").write_text(SETTINGS)
    (root / "trials_declared.py").write_text(DECLARED)


def buys(rates: dict[str, float], seed: int) -> Callable[[float, str], float]:
    """Give who buys: by the release that answered."""
    rng = random.Random(seed)
    return lambda _, release: float(rng.random() < rates[release])


@pytest.fixture(scope="module")
def judged(site: Site) -> Iterator[dict[str, Move]]:
    """Begin all trials that outcomes judge, and send their traffic; they are judged while tests wait."""
    project = site.project
    moves = {
        "worse": project.deploy("worse:2", to="production", canary=0.3, reason="worse is tried"),
        "better": project.deploy("better:2", to="production", canary=0.3, reason="better is tried"),
        "offers": project.begin_test("spring", "offers:2", to="production"),
        "prices": project.begin_test("prices", "prices:2", to="production"),
    }
    for move in moves.values():
        site.follows(move)
    offers, prices = buys({"offers:1": 0.2, "offers:2": 0.6}, 3), buys({"prices:1": 0.6, "prices:2": 0.1}, 4)

    def send(name: str, rows: int, becomes: Callable[[float, str], float], customers: int) -> None:
        with site.client(name) as client:
            client.traffic(rows, becomes, customers=customers)
            assert set(client.statuses) == {200}

    work = [
        ("worse", 600, what_will_be, 0),
        ("better", 600, what_will_be, 0),
        ("offers", 1_500, offers, 1_000),
        ("prices", 400, prices, 0),
    ]
    threads = [threading.Thread(target=send, args=each) for each in work]
    for thread in threads:
        thread.start()
    yield moves
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("name", "metric", "most"), [("fails", "error_rate", 8), ("slow", "latency_ratio(p50)", 8)]
)
def test_a_canary_that_fails_or_is_slow_is_gone_within_seconds(
    site: Site, judged: dict[str, Move], name: str, metric: str, most: float
) -> None:
    move = site.project.deploy(f"{name}:2", to="production", canary=0.3, reason=f"{name} is tried")
    site.follows(move)

    def is_back() -> bool:
        return len(site.project.ledger.list_pointers(environment="production", name=name)) == 3

    began = time.monotonic()
    with site.client(name) as client:
        client.traffic(4_000, what_will_be, until=is_back)
        took_s = time.monotonic() - began
        back = site.wait_for_event("canary.failed", lambda each: each.payload["deployment"] == name)
        share = client.statuses.count(500) / len(client.statuses)
        site.up.wait_for("serving", lambda told: str(back.payload["reason"]) in told["message"])
        asked = len(client.statuses)
        client.traffic(50, what_will_be, customers=0)
    assert took_s < most
    assert (back.payload["metric"], back.cause) == (metric, move.pointer.event)
    assert back.payload["low"] > back.payload["limit"]
    assert 0.15 < share < 0.45 if name == "fails" else share == 0  # production answered all others
    assert set(client.statuses[asked:]) == {200}
    assert set(client.releases[-50:]) == {f"{name}:1"}
    assert site.verbs(name)[:3] == ["pointer.moved", "route.requested", "canary.failed"]
    assert site.verbs(name)[-1] == "person.asked"


def test_a_shadow_never_changes_an_answer(site: Site) -> None:
    """The shadow is one that fails at all rows but some: those it scores are in the log."""
    rows = [(x, f"row-{number}") for number, x in enumerate([-1.0, 0.0, 1.0, math.pi] * 5)]

    def answers(client: Client, prefix: str) -> list[bytes]:
        found = [client.ask(x, f"{prefix}{each}") for x, each in rows]
        assert {status for status, _ in found} == {200}
        return [body.replace(prefix.encode(), b"") for _, body in found]

    with site.client("shaded") as client:
        before = answers(client, "before-")
        move = site.project.deploy("shaded:2", to="production", shadow=True, reason="seen in the shadow")
        site.follows(move)
        during = answers(client, "during-")
    numbers = [json.loads(each)["parameters"]["route"] for each in (before[0], during[0])]
    assert numbers == [1, 2]
    told = [
        [each.replace(b'"route":%d' % n, b"") for each in found]
        for n, found in zip(numbers, (before, during), strict=True)
    ]
    assert told[0] == told[1]
    ends = time.monotonic() + PATIENCE_S
    scored: list[dict[str, Any]] = []
    while len(scored) < 5 and time.monotonic() < ends:
        time.sleep(0.3)
        if site.project.lake.exists("predictions"):
            scored = site.project.query(
                "select prediction_id, answered, score from predictions where release = 'shaded:2'"
            ).to_pylist()
    assert {each["prediction_id"] for each in scored} == {f"during-{each}" for x, each in rows if x == 0}
    assert {(each["answered"], each["score"]) for each in scored} == {(False, 0.0)}
    state = site.project.trial("shaded@production")
    assert (state.kind, state.shares, state.found) == ("shadow", {"shaded:1": 1.0, "shaded:2": 0.0}, None)


def test_a_canary_that_is_worse_by_its_outcomes_is_rolled_back(site: Site, judged: dict[str, Move]) -> None:
    site.wait_for_stable("worse", "worse:1")
    found = site.wait_for_event("canary.failed", lambda each: each.payload["deployment"] == "worse")
    assert (found.payload["metric"], found.cause) == ("log_loss", judged["worse"].pointer.event)
    assert found.payload["low"] > found.payload["limit"] == 0.05
    assert found.payload["rows"] >= 200
    assert site.verbs("worse")[:3] == ["pointer.moved", "route.requested", "canary.failed"]


def test_a_canary_that_is_better_is_promoted(site: Site, judged: dict[str, Move]) -> None:
    site.wait_for_stable("better", "better:2")
    found = site.wait_for_event("canary.passed", lambda each: each.payload["deployment"] == "better")
    assert found.payload["worse"] < 0
    assert found.payload["days"] >= 4 / 86_400
    chain = site.verbs("better")
    assert chain[:3] == ["pointer.moved", "route.requested", "canary.passed"]
    assert chain[-1] == "person.asked"
    with pytest.raises(NotFound, match="trial"):
        site.project.trial("better@production")


def test_an_ab_test_keeps_its_customers_and_ends_with_its_winner(site: Site, judged: dict[str, Move]) -> None:
    site.wait_for_stable("offers", "offers:2")
    found = site.wait_for_event("test.concluded", lambda each: each.payload["deployment"] == "offers")
    told = found.payload
    assert (told["decision"], told["winner"], told["metric"]) == ("winner", "offers:2", "conversion")
    units = [told["first"]["units"], *(each["units"] for each in told["others"])]
    assert 100 <= min(units) <= sum(units) <= 1_000  # customers, not rows
    assert told["others"][0]["low"] > 0
    rows = site.project.query(
        "select inputs.customer as who, count(distinct release) as releases from predictions "
        "where deployment = 'offers' and answered and route_number = 2 group by 1"
    ).to_pylist()
    assert len(rows) > 300
    assert {each["releases"] for each in rows} == {1}
    assert "test.began" in site.verbs("offers")
    site.up.wait_for("serving", lambda told: found.payload["reason"] in told["message"])
    with site.client("offers", seed=2) as client:  # clients go on to bring the column that assigned
        client.traffic(20, buys({"offers:1": 0.2, "offers:2": 0.6}, 7), customers=10)
        assert (set(client.statuses), set(client.releases)) == ({200}, {"offers:2"})


def test_a_bandit_moves_its_shares_to_the_better_release(site: Site, judged: dict[str, Move]) -> None:
    moved = site.wait_for_event("bandit.moved", lambda each: each.payload["deployment"] == "prices")
    assert moved.payload["before"] == {"prices:1": 0.5, "prices:2": 0.5}
    assert moved.payload["shares"]["prices:1"] > 0.85
    assert moved.payload["units"]["prices:1"] >= 40
    site.up.wait_for("serving", lambda told: moved.payload["reason"] in told["message"])
    state = site.project.trial("prices@production")
    assert (state.kind, state.name, state.shares) == ("bandit", "prices", moved.payload["shares"])
    with site.client("prices", seed=2) as client:
        client.traffic(300, buys({"prices:1": 0.6, "prices:2": 0.1}, 5))
    assert client.releases.count("prices:1") / 300 > 0.75


def test_noria_serve_guards_a_canary_too(tmp_path: Path) -> None:
    root = tmp_path / "tried"
    make_project(root)
    command = [sys.executable, "-u", "-m", "noria", "serve", "fails@production", "--json", "--port", "0"]
    with noria.open(root) as project:
        declared = project.declarations.modules["trials_declared"]
        for model in ("Knows", "Fails"):
            project.models.register(getattr(declared, model), name="fails", example={"x": [0.0]})
        project.deploy("fails:1", to="production")
        server = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            address = next(line for line in server.stdout if '"address"' in line).split("http://")[1]
            host, _, port = address.split('"')[0].partition(":")
            project.deploy("fails:2", to="production", canary=0.3)

            def is_back() -> bool:
                return len(project.ledger.list_pointers(environment="production", name="fails")) == 3

            with Client("fails", host, int(port)) as client:
                client.traffic(8_000, what_will_be, until=is_back)
            assert is_back()
            (found,) = project.ledger.list_events(verb="canary.failed")
            assert found.payload["metric"] == "error_rate"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)
