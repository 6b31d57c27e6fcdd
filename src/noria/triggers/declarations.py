"""What a project writes about acting by itself: conditions, triggers, budgets. Light: no engine."""

from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.monitoring.declarations import Monitor, Named
from noria.pipelines.declarations import Pipeline
from noria.pipelines.schedules import (
    CronSchedule,
    IntervalSchedule,
    Schedule,
    read_anchor,
    read_catch_up,
)

__all__ = [
    "AnyOf",
    "Budget",
    "Condition",
    "Decay",
    "Scheduled",
    "Stale",
    "Trigger",
    "decay",
    "every",
    "schedule",
    "stale",
]

DECAYS = ("estimated", "realized")


def _checked_duration(text: str, *, setting: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


class _Combinable:
    """Conditions combine with `|`."""

    __slots__ = ()

    def __or__(self, other: "Condition") -> "AnyOf":
        """Hold where either holds."""
        return AnyOf(conditions=(*leaves(self), *leaves(other)))  # type: ignore[arg-type]  # only conditions inherit


@dataclass(frozen=True, slots=True)
class Decay(_Combinable):
    """A monitor found decay. See `decay`."""

    monitor: Monitor
    _: KW_ONLY
    kinds: tuple[str, ...] = ("realized", "estimated")


@dataclass(frozen=True, slots=True)
class Scheduled(_Combinable):
    """An instant of a schedule has come. See `schedule` and `every`."""

    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Stale(_Combinable):
    """A dataset has gone stale. See `stale`."""

    dataset: Named


@dataclass(frozen=True, slots=True)
class AnyOf(_Combinable):
    """One of several conditions holds."""

    conditions: tuple["Decay | Scheduled | Stale", ...]


Condition = Decay | Scheduled | Stale | AnyOf


def leaves(condition: Condition) -> tuple[Decay | Scheduled | Stale, ...]:
    """Give the conditions that `condition` is made of."""
    return condition.conditions if isinstance(condition, AnyOf) else (condition,)


def decay(monitor: Monitor, *, kinds: tuple[str, ...] = ("realized", "estimated")) -> Decay:
    """Hold where `monitor` finds decay: `realized` from outcomes, `estimated` from scores alone."""
    if not kinds or not set(kinds) <= set(DECAYS):
        raise ConfigError(f"decay kinds are {kinds!r}; choose among {', '.join(DECAYS)}")
    return Decay(monitor, kinds=tuple(kinds))


def stale(dataset: Named) -> Stale:
    """Hold once when `dataset` has got no row that is as new as its check `fresh` wants, until it has again.

    `noria up` notices it. A pipeline that fetches is what to run: a model learns nothing from data that is
    missing, so a training is refused.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> stale(SimpleNamespace(name="flights")).dataset.name
    'flights'
    """
    return Stale(dataset)


def schedule(cron: str, *, tz: str = "UTC", catch_up: str = "newest") -> Scheduled:
    """Hold at the instants of a schedule: minute, hour, day of month, month, day of week.

    Parameters
    ----------
    cron
        Five fields of `*`, numbers, lists `1,15`, ranges `1-5` and steps `*/15`, as in crontab(5).
    tz
        The time zone that the fields speak of.
    catch_up
        What becomes of instants that came while nobody looked: the `newest` holds, `all` of them hold (the
        newest thousand), or `none` that is older than a minute.

    Examples
    --------
    >>> schedule("0 3 1 * *", tz="America/New_York").schedule.tz
    'America/New_York'
    """
    return Scheduled(CronSchedule(cron, tz=tz, catch_up=read_catch_up(catch_up)))


def every(
    period: str, *, tz: str = "UTC", anchor: str | datetime | None = None, catch_up: str = "newest"
) -> Scheduled:
    """Hold again and again, a period apart, whatever local clocks do.

    Parameters
    ----------
    period
        Such as `15m`, `12h`, `7d`: a day is always 24 hours. For 03:00 local time use `schedule`.
    anchor
        One of the instants, from which the others follow. Default: midnight of 1 January 1970 in `tz`.
    tz
        The time zone of an anchor that names none.
    catch_up
        What becomes of instants that came while nobody looked; see `schedule`.

    Examples
    --------
    >>> every("15m").schedule.next_after(datetime.fromisoformat("2013-03-02T04:50Z")).isoformat()
    '2013-03-02T05:00:00+00:00'
    """
    start = read_anchor(anchor, tz=tz)
    return Scheduled(IntervalSchedule(period, anchor=start, tz=tz, catch_up=read_catch_up(catch_up)))


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many runs in any period of this length."""

    runs: int
    per: str = "30d"

    def __post_init__(self) -> None:
        """Refuse a budget that allows nothing."""
        if self.runs < 1:
            raise ConfigError(f"Budget runs is {self.runs}; it must be 1 or more")
        _checked_duration(self.per, setting="Budget per")

    @property
    def period(self) -> timedelta:
        """The length of the period."""
        return parse_duration(self.per)


_FOUR_A_MONTH = Budget(runs=4, per="30d")
_BY_WHAT_IT_RUNS = ""
_WEEK = "7d"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What runs by itself, when, and how often at most.

    Parameters
    ----------
    on
        The condition; conditions combine with `|`.
    run
        The training or pipeline to run.
    cooldown
        The least time between two runs, by the project's clock, or None. Default: `7d`; none for a pipeline.
    budget
        The most runs in a period, or None. Default: 4 in 30 days; none for a pipeline.
    warm_up
        How long it only watches at first. A challenger is judged on rows it has not learned from, so one
        that is trained too soon after the version in production has learned nothing that is new.
    name
        Default: the name of what it runs.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(name="late_arrival")
    >>> retrain = Trigger(decay(Monitor(model)) | schedule("0 3 1 * *"), run=model, budget=Budget(runs=4))
    >>> retrain.name, len(leaves(retrain.on))
    ('late_arrival', 2)
    """

    on: Condition
    _: KW_ONLY
    run: Named
    cooldown: str | None = _BY_WHAT_IT_RUNS
    budget: Budget | None = _FOUR_A_MONTH
    warm_up: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Name it and refuse what can never act."""
        object.__setattr__(self, "name", self.name or self.run.name)
        if self.runs_pipeline and self.budget is _FOUR_A_MONTH:  # not given
            object.__setattr__(self, "budget", None)
        if self.cooldown == _BY_WHAT_IT_RUNS:
            object.__setattr__(self, "cooldown", None if self.runs_pipeline else _WEEK)
        if self.cooldown is not None:
            _checked_duration(self.cooldown, setting=f"trigger {self.name!r} cooldown")
        if self.warm_up is not None:
            _checked_duration(self.warm_up, setting=f"trigger {self.name!r} warm_up")
        if not self.runs_pipeline and any(isinstance(each, Stale) for each in leaves(self.on)):
            raise ConfigError(
                f"trigger {self.name!r} trains {self.run.name} when data is missing, which teaches a model "
                "nothing; run a pipeline that fetches it"
            )
        if sum(isinstance(each, Scheduled) for each in leaves(self.on)) > 1:
            raise ConfigError(
                f"trigger {self.name!r} has two schedules; write one, with lists, or two triggers"
            )

    @property
    def rest(self) -> timedelta:
        """The cooldown as a length of time."""
        return timedelta(0) if self.cooldown is None else parse_duration(self.cooldown)

    @property
    def runs_pipeline(self) -> bool:
        """Whether it runs a pipeline, rather than a training."""
        return isinstance(self.run, Pipeline)

    @property
    def schedule(self) -> Schedule | None:
        """The schedule among its conditions, if there is one."""
        return next((each.schedule for each in leaves(self.on) if isinstance(each, Scheduled)), None)
