"""What every executor must do.

Subclass `ExecutorContract`, and supply `open_executor`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noria.errors import ConfigError
from noria.pipelines.declarations import Resources, StepRun, step
from noria.pipelines.executor import Done, Executor, Lost, Place, Progressed, Report, Work
from noria.pipelines.trees import Stored, Tree, stored_in
from noria.pipelines.values.codec import Format, dump
from noria.pipelines.work import Bench
from noria.storage.opening import open_storage

__all__ = ["ExecutorContract"]

_ONE = Resources()
_PATIENCE_S = 60.0


@step
def double(x: int) -> int:
    return 2 * x


@step
def fail(x: int) -> int:
    raise ValueError(f"{x} is too much")


@step
def say(x: int) -> int:
    print("by Python", x)
    os.write(1, b"by descriptor\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    return x


@step
def large(x: int) -> bytes:
    return bytes([x]) * 1_000_000


@step
def length(data: bytes) -> int:
    return len(data)


@step
def draw() -> list[float]:
    import random

    import numpy as np

    return [random.random(), float(np.random.rand())]


@step
def report(run: StepRun) -> str:
    run.progress(1, 2, "half")
    run.log_metric("rows", 7)
    (run.folder / "file").write_text("text")
    return f"{run.attempt} {run.seed}"


@step
def wait(seconds: float) -> int:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.01)
    return 1


@step
def die(signal_number: int) -> int:
    os.kill(os.getpid(), signal_number)
    time.sleep(60)
    return 1


@step
def leave(code: int) -> int:
    os._exit(code)


@step
def where() -> int:
    return os.getpid()


class ExecutorContract:
    """Subclass it, and give the one thing that follows."""

    ends_from_outside = True  # whether `cancel`, called between polls, ends a step that is at work
    isolates = True  # whether a step that takes its process down fails alone

    def open_executor(self, place: Place) -> Executor:
        """Open the executor, for two CPUs."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        """Give a place for the steps of this module."""
        (tmp_path / "scratch" / "logs").mkdir(parents=True)
        return Place(
            root=str(tmp_path),
            storage=str(tmp_path / "storage"),
            scratch=str(tmp_path / "scratch"),
            path=tuple(sys.path),
        )

    @pytest.fixture
    def executor(self, place: Place) -> Iterator[Executor]:
        """Give an open executor."""
        executor = self.open_executor(place)
        yield executor
        executor.close()

    def test_an_attempt_gives_what_the_step_gives(self, executor: Executor, place: Place) -> None:
        """The same bytes as in this very process."""
        done = finished(executor, work(place, double, x=21))
        assert done.failure is None
        assert done.output == Bench(place).perform(work(place, double, x=21)).output
        assert value(done, place) == 42
        assert done.wall_s >= 0
        assert done.bytes_out > 0

    def test_each_attempt_ends_exactly_once(self, executor: Executor, place: Place) -> None:
        """However many there are at once."""
        given = [work(place, double, name=str(number), x=number) for number in range(30)]
        reports = all_reports(executor, given)
        assert sorted(each.run for each in reports) == sorted(each.run for each in given)
        found = {each.run: value(each, place) for each in reports if isinstance(each, Done)}
        assert found == {f"run-{number}": 2 * number for number in range(30)}

    def test_an_error_is_told_with_the_way_to_it(self, executor: Executor, place: Place) -> None:
        """Its type, its text, and the step's own line."""
        failure = finished(executor, work(place, fail, x=3)).failure
        assert failure is not None
        assert (failure.kind, failure.message, failure.is_final) == ("ValueError", "3 is too much", False)
        assert 'raise ValueError(f"{x} is too much")' in failure.trace
        assert finished(executor, work(place, double, name="next", x=1)).failure is None

    def test_what_is_printed_is_in_the_log(self, executor: Executor, place: Place) -> None:
        """Whatever way it comes."""
        asked = work(place, say, x=5)
        finished(executor, asked)
        log = Path(asked.log).read_text()
        for told in ("by Python 5\n", "by descriptor\n", "by a child\n"):
            assert told in log

    def test_large_values_go_by_the_storage(self, executor: Executor, place: Place) -> None:
        """What is reported holds none of their bytes."""
        done = finished(executor, work(place, large, x=7))
        assert done.output is not None
        (stored,) = stored_in(done.output)
        assert stored.data is None
        assert open_storage(place.storage).exists(stored.sha256)
        asked = work(place, length, name="next", data=stored)
        assert value(finished(executor, asked), place) == 1_000_000

    def test_a_value_that_is_gone_is_told(self, executor: Executor, place: Place) -> None:
        """By a failure of its own kind."""
        gone = Stored(Format.VALUE, "0" * 64, 1_000_000, "bytes")
        failure = finished(executor, work(place, length, data=gone)).failure
        assert failure is not None
        assert failure.kind == "ArgumentGone"

    def test_random_numbers_go_by_the_seed(self, executor: Executor, place: Place) -> None:
        """Python's and NumPy's."""
        first, again = (value(finished(executor, work(place, draw, name=name)), place) for name in "ab")
        other = value(finished(executor, work(place, draw, name="c", seed=8)), place)
        assert first == again
        assert set(first).isdisjoint(other)

    def test_a_step_has_its_run(self, executor: Executor, place: Place) -> None:
        """Progress, metrics, a folder, the attempt and the seed."""
        reports = all_reports(executor, [work(place, report)], ends_only=False)
        told = [each for each in reports if isinstance(each, Progressed) and each.note == "half"]
        assert [(each.done, each.total) for each in told] == [(1.0, 2.0)]
        done = reports[-1]
        assert isinstance(done, Done)
        assert done.metrics == {"rows": 7.0}
        assert value(done, place) == "1 7"

    def test_what_is_cancelled_is_lost_with_the_reason(self, executor: Executor, place: Place) -> None:
        """At once; what comes after it runs."""
        asked = work(place, wait, seconds=60.0)
        executor.submit(asked, _ONE)
        if self.ends_from_outside:
            executor.poll(0.5)
        began = time.monotonic()
        executor.cancel(asked.run, "nobody wants it")
        (lost,) = all_reports(executor, [], waiting={asked.run})
        assert isinstance(lost, Lost)
        assert lost.reason == "nobody wants it"
        assert time.monotonic() - began < 10
        assert value(finished(executor, work(place, double, name="next", x=1)), place) == 2

    def test_what_takes_its_process_down_is_lost_alone(self, executor: Executor, place: Place) -> None:
        """By a signal, or by leaving; what runs beside it does not notice."""
        if not self.isolates:
            pytest.skip("its steps run in this very process")
        given = [
            work(place, die, name="kill", signal_number=int(signal.SIGKILL)),
            work(place, wait, name="beside", seconds=0.5),
            work(place, leave, name="exit", code=0),
            work(place, die, name="crash", signal_number=int(signal.SIGSEGV)),
            work(place, double, name="after", x=4),
        ]
        reports = {each.run: each for each in all_reports(executor, given)}
        kinds = {run: type(each).__name__ for run, each in reports.items()}
        assert kinds == {
            "run-kill": "Lost",
            "run-beside": "Done",
            "run-exit": "Lost",
            "run-crash": "Lost",
            "run-after": "Done",
        }

    def test_more_than_it_has_is_refused(self, executor: Executor, place: Place) -> None:
        """If it does not queue by itself."""
        cpus = executor.capacity().cpus
        if cpus is None:
            pytest.skip("it takes what comes")
        with pytest.raises(ConfigError, match="CPUs"):
            executor.submit(work(place, double, x=1), Resources(cpus=cpus + 1))

    def test_nothing_is_left_when_it_is_closed(self, place: Place) -> None:
        """No process of a step, at work or not, and no file beside the logs."""
        executor = self.open_executor(place)
        pid = value(finished(executor, work(place, where)), place)
        executor.submit(work(place, wait, name="long", seconds=60.0), _ONE)
        if self.ends_from_outside:
            executor.poll(0.3)
        executor.close()
        assert pid == os.getpid() or not Path(f"/proc/{pid}").exists()
        scratch = Path(place.scratch)
        left = [each.relative_to(scratch) for each in scratch.rglob("*") if each.is_file()]
        assert [each for each in left if each.parts[0] != "logs"] == []


def work(place: Place, target: Any, *, name: str = "only", seed: int = 7, **arguments: Any) -> Work:
    """Make an attempt at a step of this module."""
    trees: dict[str, Tree] = {
        key: each if isinstance(each, Stored) else small(each, Path(place.scratch))
        for key, each in arguments.items()
    }
    return Work(
        run=f"run-{name}",
        task=f"contract/{target.name}",
        target=target.target,
        arguments=trees,
        split=(),
        seed=seed,
        attempt=1,
        log=str(Path(place.scratch) / "logs" / f"run-{name}.log"),
    )


def small(given: Any, scratch: Path) -> Stored:
    """Make the tree of a small value."""
    payload = dump(given, scratch=scratch, where="an argument")
    return Stored(payload.format, payload.sha256, payload.size_bytes, repr(given), payload.data)


def value(done: Done, place: Place) -> Any:
    """Give what an attempt gave."""
    assert done.failure is None, done.failure
    assert done.output is not None
    return Bench(place).load(done.output, Any, Path(place.scratch))


def finished(executor: Executor, asked: Work) -> Done:
    """Make one attempt that ends by itself."""
    (report,) = all_reports(executor, [asked])
    assert isinstance(report, Done), report
    return report


def all_reports(
    executor: Executor, given: list[Work], *, waiting: set[str] | None = None, ends_only: bool = True
) -> list[Report]:
    """Make attempts, two at a time, and give what is reported until all have ended."""
    left, at_work, found = list(given), set(waiting or ()), list[Report]()
    ends = time.monotonic() + _PATIENCE_S
    while left or at_work:
        assert time.monotonic() < ends, f"nothing is heard of {at_work}"
        while left and len(at_work) < 2:
            asked = left.pop(0)
            at_work.add(asked.run)
            executor.submit(asked, _ONE)
        for report in executor.poll(0.5):
            if not isinstance(report, Progressed):
                at_work.discard(report.run)
            if not (ends_only and isinstance(report, Progressed)):
                found.append(report)
    return found
