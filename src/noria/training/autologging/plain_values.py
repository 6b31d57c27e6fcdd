"""Parameters of frameworks as values that a run keeps: what JSON can hold, else a short text."""

import re
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np

__all__ = ["metric_name", "plain", "plain_params"]

_REFUSED = re.compile(r"[^\w\-. :/]+")
_NAME_CHARS, _TEXT_CHARS, _ITEMS = 250, 500, 100
_DEPTH = 4


def metric_name(text: str) -> str:
    """Give a name that a metric or a parameter may have.

    Examples
    --------
    >>> metric_name("valid_0-ndcg@5"), metric_name("<lambda>")
    ('valid_0-ndcg_at_5', '_lambda_')
    """
    name = _REFUSED.sub("_", text.replace("@", "_at_")).strip("/. ") or "_"
    return re.sub(r"/+", "/", name)[:_NAME_CHARS]


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Give parameters by names that they may have."""
    return {metric_name(str(name)): plain(value) for name, value in params.items()}


def plain(value: Any, *, depth: int = 0) -> Any:  # noqa: PLR0911 - a table of types
    """Give a value as JSON can hold it; objects by their class, functions by their name.

    Examples
    --------
    >>> plain((1, np.float64(0.5))), plain(len), plain(np.zeros((20, 30)))
    ([1, 0.5], 'len', 'array of float64, 20 x 30')
    """
    match value:
        case None | bool() | int():
            return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
        case np.generic():
            return plain(value.item(), depth=depth)
        case float():
            return float(value)
        case str():
            return _short(value)
        case np.ndarray():
            shape = " x ".join(map(str, value.shape))
            return f"array of {value.dtype}, {shape}" if value.size > _ITEMS else plain(value.tolist())
        case list() | tuple() if len(value) <= _ITEMS and depth < _DEPTH:
            return [plain(each, depth=depth + 1) for each in value]
        case set() | frozenset() if len(value) <= _ITEMS and depth < _DEPTH:
            return sorted(str(plain(each, depth=depth + 1)) for each in value)
        case dict() if len(value) <= _ITEMS and depth < _DEPTH:
            return {_short(str(key)): plain(each, depth=depth + 1) for key, each in value.items()}
        case type():
            return value.__name__
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str):
        return _short(name)
    if isinstance(value, Sized) and isinstance(value, Iterable):
        return f"{type(value).__name__} of {len(value):,}"
    return type(value).__name__


def _short(text: str) -> str:
    clean = text.replace("\0", "").encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= _TEXT_CHARS else f"{clean[: _TEXT_CHARS - 1]}…"
