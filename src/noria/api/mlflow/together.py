"""Requests that come while others are worked on are worked on together: one thread, one transaction."""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import Any

from noria.errors import StoreError

__all__ = ["Together"]

_Asked = tuple[Any, "asyncio.Future[Any]"]
_MOST = 256  # in one transaction: the first of them waits for the last


class Together:
    """Performs what is asked for, whatever is waiting at once.

    Parameters
    ----------
    perform
        Is called from one thread with all that waits, oldest first, and gives for each its answer, or the
        error that it is answered with. If it raises, nothing was done, and each is tried by itself; if it is
        the store that cannot be used, all get that error.
    """

    def __init__(self, perform: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._perform = perform
        self._waiting: deque[_Asked] = deque()
        self._guard = threading.Lock()
        self._is_at_work = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noria-together")

    async def ask(self, what: Any) -> Any:
        """Give the answer to one request, or raise its error."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._guard:
            self._waiting.append((what, answer))
            is_at_work, self._is_at_work = self._is_at_work, True
        if not is_at_work:
            try:
                self._thread.submit(self._work)
            except RuntimeError as err:  # no thread is to be had, for now
                batch = self._take(sys.maxsize, is_last=True)
                _tell(batch, [err] * len(batch))
        return await answer

    def _work(self) -> None:
        while True:
            batch = self._take(_MOST)
            if not batch:
                return
            _tell(batch, self._answers([what for what, _ in batch]))

    def _take(self, most: int, *, is_last: bool = False) -> list[_Asked]:
        """Take the oldest of what waits; with the last of it the work ends."""
        with self._guard:
            batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            if is_last or not batch:
                self._is_at_work = False
            return batch

    def _answers(self, batch: Sequence[Any]) -> Sequence[Any]:
        try:
            return self._perform(batch)
        except StoreError as err:
            return [err] * len(batch)
        except Exception as err:  # noqa: BLE001 - the outermost of requests: each of them is told of its own
            if len(batch) == 1:
                return [err]
            return [answer for each in batch for answer in self._answers([each])]


def _tell(batch: Sequence[_Asked], answers: Sequence[Any]) -> None:
    told = zip((answer for _, answer in batch), answers, strict=True)
    for loop, of_loop in groupby(told, key=lambda each: each[0].get_loop()):
        with suppress(RuntimeError):  # it is closed: its server has stopped, and nobody waits
            loop.call_soon_threadsafe(_settle, list(of_loop))


def _settle(answers: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, answer in answers:
        if future.done():  # its client went away
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
