"""Steps to run on a Ray cluster, and what runs them one by one."""

import time
from pathlib import Path
from typing import Any

from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Lost, Report, Work
from noria.pipelines.trees import Stored, Tree
from noria.pipelines.values.codec import dump
from noria.records import new_id

PATIENCE_S = 60.0

JOBS = """
    import ctypes, os, time
    from pathlib import Path
    import pyarrow as pa
    import noria

    @noria.step
    def table(rows: int) -> pa.Table:
        return pa.table({"n": list(range(rows)), "half": [n / 2 for n in range(rows)]})

    @noria.step
    def part(data: pa.Table, number: int, run: noria.StepRun) -> dict[str, float]:
        import random
        return {"sum": sum(data["half"].to_pylist()[number::4]), "draw": random.random(), "seed": run.seed}

    @noria.step
    def report(parts: list[dict[str, float]], data: pa.Table) -> pa.Table:
        return data.append_column("total", [[sum(each["sum"] for each in parts)] * data.num_rows])

    @noria.pipeline
    def weekly(rows: int = 20_000) -> pa.Table:
        data = table(rows)
        return report(part.map(number=[0, 1, 2, 3])(data), data)

    @noria.step
    def slow(number: int) -> int:
        folder = Path(__file__).parent
        with (folder / "begun").open("a") as file:
            file.write(f"{number}\\n")
        time.sleep(1.5)
        while (folder / "hold").exists():
            (folder / f"held-{number}").write_text(str(os.getpid()))
            time.sleep(0.1)
        return number

    @noria.pipeline
    def slowly(numbers: list[int]) -> list[int]:
        return slow.map(number=numbers)()

    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def leave(code: int) -> int:
        print("about to leave", flush=True)
        os._exit(code)

    def abort() -> int:
        os.abort()

    def fail(text: str) -> int:
        raise ArithmeticError(text)

    def odd(number: int) -> object:
        return lambda: number

    def eat(size: int) -> int:
        held = [bytearray(os.urandom(1 << 20)) for _ in range(size >> 20)]
        time.sleep(30)
        return len(held)

    def stuck(seconds: int) -> int:
        return ctypes.PyDLL(None).sleep(seconds)  # holds the interpreter's lock all the time

    def tell(steps: int, run: noria.StepRun) -> int:
        print("telling", flush=True)
        for number in range(steps):
            run.progress(number + 1, steps, "half way" if number + 1 == steps // 2 else "")
            time.sleep(0.7)
        return steps
"""


class Runner:
    """Hands steps to an executor, and keeps what it reports."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor, self._folder = executor, folder
        self.reports: dict[str, list[Report]] = {}

    def begin(
        self, target: str, *, needs: Resources | None = None, timeout_s: float | None = None, **arguments: Any
    ) -> str:
        run = new_id()
        given: dict[str, Tree] = {name: _stored(value, self._folder) for name, value in arguments.items()}
        work = Work(
            run=run, task=f"test/{target}", target=f"jobs:{target}", arguments=given, split=(), seed=1,
            attempt=1, log=str(self.log(run)), timeout_s=timeout_s,
        )  # fmt: skip
        self.reports[run] = []
        self.executor.submit(work, needs or Resources())
        return run

    def log(self, run: str) -> Path:
        return self._folder / f"{run}.log"

    def until(self, run: str, kind: type | tuple[type, ...]) -> Any:
        """Wait for a report of a kind."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            for each in self.reports[run]:
                if isinstance(each, kind):
                    return each
            for report in self.executor.poll(0.5):
                self.reports[report.run].append(report)
        raise AssertionError(f"{run} reported {self.reports[run]}")

    def end(self, run: str) -> Any:
        return self.until(run, (Done, Lost))

    def until_begun(self, run: str) -> None:
        """Wait until a step's own process is at it: one that dies sooner is replaced."""
        ends = time.monotonic() + PATIENCE_S
        while not self.log(run).exists():
            assert time.monotonic() < ends, f"{run} has not begun"
            time.sleep(0.05)

    def next_end(self) -> Any:
        """Wait until an attempt ends, whichever."""
        ended = self.ended_within(PATIENCE_S)
        assert ended, f"nothing was reported but {self.reports}"
        return ended[0]

    def ended_within(self, timeout_s: float) -> list[Report]:
        """Give the first ends of attempts, none if there are none in this time."""
        ends = time.monotonic() + timeout_s
        ended: list[Report] = []
        while not ended and time.monotonic() < ends:
            for report in self.executor.poll(min(0.5, timeout_s)):
                self.reports[report.run].append(report)
                ended.extend([report] if isinstance(report, (Done, Lost)) else [])
        return ended


def _stored(value: Any, folder: Path) -> Stored:
    payload = dump(value, scratch=folder, where="a test")
    return Stored(payload.format, payload.sha256, payload.size_bytes, str(value), payload.data)
