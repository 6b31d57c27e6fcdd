"""Dashboards of a project: asked, recorded as reports with what they read, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from noria.errors import ConfigError, StoreError
from noria.records import VersionRef
from noria.warehouse.dashboards.content import (
    Content,
    Source,
    encode_content,
    find_content,
    read_content,
)
from noria.warehouse.dashboards.declared import Dashboard, find_dashboards, read_dashboard
from noria.warehouse.dashboards.page import render_page
from noria.warehouse.query_output import whole_file
from noria.workspace.opened import Opened
from noria.workspace.querying import limits_of

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from noria.records import RunId, Version
    from noria.workspace.project import Project

__all__ = ["Built", "build_dashboard", "dashboards_folder", "draw_report", "list_dashboards", "record_report"]

_FOLDER = "dashboards"
_KIND = "report"


@dataclass(frozen=True, slots=True)
class Built:
    """A dashboard that was built.

    Attributes
    ----------
    report
        The version on record: data and definition. Unchanged, they are the same version.
    run
        That built it; None where an older report was drawn again.
    failed
        Panels whose query failed, and why.
    files
        What was written.
    """

    report: Version
    run: RunId | None
    failed: Mapping[str, str]
    files: tuple[Path, ...]


def dashboards_folder(project: Opened) -> Path:
    """Give the folder where dashboards are written."""
    return project.root / _FOLDER


def list_dashboards(project: Opened) -> dict[str, Dashboard | ConfigError]:
    """Read every dashboard; those that cannot be read are given with their error."""
    folder = dashboards_folder(project)
    found: dict[str, Dashboard | ConfigError] = {}
    for name in find_dashboards(folder):
        try:
            found[name] = read_dashboard(folder, name)
        except ConfigError as error:
            found[name] = error
    return found


def build_dashboard(
    project: Opened,
    name: str,
    params: Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None,
    formats: Collection[str],
    timeout: str | timedelta | None,
    cause: str | None,
) -> Built:
    """Ask, record and draw; see `Project.build_dashboard`."""
    wanted = _reference(name)
    if wanted.number is not None:
        version = project.ledger.get_version(_KIND, wanted.name, wanted.number)
        content, run = read_content(project.storage.get(version.sha256)), None
    else:
        dashboard = read_dashboard(dashboards_folder(project), name)
        version, content, run = record_report(project, dashboard, params, timeout=timeout, cause=cause)
    files = draw_report(project, version, content, output=output, formats=formats)
    failed = {each: content.panels[each].error for each in content.failed}
    return Built(version, run, failed, files)


def record_report(
    project: Opened,
    dashboard: Dashboard,
    params: Mapping[str, Any],
    *,
    timeout: str | timedelta | None,
    cause: str | None,
) -> tuple[Version, Content, RunId]:
    """Ask what a dashboard asks, and keep the report as a version of its own with the versions it read."""
    from dataclasses import replace

    from noria.warehouse.query import query
    from noria.workspace.tables import ProjectTables

    # With one thread equal data give equal answers, to the last digit and in the same order.
    limits = replace(limits_of(project, timeout), threads=1)
    tables = ProjectTables(cast("Project", project), is_recorded=True)

    def ask(sql: str, given: dict[str, Any]) -> pa.Table:
        return query(sql, tables, params=given, travel=tables.as_it_was, limits=limits)

    def sources() -> list[Source]:
        return [
            Source(table=each)
            if version is None
            else Source(table=each, ref=version.ref, sha256=version.sha256)
            for each, version in tables.read.items()
        ]

    asked = {"dashboard": dashboard.digest, "parameters": dict(params)}
    with project.ledger.running(_KIND, dashboard.name, cause=cause, params=asked) as running:
        content = find_content(dashboard, params, ask=ask, sources=sources)
        for version in {each.id: each for each in tables.read.values() if each is not None}.values():
            running.add_input(version)
        data = encode_content(content)
        sha256 = project.storage.put(data)
        report = running.record_version(
            _KIND,
            dashboard.name,
            sha256=sha256,
            uri=project.storage.uri(sha256),
            facts={"title": content.title, "failed_panels": list(content.failed), "size_bytes": len(data)},
        )
        running.metrics["panels"] = float(len(content.panels))
        running.metrics["failed_panels"] = float(len(content.failed))
    return report, read_content(data), running.run.id  # as whoever draws it later reads it


def draw_report(
    project: Opened,
    report: Version,
    content: Content,
    *,
    output: str | os.PathLike[str] | None,
    formats: Collection[str],
) -> tuple[Path, ...]:
    """Write a report as a page, and its charts as pictures; give the files."""
    from pathlib import Path

    from noria.warehouse.dashboards.pictures import draw, read_engine

    unknown = sorted(set(formats) - {"html", "png", "svg"})
    if unknown:
        raise ConfigError(f"there is no format {unknown[0]!r} of a dashboard; there is html, png, svg")
    folder = Path(output) if output is not None else project.state / _FOLDER
    charts = {name: each for name, each in content.panels.items() if each.kind == "chart" and not each.error}
    made: dict[Path, bytes] = {}
    if "html" in formats:
        engine = read_engine(project.state / _FOLDER / "engine") if charts else ""
        made[folder / f"{content.name}.html"] = render_page(
            content, engine=engine, ref=report.ref, sha256=report.sha256
        )
    pictures: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    for kind in pictures:
        if kind in formats:
            for name, panel in charts.items():
                made[folder / f"{content.name}-{name}.{kind}"] = draw(panel, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as err:
        raise StoreError(f"{folder} is a file, wanted is a folder to write to; name another") from err
    except OSError as err:
        raise StoreError(f"{folder} cannot be made: {err.strerror}; name another folder") from err
    for path, data in made.items():
        with whole_file(path) as file:
            file.write(data)
    return tuple(made)


def _reference(name: str) -> VersionRef:
    try:
        return VersionRef.parse(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
