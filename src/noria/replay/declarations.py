"""A replay as a project declares it. Nothing here loads an engine."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from noria.clock import parse_instant
from noria.errors import ConfigError
from noria.lake.declarations import Dataset
from noria.monitoring.declarations import Monitor
from noria.streams.declarations import Stream
from noria.training.declarations import Training
from noria.triggers.declarations import Trigger

__all__ = ["Accident", "BadBatch", "Replay", "RollbackDrill", "ShuffledLabels"]

DAY = timedelta(days=1)


def _day(text: str, *, setting: str) -> datetime:
    try:
        instant = parse_instant(text)
    except ValueError as err:
        raise ConfigError(f"{setting} is {text!r}; write a UTC day such as '2013-04-01'") from err
    if instant != instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0):
        raise ConfigError(f"{setting} is {text!r}; a replay goes by whole UTC days")
    return instant


@dataclass(frozen=True, slots=True)
class BadBatch:
    """One day's batch arrives damaged; once it was blocked, the day's own batch arrives instead.

    Parameters
    ----------
    dataset
        Whose batch it is.
    on
        The UTC day.
    change
        Takes the day's rows and gives what arrives.
    note
        What happened, in words.
    """

    dataset: Dataset
    _: KW_ONLY
    on: str
    change: Callable[[Any], Any]
    note: str

    @property
    def day(self) -> datetime:
        """The day as an instant."""
        return _day(self.on, setting="BadBatch on")


@dataclass(frozen=True, slots=True)
class ShuffledLabels:
    """A candidate is trained on shuffled labels and goes to the gate like any other."""

    _: KW_ONLY
    on: str
    note: str

    @property
    def day(self) -> datetime:
        """The day as an instant."""
        return _day(self.on, setting="ShuffledLabels on")


@dataclass(frozen=True, slots=True)
class RollbackDrill:
    """Production is rolled back and forward again, on the first day from `on` that has an earlier release."""

    _: KW_ONLY
    on: str
    note: str

    @property
    def day(self) -> datetime:
        """The day as an instant."""
        return _day(self.on, setting="RollbackDrill on")


Accident = BadBatch | ShuffledLabels | RollbackDrill


@dataclass(frozen=True, slots=True)
class Replay:
    """Live through a stretch of recorded time day by day, with the loop closed.

    Everything known before `start` is history: it is ingested, and the first model is trained on it. From
    then on rows become known in their order, predictions are asked for at their instants over HTTP, and the
    monitor, the trigger and the gates decide.

    Parameters
    ----------
    training
        The model.
    monitor
        Watches it, once a day.
    trigger
        Retrains it.
    start, end
        UTC days; predictions are made from `start` (included) to `end` (excluded).
    accidents
        What goes wrong on purpose; each is recorded as planted.
    streams
        Those through which datasets of the model come, event by event; the others come in daily batches.
    environment, staging
        Where the model answers, and where it proves itself first.
    """

    training: Training
    _: KW_ONLY
    monitor: Monitor
    trigger: Trigger
    start: str
    end: str
    accidents: Sequence[Accident] = field(default=())
    streams: Sequence[Stream] = field(default=())
    environment: str = "production"
    staging: str = "staging"

    def __post_init__(self) -> None:
        """Refuse a replay that cannot be."""
        object.__setattr__(self, "accidents", tuple(self.accidents))
        object.__setattr__(self, "streams", tuple(self.streams))
        if self.ends_at <= self.starts_at:
            raise ConfigError(f"the replay ends at {self.end}, before it starts at {self.start}")
        for accident in self.accidents:
            if not isinstance(accident, Accident):
                raise ConfigError(
                    f"{accident!r} is no accident; use noria.BadBatch, noria.ShuffledLabels or "
                    "noria.RollbackDrill"
                )
            if not self.starts_at <= accident.day < self.ends_at:
                raise ConfigError(
                    f"an accident on {accident.on} lies outside the replay, {self.start} to {self.end}"
                )
        for view in self.training.views:
            if not isinstance(view.source, Dataset):
                raise ConfigError(
                    f"the feature view {view.name!r} counts rows of {view.source.name!r}, which is no "
                    "dataset; a replay lands rows of datasets day by day, and asks no query anew"
                )
        for stream in self.streams:
            self._want_stream(stream)

    def _want_stream(self, stream: Stream) -> None:
        needed = sorted(each.name for each in self.datasets)
        if not isinstance(stream, Stream) or stream.into.name not in needed:
            raise ConfigError(
                f"{stream!r} brings nothing that the model needs; give streams into {', '.join(needed)}"
            )
        if stream.partitions != 1:
            raise ConfigError(
                f"stream {stream.name!r} has {stream.partitions} partitions; to be replayed it has 1"
            )
        if any(isinstance(each, BadBatch) and each.dataset == stream.into for each in self.accidents):
            raise ConfigError(
                f"{stream.into.name!r} comes as events of stream {stream.name!r}, so that none of its days "
                "arrives as a bad batch; damage another dataset"
            )

    @property
    def name(self) -> str:
        """What the replay is called: as its model."""
        return self.training.name

    @property
    def starts_at(self) -> datetime:
        """The first day."""
        return _day(self.start, setting="Replay start")

    @property
    def ends_at(self) -> datetime:
        """The day after the last."""
        return _day(self.end, setting="Replay end")

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Every dataset that the model needs, each once, by name."""
        training = self.training
        counted = (view.source for view in training.views if isinstance(view.source, Dataset))
        needed = [training.spine.source, training.label.source, *counted]
        return tuple({each.name: each for each in sorted(needed, key=lambda each: each.name)}.values())
