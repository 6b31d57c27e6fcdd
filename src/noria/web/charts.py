"""Small charts of lines as SVG within a page: no script, no style of their own, the colours of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from noria.tracking.histories import Curve
from noria.web import words

__all__ = ["Line", "line_chart", "line_of"]

_WIDTH, _HEIGHT = 380.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 10.0, 10.0, 24.0
_LOG_FROM = 1_000.0  # times the smallest: what lies below would be one line
_TICKS = 4
_AS_POINTS = 30
_HUGE = 1e290
_DIGITS = 7
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart; NaN where there is no value.

    Attributes
    ----------
    lows, highs
        Of the band around it; the same as `ys` where there is none.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def line_of(name: str, curve: Curve) -> Line:
    """Give a metric along a run as a line."""
    return Line(name, [float(each) for each in curve.steps], curve.means, curve.lows, curve.highs)


def line_chart(lines: Sequence[Line], *, told: str) -> Markup:
    """Draw lines over steps; of none that has a finite value nothing is drawn.

    Parameters
    ----------
    told
        What the picture shows, for those who do not see it.
    """
    ys = [each for line in lines for each in (*line.lows, *line.highs) if math.isfinite(each)]
    xs = [each for line in lines for each in line.xs]
    if not ys:
        return Markup("")
    is_log = min(ys) > 0 and max(ys) >= _LOG_FROM * min(ys)
    across = _Scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, is_log=False)
    up = _Scale(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP, is_log=is_log)
    parts = [_grid(across, up)]
    for place, line in enumerate(lines):
        parts.append(_drawn(line, across, up, place % COLOURS))
    return Markup(
        '<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, words.plain(told), Markup("").join(parts))


class _Scale:
    """Places values along an axis."""

    def __init__(self, low: float, high: float, first: float, last: float, *, is_log: bool) -> None:
        self._is_log, self._first, self._last = is_log, first, last
        self._unit = 1.0 if is_log else _unit(max(abs(low), abs(high)))
        low, high = self._placed(low), self._placed(high)
        if low == high:
            margin = abs(low) * 0.05 or 0.5
            low, high = low - margin, high + margin
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        """Give the place of a value."""
        return self._along(self._placed(value))

    def _along(self, at: float) -> float:
        return self._first + (at - self.low) / (self.high - self.low) * (self._last - self._first)

    def _placed(self, value: float) -> float:
        return math.log10(value) if self._is_log else value / self._unit

    def ticks(self) -> list[tuple[float, str]]:
        """Give the places of marks, and what they say."""
        step = _round_step((self.high - self.low) / _TICKS)
        if self._is_log:
            step = max(round(step), 1)
        found: list[tuple[float, str]] = []
        place = math.ceil(self.low / step)
        while place * step <= self.high + step * 1e-9 and len(found) <= 2 * _TICKS:
            at = place * step
            value = 10.0**at if self._is_log else at * self._unit
            if math.isfinite(value):
                found.append((self._along(at), _label(value, value if self._is_log else step * self._unit)))
            place += 1
        return found


def _unit(largest: float) -> float:
    """Give what values are counted in: at the ends of what a float can hold their differences are lost."""
    if largest > _HUGE:
        return _HUGE
    return 1 / _HUGE if 0 < largest < 1 / _HUGE else 1.0


def _round_step(rough: float) -> float:
    """Give the next round step: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(each * power for each in (1, 2, 5, 10) if rough <= each * power * (1 + 1e-9))


def _label(value: float, step: float) -> str:
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = min(max(0, -math.floor(math.log10(step))), _DIGITS)
    return f"{value:,.{digits}f}"


def _grid(across: _Scale, up: _Scale) -> Markup:
    parts = [
        Markup(
            '<line class="grid" x1="{0:.0f}" x2="{1:.0f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text class="y" x="{3:.0f}" y="{4:.1f}">{5}</text>'
        ).format(_LEFT, _WIDTH - _RIGHT, at, _LEFT - 6, at + 3.5, label)
        for at, label in up.ticks()
    ]
    parts += [
        Markup('<text class="x" x="{:.1f}" y="{:.0f}">{}</text>').format(at, _HEIGHT - 7, label)
        for at, label in across.ticks()
    ]
    return Markup("").join(parts)


def _drawn(line: Line, across: _Scale, up: _Scale, colour: int) -> Markup:
    """Draw a line in pieces between which it has no value."""
    parts: list[Markup] = []
    piece: list[tuple[float, float, float, float]] = []
    points = len(line.xs) <= _AS_POINTS

    def end() -> None:
        if not piece:
            return
        if any(low != high for _, _, low, high in piece):
            edge = [(x, high) for x, _, _, high in piece] + [(x, low) for x, _, low, _ in reversed(piece)]
            parts.append(Markup('<polygon class="band c{}" points="{}"/>').format(colour, _points(edge)))
        way = [(x, y) for x, y, _, _ in piece]
        if len(way) > 1:
            parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(colour, _points(way)))
        if points or len(way) == 1:
            parts.extend(
                Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="2.2"/>').format(colour, x, y)
                for x, y in way
            )
        piece.clear()

    for x, y, low, high in zip(line.xs, line.ys, line.lows, line.highs, strict=True):
        if math.isfinite(y):
            piece.append((across(x), up(y), up(low), up(high)))
        else:
            end()
    end()
    title = Markup("<title>{}</title>").format(words.plain(line.name))
    return Markup("<g>{}{}</g>").format(title, Markup("").join(parts))


def _points(way: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in way)
