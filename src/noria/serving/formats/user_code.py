"""Calls of code that is not ours: what it raises becomes an error of noria, which holds no data."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from noria.errors import NoriaError

__all__ = ["called", "place_of"]

T = TypeVar("T")


def called(call: Callable[[], T], failed: Callable[[BaseException], NoriaError]) -> T:
    """Give what a call gives; what it raises is told as `failed` says, errors of noria as they are."""
    try:
        return call()
    except NoriaError:
        raise
    except (Exception, SystemExit) as err:  # noqa: BLE001 - code of a user: the server goes on
        raise failed(err) from None


def place_of(err: BaseException) -> str:
    """Tell where in the code kept with a model an error came from, if it did: file and line."""
    for frame in reversed(traceback.extract_tb(err.__traceback__)):
        if frame.filename.startswith("<_noria_code_"):
            return f" ({frame.filename.partition('>/')[2]}, line {frame.lineno})"
    return ""
