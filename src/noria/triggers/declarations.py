"""What a project writes about acting by itself: conditions, triggers, budgets. Light: no engine."""

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.monitoring.declarations import Monitor, Named
from noria.triggers.cron import Schedule

__all__ = ["AnyOf", "Budget", "Condition", "Decay", "Scheduled", "Trigger", "decay", "schedule"]

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
    """An instant of a schedule has come. See `schedule`."""

    schedule: Schedule


@dataclass(frozen=True, slots=True)
class AnyOf(_Combinable):
    """One of several conditions holds."""

    conditions: tuple["Decay | Scheduled", ...]


Condition = Decay | Scheduled | AnyOf


def leaves(condition: Condition) -> tuple[Decay | Scheduled, ...]:
    """Give the conditions that `condition` is made of."""
    return condition.conditions if isinstance(condition, AnyOf) else (condition,)


def decay(monitor: Monitor, *, kinds: tuple[str, ...] = ("realized", "estimated")) -> Decay:
    """Hold where `monitor` finds decay: `realized` from outcomes, `estimated` from scores alone."""
    if not kinds or not set(kinds) <= set(DECAYS):
        raise ConfigError(f"decay kinds are {kinds!r}; choose among {', '.join(DECAYS)}")
    return Decay(monitor, kinds=tuple(kinds))


def schedule(cron: str, *, tz: str = "UTC") -> Scheduled:
    """Hold at the instants of a schedule: minute, hour, day of month, month, day of week.

    Parameters
    ----------
    cron
        Five fields of `*`, numbers, lists `1,15`, ranges `1-5` and steps `*/15`, as in crontab(5).
    tz
        The time zone that the fields speak of.

    Examples
    --------
    >>> schedule("0 3 1 * *", tz="America/New_York").schedule.tz
    'America/New_York'
    """
    return Scheduled(Schedule(cron, tz=tz))


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


@dataclass(frozen=True, slots=True)
class Trigger:
    """What runs by itself, when, and how often at most.

    Parameters
    ----------
    on
        The condition; conditions combine with `|`.
    run
        The training to run.
    cooldown
        The least time between two runs, by the project's clock.
    budget
        The most runs in a period, or None.
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
    cooldown: str = "7d"
    budget: Budget | None = _FOUR_A_MONTH
    warm_up: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Name it and refuse what can never act."""
        object.__setattr__(self, "name", self.name or self.run.name)
        _checked_duration(self.cooldown, setting=f"trigger {self.name!r} cooldown")
        if self.warm_up is not None:
            _checked_duration(self.warm_up, setting=f"trigger {self.name!r} warm_up")
        if sum(isinstance(each, Scheduled) for each in leaves(self.on)) > 1:
            raise ConfigError(
                f"trigger {self.name!r} has two schedules; write one, with lists, or two triggers"
            )

    @property
    def rest(self) -> timedelta:
        """The cooldown as a length of time."""
        return parse_duration(self.cooldown)
