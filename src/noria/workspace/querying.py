"""The verbs of a project that ask: SQL over everything, answered as a table, in batches, or as a file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping

    import pyarrow as pa

    from noria.warehouse.dashboards.declared import Dashboard
    from noria.warehouse.query import Answer, Limits, Params
    from noria.workspace.dashboards import Built
    from noria.workspace.project import Project
    from noria.workspace.tables import ProjectTables

__all__ = ["Questions", "limits_of"]


class Questions(Opened):
    """What `noria.workspace.project.Project` answers in SQL."""

    def query(
        self, sql: str, params: Params | None = None, *, timeout: str | timedelta | None = None
    ) -> pa.Table:
        """Answer one SELECT over every table: datasets, models, features, predictions, the ledger's own.

        Parameters
        ----------
        sql
            DuckDB's dialect; also `show tables`, `describe x`, `summarize x`, `explain ...`. A table with
            versions is read as it was by `FOR VERSION AS OF 3` or `FOR TIMESTAMP AS OF '2013-05-01'`.
        params
            Values of `$name`, or of `?` in their order.
        timeout
            Such as `60s`. None: the setting `[query] timeout_s`.

        Raises
        ------
        NotFound
            If a table, or a version of it, is unknown; says what exists, or what makes it.
        ConfigError
            If the SQL is wrong, or does something other than read.
        QueryStopped
            If it takes more time or memory than it may.
        """
        from noria.warehouse.query import query

        tables = self._tables()
        return query(sql, tables, params=params, travel=tables.as_it_was, limits=limits_of(self, timeout))

    def answering(
        self, sql: str, params: Params | None = None, *, timeout: str | timedelta | None = None
    ) -> AbstractContextManager[Answer]:
        """Answer one SELECT in batches, made as they are read: `with project.answering(sql) as answer`.

        Parameters and errors as of `query`.
        """
        from noria.warehouse.query import answering

        tables = self._tables()
        return answering(sql, tables, params=params, travel=tables.as_it_was, limits=limits_of(self, timeout))

    def write_answer(
        self,
        sql: str,
        path: str | os.PathLike[str],
        params: Params | None = None,
        *,
        format: str | None = None,
        timeout: str | timedelta | None = None,
    ) -> int:
        """Write the answer of one SELECT to a file, whole or not at all; give how many rows there are.

        Parameters
        ----------
        path
            The file; what is there is replaced at the end.
        format
            `csv`, `json`, `jsonl`, `parquet` or `arrow`. None: the file's name tells.

        Raises
        ------
        ConfigError
            Also if the name tells no format.
        DiskFull, StoreError
            If the file cannot be written.
        """
        from pathlib import Path

        from noria.warehouse.query_output import Format, format_of, whole_file, write_rows

        target = Path(path)
        kind = format_of(target) if format is None else Format.read(format)
        with self.answering(sql, params, timeout=timeout) as answer, whole_file(target) as file:
            return write_rows(answer, answer.schema, kind, file)

    def dashboards(self) -> dict[str, Dashboard | ConfigError]:
        """Give the dashboards of the folder `dashboards`; those that cannot be read with their error."""
        from noria.workspace.dashboards import list_dashboards

        return list_dashboards(self)

    def build_dashboard(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        formats: Collection[str] = ("html",),
        timeout: str | timedelta | None = None,
        cause: str | None = None,
    ) -> Built:
        """Ask what a dashboard asks, keep the answers as a version of kind `report`, and draw it.

        The run that builds it names the versions that it read. Unchanged data and definition are the same
        version. A panel whose query fails holds its error: ask `.failed`.

        Parameters
        ----------
        name
            `NAME` of `dashboards/NAME.toml`; `NAME:3` draws the third report as it was.
        params
            Over the defaults of the dashboard.
        output
            The folder to write to. None: `.noria/dashboards`.
        formats
            Of `html`, one page that needs no network, and `png` and `svg`, a picture of each chart.
        timeout
            Of each query; None: the setting `[query] timeout_s`.
        cause
            The event that led to it.

        Raises
        ------
        NotFound
            If there is no such dashboard, report or parameter.
        ConfigError
            If its file is wrong, a chart cannot be drawn, or the extra `dashboards` is not installed.
        """
        from noria.workspace.dashboards import build_dashboard

        return build_dashboard(
            self, name, params or {}, output=output, formats=formats, timeout=timeout, cause=cause
        )

    def _tables(self) -> ProjectTables:
        from noria.workspace.tables import ProjectTables

        return ProjectTables(cast("Project", self))


def limits_of(project: Opened, timeout: str | timedelta | None) -> Limits:
    """Give what a query may take by the settings."""
    from noria.warehouse.query import Limits

    settings = project.settings.query
    if timeout is None:
        timeout = timedelta(seconds=settings.timeout_s)
    elif isinstance(timeout, str):
        try:
            timeout = parse_duration(timeout)
        except ValueError as err:
            raise ConfigError(f"timeout: {err}") from err
    return Limits(timeout=timeout or None, memory=settings.memory)
