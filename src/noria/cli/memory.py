"""How much memory a process and its children hold, looked at now and then."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PeakMemory"]

_EVERY_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """The most resident memory that this process and its children held together, sampled each second.

    Pages that processes share are counted for each: the figure is an upper bound. It stays 0 where the system
    has no `/proc`.
    """

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="noria-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """The peak so far, in units of a million bytes."""
        return self._peak_bytes / 1e6

    def _watch(self) -> None:
        while True:
            self._peak_bytes = max(self._peak_bytes, _tree_bytes(os.getpid()))
            if self._over.wait(_EVERY_S):
                return


def _tree_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except (OSError, IndexError):  # it has ended meanwhile, or there is no /proc
        return 0
    return pages * _PAGE_BYTES + sum(map(_tree_bytes, children))
