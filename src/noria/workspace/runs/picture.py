"""A picture as a value: what is drawn and the figures in it, for a file, a notebook or a page."""

import base64
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from noria.clock import format_instant
from noria.errors import ConfigError
from noria.records import canonical_json
from noria.warehouse.dashboards.charts import Scheme, config_of, picture_of
from noria.warehouse.dashboards.content import Column, Content, PanelContent
from noria.warehouse.dashboards.page import render_page
from noria.warehouse.dashboards.pictures import draw, read_engine
from noria.warehouse.query_output import whole_file

__all__ = ["Picture"]

_LINE_CHARS = 100  # of what stands below a title
_SUFFIXES = (".svg", ".png", ".html", ".json")


@dataclass(frozen=True)
class Picture:
    """A picture that is not drawn yet. Equal figures give equal bytes.

    A notebook shows it, in the colours that its reader prefers. Drawing needs the extra `dashboards`.

    Attributes
    ----------
    title, description
        What stands above it.
    chart
        A specification of Vega-Lite without its data.
    columns, rows
        The data: what a column holds (`number`, `text`, `instant`) by its name, and the values.
    """

    title: str
    description: str
    chart: Mapping[str, Any]
    columns: Mapping[str, str]
    rows: Sequence[Sequence[Any]]
    engine: Path  # where the script that draws in pages is kept

    @property
    def spec(self) -> dict[str, Any]:
        """What Vega-Lite draws, with title and data."""
        return picture_of(self._titled)

    def save(self, path: str | os.PathLike[str], *, scheme: Scheme = "light") -> Path:
        """Write it as what the path's ending says: `.svg`, `.png`, `.html` or `.json`, whole or not at all.

        Parameters
        ----------
        scheme
            `light` or `dark`, of SVG and PNG; a page follows its reader.

        Raises
        ------
        ConfigError
            If the ending is another one, or the extra `dashboards` is not installed.
        """
        file = Path(path)
        data = self.draw(file.suffix.lower(), scheme=scheme)
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as staged:
            staged.write(data)
        return file

    def draw(self, suffix: str, *, scheme: Scheme = "light") -> bytes:
        """Give the bytes of a file that ends so. Raises like `save`."""
        if scheme not in ("light", "dark"):
            raise ConfigError(f"scheme is {scheme!r}; wanted light or dark")
        match suffix:
            case ".svg":
                return draw(self._titled, "svg", scheme=scheme)
            case ".png":
                return draw(self._titled, "png", scheme=scheme)
            case ".html":
                return self._page()
            case ".json":
                return canonical_json(self.spec | {"config": config_of(scheme, is_picture=True)})
        raise ConfigError(
            f"a picture is no {suffix or 'file without an ending'}; wanted {', '.join(_SUFFIXES)}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Show it in a notebook: as images, in which no script runs."""
        try:
            light, dark = (
                base64.b64encode(self.draw(".svg", scheme=each)).decode() for each in ("light", "dark")
            )
        except ConfigError as error:
            return {"text/plain": f"{self.title}: {error}"}
        source = f'<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{dark}">'
        image = f'<img src="data:image/svg+xml;base64,{light}" alt="" style="max-width: 100%">'
        return {
            "text/plain": f"{self.title} ({len(self.rows):,} rows)",
            "text/html": f"<picture>{source}{image}</picture>",
        }

    @property
    def _panel(self) -> PanelContent:
        return PanelContent(
            kind="chart",
            title=self.title,
            description=self.description,
            chart=dict(self.chart),
            columns=[Column(name, kind) for name, kind in self.columns.items()],
            rows=[[_plain(value) for value in row] for row in self.rows],
            count=len(self.rows),
        )

    @property
    def _titled(self) -> PanelContent:
        """The panel with its head in the drawing, lines of it that none is cut."""
        title = {"text": self.title, "subtitle": textwrap.wrap(self.description, _LINE_CHARS)}
        return msgspec.structs.replace(self._panel, chart={**self.chart, "title": title})

    def _page(self) -> bytes:
        content = Content(
            name="picture",
            title=self.title,
            description=self.description,
            parameters={},
            rows=[["chart"]],
            panels={"chart": _untitled(self._panel)},
            sources=[],
        )
        return render_page(content, engine=_engine(self.engine))


def _untitled(panel: PanelContent) -> PanelContent:
    """Leave out what the page's head says."""
    return msgspec.structs.replace(panel, title="", description="")


@cache
def _engine(folder: Path) -> str:
    return read_engine(folder)


def _plain(value: Any) -> Any:
    """Give a value as JSON has it: what is not finite is nothing."""
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
