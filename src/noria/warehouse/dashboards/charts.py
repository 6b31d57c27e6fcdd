"""Vega-Lite specifications, made whole: data, instants in UTC, size, and the colours of light and dark."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from noria.warehouse.dashboards.content import PanelContent

__all__ = ["Scheme", "config_of", "picture_of", "spec_of", "values_of"]

Scheme = Literal["light", "dark"]

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_HEIGHT = 250
_STEP = 20  # of one value along a discrete axis
_WIDTH = 640  # of a picture; a page gives what room there is
_INKS: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "background": "#ffffff",
        "text": "#1c2733",
        "quiet": "#5b6875",
        "grid": "#e7ebef",
        "line": "#c5ced6",
        "accent": "#0a6c96",
        "series": ["#0a6c96", "#d97a1d", "#4a9460", "#b3426a", "#7566b8", "#8c8a2f", "#3f9db3", "#96664a"],
        "ramp": ["#e3f1f7", "#9ccbe0", "#4b9dc0", "#0a6c96", "#063f58"],
        "spread": ["#0a6c96", "#9ccbe0", "#f1f3f5", "#f0b37c", "#b8590b"],
    },
    "dark": {
        "background": "#172029",
        "text": "#e4eaf0",
        "quiet": "#9eabb8",
        "grid": "#26323d",
        "line": "#3a4855",
        "accent": "#56b6dc",
        "series": ["#56b6dc", "#f0a04f", "#75c48d", "#e5789e", "#a99be6", "#c9c661", "#74d0e3", "#d19b7b"],
        "ramp": ["#1c3441", "#22566f", "#2f84a8", "#56b6dc", "#c0e6f5"],
        "spread": ["#56b6dc", "#2f6a84", "#2b3742", "#a5672a", "#f0a04f"],
    },
}


def spec_of(panel: PanelContent) -> dict[str, Any]:
    """Give the specification of a chart without its data: in UTC, as wide as there is room."""
    spec: dict[str, Any] = _in_utc(panel.chart or {})
    spec.setdefault("$schema", "https://vega.github.io/schema/vega-lite/v6.json")
    spec["description"] = panel.description or panel.title
    if not any(
        part in spec for part in ("hconcat", "vconcat", "concat", "facet", "repeat")
    ) and not _is_faceted(spec):
        spec.setdefault("width", "container")
        if not _has_discrete_y(spec):
            spec.setdefault("height", _HEIGHT)
        elif (height := _height_of_steps(spec, panel)) is not None:
            spec["height"] = height
        spec.setdefault("autosize", {"type": "fit-x", "contains": "padding"})
    return spec


def picture_of(panel: PanelContent) -> dict[str, Any]:
    """Give the specification of a chart with its data and its title, for a picture by itself."""
    spec = spec_of(panel)
    if spec.get("width") == "container":
        spec["width"] = _WIDTH
    spec.setdefault(
        "title", {"text": panel.title, "subtitle": panel.description} if panel.description else panel.title
    )
    spec["data"] = {"values": values_of(panel)}
    return spec


def values_of(panel: PanelContent) -> list[dict[str, Any]]:
    """Give the rows of a panel as Vega takes them."""
    names = [each.name for each in panel.columns]
    return [dict(zip(names, row, strict=True)) for row in panel.rows]


def config_of(scheme: Scheme, *, is_picture: bool = False) -> dict[str, Any]:
    """Give Vega-Lite's configuration: colours, fonts, lines."""
    ink = _INKS[scheme]
    quiet = {"labelColor": ink["quiet"], "titleColor": ink["quiet"], "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": ink["background"] if is_picture else "transparent",
        "font": _FONT,
        "padding": 16 if is_picture else 2,
        "view": {"stroke": None, "continuousHeight": _HEIGHT},
        "title": {
            "color": ink["text"],
            "subtitleColor": ink["quiet"],
            "anchor": "start",
            "fontSize": 15,
            "fontWeight": 600,
            "subtitleFontSize": 12,
            "offset": 14,
        },
        "axis": {
            **quiet,
            "titleFontWeight": 500,
            "domain": False,
            "tickColor": ink["line"],
            "gridColor": ink["grid"],
            "labelPadding": 6,
            "titlePadding": 10,
            "labelLimit": 200,
        },
        "axisX": {"grid": False, "domain": True, "domainColor": ink["line"], "labelFlush": True},
        "axisY": {"ticks": False, "tickCount": 5},
        "axisBand": {"grid": False},
        "axisXBand": {"labelOverlap": "parity"},
        "legend": {
            **quiet,
            "orient": "top",
            "direction": "horizontal",
            "titleFontWeight": 500,
            "symbolType": "circle",
        },
        "header": {**quiet, "labelFontWeight": 600},
        "mark": {"color": ink["accent"], "tooltip": True},
        "text": {"color": ink["text"]},
        "line": {"strokeWidth": 2.25, "strokeCap": "round", "strokeJoin": "round"},
        "area": {"fillOpacity": 0.22, "line": {"strokeWidth": 2}},
        "bar": {"cornerRadiusEnd": 2},
        "point": {"filled": True, "size": 45},
        "rule": {"color": ink["quiet"]},
        "range": {
            "category": ink["series"],
            "ramp": ink["ramp"],
            "heatmap": ink["ramp"],
            "diverging": ink["spread"],
            "ordinal": ink["ramp"],
        },
    }


def _in_utc(node: Any) -> Any:
    """Read and label instants in UTC: a browser would take the clock of whoever looks."""
    if isinstance(node, list):
        return [_in_utc(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {name: _in_utc(value) for name, value in node.items()}
    unit = made.get("timeUnit")
    if isinstance(unit, str) and not unit.startswith("utc"):
        made["timeUnit"] = f"utc{unit}"
    if made.get("type") == "temporal" and "field" in made:
        scale = made.get("scale", {})
        if isinstance(scale, dict):
            made["scale"] = {"type": "utc", **scale}
    return made


def _is_faceted(spec: Mapping[str, Any]) -> bool:
    encoding = spec.get("encoding", {})
    return isinstance(encoding, dict) and any(each in encoding for each in ("row", "column", "facet"))


def _has_discrete_y(spec: Mapping[str, Any]) -> bool:
    sides = [each.get("y", {}) for each in _encodings(spec)]
    return any(isinstance(each, dict) and each.get("type") in ("nominal", "ordinal") for each in sides)


def _height_of_steps(spec: Mapping[str, Any], panel: PanelContent) -> int | None:
    """Give the height of a step for each value of y, in pixels; None where the chart makes its own values.

    Vega-Lite complains of steps in a chart that is as wide as there is room, whatever its `autosize`.
    """
    height = spec.get("height", {"step": _STEP})
    encodings = _encodings(spec)
    if not isinstance(height, dict) or not isinstance(height.get("step"), int | float):
        return None
    if "transform" in spec or any("transform" in each for each in spec.get("layer", [])):
        return None
    if any("yOffset" in each for each in encodings):
        return None
    fields = {each["y"].get("field") for each in encodings if isinstance(each.get("y"), dict)} - {None}
    names = [each.name for each in panel.columns]
    if not fields or not fields <= set(names):
        return None
    values = {json.dumps(row[names.index(field)]) for field in fields for row in panel.rows}
    return round(max(len(values), 1) * float(height["step"]))


def _encodings(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the encodings of a view and of its layers."""
    found = [spec, *(each for each in spec.get("layer", []) if isinstance(each, dict))]
    return [each["encoding"] for each in found if isinstance(each.get("encoding"), dict)]
