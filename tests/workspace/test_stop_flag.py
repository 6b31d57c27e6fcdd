"""The flag by which a signal ends `noria up`."""

import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent

from noria.workspace.up.stopping import StopFlag


def test_who_waits_is_woken_by_another_thread() -> None:
    flag = StopFlag()
    assert not flag.wait(0.01)
    threading.Timer(0.1, flag.set).start()
    began = time.monotonic()
    assert flag.wait(30)
    assert time.monotonic() - began < 10
    assert flag.is_set()
    assert flag.wait(30)  # it stays raised


def test_it_may_be_raised_any_number_of_times() -> None:
    flag = StopFlag()
    for _ in range(100_000):  # more than the pipe holds
        flag.set()
    assert flag.wait(0)


def test_signals_that_come_at_any_moment_of_a_wait_are_heeded() -> None:
    """A lock that `set` takes would be held by the interrupted wait now and then: it would hang for ever."""
    code = dedent("""
        import os, signal, threading
        from noria.workspace.up.stopping import StopFlag

        flags = [StopFlag()]
        signal.signal(signal.SIGALRM, lambda *_: flags[0].set())
        for turn in range(3_000):
            flags[0] = StopFlag()
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (turn % 20 + 1))
            while not flags[0].wait(1e-5):
                pass
        print("ended")
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL  # of this process: untouched
