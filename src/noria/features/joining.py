"""Rows joined with features as of their instants: what a training set is made of."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from noria.errors import ConfigError, SourceError
from noria.features.columns import instants, spec_of
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.materialize import SourceReader, read_sources
from noria.features.value_columns import empty_columns
from noria.features.views_at_once import features_of_views

__all__ = ["join_features"]


def join_features(
    spine: pa.Table,
    views: Sequence[FeatureView | ViewSpec],
    *,
    read: SourceReader,
    at: str = "at",
    schema_of: Callable[[str], pa.Schema] | None = None,
    by_entity: bool = False,
) -> pa.Table:
    """Give the rows of `spine`, in their order, with the features of the views as of each row's instant.

    Parameters
    ----------
    spine : Table
        Has the views' entity columns, and `at`: timestamps with a time zone.
    views : sequence of FeatureView
        Which features.
    read : callable
        Reads rows of a source, as `Lake.history` does.
    at : str
        The column of instants.
    schema_of : callable, optional
        Gives the columns of a source. With it only rows of the spine's entities are read where a view looks
        back without end, and of all views with `by_entity`: for a spine that is one piece of many.

    Raises
    ------
    ConfigError
        If there is no view, or one twice.
    SourceError
        If the spine lacks a column, or has one of a feature's name already.
    """
    specs = [spec_of(view) for view in views]
    names = [spec.name for spec in specs]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"the views wanted are {names}; name one or more, each once")
    _check(spine, specs, at)
    asked = spine if at == "at" else spine.append_column("at", spine.column(at))
    made = dict(zip(spine.column_names, spine.columns, strict=True))
    if not spine.num_rows:
        made |= empty_columns(specs)
        return pa.table(made)
    sources = read_sources(specs, asked, read, schema_of=schema_of, by_entity=by_entity)
    for features in features_of_views(specs, sources, asked):
        made |= dict(zip(features.column_names, features.columns, strict=True))
    return pa.table(made)


def _check(spine: pa.Table, specs: Sequence[ViewSpec], at: str) -> None:
    there = ", ".join(map(repr, spine.column_names))
    for name in (at, *(column for spec in specs for column in spec.entity)):
        if name not in spine.column_names:
            raise SourceError(f"the spine lacks {name!r}; there is {there}")
    instants(spine, at)
    if at != "at" and "at" in spine.column_names:
        raise SourceError(f"the spine has a column 'at' beside {at!r}, its instants; rename it")
    for name in (column for spec in specs for column in spec.columns):
        if name in spine.column_names:
            raise SourceError(f"the spine has a column {name!r} already, the name of a feature; rename it")
