"""Parts of a batch on an executor: inline, in processes, on Ray."""

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import DeploymentError, SourceError
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Lost, Work, log_path, open_executor
from noria.pipelines.trees import Stored, Tree
from noria.pipelines.values.codec import dump
from noria.records import new_id
from noria.workspace.predicting.parts import let_go
from noria.workspace.predicting.records import part_stem
from noria.workspace.steps import place_of, working_on

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["run_parts"]

_TARGET = "noria.workspace.predicting.parts:score_part"
_TRIES = 3  # of a part whose process went away
_AHEAD = 2  # parts that wait for each that is at work
_POLL_S = 0.5
_QUEUED = 64  # at a cluster that queues by itself


def run_parts(
    project: "Project",
    folder: Path,
    parts: Iterable[int],
    *,
    executor: str | None,
    workers: int,
    done: Callable[[int], None],
) -> None:
    """Score parts, and tell of each that is done, in whatever order.

    Raises
    ------
    SourceError
        If more rows than may be cannot be scored, or the input cannot be read.
    DeploymentError
        If a part fails for another reason, or its process went away again and again.
    """
    waiting = deque(parts)
    if not waiting:
        return
    settings = project.settings.compute
    place = place_of(project)
    Path(place.scratch, "logs").mkdir(parents=True, exist_ok=True)
    opened = open_executor(executor or settings.executor, place, workers=workers or settings.workers)
    try:
        with working_on(project):
            _Desk(opened, folder, place.scratch).run(waiting, done)
    finally:
        opened.close()
        let_go()


class _Desk:
    """Hands parts out, and takes them back."""

    def __init__(self, executor: Executor, folder: Path, scratch: str) -> None:
        self._executor, self._folder, self._scratch = executor, folder, scratch
        capacity = executor.capacity()
        at_once = capacity.at_once or (int(capacity.cpus) if capacity.cpus else _QUEUED)
        self._most = max(1, at_once) * (1 if capacity.at_once == 1 else _AHEAD)
        self._at_work: dict[str, int] = {}
        self._tries: dict[int, int] = {}

    def run(self, waiting: deque[int], done: Callable[[int], None]) -> None:
        while waiting or self._at_work:
            while waiting and len(self._at_work) < self._most:
                self._submit(waiting.popleft())
            for report in self._executor.poll(_POLL_S):
                number = self._at_work.get(report.run)
                if number is None or not isinstance(report, Done | Lost):
                    continue
                del self._at_work[report.run]
                Path(log_path(self._scratch, report.run)).unlink(missing_ok=True)
                if isinstance(report, Lost):
                    self._again(number, report.reason)
                    waiting.appendleft(number)
                elif report.failure is not None:
                    _raise(number, report.failure.kind, report.failure.message)
                elif not Path(f"{part_stem(self._folder, number)}.json").exists():
                    raise DeploymentError(
                        f"part {number} is done, but its files are not in {self._folder}; an executor's "
                        "machines have to share the output's folder with this one"
                    )
                else:
                    done(number)

    def _submit(self, number: int) -> None:
        run = new_id()
        arguments: dict[str, Tree] = {
            "folder": _stored(str(self._folder), self._folder),
            "number": _stored(number, self._folder),
        }
        self._at_work[run] = number
        self._executor.submit(
            Work(
                run=run,
                task=f"predict/part[{number}]",
                target=_TARGET,
                arguments=arguments,
                split=(),
                seed=0,
                attempt=self._tries.get(number, 0) + 1,
                log=log_path(self._scratch, run),
            ),
            Resources(),
        )

    def _again(self, number: int, reason: str) -> None:
        self._tries[number] = self._tries.get(number, 0) + 1
        if self._tries[number] >= _TRIES:
            raise DeploymentError(
                f"part {number} was lost {_TRIES} times, at last because {reason}; the same batch again goes "
                "on with what is left"
            )


def _stored(value: str | int, folder: Path) -> Stored:
    made = dump(value, scratch=folder, where="a part of a batch")
    return Stored(made.format, made.sha256, made.size_bytes, str(value), made.data)


def _raise(number: int, kind: str, message: str) -> None:
    if kind == SourceError.__name__:
        raise SourceError(message)
    raise DeploymentError(f"part {number} could not be scored: {kind}: {message}")
