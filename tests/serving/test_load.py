"""`noria up` serves under load while models are swapped, workers are killed and the ledger goes away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from tests.servers.postgres import Postgres, postgres_server, postgres_url
from tests.serving.load_client import Line
from tests.serving.loaded_project import DEPLOYMENTS, free_port, make_project, register
from tests.workspace.up_harness import Up, running

import noria
from noria.errors import StoreError
from noria.serving.records import ServerStatus, read_record
from noria.workspace.project import Project

__all__ = ["postgres_server", "postgres_url"]  # fixtures

CLIENT = Path(__file__).with_name("load_client.py")
CLIENTS, CONNECTIONS = 2, 8  # processes, and of each
CUT_S = 2.0  # after a kill: connections that were cut by it


@dataclass(frozen=True)
class Plan:
    """How long, and how often what happens; in seconds."""

    load: float
    swap: float
    kill: float
    pause: float  # of a connection between two requests, on average
    away: tuple[tuple[float, float], ...]  # when the ledger goes away, and for how long

    @property
    def kills(self) -> int:
        """How many workers are killed at least."""
        return int(self.load // self.kill) - 1


SLICE = Plan(load=20, swap=3, kill=8, pause=0.06, away=((5.5, 2.0), (13.5, 2.0)))
FULL = Plan(load=600, swap=10, kill=30, pause=0.02, away=((95, 60), (335, 60)))


@dataclass
class Moved:
    """A move of a deployment's pointer."""

    deployment: str
    version: str
    asked_at: float
    done_at: float  # when the pointer stood
    answers_at: float = np.inf  # when all workers answered by it


@dataclass
class Story:
    """What was done to the server."""

    moves: list[Moved] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)


class Server:
    """A project that `noria up` serves, and what is done to it meanwhile."""

    def __init__(self, project: Project, up: Up, database: Postgres) -> None:
        self._project, self._up, self._database = project, up, database
        self._folder = project.state / "deployments" / "production"
        self.story = Story()

    def move(self, deployment: str, version: str) -> None:
        """Let a version answer, as a person does by another process."""
        reason = f"move {len(self.story.moves)}."
        while True:
            asked_at = time.time()
            try:
                self._project.deploy(f"{deployment}:{version}", to="production", reason=reason)
            except StoreError:  # a connection from before the database went away
                continue
            self.story.moves.append(Moved(deployment, version, asked_at, time.time()))
            return

    def wait_until_followed(self, *, within_s: float = 30.0) -> None:
        """Wait until all moves are answered by."""
        deadline = time.monotonic() + within_s
        while not self._followed():
            assert time.monotonic() < deadline, self._up.told[-5:]
            time.sleep(0.05)

    def _followed(self) -> bool:
        for told in list(self._up.told):
            if told["kind"] == "serving" and " answers at " in told["message"]:
                number = int(told["message"].rpartition(": move ")[2].partition(".")[0])
                at = datetime.fromisoformat(told["at"]).timestamp()
                self.story.moves[number].answers_at = min(self.story.moves[number].answers_at, at)
        last = {each.deployment: each for each in self.story.moves}
        return all(each.answers_at < np.inf for each in last.values())

    def kill_worker(self, place: int) -> None:
        pids = [each.pid for each in self.status().workers]
        self.story.pids.update(pids)
        if pids:
            self.story.kills.append(time.time())
            os.kill(pids[place % len(pids)], signal.SIGKILL)

    def status(self) -> ServerStatus:
        return read_record(self._folder / "status.json", ServerStatus)

    @contextmanager
    def no_ledger(self) -> Iterator[None]:
        self._database.stop()
        began = time.time()
        yield
        self._database.start()
        self.story.away.append((began, time.time()))

    def live(self, plan: Plan) -> None:
        """Let it all happen, each in its time; on a machine that is slow it takes longer."""
        began, kills, swaps = time.monotonic(), 0, 0
        away = list(plan.away)
        while (now := time.monotonic() - began) < plan.load or (
            now < 4 * plan.load and (away or len(self.story.kills) < plan.kills)
        ):
            if away and now > away[0][0]:
                with self.no_ledger():
                    self._sleep_and_kill(plan, began, away.pop(0)[1])
                kills = len(self.story.kills)
                self.move("late", self._other("late"))
                self.wait_until_followed()
            elif now > plan.kill * (kills + 1):
                self.kill_worker(kills)
                kills += 1
            elif now > plan.swap * (swaps + 1):
                deployment = DEPLOYMENTS[swaps % 2]
                self.move(deployment, self._other(deployment))
                swaps += 1
            time.sleep(0.05)

    def _sleep_and_kill(self, plan: Plan, began: float, seconds: float) -> None:
        """Workers are killed while the ledger is away, too."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if time.monotonic() - began > plan.kill * (len(self.story.kills) + 1):
                self.kill_worker(len(self.story.kills))
            time.sleep(0.05)

    def _other(self, deployment: str) -> str:
        last = [each.version for each in self.story.moves if each.deployment == deployment][-1]
        return "2" if last == "1" else "1"


@contextmanager
def clients(port: int, folder: Path, pause_s: float) -> Iterator[list[Path]]:
    """Ask from processes of their own until the end of the block; each writes a file."""
    files = [folder / f"client-{number}" for number in range(CLIENTS)]
    with ExitStack() as ending:
        asking = []
        for file in files:
            arguments = map(str, (file.name, port, file, CONNECTIONS, pause_s, *DEPLOYMENTS))
            client = subprocess.Popen([sys.executable, str(CLIENT), *arguments], stdin=subprocess.PIPE)
            ending.callback(client.kill)
            asking.append(client)
        yield files
        for client in asking:
            assert client.stdin is not None
            client.stdin.close()
        for client in asking:
            assert client.wait(60) == 0


def read_lines(files: Sequence[Path]) -> Iterator[Line]:
    for file in files:
        with file.open(encoding="ascii") as lines:
            yield from (Line(*json.loads(line)) for line in lines)


def check_answers(
    lines: Sequence[Line], story: Story, scores: dict[tuple[str, str], list[float]]
) -> dict[str, Line]:
    """Every answer is right for the version that it names, which was in the route then; give the first."""
    first: dict[str, Line] = {}
    answering: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for deployment in DEPLOYMENTS:
        moves = [each for each in story.moves if each.deployment == deployment]
        for number, each in enumerate(moves):
            followed = (later.answers_at for later in moves[number + 1 :] if later.answers_at < np.inf)
            answering[deployment, each.version].append((each.asked_at, next(followed, np.inf)))
    for line in lines:
        if line.status == 503:
            assert line.told, line  # refused cleanly: told why, and when to come again
            continue
        assert line.status == 200, line
        assert line.score == scores[line.deployment, line.version][line.row], line
        known = first.setdefault(line.id, line)
        assert (known.version, known.score) == (line.version, line.score)
        spans = answering[line.deployment, line.version]
        assert any(known.sent <= end and start <= line.received for start, end in spans), line
    return first


def check_cuts(lines: Sequence[Line], story: Story) -> int:
    """Only kills cut connections, each those of one worker."""
    cuts = [at for line in lines for at in line.cuts]
    for at in cuts:
        assert any(kill <= at < kill + CUT_S for kill in story.kills), (at, story.kills)
    return len(cuts)


def check_log(project: Project, answered: dict[str, Line]) -> int:
    """Every answered prediction is in the log once, as it was answered."""
    rows = project.query("select prediction_id, deployment, cast(version as text), score from predictions")
    logged = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    assert len(logged) == len({each[0] for each in logged})
    found = {each[0]: each[1:] for each in logged}
    for id, line in answered.items():
        assert found[id] == (line.deployment, line.version, line.score)
    return len(logged)


@pytest.mark.parametrize("plan", [SLICE, pytest.param(FULL, marks=pytest.mark.soak)], ids=["slice", "full"])
def test_under_load_all_is_answered_rightly_and_logged_once(
    plan: Plan, tmp_path: Path, postgres_server: Postgres, postgres_url: str
) -> None:
    root, port = tmp_path / "loaded", free_port()
    make_project(root, postgres_url, port)
    with noria.open(root) as project:
        scores = register(project)
        with running(root) as up:
            server = Server(project, up, postgres_server)
            for deployment in DEPLOYMENTS:
                server.move(deployment, "1")
            server.wait_until_followed()
            with clients(port, tmp_path, plan.pause) as files:
                server.live(plan)
            server.wait_until_followed()
            status = server.status()
            assert up.stop() == 0, up.errors
        lines, story = list(read_lines(files)), server.story
        answered = check_answers(lines, story, scores)
        cuts = check_cuts(lines, story)
        logged = check_log(project, answered)
    assert not status.given_up
    restarted = {each.pid for each in status.workers} | story.pids
    print(report(lines, story, cuts=cuts, logged=logged, restarts=len(restarted) - 2))
    assert len(story.kills) >= plan.kills
    assert len(restarted) - 2 >= len(story.kills)
    assert len(story.away) == len(plan.away)
    assert len({each.version for each in answered.values()}) == 2


def report(lines: Sequence[Line], story: Story, *, cuts: int, logged: int, restarts: int) -> str:
    took = np.array([each.took_s for each in lines if each.status == 200]) * 1e3
    lags = np.array([each.answers_at - each.done_at for each in story.moves if each.answers_at < np.inf])
    statuses = dict(Counter(each.status for each in lines))
    away = ", ".join(f"{end - start:.1f} s" for start, end in story.away)
    return (
        f"\n{len(lines):,} requests by status {statuses}, p50 {np.quantile(took, 0.5):.1f} ms, "
        f"p99 {np.quantile(took, 0.99):.1f} ms, longest {took.max():.0f} ms"
        f"\n{len(story.moves)} moves, followed after {np.median(lags):.2f} s (median; longest "
        f"{lags.max():.2f} s); {len(story.kills)} workers killed, {restarts} started anew, {cuts} requests "
        f"cut and asked again; the ledger away for {away}; {logged:,} predictions in the log"
    )
