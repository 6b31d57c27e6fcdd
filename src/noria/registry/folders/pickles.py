"""Pickles: called only for what a project trusts."""

import pickle
from typing import Any

from noria.errors import ConfigError

__all__ = ["load_pickle"]

_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)


def load_pickle(data: bytes, where: str) -> Any:
    """Give the object of a pickle; its code runs.

    Raises
    ------
    ConfigError
        If it is none, or needs what is not installed.
    """
    try:
        return pickle.loads(data)
    except _ERRORS as err:
        raise ConfigError(
            f"the pickle of {where} cannot be read here ({type(err).__name__}: {err}); install what its "
            "requirements.txt names, in these versions"
        ) from err
