"""Logging by itself never ends a training: what goes wrong in it is told once, and the training goes on."""

import logging
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["forget_told", "guarded", "tell_once", "unmoved_randomness"]

_LOG = logging.getLogger(__name__)
_TURN = threading.Lock()
_TOLD: set[tuple[str, str, type[BaseException] | None]] = set()


@contextmanager
def guarded(framework: str, what: str) -> Iterator[None]:
    """Let no error out of the block: the first of a kind is a warning of the program's log.

    Parameters
    ----------
    what
        What the block does, as in "could not <what>".
    """
    try:
        yield
    except Exception as err:  # noqa: BLE001 - whatever it is, the training goes on
        told = f"autolog of {framework} could not {what} ({type(err).__name__}: {err})"
        tell_once(framework, what, told, kind=type(err))


def tell_once(framework: str, what: str, told: str, *, kind: type[BaseException] | None = None) -> None:
    """Warn, unless the same was told before."""
    with _TURN:
        if (framework, what, kind) in _TOLD:
            return
        _TOLD.add((framework, what, kind))
    _LOG.warning("%s; the training goes on, and this is told once", told)


def forget_told() -> None:
    """Tell everything anew, once."""
    with _TURN:
        _TOLD.clear()


@contextmanager
def unmoved_randomness() -> Iterator[None]:
    """Leave the global random numbers of Python and numpy as they are, whatever the block draws."""
    numpy: Any = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
