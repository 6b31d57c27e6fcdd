"""Which columns a chart's encodings name: where one is not there Vega-Lite draws nothing, without a word."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["find_unknown_field"]

_STEP = re.compile(r"(?<!\\)[.\[]")  # where a path into a nested value goes on
_ENCODED = ("encoding", "facet", "repeat")
_NAMED_UNASKED = {"fold": ("key", "value"), "density": ("value", "density"), "quantile": ("prob", "value")}


def find_unknown_field(chart: Mapping[str, Any], columns: list[str]) -> tuple[str, str] | None:
    """Find a field that is neither a column of the answer nor made by a transform of the chart.

    Returns
    -------
    tuple or None
        Where it is named, such as `encoding.y`, and how it is called.
    """
    made = set(columns)
    for transform in _transforms(chart):
        if "pivot" in transform:
            return None  # it makes columns of values
        made |= set(_made(transform))
    for place, field in _fields(chart, ""):
        if field not in made and _root(field) not in made:
            return place, field
    return None


def _transforms(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "transform" and isinstance(value, list):
                yield from (each for each in value if isinstance(each, dict))
            elif name != "data":
                yield from _transforms(value)
    elif isinstance(node, list):
        for each in node:
            yield from _transforms(each)


def _made(node: Any) -> Iterator[str]:
    """Give the names that a transform gives to what it makes, and those that it has where none is given."""
    if isinstance(node, list):
        for each in node:
            yield from _made(each)
    if not isinstance(node, dict):
        return
    for kind, names in _NAMED_UNASKED.items():
        if kind in node:
            yield from names
    for given in (node.get("as"), node.get("fields") if "data" in node else None):
        yield from (each for each in ([given] if isinstance(given, str) else given or ()))
    for value in node.values():
        yield from _made(value)


def _fields(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Give the places that name a column, and its name; what has data of its own is left out."""
    if isinstance(node, list):
        for number, each in enumerate(node):
            yield from _fields(each, f"{place}[{number}]")
    if not isinstance(node, dict) or "data" in node:
        return
    for name, value in node.items():
        at = f"{place}.{name}".lstrip(".")
        if name in _ENCODED:
            yield from _named(value, at)
        elif name not in ("transform", "params"):
            yield from _fields(value, at)


def _named(node: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, str) and _is_repeated(place):
        yield place, node
    elif isinstance(node, list):
        for number, each in enumerate(node):
            yield from _named(each, f"{place}[{number}]")
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "field" and isinstance(value, str):
                yield place, value
            else:
                yield from _named(value, f"{place}.{name}")


def _is_repeated(place: str) -> bool:
    """Say whether a text in this place names a column: `repeat[0]`, `repeat.row[0]`."""
    return re.search(r"(^|\.)repeat(\.(row|column|layer))?\[\d+\]$", place) is not None


def _root(field: str) -> str:
    return _STEP.split(field, maxsplit=1)[0].replace("\\", "")
