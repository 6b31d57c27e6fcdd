"""How long windows are, as they are written."""

from dataclasses import dataclass

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.features.declarations import HOUR_S, MINUTE_S, Tier

__all__ = ["Window", "seconds_of"]

_LONGEST_BY_MINUTE_S = 3 * HOUR_S


@dataclass(frozen=True, slots=True)
class Window:
    """How long a window is, and its resolution where that is not the one of its length."""

    seconds: int
    resolution: Tier | None

    @classmethod
    def of(cls, window: str, resolution: str | None) -> "Window":
        """Read both. Raises `ConfigError` if they do not fit."""
        seconds = seconds_of(window)
        if seconds < MINUTE_S:
            raise ConfigError(f"a window of {window!r} is shorter than a minute, the finest resolution")
        if resolution is None:
            return cls(seconds, Tier.MINUTE if seconds < HOUR_S else None)
        if resolution != Tier.MINUTE:
            raise ConfigError(
                f"a resolution of {resolution!r} cannot be asked for; 'minute' can, otherwise it is an hour "
                "for windows up to two days and a day above"
            )
        if seconds > _LONGEST_BY_MINUTE_S:
            raise ConfigError(
                f"a window of {window!r} is too long for minutes: {_LONGEST_BY_MINUTE_S // HOUR_S} hours at "
                "most; leave `resolution` out"
            )
        return cls(seconds, Tier.MINUTE)


def seconds_of(window: str) -> int:
    """Give a duration such as `"7d"` in seconds. Raises `ConfigError` if it is none."""
    try:
        return int(parse_duration(window).total_seconds())
    except ValueError as err:
        raise ConfigError(str(err)) from err
