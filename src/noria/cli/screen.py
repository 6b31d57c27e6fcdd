"""How answers look: aligned tables and plain words on the screen, or JSON for programs.

Times are UTC, on the project's clock unless a heading says otherwise. On a terminal nothing is wider than it
is; what goes to a pipe is never cut, so that other programs find all of it.
"""

import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from noria.clock import format_instant

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "as_written",
    "console",
    "count",
    "digest",
    "facts",
    "finding",
    "flush",
    "heading",
    "instant",
    "json",
    "line",
    "number",
    "share",
    "shorten",
    "table",
    "verbatim",
    "with_odd_numbers",
]

_UNKNOWN_WIDTH = 120  # of a pipe or a file
_GAP = "  "
_NARROWEST_SENTENCE = 34
_NARROWEST_COLUMN = 12
_WRITTEN_DIGITS = 12  # a number of more was computed, most likely
_INEXACT_FROM = 1e15  # a float holds no more whole digits
_TINY_BELOW = 1e-4
_TAME = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


def console(*, stderr: bool = False) -> "Console":
    """Give a console that writes no colour where there is no terminal, or `NO_COLOR` is set."""
    from noria.cli.consoles import UnpipedConsole  # what writes plain lines does without rich

    return UnpipedConsole(
        width=_width(), highlight=False, stderr=stderr, soft_wrap=True, emoji=False, markup=False
    )


def json(value: Any) -> None:
    """Write a value as JSON, for programs."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")


def with_odd_numbers(value: Any) -> Any:
    """Give a value for `json` in which NaN and infinities are texts, as JSON has no such numbers.

    Examples
    --------
    >>> with_odd_numbers({"loss": float("nan"), "gain": [1.5, float("-inf")], "none": None})
    {'loss': 'NaN', 'gain': [1.5, '-Infinity'], 'none': None}
    """
    return _odd_told(msgspec.to_builtins(value, enc_hook=str))


def _odd_told(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case dict():
            return {key: _odd_told(each) for key, each in value.items()}
        case list() | tuple():
            return [_odd_told(each) for each in value]
        case _:
            return value


def line(text: str = "", *, style: str = "", indent: int = 0) -> None:
    """Write a line; a long one is wrapped at words."""
    wrapped = textwrap.wrap(text, _width() - indent, break_on_hyphens=False) or [""]
    for each in wrapped:
        _write(" " * indent + each, style=style)


def heading(text: str) -> None:
    """Write a heading above what follows."""
    line()
    line(text, style="bold")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    wrap: str | None = None,
) -> None:
    """Write rows below one another.

    Parameters
    ----------
    columns
        Headings.
    right
        Columns of numbers, which end at one edge.
    wrap
        The last column, if it holds sentences: it takes the room that is left, or the lines below each row
        where too little is.
    """
    texts = [[_shown(value) for value in row] for row in rows]
    plain = list(columns[:-1] if wrap else columns)
    widths = [max(map(_cells, (name, *(row[place] for row in texts)))) for place, name in enumerate(plain)]
    sides = [name in set(right) for name in plain]
    if wrap is None:
        if sys.stdout.isatty() and not _narrow(widths):
            _write_records(plain, texts)
            return
        _write_row(plain, widths, sides, style="bold")
        for row in texts:
            _write_row(row, widths, sides)
        return
    room = _width() - sum(widths) - len(_GAP) * len(widths)
    if room < _NARROWEST_SENTENCE:
        _write_row(plain, widths, sides, style="bold")
        for row in texts:
            _write_row(row[:-1], widths, sides)
            if row[-1]:
                line(row[-1], indent=4)
        return
    _write_row(columns, [*widths, 0], [*sides, False], style="bold")
    for row in texts:
        first, *more = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        _write_row([*row[:-1], first], [*widths, 0], [*sides, False])
        for each in more:
            _write_row([*[""] * len(widths), each], [*widths, 0], [*sides, False])


def facts(pairs: Mapping[str, object]) -> None:
    """Write names and values, one below the other; what there is not is left out."""
    texts = {name: _shown(value) for name, value in pairs.items() if value is not None}
    widest = max(map(_cells, texts), default=0)
    for name, text in texts.items():
        first, *more = textwrap.wrap(
            text, max(_width() - widest - len(_GAP), 20), break_on_hyphens=False
        ) or [""]
        _write_row([name, first], [widest, 0], [False, False])
        for each in more:
            _write_row(["", each], [widest, 0], [False, False])


def finding(health: str, check: str, found: str, todo: str) -> None:
    """Write what a check found, and what to do about it."""
    lines = textwrap.wrap(found, _width() - 20, break_on_hyphens=False)
    lines += textwrap.wrap(f"-> {todo}", _width() - 20, break_on_hyphens=False) if todo else []
    from rich.text import Text

    made = Text(f"{health:4}", style={"ok": "green", "warn": "yellow", "fail": "bold red"}[health])
    made.append(f"  {check:12}  ", style="default")
    made.append(f"\n{'':20}".join(lines), style="default")
    console().print(made)


def instant(at: datetime | None) -> str:
    """Write an instant: the day, and the minute unless it is midnight.

    Examples
    --------
    >>> from noria.clock import parse_instant
    >>> instant(parse_instant("2013-04-01T06:30Z")), instant(parse_instant("2013-04-01"))
    ('2013-04-01 06:30', '2013-04-01')
    """
    if at is None:
        return "-"
    day, _, time = format_instant(at)[:16].partition("T")
    return day if time == "00:00" else f"{day} {time}"


def number(value: float | None, digits: int = 0) -> str:
    """Write a number with its thousands apart; a dash where there is none.

    Examples
    --------
    >>> number(27970), number(0.76543, 3), number(None)
    ('27,970', '0.765', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def count(how_many: int, what: str) -> str:
    """Write how many there are of something.

    Examples
    --------
    >>> count(1, "retrain"), count(1200, "row")
    ('1 retrain', '1,200 rows')
    """
    return f"{how_many:,} {what}{'' if how_many == 1 else 's'}"


def shorten(value: float) -> str:
    """Write a number that somebody wrote with all its digits, and one that was computed with 6 or more.

    Whole digits are never lost, nor the cents of a sum.

    Examples
    --------
    >>> shorten(123456789.25), shorten(0.1 + 0.2), shorten(2 / 3)
    ('123456789.25', '0.3', '0.666667')
    """
    if abs(value) >= _INEXACT_FROM or not math.isfinite(value):
        return f"{value:.15g}"
    exact = format(Decimal(f"{value:.15g}"), "f")
    before, _, after = exact.lstrip("-").partition(".")
    after = after.rstrip("0")
    if not after or len((before + after).lstrip("0")) <= _WRITTEN_DIGITS:
        return exact if abs(value) >= _TINY_BELOW else f"{value:.{_WRITTEN_DIGITS}g}"
    if abs(value) < 1:
        return f"{value:.6g}"
    return f"{value:.{max(6 - len(before), 2)}f}".rstrip("0").rstrip(".")


def share(value: float | None) -> str:
    """Write a part of a whole in percent."""
    return "-" if value is None else f"{value:.0%}"


def digest(sha256: str | None) -> str:
    """Write the beginning of a digest; JSON gives all of it."""
    return "-" if sha256 is None else f"{sha256[:16]}…"


def as_written(text: str) -> None:
    """Write lines of a text without wrapping them; what a terminal would obey is replaced."""
    for each in text.splitlines():
        sys.stdout.write(f"{_tame(each)}\n")


def verbatim(text: str) -> None:
    """Write something to be copied: as it is, on one line."""
    sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Let everything written so far be seen."""
    sys.stdout.flush()


def _width() -> int:
    return shutil.get_terminal_size((_UNKNOWN_WIDTH, 25)).columns


def _narrow(widths: list[int]) -> bool:
    """Make the widest columns narrower until all fit; False if they cannot."""
    room = _width() - len(_GAP) * (len(widths) - 1)
    if sum(min(each, _NARROWEST_COLUMN) for each in widths) > room:
        return False
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return True


def _write_records(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write each row as a block: there are more columns than the terminal is wide."""
    for row in rows:
        facts(dict(zip(columns, row, strict=True)))
        line()


def _write_row(
    cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], *, style: str = ""
) -> None:
    padded = [_padded(cell, width, ends) for cell, width, ends in zip(cells, widths, right, strict=True)]
    _write(_GAP.join(padded).rstrip(), style=style)


def _write(text: str, *, style: str = "") -> None:
    if style and sys.stdout.isatty():
        from rich.text import Text

        console().print(Text(text, style=style))
    else:
        sys.stdout.write(f"{_tame(text)}\n")


def _padded(cell: str, width: int, ends_at_edge: bool) -> str:
    length = _cells(cell)
    if width and length > width:
        return cell[: width - 1] + "…"
    return " " * (width - length) + cell if ends_at_edge else cell + " " * (width - length)


def _cells(text: str) -> int:
    """Tell how wide a text is."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return instant(value)
        case bool():
            return "yes" if value else "no"
        case float():
            return shorten(value)
        case _:
            return _tame(" ".join(str(value).split("\n")))


def _tame(text: str) -> str:
    """Take from a text what moves a terminal's cursor or its colours: names come from anywhere."""
    return text if text.isascii() and text.isprintable() else text.translate(_TAME)
