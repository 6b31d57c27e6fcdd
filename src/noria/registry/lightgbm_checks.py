"""Texts of LightGBM from files: whether every step in their trees leads to a node that is there.

LightGBM follows what stands in a tree without looking: one that was made to lead elsewhere would end the
process, run for ever, or read memory that is not its own. Some lists of a wrong length end the process as it
is read. What is found here is what LightGBM finds: its trees are cut at the same places.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from noria.errors import ConfigError

__all__ = ["check_text"]

_TREES = b"\nTree=0\n"
_HEADER = ("num_class", "num_tree_per_iteration", "max_feature_idx")
_MOST_CLASSES = 100_000
_OF_NODES = ("split_gain", "internal_value", "internal_weight", "internal_count", "threshold")
_OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count", "leaf_const")
_IS_CATEGORICAL = 1
_PARAMETER = re.compile(rb"\[\w+: .*\]")
_CLASSES = re.compile(r"num_class:(\S*)")
_Fields = Mapping[str, str]


def check_text(data: bytes) -> None:
    """Look at all trees of a text model. Raises `ConfigError` if one is none that a training can give."""
    try:
        _check(data)
    except (ValueError, KeyError, UnicodeDecodeError, OverflowError) as err:
        if isinstance(err, ConfigError):
            raise
        raise _refusal(f"{type(err).__name__}: {err}") from err


def _check(data: bytes) -> None:
    head, gap, _ = data.partition(_TREES)
    if not data.startswith(b"tree\n") or b"\0" in data or b"\r" in data:
        raise _refusal("it does not begin as one")
    fields = _fields(head.decode())
    classes, per_iteration, most = (int(fields[each]) for each in _HEADER)
    objective = fields.get("objective", "none")  # of a program's own: it says none
    told = _CLASSES.search(objective)
    if not objective.strip():
        raise _refusal("its objective has no name")
    if not 1 <= per_iteration == classes <= _MOST_CLASSES or (told and int(told[1]) != classes):
        raise _refusal("its numbers of classes do not fit")
    sizes = [int(each) for each in fields.get("tree_sizes", "").split()]
    if bool(gap) != bool(sizes) or len(sizes) % per_iteration or min(sizes, default=1) < 1:
        raise _refusal("its trees are not as many as it says")
    start = len(head) + 1
    for number, size in enumerate(sizes):
        block = data[start : start + size]
        start += size
        if len(block) != size or not block.startswith(b"Tree=%d\n" % number):
            raise _refusal(f"tree {number} is not where it is to be")
        _check_tree(_fields(block.decode()), width=most + 1, number=number)
    if sizes and not data[start:].lstrip(b"\n").startswith(b"end of trees"):
        raise _refusal("its trees do not end where they are to")
    _check_parameters(data[start:])


def _check_parameters(tail: bytes) -> None:
    """Look at the parameters behind the trees, of which LightGBM makes JSON: a cut one ends the process."""
    _, begins, rest = tail.partition(b"\nparameters:")
    lines, ends, _ = rest.partition(b"\nend of parameters")
    if begins and not ends:
        raise _refusal("its parameters do not end")
    if odd := [each for each in lines.split(b"\n") if each and not _PARAMETER.fullmatch(each)]:
        raise _refusal(f"it has {odd[0][:40]!r} among its parameters")


def _fields(text: str) -> _Fields:
    """Give the lines `key=value` up to the first that is empty; each key once."""
    found: dict[str, str] = {}
    for line in text.partition("\n\n")[0].split("\n"):
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals:
            continue
        if key in found:
            raise _refusal(f"it says {key[:40]!r} twice")
        found[key] = value
    return found


def _check_tree(fields: _Fields, *, width: int, number: int) -> None:
    leaves, categories = int(fields["num_leaves"]), int(fields["num_cat"])
    if leaves < 1 or categories < 0:
        raise _refusal(f"tree {number} has {leaves} leaves")
    lengths = dict.fromkeys(_OF_LEAVES, leaves) | {"shrinkage": 1}
    if leaves == 1:
        lengths = {"leaf_value": 1, "leaf_const": 1, "shrinkage": 1}  # others are not read, and may be empty
    else:
        lengths |= dict.fromkeys(_OF_NODES, leaves - 1)
        _check_nodes(fields, leaves - 1, categories, width, number)
    for name, wanted in lengths.items():
        if name in fields or name == "leaf_value":
            _floats(fields, name, wanted, number)
    if fields.get("is_linear", "0").strip() != "0":
        _check_linear(fields, leaves, width, number)


def _check_nodes(fields: _Fields, count: int, categories: int, width: int, number: int) -> None:
    features, kinds, left, right = (
        _integers(fields, name, count, number)
        for name in ("split_feature", "decision_type", "left_child", "right_child")
    )
    onward = np.concatenate([left, right])
    inner, outer = onward[onward >= 0], ~onward[onward < 0]
    leads = (inner > 0).all() and (inner < count).all() and (outer <= count).all()
    once = len(np.unique(inner)) == len(inner) and len(np.unique(outer)) == len(outer)
    reads = (features >= 0).all() and (features < width).all()
    if not (leads and once and reads):
        raise _refusal(f"tree {number} leads to nodes or columns that are not there")
    is_categorical = (kinds & _IS_CATEGORICAL) != 0
    if categories:
        bounds = _integers(fields, "cat_boundaries", categories + 1, number)
        if bounds[0] != 0 or (np.diff(bounds) < 0).any():
            raise _refusal(f"tree {number} has categories that are not there")
        _integers(fields, "cat_threshold", int(bounds[-1]), number)
    if is_categorical.any():
        places = _floats(fields, "threshold", count, number)[is_categorical]
        if not ((places >= 0) & (places < categories)).all():
            raise _refusal(f"tree {number} has categories that are not there")


def _check_linear(fields: _Fields, leaves: int, width: int, number: int) -> None:
    counts = _integers(fields, "num_features", leaves, number)
    if (counts < 0).any() or "leaf_const" not in fields:
        raise _refusal(f"tree {number} has linear leaves that are not there")
    features = _integers(fields, "leaf_features", int(counts.sum()), number)
    if (features < 0).any() or (features >= width).any():
        raise _refusal(f"tree {number} reads columns that are not there")
    _floats(fields, "leaf_coeff", len(features), number)


def _integers(fields: _Fields, name: str, count: int, number: int) -> Any:
    return np.array([int(each) for each in _texts(fields, name, count, number)], dtype=np.int64)


def _floats(fields: _Fields, name: str, count: int, number: int) -> Any:
    return np.array([float(each) for each in _texts(fields, name, count, number)])


def _texts(fields: _Fields, name: str, count: int, number: int) -> list[str]:
    found = fields[name].split()
    if len(found) != count:
        raise _refusal(f"tree {number} has {len(found)} of {name}, where {count} are to be")
    return found


def _refusal(reason: str) -> ConfigError:
    return ConfigError(
        f"the text is no model of LightGBM as a training gives it: {reason}; it was made or changed by hand, "
        "or cut short, and is refused"
    )
