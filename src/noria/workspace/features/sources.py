"""Where the rows of feature views come from: tables of the lake, views of the warehouse, queries.

All that is read of a source by one `FeatureSources` is the same state. A SELECT is answered once, into a
temporary file: what it gives is looked through as often as the rows of a table are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from noria.errors import ConfigError, NotFound, SourceError
from noria.workspace.unbuilt import find_advice

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    import pyarrow as pa

    from noria.features.declarations import ViewSpec
    from noria.records import Version
    from noria.workspace.project import Project

__all__ = ["FeatureSources", "SourceStates", "is_table", "queries_behind", "reads_table", "tables_behind"]

_ROWS_PER_GROUP = 131_072


def is_table(project: Project, spec: ViewSpec) -> bool:
    """Say whether a view's rows are a table of the lake, whose commits can be followed.

    Else they are the answer of a query, which can only be asked again: see `SourceStates`.
    """
    return spec.sql is None and (project.lake.exists(spec.source) or spec.source not in _views(project))


def queries_behind(project: Project, specs: Iterable[ViewSpec]) -> Mapping[str, str]:
    """Give the SELECT of each source that is no table of the lake, by the source's name.

    Raises
    ------
    ConfigError
        If a query has the name of a table, or two queries have one name.
    """
    found: dict[str, str] = {}
    for spec in specs:
        sql = spec.sql
        if sql is None:
            if is_table(project, spec):
                continue
            sql = f'select * from "{spec.source}"'
        elif project.lake.exists(spec.source) or spec.source in _views(project):
            raise ConfigError(
                f"the query {spec.source!r} of the feature view {spec.name!r} has the name of a table; "
                "give it one of its own"
            )
        if found.setdefault(spec.source, sql) != sql:
            raise ConfigError(f"two queries of feature views are called {spec.source!r}; rename one")
    return found


def tables_behind(project: Project, spec: ViewSpec) -> tuple[str, ...]:
    """Name the tables that a view's rows come from: its source, or all that its query reads, views included.

    Raises
    ------
    ConfigError, NotFound
        If the query is wrong, or names a table that is not there.
    """
    sql = queries_behind(project, [spec]).get(spec.source)
    if sql is None:
        return (spec.source,)
    views = _views(project)
    found: dict[str, None] = {}
    waiting = [sql]
    while waiting:
        for name in _named_in(project, waiting.pop()):
            if name not in found:
                found[name] = None
                waiting += [views[name]] if name in views else []
    return tuple(found)


def reads_table(project: Project, spec: ViewSpec, name: str) -> bool:
    """Say whether a view's rows come from a table; of a query that cannot be read nothing does."""
    if not project.has_begun:  # there is no table yet that a query could name
        return spec.sql is None and spec.source == name
    try:
        return name in tables_behind(project, spec)
    except (ConfigError, NotFound):
        return False


class FeatureSources:
    """Reads the rows of views; close it, or use it in a `with`.

    Parameters
    ----------
    specs
        The views whose sources may be asked for.
    is_corrected
        Give rows as they are now only, not as they were known before others took their place.

    Attributes
    ----------
    read : dict of str to Version or None
        By table, the version that was read; None where none is on record.
    """

    def __init__(self, project: Project, specs: Iterable[ViewSpec], *, is_corrected: bool = False) -> None:
        self._is_corrected = is_corrected
        self.read: dict[str, Version | None] = {}
        self._project = project
        self._specs = tuple(specs)
        self._queries = queries_behind(project, self._specs)
        self._answers: dict[str, Any] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the answers of queries."""
        self._answers.clear()
        self._opened.close()

    def __call__(self, name: str, /, *, columns: Sequence[str], where: Any = None) -> pa.Table:
        """Give rows of a source, as a `noria.features.materialize.SourceReader` does.

        Raises
        ------
        NotFound
            If there is no such table; of a model, says how it is built.
        SourceError
            If the source lacks a column that a view needs.
        ConfigError, QueryStopped
            If its SELECT cannot be answered.
        """
        self._check(name, columns)
        if name in self._queries:
            return self._answer(name).to_table(columns=list(columns), filter=where)
        version = self._version(name)
        if self._is_corrected:
            return self._project.lake.read(name, columns=columns, where=where, version=version)
        return self._project.lake.history(name, columns=columns, where=where, version=version)

    def all_of(self, spec: ViewSpec, *, at: datetime | None = None) -> pa.Table:
        """Give the rows that a view counts, each as it is now.

        Parameters
        ----------
        at
            Only those that were known at this instant, as they were known then.
        """
        import pyarrow as pa

        from noria.features.replaced import known_rows
        from noria.lake.schema import REPLACED_AT

        rows = self(spec.source, columns=spec.source_columns)
        if at is not None:
            return known_rows(rows, spec.known_at, pa.scalar(at, pa.timestamp("us", "UTC")))
        if REPLACED_AT not in rows.column_names:
            return rows
        return rows.filter(rows[REPLACED_AT].is_null()).drop_columns([REPLACED_AT])

    def schema(self, name: str) -> pa.Schema:
        """Give the columns of a source, and their types."""
        if name in self._queries:
            schema: pa.Schema = self._answer(name).schema
            return schema
        try:
            return self._project.lake.schema(name, version=self._version(name))
        except NotFound as error:
            if error.kind == "table" and (advice := find_advice(self._project, name)) is not None:
                error.add_note(advice)
            raise

    def _version(self, name: str) -> Version | None:
        from noria.lake.versions import stored_versions

        if name not in self.read:
            versions = stored_versions(self._project.ledger, name)
            self.read[name] = versions[-1] if versions else None
        return self.read[name]

    def _check(self, name: str, columns: Sequence[str]) -> None:
        """Refuse a source without the columns that are asked for, or with instants that are none."""
        import pyarrow as pa

        schema = self.schema(name)
        there = schema.names
        mine = [each for each in self._specs if each.source == name]
        instants = {column for each in mine for column in (each.event_at, each.known_at)}
        for column in columns:
            if column in there:
                kind = schema.field(column).type
                if column in instants and (not pa.types.is_timestamp(kind) or kind.tz is None):
                    raise SourceError(
                        f"column {column!r} of the source {name!r} is {kind}; it must be a timestamp with a "
                        f"time zone: in SQL `{column} at time zone 'UTC'` makes one of a local clock's"
                    )
                continue
            needing = [each.name for each in mine if column in each.source_columns]
            views = ", ".join(dict.fromkeys(needing)) or "a feature view"
            raise SourceError(
                f"the source {name!r} has no column {column!r}, which {views} needs; there is "
                f"{', '.join(map(repr, there))}. Give it this column again, or change the view"
            )

    def _answer(self, name: str) -> Any:
        """Ask the query, once."""
        if name not in self._answers:
            folder = self._opened.enter_context(TemporaryDirectory(prefix="noria-features-"))
            self._answers[name] = self._asked(self._queries[name], Path(folder, "answer.parquet"))
        return self._answers[name]

    def _asked(self, sql: str, path: Path) -> Any:
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        from noria.warehouse.query import Limits, answering
        from noria.workspace.tables import ProjectTables

        tables = ProjectTables(self._project, is_recorded=True)
        limits = Limits(memory=self._project.settings.query.memory)
        with (
            answering(sql, tables, travel=tables.as_it_was, limits=limits) as answer,
            pq.ParquetWriter(path, answer.schema, compression="lz4") as writer,
        ):
            for batch in answer:
                writer.write_batch(batch, row_group_size=_ROWS_PER_GROUP)
        self.read |= tables.read
        return ds.dataset(path, format="parquet")


class SourceStates:
    """Tells cheaply whether what a query gives may have changed: a look at the log of each table it reads.

    For one thread.
    """

    def __init__(self, project: Project) -> None:
        from noria.lake.files import open_files
        from noria.lake.tables import Tables
        from noria.workspace.transforming import tables_url

        self._project = project
        self._tables = Tables(open_files(tables_url(project)))
        self._reads: dict[ViewSpec, tuple[str, ...]] = {}

    def of(self, spec: ViewSpec) -> str | None:
        """Give a token that is another one once the answer may be; None of a table, which is followed itself.

        Of tables beside the lake's, such as the ledger's own, nothing is known: the token of a query that
        reads one is another one each time.
        """
        from noria.records import canonical_json, new_id, sha256_hex

        if is_table(self._project, spec):
            return None
        if spec not in self._reads:
            self._reads[spec] = tables_behind(self._project, spec)
        views = _views(self._project)
        states: dict[str, Any] = {}
        for name in self._reads[spec]:
            table = self._tables.find(name)
            states[name] = table.version if table is not None else views.get(name) or new_id()
        return sha256_hex(canonical_json({"sql": spec.sql, "read": states}))


def _named_in(project: Project, sql: str) -> tuple[str, ...]:
    import duckdb

    from noria.warehouse.query_statement import read_statement
    from noria.workspace.tables import ProjectTables

    with duckdb.connect(":memory:") as connection:
        return read_statement(connection, sql, ProjectTables(project)).tables


def _views(project: Project) -> Mapping[str, str]:
    from noria.workspace.transforming import view_queries

    return view_queries(project)
