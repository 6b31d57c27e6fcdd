"""`noria dashboard list` and `build`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["build", "list_dashboards"]

_FAILED = 1


def list_dashboards(*, options: Options = DEFAULT) -> None:
    """List the dashboards of the folder `dashboards`, and their newest reports."""
    from noria.cli import screen
    from noria.errors import ConfigError
    from noria.workspace.dashboards import dashboards_folder
    from noria.workspace.dashboards import list_dashboards as read_all

    with options.open() as project:
        found = read_all(project)
        newest = {}
        if found and project.has_begun:
            newest = {each.name: each for each in project.ledger.list_versions(kind="report")}
        rows = []
        for name, each in found.items():
            report = newest.get(name)
            broken = isinstance(each, ConfigError)
            rows.append(
                {
                    "name": name,
                    "title": str(each) if isinstance(each, ConfigError) else each.title,
                    "panels": None if isinstance(each, ConfigError) else len(each.panels),
                    "parameters": [] if isinstance(each, ConfigError) else list(each.parameters),
                    "is_broken": broken,
                    "report": None if report is None else report.ref,
                    "built_at": None if report is None else report.at,
                }
            )
        folder = dashboards_folder(project)
    if options.json:
        screen.json(rows)
        return
    if not rows:
        screen.line(f"There is no dashboard yet: write one into {folder.name}/NAME.toml of the project.")
        return
    screen.table(
        ["dashboard", "panels", "report", "built at", "title"],
        [[row["name"], row["panels"], row["report"], row["built_at"], row["title"]] for row in rows],
        right=["panels"],
        wrap="title",
    )


def build(
    name: Annotated[str | None, Parameter(name="NAME")] = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name="--output")] = None,
    format: Annotated[str, Parameter(name="--format")] = "html",
    param: Annotated[list[str] | None, Parameter(name="--param", negative="")] = None,
    timeout: str | None = None,
    options: Options = DEFAULT,
) -> int:
    """Build a dashboard, or all of them; ends with 1 if a panel failed.

    Parameters
    ----------
    name
        `NAME`; `NAME:3` draws an older report as it was. Default: all.
    output
        The folder to write to. Default: `.noria/dashboards`.
    format
        `html`, `png`, `svg`, several with commas: a page, and a picture of each chart.
    param
        NAME=VALUE over a default of the dashboard.
    timeout
        Of each query, such as 60s. Default: `[query] timeout_s` of noria.toml.
    """
    from noria.cli import screen
    from noria.cli.warehouse import read_params
    from noria.errors import ConfigError
    from noria.workspace.dashboards import list_dashboards as read_all

    formats = [each.strip() for each in format.split(",") if each.strip()]
    params = read_params(param or []) or {}
    told: list[dict[str, Any]] = []
    with options.open() as project:
        names = [name] if name is not None else list(read_all(project))
        if not names:
            raise ConfigError("the project has no dashboard; write one: dashboards/NAME.toml")
        for each in names:
            try:
                built = project.build_dashboard(each, params, output=output, formats=formats, timeout=timeout)
            except ConfigError as error:
                if name is not None:
                    raise
                told.append({"name": each, "report": None, "failed": {"": str(error)}, "files": []})
                continue
            told.append(
                {
                    "name": each,
                    "report": built.report.ref,
                    "failed": dict(built.failed),
                    "files": [str(file) for file in built.files],
                }
            )
    code = _FAILED if any(each["failed"] for each in told) else 0
    if options.json:
        screen.json(told)
        return code
    for one in told:
        _tell(one)
    return code


def _tell(built: dict[str, Any]) -> None:
    from noria.cli import screen

    screen.line(
        f"{built['name']}: report {built['report']}" if built["report"] else f"{built['name']}: not built"
    )
    for file in built["files"]:
        screen.verbatim(f"  {file}")
    for panel, why in built["failed"].items():
        screen.line(f"panel {panel}: {why}" if panel else why, indent=2)
