"""Charts as PNG and SVG, and the script that draws them in a page: vl-convert, the extra `dashboards`."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from noria.errors import ConfigError
from noria.warehouse.dashboards.charts import Scheme, config_of, picture_of
from noria.warehouse.dashboards.content import PanelContent

__all__ = ["draw", "read_engine"]

_PACKAGE = "vl-convert-python"
_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_SCALE = 2.0  # pixels per unit of a PNG
_FONT = "sans-serif"
_ID = re.compile(r"\b(clip|gradient_)\d+\b")


def read_engine(folder: Path) -> str:
    """Give the JavaScript of Vega and Vega-Lite; kept in `folder`, since it takes seconds to make.

    Raises
    ------
    ConfigError
        If the extra `dashboards` is not installed.
    """
    converter = _converter()
    kept = folder / f"vega-{version(_PACKAGE)}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    text: str = converter.javascript_bundle(_SNIPPET).replace("</script", "<\\/script")
    folder.mkdir(parents=True, exist_ok=True)
    staged = kept.with_suffix(".tmp")
    staged.write_text(text, encoding="utf-8")
    staged.replace(kept)
    return text


def draw(panel: PanelContent, format: Literal["png", "svg"], *, scheme: Scheme = "light") -> bytes:
    """Give a chart as a picture.

    Raises
    ------
    ConfigError
        If the extra `dashboards` is not installed, or the chart cannot be drawn.
    """
    converter = _converter()
    config = {**config_of(scheme, is_picture=True), "font": _FONT}
    spec = picture_of(panel)
    try:
        if format == "png":
            data: bytes = converter.vegalite_to_png(spec, scale=_SCALE, config=config, allowed_base_urls=[])
            return data
        text: str = converter.vegalite_to_svg(spec, config=config, allowed_base_urls=[])
    except ValueError as err:
        raise ConfigError(f"{panel.title}: the chart cannot be drawn: {_reason(str(err))}") from err
    return _renumbered(text).encode()


def _converter() -> Any:
    if importlib.util.find_spec("vl_convert") is None:
        raise ConfigError(
            f"charts of dashboards need the package {_PACKAGE}, tables and numbers do not; install "
            "noria[dashboards]"
        )
    import vl_convert

    return vl_convert


def _renumbered(svg: str) -> str:
    """Count the ids within a picture from 0: Vega counts on through all pictures of a process."""
    known: dict[str, str] = {}
    return _ID.sub(lambda found: known.setdefault(found[0], f"{found[1]}{len(known)}"), svg)


def _reason(message: str) -> str:
    lines = [
        each.strip() for each in message.splitlines() if each.strip() and not each.strip().startswith("at ")
    ]
    return " ".join(lines)
