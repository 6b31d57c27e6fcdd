"""Ctrl-C, remembered: some engines turn it into an error of their own (DuckDB: `Query interrupted`)."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Interrupts"]


class Interrupts:
    """Remembers within a block whether Ctrl-C was typed, and raises `KeyboardInterrupt` as ever.

    Examples
    --------
    ::

        with Interrupts() as interrupts:
            try:
                work()
            except Exception:
                if interrupts.came: ...
    """

    def __init__(self) -> None:
        self.came = False
        self._before: object = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if callable(self._before):
            self._before(number, frame)
