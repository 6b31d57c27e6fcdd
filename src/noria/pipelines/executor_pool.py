"""Executors kept open between runs, so that worker processes are not started anew for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from noria.pipelines.executor import Executor
from noria.records import sha256_hex

__all__ = ["ExecutorPool"]


@dataclass(slots=True)
class ExecutorPool:
    """Idle executors by URL. One run has an executor to itself.

    An executor's processes have loaded the code of the run before: it is handed out only to a run of the very
    same code, and while the files that were loaded are as they were; else it is closed.
    """

    open_executor: Callable[[str], Executor]
    _idle: dict[str, tuple[str, Executor, dict[str, str]]] = field(default_factory=dict)

    def borrow(self, url: str, code: str) -> tuple[Executor, Mapping[str, str]]:
        """Give an executor, and which sources its processes have loaded: file -> sha256.

        `code` is the digest of all code that the run reaches.
        """
        found = self._idle.pop(url, None)
        if found is not None:
            known, executor, loaded = found
            if known == code and all(_is(path, sha256) for path, sha256 in loaded.items()):
                return executor, loaded
            executor.close()
        return self.open_executor(url), {}

    def give_back(
        self, url: str, code: str, executor: Executor, *, loaded: Mapping[str, str], is_idle: bool
    ) -> None:
        """Take an executor back; one that is still at something is closed."""
        if not is_idle or url in self._idle:
            executor.close()
        else:
            self._idle[url] = (code, executor, dict(loaded))

    def close(self) -> None:
        """Close all that is idle."""
        while self._idle:
            _, (_, executor, _) = self._idle.popitem()
            executor.close()


def _is(path: str, sha256: str) -> bool:
    try:
        return sha256_hex(Path(path).read_bytes()) == sha256
    except OSError:
        return False
