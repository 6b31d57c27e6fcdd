"""What a replay works with, and what it tells of each day."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from noria.clock import ReplayClock
from noria.deploy.supervisor import Supervisor
from noria.features.online import OnlineStore
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.monitoring.outcomes import OutcomeLog
from noria.pipelines.engine import Engine
from noria.registry.store import Registry
from noria.streams.contract import EventStream
from noria.triggers.challenge import Bench

__all__ = ["DayDone", "Stores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything opened that a replay needs; workspace opens and closes it.

    Parameters
    ----------
    root
        The project's folder.
    clock
        The project's clock: the replay moves it.
    references
        Datasets that do not change over the replay, ingested once.
    server
        Serves the deployment that is replayed.
    engine
        Runs the replay's steps.
    streams
        The opened streams of the replay, by name.
    """

    root: Path
    clock: ReplayClock
    ledger: Ledger
    lake: Lake
    registry: Registry
    online: OnlineStore
    outcomes: OutcomeLog
    bench: Bench
    server: Supervisor
    engine: Engine
    references: tuple[Dataset, ...] = ()
    streams: Mapping[str, EventStream] = field(default_factory=dict)


class DayDone(msgspec.Struct, frozen=True, kw_only=True):
    """One day of a replay, as its event tells it."""

    day: datetime
    predictions: int
    requests: int
    outcomes: int
    served: str  # the model version in charge
    on_trial: str | None
    parity_rows: int  # served rows whose features were computed again offline
    parity_differences: int  # values of them that were not equal
    bad: bool
    metrics: dict[str, float]
