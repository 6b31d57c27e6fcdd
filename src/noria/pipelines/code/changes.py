"""Telling people which line of a file changed."""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from noria.pipelines.code.imports import write_tree

__all__ = ["first_change"]

_LARGE_BYTES = 1_000_000  # beyond this only sizes are told
_MOST_PAIRS = 4_000_000  # of lines to compare with one another
_SHOWN = 72  # letters of a line
_LEAD = 20  # letters before the difference, where a line is cut at its start
_MODULE_NAME = re.compile(r"\w+(\.\w+)*( \(.*\))?")  # how a module outside of the project is named
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


@dataclass(frozen=True, slots=True)
class _Unit:
    """A line of text, or a statement of Python without those in it."""

    said: str  # units that say the same are equal
    line: int
    end: int


@dataclass(frozen=True, slots=True)
class _Token:
    said: object
    line: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    """A file as its units."""

    lines: Sequence[str]
    units: Sequence[_Unit]
    tokens: Sequence[_Token] = ()

    def told(self, line: int) -> str:
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""


def first_change(name: str, before: bytes, after: bytes) -> str:
    r"""Tell the first line that changed in a file, and how many more places did.

    In a Python file a place is a statement, and comments, blank lines and layout are passed over where
    something else changed. Of binary and large files the sizes are told.

    Examples
    --------
    >>> first_change("flights.py", b"limit = 3", b"# at most\n\nlimit = 5")
    'flights.py line 3: `limit = 3` became `limit = 5`'
    >>> first_change("model.bin", b"\x00", b"\x00\x01")
    'model.bin: 1 byte became 2 bytes'
    """
    if before == after:
        return f"{name}: nothing changed"
    if max(len(before), len(after)) <= _LARGE_BYTES:
        is_python = name.endswith((".py", ".pyw")) or _MODULE_NAME.fullmatch(name) is not None
        for read in (_read_python, _read_text) if is_python else (_read_text,):
            try:
                told = _compare(read(before), read(after))
            except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
                continue  # no Python, no text, or too deep: the next way of reading asks less
            if told:
                return name + told
    sizes = [_told_size(len(each)) for each in (before, after)]
    return f"{name}: {' became '.join(sizes)}" if sizes[0] != sizes[1] else f"{name}: other {sizes[0]}"


def _told_size(size: int) -> str:
    return f"{size:,} byte{'' if size == 1 else 's'}"


def _compare(before: _Text, after: _Text) -> str:
    """Tell the first place and the number of others; "" where all units say the same."""
    places = list(_places([each.said for each in before.units], [each.said for each in after.units]))
    if not places:
        return ""
    more = sum(max(old.stop - old.start, new.stop - new.start) for old, new in places) - 1
    others = f", and {more:,} more place{'' if more == 1 else 's'}" if more else ""
    return _tell(before, after, *places[0]) + others


def _places(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[range, range]]:
    """Give the ranges that differ."""
    start = _same_start(before, after)
    most = min(len(before), len(after)) - start
    same_end = 0
    while same_end < most and before[-1 - same_end] == after[-1 - same_end]:
        same_end += 1
    old, new = range(start, len(before) - same_end), range(start, len(after) - same_end)
    if not old and not new:
        return
    if len(old) * len(new) > _MOST_PAIRS:
        yield old, new
        return
    matcher = SequenceMatcher(None, before[old.start : old.stop], after[new.start : new.stop], autojunk=False)
    for kind, old_start, old_stop, new_start, new_stop in matcher.get_opcodes():
        if kind != "equal":
            yield range(start + old_start, start + old_stop), range(start + new_start, start + new_stop)


def _tell(before: _Text, after: _Text, old: range, new: range) -> str:
    if not old:
        unit = after.units[new.start]
        return f" line {unit.line} was added: `{_cut(after.told(unit.line))}`"
    if not new:
        unit = before.units[old.start]
        return f" line {unit.line} was removed: `{_cut(before.told(unit.line))}`"
    old_line, new_line = _first_lines(before, after, before.units[old.start], after.units[new.start])
    was, told = before.told(old_line), after.told(new_line)
    if was == told:
        return f" line {new_line}: `{_cut(told)}` has other indentation or another place"
    start = _same_start(was, told)
    return f" line {new_line}: `{_cut(was, start)}` became `{_cut(told, start)}`"


def _same_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _cut(line: str, start: int = 0) -> str:
    """Cut a long line so that the letter at `start` is seen."""
    if len(line) <= _SHOWN:
        return line
    begin = max(0, start - _LEAD) if start > _SHOWN - _LEAD else 0
    end = begin + _SHOWN
    return f"{'…' if begin else ''}{line[begin:end]}{'…' if end < len(line) else ''}"


def _first_lines(before: _Text, after: _Text, old: _Unit, new: _Unit) -> tuple[int, int]:
    """Find the first lines that differ in a statement of several lines."""
    olds = [each for each in before.tokens if old.line <= each.line <= old.end]
    news = [each for each in after.tokens if new.line <= each.line <= new.end]
    for one, other in zip(olds, news, strict=False):
        if one.said != other.said:
            same = _same_start(one.lines, other.lines)  # of a string of several lines
            return (
                one.line + min(same, len(one.lines) - 1),
                other.line + min(same, len(other.lines) - 1),
            )
    shorter = min(len(olds), len(news))
    if len(olds) != len(news) and shorter:
        return olds[min(shorter, len(olds) - 1)].line, news[min(shorter, len(news) - 1)].line
    return old.line, new.line


def _read_text(data: bytes) -> _Text:
    if b"\0" in data:
        raise ValueError("no text")
    lines = data.decode("utf-8-sig").splitlines()
    return _Text(lines, [_Unit(line, number, number) for number, line in enumerate(lines, 1)])


def _read_python(data: bytes) -> _Text:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(data)
        tokens = [
            _Token(_value_of(each), each.start[0], tuple(each.string.split("\n")))
            for each in tokenize.tokenize(io.BytesIO(data).readline)
            if each.type not in _LAYOUT
        ]
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    lines = io.TextIOWrapper(io.BytesIO(data), encoding, newline=None).read().split("\n")
    return _Text(lines, list(_statements(tree, "")), tokens[1:])  # the first names the encoding


def _value_of(token: tokenize.TokenInfo) -> object:
    """Give what a token says: quotes do not matter."""
    if token.type == tokenize.STRING and "f" not in token.string[:2].lower():
        value = ast.literal_eval(token.string)
        return (type(value), value)
    return token.string


def _statements(node: ast.AST, place: str) -> Iterator[_Unit]:
    """Give the statements in `node`, from the outer to the inner; `place` says how they are nested."""
    for name, value in ast.iter_fields(node):
        if not _is_body(value):
            continue
        for each in value:
            within = f"{place}/{name}"
            yield _Unit(f"{within} {_head(each)}", _line_of(each), _last_line_of(each))
            yield from _statements(each, within)


def _is_body(value: object) -> bool:
    parts = (ast.stmt, ast.excepthandler, ast.match_case)
    return isinstance(value, list) and bool(value) and isinstance(value[0], parts)


def _head(node: ast.AST) -> str:
    """Write a statement without those in it."""
    fields = {name: [] if _is_body(value) else value for name, value in ast.iter_fields(node)}
    return write_tree(type(node)(**fields))


def _line_of(node: ast.AST) -> int:
    decorators = getattr(node, "decorator_list", ())
    first = node.pattern if isinstance(node, ast.match_case) else node
    return min(getattr(each, "lineno", 1) for each in (first, *decorators))


def _last_line_of(node: ast.AST) -> int:
    bodies = [value[0] for _, value in ast.iter_fields(node) if _is_body(value)]
    if bodies:
        return max(_line_of(node), min(map(_line_of, bodies)) - 1)
    return int(getattr(node, "end_lineno", None) or _line_of(node))
