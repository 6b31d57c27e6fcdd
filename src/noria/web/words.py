"""Values as people read them on a page: numbers, instants, durations, sizes, and signs that would mislead."""

import math
import re
from datetime import datetime

__all__ = ["brief", "duration", "moment", "number", "plain", "size"]

# What turns the order of letters round, or is not seen at all: shown by its number.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SIGNIFICANT = 5
_GROUPED_FROM, _EXACT_BELOW = 10_000, 1e15
_BRIEF_CHARS, _DIGITS = 60, 9
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_UNITS = ("B", "KB", "MB", "GB", "TB")


def plain(text: str) -> str:
    r"""Give a text whose signs without a shape are written out.

    Examples
    --------
    >>> plain("gnp.\u202etxt")
    'gnp.⟨U+202E⟩txt'
    """
    if text.isascii() and text.isprintable():
        return text
    return _ODD.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def number(value: float) -> str:
    """Give a figure with five significant digits.

    Examples
    --------
    >>> number(0.7123456), number(1234567.0), number(3), number(1e-9), number(float("nan"))
    ('0.71235', '1,234,567', '3', '1e-09', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == round(value) and abs(value) < _EXACT_BELOW:
        return f"{value:,.0f}" if abs(value) >= _GROUPED_FROM else f"{value + 0.0:.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def brief(text: str) -> str:
    """Give a parameter as a column has room for it: figures with five digits, texts up to a length.

    Examples
    --------
    >>> brief("0.00014800038812985168"), brief("120000"), brief("trees")
    ('0.000148', '120000', 'trees')
    """
    if len(text) > _BRIEF_CHARS:
        return f"{text[: _BRIEF_CHARS - 1]}…"
    if len(text) > _DIGITS and text.isascii() and "." in text:
        try:
            return number(float(text))
        except ValueError:
            return text
    return text


def moment(at: datetime | None) -> str:
    """Give an instant to the second, in UTC."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def duration(began: datetime, ended: datetime | None) -> str:
    """Give how long something took; a dash while it is at work.

    Examples
    --------
    >>> from datetime import UTC, timedelta
    >>> began = datetime(2024, 1, 1, tzinfo=UTC)
    >>> [duration(began, began + timedelta(seconds=each)) for each in (0.031, 75, 7_260, 200_000)]
    ['0.03 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if ended is None:
        return "–"
    took = max((ended - began).total_seconds(), 0.0)
    whole = int(took)
    if took < _MINUTE:
        return f"{took:.2f} s" if took < 10 else f"{took:.0f} s"
    if took < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if took < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def size(size_bytes: float) -> str:
    """Give a size in bytes in the unit that fits.

    Examples
    --------
    >>> size(0), size(1_500), size(2_400_000)
    ('0 B', '1.5 KB', '2.4 MB')
    """
    for unit in _UNITS:
        if size_bytes < 1_000 or unit == _UNITS[-1]:
            break
        size_bytes /= 1_000
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
