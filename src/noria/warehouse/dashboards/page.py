"""A report as one page: data, engine and style inside, nothing fetched, readable without scripts.

The page's policy forbids every connection; of scripts only those with the digests that it names are run, and
no text is run as code (charts interpret their expressions).
"""

import base64
import hashlib
import math
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from noria.clock import parse_instant
from noria.warehouse.dashboards.charts import config_of, spec_of
from noria.warehouse.dashboards.content import Column, Content, PanelContent

__all__ = ["render_page"]

_HERE = Path(__file__).parent
_DATA_ROWS = 200  # of a chart, as a table
_GROUPED_FROM = 10_000  # years and small counts are read better without commas
_SIGNIFICANT = 4  # digits of a computed number
_INEXACT_FROM = 1e15  # a float holds no more whole digits
_TINY_BELOW = 1e-4


def render_page(content: Content, *, engine: str, ref: str = "", sha256: str = "") -> bytes:
    """Give the HTML of a report.

    Parameters
    ----------
    engine
        The JavaScript of Vega, see `pictures.read_engine`; empty where there is no chart.
    ref, sha256
        How the report is called on record.
    """
    charts = {
        name: {
            "spec": spec_of(panel),
            "columns": [each.name for each in panel.columns],
            "rows": panel.rows,
        }
        for name, panel in content.panels.items()
        if panel.kind == "chart" and not panel.error
    }
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    scripts = [engine, script] if charts else []
    text = _template().render(
        content=content,
        ref=ref,
        sha256=sha256,
        policy=_policy(scripts),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        charts=_json({"charts": charts, "themes": {"light": config_of("light"), "dark": config_of("dark")}})
        if charts
        else "",
        engine=engine,
        script=script,
        most=_DATA_ROWS,
        columns=lambda row: " ".join(f"minmax(0, {content.panels[name].width}fr)" for name in row),
        are_numbers=lambda row: all(content.panels[name].kind == "number" for name in row),
    )
    return bytes(text.encode())


@cache
def _template() -> Any:
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    environment.globals |= {
        "cell": cell,
        "number": _number,
        "paragraphs": lambda text: [each.strip() for each in text.split("\n\n") if each.strip()],
        "table": _table,
    }
    return environment.get_template("page.html.j2")


def _policy(scripts: list[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """Give JSON that stands within a script element: no `<` ends it."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def cell(  # noqa: PLR0911 - one line per type
    value: Any, column: Column, digits: int | None = None
) -> str:
    """Give a value as people read it.

    Examples
    --------
    >>> cell(1234567, Column("n", "number")), cell(2013, Column("year", "number"))
    ('1,234,567', '2013')
    >>> cell(0.123456, Column("share", "number")), cell(0.5, Column("share", "number"), 2)
    ('0.1235', '0.50')
    >>> cell(98765.4321, Column("eur", "number")), cell(12345678.0, Column("n", "number"))
    ('98,765.43', '12,345,678')
    >>> cell("2013-05-01T06:30:00Z", Column("at", "instant"))
    '2013-05-01 06:30'
    """
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if abs(value) >= _GROUPED_FROM else str(value)
        case float():
            if digits is not None:
                return f"{value:,.{digits}f}"
            return _real(value)
        case str() if column.kind == "instant":
            return _instant(value)
        case str():
            return value
        case _:
            return msgspec.json.encode(value).decode()


def _real(value: float) -> str:
    """Write a computed number with four significant digits, all before the point, and the cents of a sum."""
    if not math.isfinite(value) or abs(value) >= _INEXACT_FROM or 0 < abs(value) < _TINY_BELOW:
        return f"{value:.4g}"
    if value == round(value):
        return cell(round(value), Column("", "number"))
    before = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if before:
        text = f"{value:,.{max(_SIGNIFICANT - before, 2)}f}"
        return text if abs(value) >= _GROUPED_FROM else text.replace(",", "").rstrip("0").rstrip(".")
    return f"{value:.{_SIGNIFICANT}g}"


def _instant(text: str) -> str:
    try:
        at: datetime = parse_instant(text)
    except ValueError:
        return text.replace("T", " ")
    return f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%d %H:%M}"


def _number(panel: PanelContent) -> str:
    return cell(panel.rows[0][0], panel.columns[0], panel.digits)


def _table(panel: PanelContent, most: int) -> Markup:
    kinds = {"number": "n", "instant": "t", "day": "t"}
    sides = [kinds.get(each.kind, "") for each in panel.columns]
    head = Markup("").join(
        Markup('<th class="{}" scope="col">{}</th>').format(side, each.name.replace("_", " "))
        for each, side in zip(panel.columns, sides, strict=True)
    )
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="{}">{}</td>').format(
                    side if value is not None else f"{side} none", cell(value, column, panel.digits)
                )
                for value, column, side in zip(row, panel.columns, sides, strict=True)
            )
        )
        for row in panel.rows[:most]
    )
    shown = min(len(panel.rows), most)
    left = (
        Markup('<p class="left">{} of {} rows</p>').format(f"{shown:,}", f"{panel.count:,}")
        if shown < panel.count
        else Markup("")
    )
    if not panel.count:
        left = Markup('<p class="left">no rows</p>')
    return Markup(
        '<div class="scroll"><table><thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table></div>{}'
    ).format(head, rows, left)
