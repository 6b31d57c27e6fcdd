"""Offline feature rows of a spine, kept in the lake: new days are added, old ones are not computed again."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import from_micros
from noria.errors import SourceError
from noria.features.columns import instants, spec_of
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.on_demand import OnDemand, views_of
from noria.features.value_columns import empty_columns, flattened
from noria.features.views_at_once import features_of_views
from noria.lake.store import Lake

__all__ = ["FeatureRequest", "SourceReader", "SpineColumns", "materialize", "read_sources"]


class SpineColumns(Protocol):
    """Which columns of the rows say who they are and when they are asked about."""

    @property
    def id(self) -> str:
        """The row's identity."""
        ...

    @property
    def at(self) -> str:
        """The instant as of which features are wanted."""
        ...


class FeatureRequest(Protocol):
    """Features wanted for rows of a spine; a training declaration is one."""

    @property
    def spine(self) -> SpineColumns:
        """The columns that name a row and its instant."""
        ...

    @property
    def features(self) -> Sequence[FeatureView | OnDemand]:
        """The views, and on-demand features, whose views are wanted too."""
        ...


class SourceReader(Protocol):
    """Reads rows of a dataset, as `Lake.history` does: what was replaced with the instant when it was."""

    def __call__(self, name: str, /, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
        """Give the rows for which `where` holds."""
        ...


def materialize(
    lake: Lake,
    table: str,
    rows: pa.Table,
    request: FeatureRequest,
    *,
    batch: int,
    app_id: str = "features",
    read: SourceReader | None = None,
) -> pa.Table:
    """Append the rows with their features to a table of the lake, once per batch.

    Only source rows that a window of these rows can hold are read, so the cost is that of the day, however
    long the history; a view with `last` or `age` without `max_age` reads all that was known.

    Parameters
    ----------
    lake : Lake
        Where the table is.
    table : str
        Its name.
    rows : Table
        The spine of a day (or any other stretch), with the views' entity columns.
    request : FeatureRequest
        Names the spine's columns, and the views.
    batch : int
        Above all earlier ones of the table; the same again appends nothing.
    app_id : str
        Whose batches these are.
    read : SourceReader or None
        Where source rows come from; `lake.history` without.

    Returns
    -------
    Table
        What the batch holds: `id`, `at`, the other columns of `rows`, then `<view>__<feature>`, of a vector
        `<view>__<feature>_<element>`; sorted by `at` and `id`.
    """
    made = with_features(rows, request, read=lake.history if read is None else read)
    if made.num_rows:
        lake.append(table, made, batch=batch, app_id=app_id)
    return made


def with_features(rows: pa.Table, request: FeatureRequest, *, read: SourceReader) -> pa.Table:
    """Give the rows of a spine, sorted by `at` and `id`, with the features of the views.

    On-demand features are not among them: they are computed from these when they are used, by the code of
    that time.
    """
    spine = _sorted_spine(rows, request.spine)
    specs = [spec_of(view) for view in views_of(request.features)]
    sources = read_sources(specs, spine, read) if spine.num_rows else {}
    columns = {name: spine.column(name) for name in spine.column_names}
    made = features_of_views(specs, sources, spine) if spine.num_rows else map(_empty, specs)
    for spec, features in zip(specs, made, strict=True):
        flat = flattened(features, spec)
        columns |= {name: flat.column(name) for name in flat.column_names}
    return pa.table(columns)


def _empty(spec: ViewSpec) -> pa.Table:
    return pa.table(empty_columns([spec]))


def _sorted_spine(rows: pa.Table, spine: SpineColumns) -> pa.Table:
    for name in (spine.id, spine.at):
        if name not in rows.column_names:
            raise SourceError(f"the spine lacks {name!r}; there is {', '.join(map(repr, rows.column_names))}")
    columns = {"id": rows.column(spine.id), "at": rows.column(spine.at)}
    for name in rows.column_names:
        if name in columns and name not in (spine.id, spine.at):
            raise SourceError(f"the spine has a column {name!r} beside its {name}, {spine.id!r}; rename it")
        if name not in (spine.id, spine.at):
            columns[name] = rows.column(name)
    table = pa.table(columns)
    return table.take(pc.sort_indices(table, sort_keys=[("at", "ascending"), ("id", "ascending")]))


def read_sources(
    specs: Sequence[ViewSpec],
    spine: pa.Table,
    read: SourceReader,
    *,
    schema_of: Callable[[str], pa.Schema] | None = None,
    by_entity: bool = False,
) -> Mapping[str, pa.Table]:
    """Read each source once: the columns that its views need, and the rows that their windows may hold.

    With `schema_of`, and where a view looks back without end or `by_entity` is asked for, only rows of the
    spine's entities.
    """
    at = instants(spine, "at")
    first, last = from_micros(int(at.min())), from_micros(int(at.max()))
    tables = {}
    for name in sorted({spec.source for spec in specs}):
        mine = [spec for spec in specs if spec.source == name]
        columns = sorted({column for spec in mine for column in spec.source_columns})
        where = ds.field(mine[0].known_at) <= _scalar(last)
        windows = [spec.longest_window_s for spec in mine]
        reach = [window for window in windows if window is not None]
        if len(reach) == len(windows):
            # A day more than the longest window: that begins with a whole tile.
            since = first - timedelta(seconds=max(reach), days=1)
            where &= ds.field(mine[0].event_at) >= _scalar(since)
        if schema_of is not None and (by_entity or len(reach) < len(windows)):
            asked = _of_entities(mine, spine, schema_of(name))
            where = where if asked is None else where & asked
        tables[name] = read(name, columns=columns, where=where)
    return tables


def _of_entities(specs: Sequence[ViewSpec], spine: pa.Table, schema: pa.Schema) -> ds.Expression | None:
    """Say which rows are of an entity of the spine, by its first column; None if that cannot be said."""
    terms: dict[str, ds.Expression] = {}
    for spec in specs:
        column = spec.entity[0]
        kind = schema.field(column).type if column in schema.names else pa.null()
        asked = spine.column(column)
        if any(not _is_plain(each) for each in (kind, asked.type)):
            return None
        try:
            terms[column] = ds.field(column).isin(asked.cast(kind).unique().drop_null())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None  # a value that no row has, or a spelling of it: entities are compared as texts
    return reduce(or_, terms.values())


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _scalar(instant: object) -> pa.Scalar:
    return pa.scalar(instant, pa.timestamp("us", tz="UTC"))
