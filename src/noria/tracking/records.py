"""What tracking keeps beside the ledger's runs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from noria.clock import from_micros
from noria.records import RunId, RunState

__all__ = [
    "DEFAULT_EXPERIMENT",
    "Experiment",
    "LinkedModel",
    "LoggedDataset",
    "MetricPoint",
    "RunDetails",
    "TrackedInfo",
    "param_text",
]

DEFAULT_EXPERIMENT = "Default"  # its id is "0"; it exists from the first migration


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of runs. A run names it by id."""

    id: str
    name: str
    at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    artifact_uri: str | None = None  # None: the project's own artifacts
    tags: dict[str, str] = {}


class MetricPoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One value of one metric at one step of a run."""

    name: str
    value: float  # may be NaN or infinite
    step: int
    at_us: int  # of the wall, in microseconds since 1970

    @property
    def recorded_at(self) -> datetime:
        """The wall's instant."""
        return from_micros(self.at_us)


class LoggedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's owner tells of data that it read."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str] = {}
    context: str | None = None  # what for, such as "train"


class LinkedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model that a run read or made."""

    model: str
    step: int = 0


class TrackedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A run of an experiment, without what was logged."""

    id: RunId
    experiment: str
    name: str
    owner: str
    state: RunState
    is_scheduled: bool
    started_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A run of an experiment with what was logged: of each metric the latest point."""

    info: TrackedInfo
    metrics: tuple[MetricPoint, ...]
    params: dict[str, str]
    tags: dict[str, str]
    datasets: tuple[LoggedDataset, ...] = ()
    models_read: tuple[LinkedModel, ...] = ()
    models_made: tuple[LinkedModel, ...] = ()


def param_text(value: Any) -> str:
    """Give a parameter as people read it, and as filters compare it.

    Examples
    --------
    >>> param_text(0.1), param_text("0.1"), param_text([1, 2])
    ('0.1', '0.1', '[1, 2]')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, Mapping)):
        return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
    return str(value)
