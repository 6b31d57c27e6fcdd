"""Which release a worker asks right now, in a file that outlives it: whose fault it was that it ended."""

import logging
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from noria.serving.asking_files import FIRST, NOBODY, SIZE, Slots
from noria.serving.formats.scorers import Rows, Values
from noria.serving.models import LoadedModel, LoadedRoute
from noria.serving.scoring import score

__all__ = ["Asking"]

_LOG = logging.getLogger(__name__)


class Asking:
    """Asks the releases of one deployment, one at a time.

    Parameters
    ----------
    path
        The file; None: nobody wants to know after an end.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._slots: dict[str, int] = {}
        self._kept: mmap.mmap | bytearray = bytearray(SIZE)
        if path is None:
            return
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, 0)
            os.posix_fallocate(file, 0, SIZE)  # else a disk that is full later would end this process
            self._kept = mmap.mmap(file, SIZE)
        except OSError as err:  # no room: it answers all the same
            _LOG.warning("whose fault an end of this worker is will not be known: %s", err)
        finally:
            os.close(file)

    def hold(self, loaded: LoadedRoute) -> None:
        """Take the releases of a route for those that are asked from now on."""
        releases = list(loaded.models)
        told = msgspec.msgpack.encode(Slots(loaded.route.number, releases))
        if len(told) > SIZE - FIRST or len(releases) > 255:
            releases, told = [], b""
        self._slots = {release: slot for slot, release in enumerate(releases, 1)}
        self._kept[0] = NOBODY
        self._kept[1:FIRST] = len(told).to_bytes(2, "little")
        self._kept[FIRST : FIRST + len(told)] = told

    def score(self, model: LoadedModel, rows: Rows) -> Sequence[Values]:
        """Give what a release gives for rows; raises as `noria.serving.scoring.score`."""
        self._kept[0] = self._slots.get(model.served.release, NOBODY)
        try:
            return score(model, rows)
        finally:
            self._kept[0] = NOBODY

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._kept, mmap.mmap):
            self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
