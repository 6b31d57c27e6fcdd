"""Which releases a worker asks right now, in a file that outlives it: whose fault it was that it ended."""

import logging
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from noria.serving.asking_files import ANSWERING, NOBODY, SHADOWING, SIZE, encode_slots
from noria.serving.models import LoadedModel, LoadedRoute
from noria.serving.rows import Rows, Values
from noria.serving.scoring import Part, score

__all__ = ["Asking"]

_LOG = logging.getLogger(__name__)


class Asking:
    """Asks the releases of one deployment: at most one that answers and one in the shadow at a time.

    Parameters
    ----------
    path
        The file; None: nobody wants to know after an end.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._asked: list[tuple[int, str]] = []  # slots stay what they are while a route is replaced
        self._slots: dict[str, bytes] = {}
        self._kept: mmap.mmap | bytearray = bytearray(SIZE)
        if path is None:
            return
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(file, 0)
                os.posix_fallocate(file, 0, SIZE)  # else a disk that is full later would end this process
                self._kept = mmap.mmap(file, SIZE)
            finally:
                os.close(file)
        except OSError as err:  # no room: it answers all the same
            _LOG.warning("whose fault an end of this worker is will not be known: %s", err)

    def hold(self, loaded: LoadedRoute) -> None:
        """Take the releases of a route for those that are asked from now on."""
        mine = [(loaded.route.number, release) for release in loaded.models]
        asked = [*self._asked, *(each for each in mine if each not in self._asked)]
        told = encode_slots(asked)
        if told is None:  # after very many routes
            asked = mine
            told = encode_slots(asked)
        if told is None:
            self._asked, self._slots = [], {}
            return
        place, data = told
        self._kept[place] = data
        self._asked = asked
        self._slots = {each[1]: (asked.index(each) + 1).to_bytes(2, "little") for each in mine}

    def rows(self, part: Part, model: LoadedModel, *, shadow: bool = False) -> Rows:
        """Give the rows as a release reads them: a function that came with it may be asked for that."""
        if model.on_demand is None:
            return part.rows_of(model)
        lane = SHADOWING if shadow else ANSWERING
        self._kept[lane] = self._slots.get(model.served.release, NOBODY)
        try:
            return part.rows_of(model)
        finally:
            self._kept[lane] = NOBODY

    def score(self, model: LoadedModel, rows: Rows, *, shadow: bool = False) -> Sequence[Values]:
        """Give what a release gives for rows; raises as `noria.serving.scoring.score`."""
        lane = SHADOWING if shadow else ANSWERING
        self._kept[lane] = self._slots.get(model.served.release, NOBODY)
        try:
            return score(model, rows)
        finally:
            self._kept[lane] = NOBODY

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._kept, mmap.mmap):
            self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
