"""What an import asks of an MLflow store, whatever it is: a database, or a server."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from noria.clock import from_micros
from noria.errors import SourceError
from noria.records import RunId, RunState
from noria.registry.importing import ForeignRegistered, ForeignVersion
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.tracking.importing import ForeignExperiment, ForeignRun, PointsAside
from noria.tracking.importing_models import ForeignLink, ForeignModel
from noria.tracking.records import LoggedDataset

__all__ = [
    "LeftBehind",
    "MlflowSource",
    "SourceFile",
    "UnreadModel",
    "UnreadRun",
    "described_dataset",
    "from_ms",
    "number_of",
    "some_instant",
    "state_of",
]

_STATES = {
    "RUNNING": RunState.RUNNING,
    "SCHEDULED": RunState.RUNNING,
    "FINISHED": RunState.FINISHED,
    "FAILED": RunState.FAILED,
    "KILLED": RunState.KILLED,
}
_CONTEXT_TAG = "mlflow.data.context"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LeftBehind(SourceError):
    """Something of a store cannot be taken; the import tells so and goes on."""


class UnreadRun(msgspec.Struct, frozen=True):
    """A run that cannot be taken, and why."""

    id: str
    why: str


class UnreadModel(msgspec.Struct, frozen=True):
    """A registered model that cannot be taken, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a run.

    Attributes
    ----------
    path
        Below the run's files.
    put
        Copies it to a path of the project's artifacts. Raises `LeftBehind`.
    fault
        Why it cannot be taken.
    """

    path: str
    put: Callable[[ArtifactStore, str], Artifact] | None = None
    fault: str | None = None


class MlflowSource(Protocol):
    """An MLflow store that is read and never written. One thread uses it."""

    @property
    def location(self) -> str:
        """Where it is, without a password."""
        ...

    def experiments(self) -> Iterable[ForeignExperiment]:
        """Give all experiments, the deleted ones too."""
        ...

    def run_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignRun | UnreadRun]]:
        """Give all runs of an experiment, the deleted ones too, some at a time."""
        ...

    def find_run(self, id: str) -> ForeignRun | UnreadRun | None:
        """Give a run, or `None`."""
        ...

    def read_datasets(self, run: ForeignRun) -> tuple[LoggedDataset, ...]:
        """Give what a run read."""
        ...

    def read_points(self, run: RunId, aside: PointsAside) -> None:
        """Set all points of a run's metrics aside."""
        ...

    def files(self, run: ForeignRun) -> Iterator[SourceFile]:
        """Give the files of a run. Raises `LeftBehind` where none can be had."""
        ...

    def model_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignModel]]:
        """Give the logged models of an experiment, some at a time."""
        ...

    def model_files(self, model: ForeignModel) -> Iterator[SourceFile]:
        """Give the files of a logged model. Raises `LeftBehind` where none can be had."""
        ...

    def link_pages(self) -> Iterator[Sequence[ForeignLink]]:
        """Give which logged models the runs read and made, some at a time; once the runs were read."""
        ...

    def registered_pages(self) -> Iterator[Sequence[ForeignRegistered | UnreadModel]]:
        """Give the registered models but prompts, with all their versions, some models at a time."""
        ...

    def version_files(self, version: ForeignVersion) -> Iterator[SourceFile]:
        """Give the files of a version that are those of no run. Raises `LeftBehind` where none can be had."""
        ...

    def count_others(self) -> Mapping[str, int]:
        """Count what the store holds that is not imported, by what it is."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def from_ms(ms: int | None) -> datetime | None:
    """Give the instant of milliseconds since 1970. Raises `LeftBehind` if there is none."""
    if ms is None:
        return None
    try:
        return from_micros(ms * 1_000)
    except (OverflowError, ValueError) as err:
        raise LeftBehind(f"{ms} ms since 1970 is no instant that a date has") from err


def state_of(status: str | None) -> RunState:
    """Give where a run stands. Raises `LeftBehind` if it cannot be told."""
    if status not in _STATES:
        raise LeftBehind(f"its status is {status!r}, wanted is one of {', '.join(_STATES)}")
    return _STATES[status]


def some_instant(*found: datetime | None) -> datetime:
    """Give the first instant that is known."""
    return next((each for each in found if each is not None), _EPOCH)


def number_of(value: float, *, is_nan: bool) -> float:
    """Give a value as it was logged: a store of MLflow has no infinity, the greatest number stands for it."""
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def described_dataset(
    *,
    name: str,
    digest: str,
    source_type: str,
    source: str,
    schema: str | None,
    profile: str | None,
    tags: Mapping[str, str],
) -> LoggedDataset:
    """Give what a run's owner told of data that it read."""
    others = dict(tags)
    context = others.pop(_CONTEXT_TAG, None)
    return LoggedDataset(
        name=name,
        digest=digest,
        source_type=source_type,
        source=source,
        schema=schema,
        profile=profile,
        tags=others,
        context=context,
    )
