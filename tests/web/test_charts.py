"""Charts of lines: whatever was logged, every point is in the picture."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.web.charts import Line, line_chart
from noria.web.words import number

_NUMBERS = re.compile(r'(?:x1|x2|y1|y2|cx|cy|x|y)="([^"]*)"|points="([^"]*)"')
_EXTREME = st.floats() | st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 1e-300, 1.0, math.inf, math.nan])


def _line(points: list[tuple[float, float]], name: str = "loss") -> Line:
    ys = [y for _, y in points]
    return Line(name, [x for x, _ in points], ys, ys, ys)


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1).map(float), _EXTREME), max_size=40), max_size=3
    )
)
def test_every_point_lies_within_the_picture(lines: list[list[tuple[float, float]]]) -> None:
    drawn = str(line_chart([_line(each) for each in lines], told="lines"))
    finite = any(math.isfinite(y) for points in lines for _, y in points)
    assert bool(drawn) is finite
    for one, several in _NUMBERS.findall(drawn):
        for each in re.split("[ ,]", several or one):
            assert -1 <= float(each) <= 381, drawn


def test_a_line_is_interrupted_where_it_has_no_value() -> None:
    drawn = line_chart([_line([(0, 1), (1, 2), (2, math.nan), (3, 1), (4, 2)])], told="gap")
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 4


def test_a_wide_range_has_a_logarithmic_axis() -> None:
    drawn = line_chart([_line([(0, 0.001), (1, 100.0)])], told="wide")
    assert re.findall(r'class="y"[^>]*>([^<]*)<', drawn) == ["0.01", "1", "100"]


def test_names_in_a_chart_are_text() -> None:
    drawn = line_chart([_line([(0, 1), (1, 2)], "<script>\u202e")], told='"><script>')
    assert "<script" not in drawn
    assert "⟨U+202E⟩" in drawn
    assert 'aria-label="&#34;&gt;&lt;script&gt;"' in drawn


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0, "0"), (1e16, "1e+16"), (-math.inf, "−∞"), (12_345.678, "12346"), (0.5, "0.5")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert number(value) == text
