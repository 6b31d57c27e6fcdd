"""Steps that do what steps should not do. Copied into the projects of the tests."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import noria

HERE = Path(__file__).parent


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd(BaseException):
    pass


@noria.step
def fine(x: int) -> int:
    return x + 1


@noria.step
def raises() -> int:
    raise ValueError("seven is not allowed")


@noria.step
def raises_mutely() -> int:
    raise Mute


@noria.step
def raises_oddly() -> int:
    raise Odd("odd")


@noria.step
def raises_surrogates() -> int:
    raise ValueError("\udcff" + "x" * 100_000)


@noria.step
def interrupts() -> int:
    raise KeyboardInterrupt


@noria.step
def generator_exits() -> int:
    raise GeneratorExit


@noria.step
def recurses() -> int:
    return recurses.function() + 1


@noria.step
def exits() -> int:
    sys.exit("bye")


@noria.step
def exits_hard(code: int) -> int:
    (HERE / "half.txt").write_text("half")
    os._exit(code)


@noria.step
def kills_itself() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)
    return 1


@noria.step
def crashes() -> int:
    ctypes.string_at(0)
    return 1


@noria.step(timeout="1s")
def hangs() -> int:
    while True:
        time.sleep(0.01)


@noria.step(timeout="1s")
def hangs_stubbornly() -> int:
    """Ignores what can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with suppress(Exception):
            time.sleep(0.01)


@noria.step(timeout="1s")
def hangs_in_c() -> int:
    return sum(range(10**12))


@noria.step(memory="300MB")
def eats_memory() -> int:
    found = []
    while True:
        found.append(bytearray(10_000_000))
        time.sleep(0.001)


@noria.step(memory="300MB")
def eats_memory_at_once() -> int:
    return len(bytearray(os.urandom(1)) * 6_000_000_000)


@noria.step(memory="300MB")
def eats_memory_in_a_child() -> int:
    code = "import time; x = bytearray(b'1') * 700_000_000; time.sleep(20)"
    return subprocess.call([sys.executable, "-c", code])


@noria.step
def wrong_type() -> int:
    return "seven"  # type: ignore[return-value]


@noria.step
def unstorable() -> Any:
    return threading.Lock()


@noria.step
def deep() -> Any:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    return value


@noria.step
def given() -> list[int]:
    return [1, 2, 3]


@noria.step
def changes(values: list[int]) -> int:
    values.append(99)
    return len(values)


@noria.step
def counts(values: list[int], after: int) -> int:
    return len(values)


@noria.step
def array() -> Any:
    import numpy as np

    return np.arange(5)


@noria.step
def changes_array(values: Any) -> int:
    values[0] = 1
    return 1


@noria.step
def prints(text: str) -> int:
    print(text)
    print("to stderr", file=sys.stderr)
    os.write(1, b"by descriptor \xff\n")
    subprocess.run(["echo", "by a child"], check=True)
    return 1


@noria.step
def prints_much() -> int:
    for _ in range(100):
        print("y" * 999_999)
    return 1


@noria.step
def closes_output() -> int:
    sys.stdout.close()
    os.close(1)
    os.close(2)
    return 1


@noria.step
def closes_everything() -> int:
    os.closerange(0, 1_000)
    return 1


@noria.step
def disturbs() -> int:
    os.chdir("/")
    os.environ["DISTURBED"] = "yes"
    os.environ.pop("HOME", None)
    sys.path.insert(0, "/disturbed")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    sys.setrecursionlimit(5_000)
    sys.stdout = sys.stderr = None
    random.seed(1)
    return 1


@noria.step
def surroundings(after: int) -> dict[str, Any]:
    print("still here")
    return {
        "folder": str(Path.cwd()),
        "disturbed": os.environ.get("DISTURBED"),
        "home": "HOME" in os.environ,
        "path": "/disturbed" in sys.path,
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_IGN,
        "masked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "recursion": sys.getrecursionlimit(),
    }


@noria.step
def draws() -> list[float]:
    import numpy as np

    return [random.random(), float(np.random.rand())]


@noria.step
def leaves_child() -> int:
    return subprocess.Popen(["sleep", "600"]).pid


@noria.step
def leaves_thread() -> int:
    def work() -> None:
        while True:
            time.sleep(0.01)

    threading.Thread(target=work, daemon=False).start()
    return threading.active_count()


@noria.step
def forks() -> int:
    pid = os.fork()
    if not pid:
        return -1  # the child comes back as well
    os.waitpid(pid, 0)
    return 1


@noria.step
def forks_and_leaves() -> int:
    if not os.fork():
        time.sleep(600)
    os._exit(5)


@noria.step
def babbles() -> int:
    """Write to every descriptor, the pipe to the parent included."""
    for number in range(3, 1_000):  # how high its number is depends on what the parent has open
        try:
            os.write(number, b"\xff" * 64)
        except OSError:
            continue
    return 1


@noria.step
def deletes_folder(run: noria.StepRun) -> int:
    import shutil

    shutil.rmtree(run.folder.parent)
    return 1


def succeeds_late(run: noria.StepRun) -> int:
    if run.attempt < 3:
        raise ValueError(f"attempt {run.attempt}")
    return run.attempt


succeeds_late = replace(noria.step(retries=3)(succeeds_late), backoff=timedelta(seconds=0.2))


@noria.step(cpus=1_000)
def too_wide() -> int:
    return 1


@noria.step(memory="1000TB")
def too_large() -> int:
    return 1


@noria.step(cpus=0.25)
def quarter(x: int) -> float:
    time.sleep(0.8)
    return time.time()


@noria.step(cpus=0)
def free(x: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@noria.step
def slow(x: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return x


@noria.step
def leaves_alarm() -> int:
    signal.alarm(1)
    return 1


@noria.step
def naps(after: int) -> int:
    time.sleep(1.5)
    return 1


@noria.step
def floods(run: noria.StepRun) -> int:
    for number in range(100_000):
        run.progress(number, 100_000, f"at {number} \udcff")
    run.progress(100_000, 100_000, "done")
    for number in range(100):
        run.log_metric(number, float("nan") if number else 1)  # type: ignore[arg-type]
        run.log_metric("\udcff", 2.0)
    return 1


@noria.step(executor="inline")
def here(x: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@noria.step(executor="processes")
def there(x: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@noria.step
def nests(project: noria.Project, executor: str) -> Any:
    return project.run_pipeline("some_fine", executor=executor).value


@noria.step
def table(rows: int) -> Any:
    import pyarrow as pa

    return pa.table({"x": pa.array(range(1_000)).take(pa.array([0] * rows))})


@noria.step(memory="400MB")
def height(rows: Any) -> int:
    return int(rows.num_rows)


@noria.step
def says_how_far(run: noria.StepRun) -> int:
    print("begins")
    subprocess.run(["echo", "by a child"], check=True)
    run.progress(2, 4, "half")
    time.sleep(1.8)
    print("ends")
    return 1


@noria.pipeline
def alarmed() -> int:
    return naps(leaves_alarm())


@noria.pipeline
def both_places() -> list[list[int]]:
    found = list(range(6))
    return join(here.map(x=found)(), there.map(x=found)())


@noria.step
def join(one: list[int], two: list[int]) -> list[list[int]]:
    return [one, two]


@noria.pipeline
def some_fine() -> int:
    return fine(fine.named("first")(1))


@noria.pipeline
def large_table(rows: int = 25_000_000) -> int:
    return height(table(rows))


@noria.pipeline
def reads_after_change() -> int:
    values = given()
    return counts(values, changes(values))


@noria.pipeline
def writes_into_array() -> int:
    return changes_array(array())


@noria.pipeline
def disturbed() -> dict[str, Any]:
    return surroundings(disturbs())


@noria.pipeline
def after_closing() -> int:
    return fine.named("later")(closes_output())


@noria.pipeline
def some_go_on() -> int:
    bad = raises()
    blocked = fine.named("blocked")(bad)
    far = fine.named("far_blocked")(blocked)
    chain = 1
    for number in range(5):
        chain = fine.named(f"good_{number}")(chain)
    return fine.named("end")(far)


@noria.pipeline
def too_wide_in_the_end() -> int:
    return too_wide.after(fine(1))()


@noria.pipeline
def quarters() -> list[float]:
    return quarter.map(x=list(range(8)))()


@noria.pipeline
def many_free() -> list[int]:
    return free.map(x=list(range(40)))()


@noria.pipeline(deadline="1s")
def too_long() -> list[int]:
    return slow.map(x=[1, 2, 3])(seconds=30)


@noria.pipeline
def some_slow(seconds: float = 20.0) -> list[int]:
    quick = fine.map(x=[1, 2, 3])()
    return slow.map(x=quick)(seconds=seconds)
