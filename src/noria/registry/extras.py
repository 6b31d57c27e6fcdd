"""Libraries that noria does without until a model of theirs is there."""

from importlib import import_module
from typing import Any

from noria.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str, *, extra: str, what: str) -> Any:
    """Give a module of a library that one of noria's extras brings.

    Raises
    ------
    ConfigError
        If the library is not installed; it names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        if err.name != module.partition(".")[0]:
            raise
        raise ConfigError(
            f"{what} need {err.name}, which is not installed; `pip install 'noria[{extra}]'` brings it"
        ) from err
