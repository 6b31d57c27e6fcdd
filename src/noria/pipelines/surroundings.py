"""What a step may change of the process that it runs in, put back when it has ended."""

import importlib
import os
import random
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

__all__ = ["Surroundings"]

# That of `signal` makes enums of numbers, which takes longer.
_getsignal = importlib.import_module("_signal").getsignal

_SIGNALS = tuple(
    number
    for name in (
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGCHLD",
        "SIGURG",
    )
    if (number := getattr(signal, name, None)) is not None
)


class Surroundings:
    """Working folder, environment, import path, signals, streams and random numbers, as they are.

    Other threads, child processes, loaded modules and what those hold are not put back.

    Parameters
    ----------
    is_shared
        Whether others than steps live in this process: then random numbers are put back, which each step
        seeds anew, and a timer is left alone, which may be theirs.
    """

    def __init__(self, *, is_shared: bool = True) -> None:
        self._folder = _folder()
        self._environment = dict(_environment())
        self._path = list(sys.path)
        self._recursion = sys.getrecursionlimit()
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._is_shared = is_shared
        self._random = random.getstate() if is_shared else None
        self._numpy: Any = _numpy_random() if is_shared else None
        self._numpy_state = None if self._numpy is None else self._numpy.get_state(legacy=False)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._handlers = [_getsignal(each) for each in _SIGNALS]
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def restore(self) -> None:
        """Put back what has changed since."""
        if self._folder is not None and _folder() != self._folder:
            with suppress(OSError):  # removed meanwhile: there is nowhere to go back to
                os.chdir(self._folder)
        if _environment() != self._environment:
            for name in set(_environment()) - set(self._environment):
                del os.environb[name]
            for name, value in self._environment.items():
                os.environb[name] = value
        if sys.path != self._path:
            sys.path[:] = self._path
        if sys.getrecursionlimit() != self._recursion:
            sys.setrecursionlimit(self._recursion)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if self._random is not None:
            random.setstate(self._random)
        if self._numpy is not None:
            self._numpy.set_state(self._numpy_state)
        if self._is_main:
            self._restore_signals()

    def _restore_signals(self) -> None:
        for number, handler in zip(_SIGNALS, self._handlers, strict=True):
            if handler is not None and _getsignal(number) is not handler:
                signal.signal(number, handler)
        if not self._is_shared:
            signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm of the step would ring in the next one
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _environment() -> dict[bytes, bytes]:
    """Give the environment as it is kept: to decode all of it takes a tenth of a millisecond."""
    data: dict[bytes, bytes] = vars(os.environ)["_data"]
    return data


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - asked around every step
    except FileNotFoundError:
        return None


def _numpy_random() -> Any:
    return sys.modules.get("numpy.random")
