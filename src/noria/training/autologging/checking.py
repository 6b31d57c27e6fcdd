"""Whether what `noria.autolog` was asked for can be done."""

from collections.abc import Iterable

from noria.errors import ConfigError
from noria.training.autologging.options import FRAMEWORKS, Options, RunStarter

__all__ = ["checked_options"]


def checked_options(
    start: RunStarter,
    frameworks: Iterable[str] | None,
    *,
    log_models: bool,
    log_every: int,
    candidates: int,
) -> Options:
    """Give what was asked for. Raises `ConfigError` if it cannot be done."""
    wanted = frozenset(FRAMEWORKS if frameworks is None else _names(frameworks))
    unknown = sorted(wanted - set(FRAMEWORKS))
    if unknown:
        raise ConfigError(f"frameworks: found {unknown[0]!r}, wanted some of {', '.join(FRAMEWORKS)}")
    for what, value, least in (("log_every", log_every, 1), ("candidates", candidates, 0)):
        if type(value) is not int or value < least:
            raise ConfigError(f"{what}: found {value!r}, wanted a whole number of {least} or more")
    return Options(start, wanted, log_models=log_models, log_every=log_every, candidates=candidates)


def _names(frameworks: Iterable[str]) -> list[str]:
    names = [frameworks] if isinstance(frameworks, str) else [*frameworks]
    for each in names:
        if not isinstance(each, str):
            raise ConfigError(f"frameworks: found {each!r}, a {type(each).__name__}, wanted texts")
    return names
