"""Boosters of LightGBM and XGBoost within archives of skops, looked at before their libraries read them."""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any
from zipfile import ZipFile

from skops.io._audit import Node, get_tree
from skops.io._general import BytearrayNode, DictNode, JsonNode, ObjectNode
from skops.io._utils import LoadContext, read_schema

from noria.errors import ConfigError
from noria.registry.lightgbm_checks import check_text
from noria.registry.xgboost_checks import check_serialized

__all__ = ["check_boosters"]

_LIGHTGBM, _XGBOOST = "lightgbm.basic.Booster", "xgboost.core.Booster"
_BOOSTERS = frozenset({_LIGHTGBM, _XGBOOST})
_HANDLES = ("_handle", "handle")


def check_boosters(data: bytes, trusted: Sequence[str]) -> None:
    """Look at all boosters of an archive, of which `trusted` names the types that skops does not know.

    Raises `ConfigError` if one is none that a training can give.
    """
    if _BOOSTERS.isdisjoint(trusted):
        return
    with ZipFile(BytesIO(data)) as archive:
        schema, context = read_schema(archive)
        for each in _nodes(schema, context, trusted):
            name = f"{each.module_name}.{each.class_name}"
            if name in _BOOSTERS:
                _check(each, name)


def _nodes(schema: dict[str, Any], context: LoadContext, trusted: Sequence[str]) -> Iterator[Node]:
    """Give every node of an archive, each once; nothing is made of them."""
    seen: set[int] = set()
    waiting: list[Any] = [get_tree(schema, context, trusted=list(trusted))]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif isinstance(each, Node) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting.append(each.children)


def _check(node: Node, name: str) -> None:
    attributes = node.attrs if type(node) is ObjectNode else None
    if not isinstance(attributes, DictNode):
        raise ConfigError(f"the archive holds a {name} that is not as its library stores it")
    for each in _HANDLES:
        held = attributes.content.get(each)
        if held is None:
            continue
        if name == _LIGHTGBM and type(held) is JsonNode:
            text = json.loads(held.content)
            if text is None:
                continue
            if isinstance(text, str):
                check_text(text.encode())
                continue
        elif name == _XGBOOST and type(held) is BytearrayNode:
            check_serialized(held.content.getvalue())
            continue
        raise ConfigError(f"the archive holds a {name} that is not as its library stores it")
