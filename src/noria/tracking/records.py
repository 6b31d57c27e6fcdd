"""What tracking keeps beside the ledger's runs."""

from datetime import datetime

import msgspec

__all__ = ["DEFAULT_EXPERIMENT", "Experiment", "MetricPoint"]

DEFAULT_EXPERIMENT = "Default"  # its id is "0"; it exists from the first migration


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of runs. A run names it by id."""

    id: str
    name: str
    at: datetime


class MetricPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one metric at one step of a run."""

    name: str
    value: float  # may be NaN or infinite
    step: int
    recorded_at: datetime  # wall
