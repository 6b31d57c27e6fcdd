"""What a project writes about a bandit. Light: no engine."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from noria.clock import parse_duration
from noria.deploy.declarations import AB_METRICS
from noria.errors import ConfigError

__all__ = ["Bandit"]

_OF_OUTCOMES = tuple(each for each in AB_METRICS if each not in ("error_rate", "latency_ms"))


class Bandit(msgspec.Struct, frozen=True, kw_only=True):
    """Several releases on real traffic, whose shares follow their outcomes: to earn while learning.

    Every so often each release gets its chance of being the best as its share (`noria.deploy.bandit`). After
    `max_days` the best answers everything, if it is the best with `confidence`; else the stable one does.

    Parameters
    ----------
    name
        Salt of the assignment: a unit moves only to a release that gains weight.
    metric
        Of outcomes: `conversion` (0 or 1, more is better), `value` (money, more is better), `log_loss` or
        `brier`.
    weights
        Of the releases at first, that of the stable one first.
    floor
        Least share of a release, so that one that was unlucky comes back.
    every
        How often shares are moved, such as `1h`.
    sticky
        What is assigned as a whole, such as `customer_id`; empty: each prediction by its id. Several rows of
        a unit are averaged and count as one.
    confidence
        Chance of being the best that the winner needs.
    min_units
        Units with an outcome that each release needs before shares are moved.
    max_days
        When it ends.

    Examples
    --------
    >>> Bandit(name="offers", metric="conversion").shares
    (0.5, 0.5)
    """

    name: str
    metric: str
    weights: Sequence[float] = (0.5, 0.5)
    floor: float = 0.05
    every: str = "1h"
    sticky: str = ""
    confidence: float = 0.95
    min_units: int = 50
    max_days: float = 28.0

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        told = f"Bandit {self.name!r}"
        if self.metric not in _OF_OUTCOMES:
            raise ConfigError(
                f"{told}: {self.metric!r} is no metric of outcomes; use one of {', '.join(_OF_OUTCOMES)}"
            )
        if len(self.weights) < 2 or any(each <= 0 for each in self.weights):
            raise ConfigError(
                f"{told} has weights {list(self.weights)}; give two or more, all above 0, that of the stable "
                "release first"
            )
        if not 0 < self.floor <= 1 / len(self.weights):
            raise ConfigError(
                f"{told} has a floor of {self.floor}; for {len(self.weights)} releases give more than 0 and "
                f"at most {1 / len(self.weights):.4g}"
            )
        if not self.name or not 0 < self.confidence < 1 or self.min_units < 2 or self.max_days <= 0:
            raise ConfigError(
                f"{told}: it needs a name, a confidence between 0 and 1, min_units 2 or more and max_days "
                "above 0"
            )
        if self.period <= timedelta(0):
            raise ConfigError(f"{told} moves shares every {self.every!r}; give a time, such as 1h")

    @property
    def shares(self) -> tuple[float, ...]:
        """The first weights, so that they add up to one."""
        return tuple(each / sum(self.weights) for each in self.weights)

    @property
    def is_less_better(self) -> bool:
        """Whether a release with a smaller value is better."""
        return self.metric not in ("conversion", "value")

    @property
    def period(self) -> timedelta:
        """How often shares are moved."""
        try:
            return parse_duration(self.every)
        except ValueError as error:
            raise ConfigError(f"Bandit {self.name!r} every: {error}") from error
