"""The specifications of pictures of runs, in Vega-Lite. Names are data, never names of fields."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bars_chart", "curves_chart", "parallel_chart", "places_chart", "scatter_chart"]

# Between blue and orange by way of violet: read on white and on black alike.
_RAMP = ["#3d7fc4", "#8a6cc0", "#c0619a", "#e0743c"]
_LABEL_PIXELS = 260
_ROW_PIXELS = 26


def curves_chart(
    metric: str, x: str, *, x_title: str, is_log: bool, are_bands: bool, is_smoothed: bool, has_points: bool
) -> dict[str, Any]:
    """Lines by x, one a name; beneath them what they were drawn from."""
    across = (
        {"field": "x", "type": "temporal", "title": x_title}
        if x == "wall"
        else {"field": "x", "type": "quantitative", "title": x_title, "scale": {"zero": False, "nice": False}}
    )
    scale: dict[str, Any] = {"type": "log"} if is_log else {"zero": False}
    colour = {"field": "name", "type": "nominal", "title": None, "sort": None, "legend": _legend()}
    encoding: dict[str, Any] = {"x": across, "color": colour}
    layers: list[dict[str, Any]] = []
    up = {"type": "quantitative", "title": metric, "scale": scale}
    if are_bands:
        band = {"y": {"field": "low", **up}, "y2": {"field": "high"}}
        layers.append(
            {"mark": {"type": "area", "opacity": 0.2, "line": False, "tooltip": None}, "encoding": band}
        )
    if is_smoothed:
        faint = {"type": "line", "opacity": 0.25, "strokeWidth": 1, "tooltip": None}
        layers.append({"mark": faint, "encoding": {"y": {"field": "raw", **up}}})
    told = [
        {"field": "name", "type": "nominal", "title": "run"},
        {**{name: across[name] for name in ("field", "type", "title")}},
        {"field": "value", "type": "quantitative", "title": metric, "format": ".6~g"},
    ]
    line = {"type": "line", "point": {"size": 28} if has_points else False}
    layers.append({"mark": line, "encoding": {"y": {"field": "value", **up}, "tooltip": told}})
    return {"encoding": encoding, "layer": layers, "height": 300}


def parallel_chart(
    axes: Sequence[str], ticks: Sequence[Mapping[str, Any]], metric: str, *, has_missing: bool, opacity: float
) -> dict[str, Any]:
    """A line a run across axes that stand side by side."""
    x = {
        "field": "axis",
        "type": "nominal",
        "sort": [*axes],
        "title": None,
        "scale": {"type": "point", "padding": 0.35},
        "axis": {
            "labelAngle": 0, "labelLimit": 110, "labelFontWeight": 600, "domain": False, "ticks": False,
            "orient": "top", "labelOverlap": False,
        },
    }  # fmt: skip
    low = -0.12 if has_missing else -0.02
    y = {"field": "at", "type": "quantitative", "scale": {"domain": [low, 1.02], "nice": False}, "axis": None}
    lines = {
        "mark": {"type": "line", "opacity": opacity, "strokeWidth": 1.4, "interpolate": "monotone"},
        "encoding": {
            "x": x, "y": y,
            "detail": {"field": "run", "type": "nominal"},
            "color": {
                "field": "colour", "type": "quantitative", "title": metric,
                "scale": {"range": _RAMP, "zero": False},
                "legend": {"gradientLength": 180, "gradientOpacity": 1, "format": ".4~g"},
            },
            "tooltip": [
                {"field": "name", "type": "nominal", "title": "run"},
                {"field": "axis", "type": "nominal", "title": "what"},
                {"field": "value", "type": "nominal", "title": "value"},
                {"field": "colour", "type": "quantitative", "title": metric, "format": ".6~g"},
            ],
        },
    }  # fmt: skip
    rules = {
        "data": {"values": [{"axis": each, "from": 0, "to": 1} for each in axes]},
        "mark": {"type": "rule", "opacity": 0.6, "tooltip": None},
        "encoding": {"x": x, "y": {**y, "field": "from"}, "y2": {"field": "to"}},
    }
    labels = {
        "data": {"values": [dict(each) for each in ticks]},
        "mark": {
            "type": "text", "align": "left", "dx": 5, "fontSize": 10.5, "limit": 90, "tooltip": None,
            "fontWeight": 600,
        },
        "encoding": {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}},
    }  # fmt: skip
    return {"layer": [lines, rules, labels], "height": 340}


def places_chart(metric: str, rows: int, *, level: float) -> dict[str, Any]:
    """Means with whiskers, the best on top; what ties with it is drawn as it is."""
    y = _names(rows)
    x = {
        "type": "quantitative",
        "title": f"{metric}, {level:.0%} interval",
        "scale": {"zero": False},
        "axis": {"tickCount": 6},
    }
    colour = {
        "field": "standing",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["the best", "ties with it", "behind it", "unknown"],
                  "range": ["#d97a1d", "#3d9a62", "#4a8fc0", "#8a94a0"]},
    }  # fmt: skip
    told = [
        {"field": "name", "type": "nominal", "title": "what"},
        {"field": "mean", "type": "quantitative", "title": metric, "format": ".6~g"},
        {"field": "low", "type": "quantitative", "title": "from", "format": ".6~g"},
        {"field": "high", "type": "quantitative", "title": "to", "format": ".6~g"},
        {"field": "n", "type": "quantitative", "title": "repeats"},
        {"field": "difference", "type": "nominal", "title": "to the best"},
    ]
    return {
        "encoding": {"y": y, "color": colour},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "tooltip": told},
            },
            {
                "mark": {"type": "point", "size": 80, "opacity": 1},
                "encoding": {"x": {"field": "mean", **x}, "tooltip": told},
            },
        ],
        "height": _height(rows),
    }


def bars_chart(rows: int) -> dict[str, Any]:
    """How important parameters are, with whiskers."""
    x = {"type": "quantitative", "title": "share of the variance that is lost without it"}
    return {
        "encoding": {"y": _names(rows)},
        "layer": [
            {
                "mark": {"type": "bar", "height": {"band": 0.62}},
                "encoding": {
                    "x": {"field": "importance", **x},
                    "color": {
                        "field": "standing",
                        "type": "nominal",
                        "title": None,
                        "scale": {"domain": ["stands out", "may be chance"], "range": ["#3d7fc4", "#9aa4ae"]},
                    },
                    "tooltip": [
                        {"field": "name", "type": "nominal", "title": "parameter"},
                        {"field": "importance", "type": "quantitative", "format": ".3f"},
                        {"field": "kind", "type": "nominal"},
                    ],
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
            },
        ],
        "height": _height(rows),
    }


def scatter_chart(
    param: str, metric: str, *, kind: str, categories: Sequence[str], is_log: bool
) -> dict[str, Any]:
    """A point a run."""
    across: dict[str, Any] = {"field": "x", "title": param}
    if kind == "category":
        across |= {"type": "nominal", "sort": [*categories], "axis": {"labelAngle": 0, "labelLimit": 120}}
    else:
        scale: dict[str, Any] = {"type": "log"} if kind == "log" else {"zero": False}
        across |= {"type": "quantitative", "scale": scale}
    up: dict[str, Any] = {"type": "log"} if is_log else {"zero": False}
    return {
        "mark": {"type": "point", "opacity": 0.65, "size": 50},
        "encoding": {
            "x": across,
            "y": {"field": "y", "type": "quantitative", "title": metric, "scale": up},
            "tooltip": [
                {"field": "name", "type": "nominal", "title": "run"},
                {"field": "x", "type": "nominal", "title": param},
                {"field": "y", "type": "quantitative", "title": metric, "format": ".6~g"},
            ],
        },
        "height": 300,
    }


def _names(rows: int) -> dict[str, Any]:
    axis = {"labelLimit": _LABEL_PIXELS, "ticks": False, "labelPadding": 8}
    return {"field": "name", "type": "nominal", "title": None, "sort": None, "axis": axis}


def _height(rows: int) -> int:
    return max(rows, 1) * _ROW_PIXELS + 10


def _legend() -> dict[str, Any]:
    return {
        "orient": "bottom",
        "columns": 2,
        "labelLimit": 280,
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "symbolOpacity": 1,
    }
