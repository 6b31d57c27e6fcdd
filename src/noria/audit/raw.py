"""From the features of a prediction down to the raw rows that they were made from, as of its instant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.audit.provenance import version_line
from noria.audit.records import Feature, Prediction, RawRows
from noria.audit.tables import Found, OpenTable, Tables, instant_scalar, plain, rows_digest
from noria.clock import format_instant, from_micros, to_micros
from noria.errors import DigestMismatch, SourceError, StoreError
from noria.features.agreeing import agree, tolerances
from noria.features.declarations import ViewSpec
from noria.features.offline import point_in_time
from noria.features.value_columns import flattened

__all__ = ["find_raw_rows"]

_SHOWN_ROWS = 3
_LOOK_FIRST = timedelta(days=30)  # where a last row without an age limit is looked for before all is read


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which rows a view looks at, from an instant on or all; `endless`: its last row may be older."""

    since: datetime | None
    endless: bool
    only_last: bool

    @classmethod
    def of(cls, spec: ViewSpec, at: datetime) -> "_Reach":
        at_us = to_micros(at)
        starts, endless, whole = [], False, False
        for feature in spec.features:
            aggregation = feature.aggregation
            tier = aggregation.tier
            if tier is not None and aggregation.window_s is not None:
                width = tier.seconds * 1_000_000
                starts.append((at_us - aggregation.window_s * 1_000_000) // width * width)
            elif aggregation.max_age_s is not None:
                starts.append(at_us - aggregation.max_age_s * 1_000_000)
            else:  # what decays sums all rows; the last that fulfils conditions may be any
                endless = True
                whole |= aggregation.half_life_s is not None or bool(aggregation.where)
        if whole:
            return cls(None, endless=False, only_last=False)
        only_last = all(
            feature.aggregation.tier is None and not feature.aggregation.where for feature in spec.features
        )
        since = from_micros(min(starts)) if starts else at - _LOOK_FIRST
        return cls(since, endless, only_last)


def find_raw_rows(
    specs: Sequence[ViewSpec],
    prediction: Prediction,
    used: Mapping[str, float | str | None],
    tables: Tables,
) -> tuple[tuple[Feature, ...], tuple[RawRows, ...]]:
    """Find the rows that the features were made from, and compute the features again from them.

    Each source is read once for all its views: rows of their entities, in their longest window, known by
    the prediction's instant.

    Parameters
    ----------
    specs
        The views as the release defines them.
    used
        Features as they were logged.
    """
    reaches = {spec.name: _Reach.of(spec, prediction.at) for spec in specs}
    features: list[Feature] = []
    raw: dict[str, RawRows] = {}
    again: dict[str, float | str | None] = {}
    broken: set[str] = set()
    tolerance = tolerances(specs)
    for source in dict.fromkeys(spec.source for spec in specs):
        mine = [spec for spec in specs if spec.source == source]
        table = tables.dataset(source)
        try:
            found = _read(table, mine, reaches, prediction)
            for spec in mine:
                rows = _of_view(spec, reaches[spec.name], found, prediction, table)
                table.verify(rows)
                again |= _compute(spec, rows.rows, prediction)
                raw[spec.name] = _described(spec, reaches[spec.name], rows, prediction, table)
        except (DigestMismatch, StoreError, SourceError) as error:
            for spec in mine:
                raw[spec.name] = _unreadable(spec, reaches[spec.name], prediction, table, str(error))
                broken.update(spec.model_columns)
    for name in (name for spec in specs for name in spec.model_columns):
        offline = None if name in broken else again.get(name)
        equal = None if name in broken else agree(offline, used.get(name), tolerance.get(name, 0.0))
        features.append(Feature(name=name, used=used.get(name), offline=offline, equal=equal))
    return tuple(features), tuple(raw[spec.name] for spec in specs)


def _entity(spec: ViewSpec, prediction: Prediction) -> dict[str, str | None]:
    return {
        name: None if prediction.inputs.get(name) is None else str(prediction.inputs[name])
        for name in spec.entity
    }


def _is_entity(spec: ViewSpec, prediction: Prediction, schema: pa.Schema) -> ds.Expression | None:
    """Say which rows are of the entity; None: none can be."""
    terms = []
    for name, text in _entity(spec, prediction).items():
        if text is None:
            return None
        try:
            terms.append(ds.field(name) == pa.scalar(text).cast(schema.field(name).type))
        except pa.ArrowInvalid:
            return None
    return reduce(and_, terms)


def _known(spec: ViewSpec, prediction: Prediction) -> ds.Expression:
    return ds.field(spec.known_at) <= instant_scalar(prediction.at)


def _read(
    table: OpenTable, specs: Sequence[ViewSpec], reaches: Mapping[str, _Reach], prediction: Prediction
) -> Found:
    entities = [_is_entity(spec, prediction, table.schema) for spec in specs]
    of_any = [each for each in entities if each is not None]
    if not of_any:
        return table.read(ds.scalar(False))
    wanted = _known(specs[0], prediction) & reduce(or_, of_any)
    since = [reaches[spec.name].since for spec in specs]
    bounds = [each for each in since if each is not None]
    if len(bounds) == len(since):
        wanted &= ds.field(specs[0].event_at) >= instant_scalar(min(bounds))
    return table.read(wanted)


def _of_view(spec: ViewSpec, reach: _Reach, found: Found, prediction: Prediction, table: OpenTable) -> Found:
    """Give the rows of one view, ordered by event and key."""
    is_entity = _is_entity(spec, prediction, table.schema)
    if is_entity is None:
        return Found(found.rows.slice(0, 0), found.paths.slice(0, 0))
    mine = _ordered(spec, found, is_entity & _since(spec, reach))
    older = reach.endless and not mine.rows.num_rows
    if older:
        mine = _ordered(spec, table.read(_known(spec, prediction) & is_entity), ds.scalar(True))
    if (older or reach.only_last) and mine.rows.num_rows:
        last = mine.rows.num_rows - 1
        return Found(mine.rows.slice(last), mine.paths.slice(last))
    return mine


def _since(spec: ViewSpec, reach: _Reach) -> ds.Expression:
    if reach.since is None:
        return ds.scalar(True)
    return ds.field(spec.event_at) >= instant_scalar(reach.since)


def _ordered(spec: ViewSpec, found: Found, where: ds.Expression) -> Found:
    both = found.rows.append_column("__path", found.paths).filter(where)
    keys = [(name, "ascending") for name in (spec.event_at, *spec.key)]
    both = both.take(pc.sort_indices(both, sort_keys=keys))
    return Found(both.drop_columns("__path"), both["__path"])


def _compute(spec: ViewSpec, rows: pa.Table, prediction: Prediction) -> dict[str, float | str | None]:
    spine = pa.table(
        {name: pa.array([text], pa.string()) for name, text in _entity(spec, prediction).items()}
        | {"at": pa.array([prediction.at], pa.timestamp("us", "UTC"))}
    )
    features = flattened(point_in_time(spec, rows.select(spec.source_columns), spine), spec)
    (values,) = features.select(spec.model_columns).to_pylist()
    return plain(values)


def _described(
    spec: ViewSpec, reach: _Reach, found: Found, prediction: Prediction, table: OpenTable
) -> RawRows:
    rows = found.rows
    # A last row that is older than where the view was looked at first has no lower limit.
    since = None if reach.endless and (reach.only_last or _is_older(spec, rows, reach)) else reach.since
    only_last = reach.only_last or (since is None and reach.endless)
    shown = max(0, rows.num_rows - _SHOWN_ROWS)
    newest = Found(rows.slice(shown), found.paths.slice(shown))
    bounds = pc.min_max(rows[spec.known_at]).as_py()
    return RawRows(
        view=spec.name,
        dataset=spec.source,
        entity=_entity(spec, prediction),
        event_from=since,
        known_until=prediction.at,
        only_last=only_last,
        columns=spec.source_columns,
        count=rows.num_rows,
        known_first=bounds["min"],
        known_last=bounds["max"],
        sha256=rows_digest(rows.select(spec.source_columns)),
        sql=_sql(spec, prediction, since, only_last=only_last),
        newest=tuple(map(plain, reversed(newest.dicts()))),
        version=None if table.version is None else version_line(table.version),
        files=table.file_lines(found.paths),
    )


def _is_older(spec: ViewSpec, rows: pa.Table, reach: _Reach) -> bool:
    return reach.since is not None and bool(rows.num_rows) and rows[spec.event_at][0].as_py() < reach.since


def _unreadable(
    spec: ViewSpec, reach: _Reach, prediction: Prediction, table: OpenTable, problem: str
) -> RawRows:
    where = _known(spec, prediction) & _since(spec, reach)
    return RawRows(
        view=spec.name,
        dataset=spec.source,
        entity=_entity(spec, prediction),
        event_from=reach.since,
        known_until=prediction.at,
        only_last=reach.only_last,
        columns=spec.source_columns,
        count=0,
        known_first=None,
        known_last=None,
        sha256=None,
        sql=_sql(spec, prediction, reach.since, only_last=reach.only_last),
        newest=(),
        version=None if table.version is None else version_line(table.version),
        files=table.candidates(where),
        problem=problem,
    )


def _sql(spec: ViewSpec, prediction: Prediction, since: datetime | None, *, only_last: bool) -> str:
    """Write the query that shows the rows, and those that landed late with an earlier `known_at`."""
    terms = [
        f'"{name}" is null' if text is None else f'"{name}" = {_quoted(text)}'
        for name, text in _entity(spec, prediction).items()
    ]
    terms.append(f'"{spec.known_at}" <= {_quoted(format_instant(prediction.at))}')
    if since is not None:
        terms.append(f'"{spec.event_at}" >= {_quoted(format_instant(since))}')
    columns = ", ".join(f'"{name}"' for name in spec.source_columns)
    way = " desc" if only_last else ""
    order = ", ".join(f'"{name}"{way}' for name in (spec.event_at, *spec.key))
    limit = " limit 1" if only_last else ""
    return f'select {columns} from "{spec.source}" where {" and ".join(terms)} order by {order}{limit}'


def _quoted(text: Any) -> str:
    return "'" + str(text).replace("'", "''") + "'"
