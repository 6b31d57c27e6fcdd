"""A dashboard as it is written: `dashboards/NAME.toml`, with `*.vl.json` files beside it for long charts."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from noria.errors import ConfigError, NotFound
from noria.records import digest_of
from noria.warehouse.hints import nearest

__all__ = ["Dashboard", "Panel", "find_dashboards", "read_dashboard"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_KINDS = ("chart", "table", "number", "text")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_VIEWS = ("layer", "hconcat", "vconcat", "concat", "facet", "repeat", "spec", "mark")


class Panel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[panels.NAME]`.

    Attributes
    ----------
    kind
        Default: `chart` where there is a `chart`, `text` where there is a `text`, else `table`.
    sql
        One SELECT; `$name` is a parameter of the dashboard.
    chart
        A Vega-Lite specification without data, or the name of a file that holds it.
    text
        Paragraphs, apart by empty lines.
    unit, digits
        Of a number: what stands behind it, and how many decimals it has.
    limit
        Rows of a table that are shown.
    width
        The part of its row that it takes, beside the others'.
    """

    kind: Literal["chart", "table", "number", "text"] | None = None
    title: str = ""
    description: str = ""
    sql: str = ""
    chart: dict[str, Any] | str | None = None
    text: str = ""
    unit: str = ""
    digits: Annotated[int, msgspec.Meta(ge=0, le=12)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 50
    width: Annotated[int, msgspec.Meta(ge=1, le=12)] = 1

    @property
    def shown_as(self) -> str:
        """The kind, named or not."""
        if self.kind is not None:
            return self.kind
        return "chart" if self.chart is not None else "text" if self.text else "table"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    title: str = ""
    description: str = ""
    parameters: dict[str, str | int | float | bool] = {}
    rows: list[list[str]] = []
    panels: dict[str, Panel]


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard whose parts are known to fit.

    Attributes
    ----------
    parameters
        Their defaults.
    rows
        Names of panels, from top to bottom and from left to right.
    """

    name: str
    title: str
    description: str
    parameters: dict[str, str | int | float | bool]
    rows: list[list[str]]
    panels: dict[str, Panel]

    @property
    def digest(self) -> str:
        """The sha256 of all that is written, charts of other files included."""
        return digest_of(self)

    def given(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the parameters, those given over the defaults.

        Raises
        ------
        NotFound
            If there is no such parameter.
        """
        for name in params:
            if name not in self.parameters:
                raise NotFound("parameter", name, self.parameters)
        return {**self.parameters, **params}


def find_dashboards(folder: Path) -> list[str]:
    """Name the dashboards of a folder, sorted."""
    return sorted(each.stem for each in folder.glob("*.toml")) if folder.is_dir() else []


def read_dashboard(folder: Path, name: str) -> Dashboard:
    """Read a dashboard.

    Raises
    ------
    NotFound
        If there is none of that name.
    ConfigError
        If something in it does not fit; names file and key.
    """
    path = folder / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise NotFound("dashboard", name, find_dashboards(folder))
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not valid TOML: {err}") from err
    except OSError as err:
        raise ConfigError(f"{path} cannot be read: {err.strerror}") from err
    _want_panels(path, written.get("panels"))
    try:
        file = msgspec.convert(written, _File)
    except msgspec.ValidationError as err:
        what, _, where = str(err).partition(" - at ")
        raise ConfigError(f"{path}: {where.strip('`').removeprefix('$.') or 'the file'}: {what}") from err
    if not file.panels:
        raise ConfigError(f"{path}: there is no panel; add a table [panels.NAME] with `sql` in it")
    panels = {each: _checked(path, each, panel) for each, panel in file.panels.items()}
    return Dashboard(
        name=name,
        title=file.title or name.replace("_", " ").capitalize(),
        description=file.description,
        parameters=file.parameters,
        rows=_rows(path, file.rows, panels),
        panels=panels,
    )


def _want_panels(path: Path, panels: Any) -> None:
    """Convert each panel by itself: an error of all together does not name the panel."""
    if not isinstance(panels, dict):
        return
    for name, panel in panels.items():
        try:
            msgspec.convert(panel, Panel)
        except msgspec.ValidationError as err:
            what, _, where = str(err).partition(" - at ")
            place = f"panels.{name}{where.strip('`').removeprefix('$')}"
            unknown = _UNKNOWN.search(what)
            if what.startswith("Invalid enum value"):
                what += f"; there is {', '.join(_KINDS)}"
            elif unknown is not None:
                what += f"; {nearest(unknown[1], Panel.__struct_fields__)}"
            raise ConfigError(f"{path}: {place}: {what}") from err


def _checked(path: Path, name: str, panel: Panel) -> Panel:
    where = f"{path}: panels.{name}"
    kind = panel.shown_as
    wanted = {"chart": ("sql", "chart"), "table": ("sql",), "number": ("sql",), "text": ("text",)}[kind]
    for key in ("sql", "chart", "text"):
        is_given = getattr(panel, key) not in ("", None)
        if key in wanted and not is_given:
            raise ConfigError(f"{where}: a {kind} needs `{key}`")
        if key not in wanted and is_given:
            raise ConfigError(f"{where}: a {kind} has no `{key}`; leave it out, or name another `kind`")
    if panel.chart is None:
        return panel
    chart = _read_chart(path, where, panel.chart) if isinstance(panel.chart, str) else panel.chart
    if not any(key in chart for key in _VIEWS):
        raise ConfigError(
            f"{where}.chart: a Vega-Lite chart has a `mark`, or `layer`, `facet`, `hconcat`, ..."
        )
    for place in _addresses(chart, f"{where}.chart"):
        raise ConfigError(f"{place}: a chart's data come from its `sql`; nothing is fetched from an address")
    return msgspec.structs.replace(panel, kind=kind, chart=chart)


def _read_chart(path: Path, where: str, name: str) -> dict[str, Any]:
    file = path.parent / name
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise ConfigError(f"{where}.chart: {name!r} is outside of {path.parent}")
    try:
        read = msgspec.json.decode(file.read_bytes())
    except OSError as err:
        raise ConfigError(f"{where}.chart: {file} cannot be read: {err.strerror}") from err
    except msgspec.DecodeError as err:
        raise ConfigError(f"{where}.chart: {file} is no JSON: {err}") from err
    if not isinstance(read, dict):
        raise ConfigError(f"{where}.chart: {file} holds no JSON object")
    return read


def _addresses(node: Any, place: str) -> Iterator[str]:
    """Give the places where a chart would fetch something."""
    if isinstance(node, dict):
        data = node.get("data")
        if isinstance(data, dict) and "url" in data:
            yield f"{place}.data.url"
        for key, value in node.items():
            yield from _addresses(value, f"{place}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _addresses(value, f"{place}[{number}]")


def _rows(path: Path, rows: Sequence[Sequence[str]], panels: Mapping[str, Panel]) -> list[list[str]]:
    """Give the rows as written; without any, numbers side by side and the others below one another."""
    if not rows:
        numbers = [name for name, panel in panels.items() if panel.shown_as == "number"]
        others = [[name] for name, panel in panels.items() if panel.shown_as != "number"]
        return [*([numbers] if numbers else []), *others]
    placed = [name for row in rows for name in row]
    for name in placed:
        if name not in panels:
            raise ConfigError(f"{path}: rows: {NotFound('panel', name, panels)}")
    for name in panels:
        if placed.count(name) != 1:
            how = "nowhere" if name not in placed else "more than once"
            raise ConfigError(f"{path}: rows: the panel {name!r} is placed {how}; place each once")
    return [list(row) for row in rows if row]
