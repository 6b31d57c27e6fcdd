"""What a build of a dashboard found: plain values whose bytes are the report, kept in the storage."""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from noria.clock import format_instant
from noria.errors import ConfigError, NoriaError
from noria.records import canonical_json
from noria.warehouse.dashboards.declared import Dashboard, Panel
from noria.warehouse.dashboards.fields import find_unknown_field
from noria.warehouse.hints import nearest
from noria.warehouse.query_travel import named_parameters

__all__ = ["Column", "Content", "PanelContent", "Source", "encode_content", "find_content", "read_content"]

_MOST_CHART_ROWS = 50_000
_LAYOUT = 1  # of the bytes


class Column(msgspec.Struct, frozen=True):
    """A column of an answer: `number`, `instant`, `day`, `truth` or `text`."""

    name: str
    kind: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A table that was read: which version, or None for one without versions."""

    table: str
    ref: str | None = None
    sha256: str | None = None


class PanelContent(msgspec.Struct, frozen=True, kw_only=True):
    """A panel and the rows that it shows, or why it has none."""

    kind: str
    title: str
    description: str = ""
    text: str = ""
    unit: str = ""
    digits: int | None = None
    width: int = 1
    chart: dict[str, Any] | None = None
    sql: str = ""
    columns: list[Column] = []
    rows: list[list[Any]] = []
    count: int = 0  # of all rows of the answer
    error: str = ""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard with its data."""

    layout: int = _LAYOUT
    name: str
    title: str
    description: str
    parameters: dict[str, Any]
    rows: list[list[str]]
    panels: dict[str, PanelContent]
    sources: list[Source]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of panels whose query failed."""
        return tuple(name for name, panel in self.panels.items() if panel.error)


def find_content(
    dashboard: Dashboard,
    params: Mapping[str, Any],
    *,
    ask: Callable[[str, dict[str, Any]], pa.Table],
    sources: Callable[[], Iterable[Source]],
) -> Content:
    """Ask what the panels ask; a panel whose query fails holds its error.

    Parameters
    ----------
    ask
        Answers a query with those of the parameters that it names.
    sources
        Told at the end: what was read.
    """
    given = dashboard.given(params)
    panels = {name: _panel(panel, name, given, ask) for name, panel in dashboard.panels.items()}
    return Content(
        name=dashboard.name,
        title=dashboard.title,
        description=dashboard.description,
        parameters={name: _value(value) for name, value in given.items()},
        rows=dashboard.rows,
        panels=panels,
        sources=sorted(sources(), key=lambda each: each.table),
    )


def encode_content(content: Content) -> bytes:
    """Give the bytes of a report: equal contents have equal bytes."""
    return canonical_json(content)


def read_content(data: bytes) -> Content:
    """Read what `encode_content` wrote. Raises `ConfigError` if another noria wrote it."""
    content = msgspec.json.decode(data, type=Content)
    if content.layout != _LAYOUT:
        raise ConfigError(
            f"this report has layout {content.layout}, this noria reads {_LAYOUT}; use the noria that made it"
        )
    return content


def _panel(
    panel: Panel, name: str, params: dict[str, Any], ask: Callable[[str, dict[str, Any]], pa.Table]
) -> PanelContent:
    kind = panel.shown_as
    made = PanelContent(
        kind=kind,
        title=panel.title or ("" if kind == "text" else name.replace("_", " ").capitalize()),
        description=panel.description,
        text=panel.text,
        unit=panel.unit,
        digits=panel.digits,
        width=panel.width,
        chart=panel.chart if isinstance(panel.chart, dict) else None,
        sql=panel.sql,
    )
    if kind == "text":
        return made
    try:
        named = named_parameters(panel.sql)
        given = {name: value for name, value in params.items() if name in named}
        unset = sorted(named - set(params))
        if unset and not unset[0].isdecimal():
            raise ConfigError(
                f"the query names ${unset[0]}, and the dashboard's [parameters] do not; add it there with "
                "a default"
            )
        return _filled(made, ask(panel.sql, given), panel.limit)
    except NoriaError as error:
        return msgspec.structs.replace(made, error=str(error))


def _filled(panel: PanelContent, answer: pa.Table, limit: int) -> PanelContent:
    if panel.kind == "number" and (answer.num_rows != 1 or not answer.num_columns):
        raise ConfigError(
            f"a number is one row, the query gives {answer.num_rows:,}; aggregate it, or use a table"
        )
    if panel.kind == "chart" and answer.num_rows > _MOST_CHART_ROWS:
        raise ConfigError(
            f"the query gives {answer.num_rows:,} rows, a chart shows {_MOST_CHART_ROWS:,} at most; "
            "aggregate in SQL"
        )
    unknown = find_unknown_field(panel.chart or {}, answer.column_names) if panel.kind == "chart" else None
    if unknown is not None:
        place, field = unknown
        raise ConfigError(
            f"the chart's {place} names the field {field!r}, which its sql does not give; "
            f"{nearest(field, answer.column_names)}"
        )
    shown = answer if panel.kind == "chart" else answer.slice(0, limit)
    is_exact = panel.kind != "chart"  # JSON has no integers of more than 64 bits
    rows = [
        [value if is_exact and type(value) is int else _value(value) for value in row]
        for row in zip(*(each.to_pylist() for each in shown.columns), strict=True)
    ]
    columns = [Column(each.name, _kind(each.type)) for each in answer.schema]
    return msgspec.structs.replace(panel, columns=columns, rows=rows, count=answer.num_rows)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind):
        return "instant"
    if pa.types.is_date(kind):
        return "day"
    return "truth" if pa.types.is_boolean(kind) else "text"


def _value(value: Any) -> Any:  # noqa: PLR0911 - one line per family
    """Give a value as JSON holds it, and as Vega reads it."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 2**63 else float(value)
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            return format_instant(value) if value.tzinfo else value.isoformat()
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return [_value(each) for each in value]
        case dict():
            return {str(name): _value(each) for name, each in value.items()}
        case bytes():
            return value.hex()
        case _:
            return str(value)
