"""Clients that ask a deployment, tell what became of it, and wait for what `noria up` does then."""

import http.client
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.workspace.up_harness import Told, Up

from noria.deploy.environments import Move
from noria.deploy.releases import find_standing
from noria.records import Event
from noria.workspace.project import Project

__all__ = ["Client", "Site", "of_deployment", "release_of", "what_will_be"]

PATIENCE_S = 40.0


@dataclass
class Client:
    """Asks one deployment, row by row, over HTTP."""

    name: str
    host: str
    port: int
    seed: int = 1
    statuses: list[int] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)
    connection: http.client.HTTPConnection = field(init=False)
    asked: int = 0

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        self.rng = random.Random(self.seed)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, x: float, each: str, *, customer: str | None = None) -> tuple[int, bytes]:
        inputs = [{"name": "x", "shape": [1], "datatype": "FP64", "data": [x]}]
        if customer is not None:
            inputs.append({"name": "customer", "shape": [1], "datatype": "BYTES", "data": [customer]})
        inputs.append({"name": "prediction_id", "shape": [1], "datatype": "BYTES", "data": [each]})
        found = self._post(f"/v2/models/{self.name}/infer", {"inputs": inputs})
        self.statuses.append(found[0])
        return found

    def tell(self, outcomes: dict[str, float]) -> None:
        """Say what became of predictions."""
        rows = [{"prediction_id": each, "outcome": value} for each, value in outcomes.items()]
        status, told = self._post("/outcomes", {"deployment": self.name, "outcomes": rows})
        assert (status, json.loads(told)["recorded"]) == (200, len(rows)), told

    def traffic(
        self,
        rows: int,
        becomes: Callable[[float, str], float],
        *,
        customers: int = 0,
        pause_s: float = 0.0,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ask for rows one after the other, and tell their outcomes by the hundred."""
        outcomes: dict[str, float] = {}
        for _ in range(rows):
            self.asked += 1
            x, each = self.rng.choice([-1.0, 1.0]), f"{self.name}-{self.seed}-{self.asked}"
            customer = f"c{self.rng.randrange(customers)}" if customers else None
            status, answer = self.ask(x, each, customer=customer)
            if status == 200:
                release = release_of(answer)
                self.releases.append(release)
                outcomes[each] = becomes(x, release)
            if len(outcomes) == 100:
                self.tell(outcomes)
                outcomes = {}
            if until():
                break
            time.sleep(pause_s)
        if outcomes:
            self.tell(outcomes)

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        self.connection.request("POST", path, json.dumps(body))
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def release_of(answer: bytes) -> str:
    return str(next(e for e in json.loads(answer)["outputs"] if e["name"] == "release")["data"][0])


def what_will_be(x: float, release: str) -> float:
    return float(x > 0)


@dataclass
class Site:
    """A project, and the `noria up` over it."""

    project: Project
    up: Up
    host: str
    port: int

    def client(self, name: str, seed: int = 1) -> Client:
        return Client(name, self.host, self.port, seed)

    def follows(self, move: Move) -> None:
        """Wait until the server answers by a move."""
        self.up.wait_for("serving", lambda told: move.pointer.reason in told["message"])

    def wait_for_event(self, verb: str, holds: Callable[[Event], bool]) -> Event:
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            found = [each for each in self.project.ledger.list_events(verb=verb) if holds(each)]
            if found:
                return found[0]
            time.sleep(0.1)
        raise AssertionError((verb, [each for each in self.up.told if each["kind"] != "run"][-6:]))

    def wait_for_stable(self, name: str, model: str) -> None:
        """Wait until a trial has ended, with this model in production."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            pointer = self.project.ledger.find_pointer("production", name)
            assert pointer is not None
            standing = find_standing(self.project.ledger, environment="production", deployment=name)
            if pointer.stable and standing is not None and standing.model.ref == model:
                return
            time.sleep(0.1)
        raise AssertionError([each for each in self.up.told if each["kind"] != "run"][-6:])

    def verbs(self, name: str) -> list[str]:
        """Tell what put a model where it is: the verbs of the chain, the last move first."""
        return [each.verb for each in self.project.why(f"{name}@production").links]


def of_deployment(name: str) -> Callable[[Told], bool]:
    """Tell what is said of a deployment."""

    def holds(told: Told) -> bool:
        return bool(told["facts"]["deployment"] == name)

    return holds
