"""The executors of this machine, by the contract, and what is their own."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from noria.errors import ConfigError
from noria.pipelines.backends.inline import InlineExecutor
from noria.pipelines.backends.processes import ProcessExecutor
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Lost, Place, open_executor
from noria.pipelines.scratch import own_folder, sweep
from noria.testing.executor import (
    ExecutorContract,
    all_reports,
    double,
    finished,
    value,
    wait,
    where,
    work,
)


class TestInlineExecutor(ExecutorContract):
    ends_from_outside = False
    isolates = False

    def open_executor(self, place: Place) -> Executor:
        return InlineExecutor(place)

    def test_another_thread_may_end_a_step_at_work(self, executor: Executor, place: Place) -> None:
        asked = work(place, wait, seconds=30.0)
        timer = threading.Timer(0.2, executor.cancel, (asked.run, "it is late"))
        timer.start()
        began = time.monotonic()
        (lost,) = all_reports(executor, [asked])
        assert time.monotonic() - began < 5
        assert lost == Lost(run=asked.run, reason="it is late")
        assert value(finished(executor, work(place, double, name="next", x=1)), place) == 2

    def test_signals_and_streams_are_put_back(self, executor: Executor, place: Place) -> None:
        before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGURG)
        count = descriptors()
        for number in range(5):
            finished(executor, work(place, double, name=str(number), x=1))
        after = sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGURG)
        assert after == before
        assert descriptors() <= count + 2  # the files for what does not come by Python


class TestProcessExecutor(ExecutorContract):
    def open_executor(self, place: Place) -> Executor:
        return ProcessExecutor(place, workers=2)

    def test_a_worker_that_died_while_it_was_idle_is_replaced(self, executor: Executor, place: Place) -> None:
        pid = value(finished(executor, work(place, where)), place)
        os.kill(pid, signal.SIGKILL)
        again = value(finished(executor, work(place, where, name="next")), place)
        assert again != pid

    def test_a_step_whose_worker_died_before_it_began_is_given_to_another(
        self, executor: Executor, place: Place
    ) -> None:
        pid = value(finished(executor, work(place, where)), place)
        os.kill(pid, signal.SIGSTOP)
        asked = work(place, where, name="next")
        executor.submit(asked, Resources())
        os.kill(pid, signal.SIGKILL)
        (done,) = all_reports(executor, [], waiting={asked.run})
        assert isinstance(done, Done)
        assert value(done, place) != pid

    def test_a_project_s_modules_hide_none_of_python_s_own(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "queue.py").write_text("raise ImportError('the wrong queue')")
        (tmp_path / "random.py").write_text("raise ImportError('the wrong random')")
        here = msgspec.structs.replace(place, path=(str(tmp_path), *sys.path))
        executor = ProcessExecutor(here, workers=1)
        assert value(finished(executor, work(place, double, x=1)), place) == 2
        executor.close()

    def test_descriptors_are_given_back(self, place: Place) -> None:
        count = descriptors()
        executor = ProcessExecutor(place, workers=2)
        for number in range(4):
            pid = value(finished(executor, work(place, where, name=str(number))), place)
            os.kill(pid, signal.SIGKILL)
        executor.close()
        assert descriptors() == count

    @pytest.mark.skipif(not hasattr(fcntl, "F_SETSIG"), reason="only Linux ends a process by a pipe")
    def test_workers_die_with_their_parent_whatever_they_are_at(self, place: Place, tmp_path: Path) -> None:
        """A step in C code lets no thread of Python run, and its child knows nothing of the parent."""
        (tmp_path / "stubborn.py").write_text(
            "import subprocess\nfrom pathlib import Path\nimport os\n"
            "def stubborn() -> int:\n"
            "    child = subprocess.Popen(['sleep', '600'])\n"
            "    told = Path(__file__).with_name('pids.new')\n"
            "    told.write_text(f'{os.getpid()} {child.pid}')\n"
            "    told.rename(told.with_name('pids'))\n"
            "    return sum(range(10**13))\n"
        )
        code = (
            "import sys, msgspec\n"
            "from noria.pipelines.backends.processes import ProcessExecutor\n"
            "from noria.pipelines.declarations import Resources\n"
            "from noria.pipelines.executor import Place, Work\n"
            "place = msgspec.json.decode(sys.argv[1], type=Place)\n"
            "executor = ProcessExecutor(place)\n"
            "work = Work(run='r', task='t', target='stubborn:stubborn', arguments={}, split=(), seed=1,\n"
            "    attempt=1, log=place.scratch + '/logs/r.log')\n"
            "executor.submit(work, Resources())\n"
            "executor.poll(600)\n"
        )
        here = msgspec.structs.replace(place, path=(str(tmp_path), *sys.path))
        parent = subprocess.Popen([sys.executable, "-c", code, msgspec.json.encode(here).decode()])
        pids = tmp_path / "pids"
        ends = time.monotonic() + 30
        while not pids.exists():
            assert time.monotonic() < ends
            time.sleep(0.01)
        time.sleep(0.2)  # it is in C code by now
        parent.kill()
        parent.wait()
        for pid in map(int, pids.read_text().split()):
            while _lives(pid):
                assert time.monotonic() < ends, "it outlives the parent"
                time.sleep(0.01)
        assert [each for each in (Path(place.scratch) / "work").rglob("*") if each.is_dir()]
        sweep(Path(place.scratch))
        assert list((Path(place.scratch) / "work").iterdir()) == []


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_sweep_leaves_the_living_alone(tmp_path: Path) -> None:
    mine = own_folder(tmp_path)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom noria.pipelines.scratch import own_folder\n"
        "print(own_folder(Path(sys.argv[1])), flush=True)\ntime.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    foreign = tmp_path / "work" / "00000000-1-2-abc"
    foreign.mkdir()
    (theirs / "half").write_text("half")
    sweep(tmp_path)
    assert (theirs / "half").exists()
    other.kill()
    other.communicate()
    sweep(tmp_path)
    assert sorted((tmp_path / "work").iterdir()) == sorted([mine, foreign])
    week_ago = time.time() - 8 * 86_400
    os.utime(foreign, (week_ago, week_ago))
    sweep(tmp_path)
    assert list((tmp_path / "work").iterdir()) == [mine]


def test_an_executor_that_is_not_there_is_told(tmp_path: Path) -> None:
    place = Place(root=str(tmp_path), storage=str(tmp_path / "s"), scratch=str(tmp_path))
    with pytest.raises(ConfigError, match="there is no executor 'cloud'; there is inline, processes"):
        open_executor("cloud", place)
