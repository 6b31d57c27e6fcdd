"""The pattern that all texts of a column have in common, if they have one."""

import re
from collections.abc import Iterable
from itertools import groupby

__all__ = ["find_pattern"]

_MOST_RUNS = 12
_CLASSES = {"d": "[0-9]", "u": "[A-Z]", "l": "[a-z]"}


def find_pattern(texts: Iterable[str]) -> str | None:
    r"""Give a regular expression (RE2) of runs of digits, letters and signs, which each whole text matches.

    None where the texts are not built alike, are empty, or have letters beyond ASCII.

    Examples
    --------
    >>> find_pattern(["AB-12", "XY-7"])
    '[A-Z]{2}\\-[0-9]{1,2}'
    >>> find_pattern(["AB-12", "12"]) is None
    True
    """
    shape: tuple[str, ...] | None = None
    least: list[int] = []
    most: list[int] = []
    for text in texts:
        runs = [(kind, len(list(run))) for kind, run in groupby(text, key=_kind)]
        kinds, lengths = tuple(kind for kind, _ in runs), [length for _, length in runs]
        if not runs or len(runs) > _MOST_RUNS or "" in kinds or shape not in (None, kinds):
            return None
        if shape is None:
            shape, least, most = kinds, lengths, lengths
        least, most = list(map(min, least, lengths)), list(map(max, most, lengths))
    if shape is None or (len(shape) == 1 and least != most):
        return None
    return "".join(map(_run, shape, least, most))


def _kind(sign: str) -> str:
    """Give the class of a sign, or itself; empty where no pattern is wanted of it."""
    if not sign.isascii() or not sign.isprintable():
        return ""
    if sign.isdigit():
        return "d"
    if sign.isalpha():
        return "u" if sign.isupper() else "l"
    return "=" + sign


def _run(kind: str, least: int, most: int) -> str:
    one = _CLASSES.get(kind) or re.escape(kind[1:])
    if least == most:
        return one if least == 1 else f"{one}{{{least}}}"
    return f"{one}{{{least},{most}}}"
