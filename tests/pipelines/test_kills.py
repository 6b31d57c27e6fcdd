"""A run that is killed at any instant goes on as if it had not been: no finished step twice, nothing half."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import noria
from noria.ledger.tables import leases
from noria.pipelines.scratch import sweep
from noria.pipelines.tables import step_cache
from noria.pipelines.trees import stored_in
from noria.records import Run, RunState

DRIVER = Path(__file__).with_name("run_driver.py")
SEED = 20_240_229

# 201 tasks: a chain, a fan-out, a map over it, large values, actions that leave traces, files, and retries.
STEPS = """
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import noria

SIDE = Path(__file__).parent / "side.log"

def trace(*told):
    line = " ".join(map(str, told)) + "\\n"
    side = os.open(SIDE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(side, line.encode())
    os.close(side)

@noria.step
def link(number: int, before: int) -> int:
    trace(f"link_{number}")
    return before * 31 % 1_000_003 + number

@noria.step
def parts(count: int) -> list[int]:
    trace("parts")
    return list(range(count))

@noria.step
def square(x: int) -> int:
    trace(f"square[{x}]")
    return x * x

@noria.step
def shift(number: int, x: int) -> int:
    trace(f"shift[{number}]")
    return x + 7

@noria.step
def large(x: int) -> bytes:
    trace(f"large[{x}]")
    return bytes([x % 251]) * 40_000

@noria.step
def size(number: int, data: bytes) -> int:
    trace(f"size[{number}]")
    assert len(data) == 40_000 and len(set(data)) == 1
    return len(data) + data[0]

@noria.step(cache=False)
def act(x: int) -> int:
    trace(f"act[{x}]")
    return x

def _flaky(x: int, run: noria.StepRun) -> int:
    trace(f"flaky[{x}]", run.attempt)
    if run.attempt == 1:
        raise ValueError("not yet")
    return -x

flaky = replace(noria.step(retries=2)(_flaky), name="flaky", backoff=timedelta(milliseconds=5))
_flaky = flaky

@noria.step
def report(values: list[list[int]], run: noria.StepRun) -> Path:
    trace("report")
    file = run.folder / "report.txt"
    with file.open("w") as out:
        for each in values:
            out.write(f"{sum(each)}\\n")
            out.flush()
            time.sleep(0.002)
    return file

@noria.step
def total(file: Path) -> int:
    trace("total")
    lines = file.read_text().splitlines()
    assert len(lines) == 5, lines
    return sum(map(int, lines))

@noria.pipeline
def long(start: int = 1) -> int:
    value = start
    for number in range(30):
        value = link.named(f"link_{number}")(number, value)
    found = parts(50)
    squares = square.map(x=found)()
    shifted = shift.map(number=found, x=squares)()
    some = list(range(15))
    sizes = size.map(number=some, data=large.map(x=some)())()
    acts = act.map(x=list(range(30)))()
    late = flaky.map(x=list(range(7)))()
    return total(report([squares, shifted, sizes, acts, late]))
"""
TASKS = 30 + 1 + 50 + 50 + 15 + 15 + 30 + 7 + 2


@dataclass
class Life:
    """One project that is killed again and again until its run is done."""

    root: Path
    executor: str
    told: dict[str, Any] | None = None  # of the run that was not killed
    kills: Counter[str] = field(default_factory=Counter)
    at_kills: list[tuple[Counter[str], Counter[str]]] = field(default_factory=list)

    def start(self, dies: str = "") -> "subprocess.Popen[str]":
        command = [sys.executable, str(DRIVER), str(self.root), "long", self.executor, "{}", dies]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait(self, process: "subprocess.Popen[str]") -> int:
        """Wait for a process that runs it."""
        said, complained = process.communicate(timeout=120)
        assert process.returncode in {0, 1, -signal.SIGKILL}, said + complained
        if process.returncode == 0:
            self.told = json.loads(said)
        return process.returncode

    def traces(self) -> Counter[str]:
        """Count how often each task was begun."""
        side = self.root / "side.log"
        return (
            Counter(line.split()[0] for line in side.read_text().splitlines()) if side.exists() else Counter()
        )

    def wait_for(self, process: "subprocess.Popen[str]", tasks: int) -> None:
        """Wait until so many tasks were begun, or the process has ended."""
        wait_until(lambda: process.poll() is not None or self.traces().total() >= tasks, within_s=60)

    def recorded(self, project: noria.Project) -> Counter[str]:
        """Count the finished runs of each task."""
        runs = project.ledger.list_runs(kind="step", state=RunState.FINISHED)
        return Counter(each.name.partition("/")[2] for each in runs)

    def look(self) -> None:
        """Take down what is on record right after a kill, and how often each task had been begun."""
        with noria.open(self.root) as project:
            found = project.ledger.verify()
            assert found.ok, found.problems
            self.at_kills.append((self.recorded(project), self.traces()))
            last = project.ledger.list_runs(kind="pipeline", limit=1)
            if last and last[0].state is RunState.FINISHED:  # it was killed when it had just ended
                result = project.run_pipeline("long", key=last[0].key)
                sweep(self.root / ".noria" / "pipelines")
                self.told = {"outputs": result.outputs, "state": result.run.state, "run": result.run.id}

    def end(self, outputs: dict[str, str]) -> dict[str, int]:
        """Let the run end, and see that everything is as if nothing had happened."""
        if self.told is None:
            assert self.wait(self.start()) == 0
        assert self.told is not None
        assert self.told["outputs"] == outputs
        assert self.told["state"] == "finished"
        begun = self.traces()
        with noria.open(self.root) as project:
            self.check_records(project, self.told["run"])
            self.check_values(project)
        for recorded, traces in self.at_kills:
            again = {task: begun[task] - traces[task] for task in recorded if begun[task] > traces[task]}
            assert again == {}, "finished tasks were begun again"
        assert no_files(self.root / ".noria" / "pipelines") == []
        return {
            "begun": begun.total(),
            "begun again": begun.total() - TASKS - 7,  # flaky ones fail once each
            "kept at kills": sum(recorded.total() for recorded, _ in self.at_kills),
        }

    def check_records(self, project: noria.Project, run: str) -> None:
        ledger = project.ledger
        assert ledger.verify().ok
        finished = self.recorded(project)
        assert len(finished) == TASKS
        assert set(finished.values()) == {1}
        assert ledger.list_runs(state=RunState.RUNNING) == []
        runs: list[Run] = ledger.list_runs(kind="pipeline", newest_first=False)
        assert {each.key for each in runs} == {runs[0].key}, "a killed run goes on under its key"
        assert (runs[-1].id, runs[-1].state) == (run, RunState.FINISHED)
        ended = {RunState.KILLED, RunState.FAILED}
        assert all(each.state in ended and each.error for each in runs[:-1])
        numbers = Counter(version.name for version in ledger.list_versions(kind="output"))
        assert set(numbers) == {f"long/{each.partition('[')[0]}" for each in finished}
        with ledger.database.read() as connection:
            assert connection.execute(select(leases)).all() == []

    def check_values(self, project: noria.Project) -> None:
        store = project.engine.store
        with project.ledger.database.read() as connection:
            keys = list(connection.execute(select(step_cache.c.key)).scalars())
        for entry in store.find(keys).values():
            for each in stored_in(entry.output):
                if each.is_small:
                    assert each.sha256 in store.values([each.sha256])
                else:
                    project.storage.get(each.sha256)  # verifies the digest


def no_files(folder: Path) -> list[str]:
    return [str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()]


def children(pid: int) -> list[int]:
    try:
        found = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(each) for text in found for each in text.split()]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def wait_until(met: Callable[[], Any], *, within_s: float = 10.0, told: str = "it did not happen") -> None:
    ends = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < ends, told
        time.sleep(0.002)


def kill_all(life: Life, process: "subprocess.Popen[str]") -> bool:
    """Kill the process that runs the pipeline; False if it has ended before. Its workers go with it."""
    workers = children(process.pid)
    process.kill()
    code = life.wait(process)
    wait_until(lambda: not any(map(is_alive, workers)), told="workers outlive the run")
    return code == -signal.SIGKILL


def kill_worker(life: Life, process: "subprocess.Popen[str]", rng: random.Random) -> bool:
    """Kill one worker: its step fails, if it was at one that is not tried again, and so does the run."""
    workers = children(process.pid)
    with suppress(ProcessLookupError, IndexError):
        os.kill(rng.choice(workers), signal.SIGKILL)
        life.wait(process)
        return True
    life.wait(process)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], float]]:
    """Give the outputs of a run that nobody kills, and how long it took."""
    root = make(tmp_path_factory.mktemp("undisturbed") / "proj")
    life = Life(root, "processes")
    began = time.monotonic()
    process = life.start()
    said, complained = process.communicate(timeout=120)
    took_s = time.monotonic() - began
    assert process.returncode == 0, complained
    told = json.loads(said)
    assert len(told["outputs"]) == TASKS
    assert life.traces().total() == TASKS + 7
    yield told["outputs"], took_s


def make(root: Path) -> Path:
    root.mkdir()
    (root / "long.py").write_text(STEPS)
    (root / "noria.toml").write_text('[project]\nname = "proj"\nmodules = ["long"]\n')
    return root


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(
    undisturbed: tuple[dict[str, str], float], tmp_path: Path, count: int
) -> None:
    outputs, took_s = undisturbed
    rng = random.Random(SEED)
    table: list[dict[str, Any]] = []
    kinds, kills = itertools.cycle(["all", "moment", "worker"]), 0
    while kills < count:
        executor = "inline" if len(table) % 3 == 2 else "processes"
        life = Life(make(tmp_path / f"proj-{len(table)}"), executor)
        for _ in range(rng.randrange(2, 6)):
            if kills < count and life.told is None:
                how = next(kinds)
                kills += killed(life, rng, "all" if (how, executor) == ("worker", "inline") else how, took_s)
        row = {"project": len(table), "executor": executor, **life.kills, **life.end(outputs)}
        table.append(row)
    print(f"\n{kills} kills, seed {SEED}, {TASKS} tasks, {took_s:.1f} s undisturbed")
    columns = ["project", "executor", "all", "moment", "worker", "begun", "begun again", "kept at kills"]
    print(" ".join(f"{each:>13}" for each in columns))
    for row in table:
        print(" ".join(f"{row.get(each, 0):>13}" for each in columns))
    sums = {each: sum(row.get(each, 0) for row in table) for each in columns[2:]}
    print(" ".join(f"{each!s:>13}" for each in ["sum", "", *sums.values()]))
    assert sums["all"] + sums["moment"] + sums["worker"] == kills


def killed(life: Life, rng: random.Random, how: str, took_s: float) -> bool:
    """Start the run and kill something of it; tell whether that came before its end."""
    if how == "moment":
        place, most = rng.choice([("put", 3), ("record", 3), ("commit", 8)])
        dies = f"{place}:{rng.randrange(1, most)}:{rng.choice(['before', 'after'])}"
        hit = life.wait(life.start(dies)) == -signal.SIGKILL
    else:
        process = life.start()
        if how == "all" and rng.random() < 0.2:
            time.sleep(rng.uniform(0, 0.6) * took_s)
        else:
            kept = life.at_kills[-1][0].total() if life.at_kills else 0
            life.wait_for(process, life.traces().total() + rng.randrange(1, TASKS - kept + 2))
            time.sleep(rng.uniform(0, 0.01))
        hit = kill_all(life, process) if how == "all" else kill_worker(life, process, rng)
    if hit:
        life.kills[how] += 1
        life.look()
    return hit
