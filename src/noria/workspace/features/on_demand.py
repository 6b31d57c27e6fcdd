"""On-demand features of a project: chosen by name, and rows completed by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, cast

from noria.errors import ConfigError, NotFound, SourceError
from noria.features.declarations import FeatureView
from noria.features.fields import Field
from noria.features.on_demand import OnDemand, OnDemandSpec, fields_of, on_demand_of, views_of
from noria.workspace.features.on_demand_details import tell_on_demand
from noria.workspace.features.online import asked_column, get_online
from noria.workspace.features.reads import note_read
from noria.workspace.features.records import OnDemandDetails

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from noria.deploy.releases import Release
    from noria.features.on_demand_values import Computed
    from noria.workspace.project import Project

__all__ = [
    "Chosen",
    "WantedFeature",
    "choose",
    "differing_on_demand",
    "get_features",
    "request_columns",
    "show_on_demand",
]

WantedFeature = str | FeatureView | OnDemand


@dataclass(frozen=True, slots=True)
class Chosen:
    """Features that somebody wants, and all that has to be looked up and computed for them."""

    features: tuple[FeatureView | OnDemand, ...]

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """Every view that has to be looked up."""
        return views_of(self.features)

    @property
    def on_demand(self) -> tuple[OnDemand, ...]:
        """Every on-demand feature that has to be computed, each behind those that it reads."""
        return on_demand_of(self.features)

    @property
    def names(self) -> list[str]:
        """What is wanted, by name."""
        return [each.name for each in self.features]

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns that have to come with the rows for on-demand features."""
        return tuple(each.name for each in fields_of(self.features))

    def complete(self, rows: pa.Table, *, check: bool = False) -> tuple[pa.Table, Mapping[str, Computed]]:
        """Add on-demand features to rows that have their views, and take out what nobody has asked for.

        Raises
        ------
        ConfigError
            If a function gives something malformed; with `check`, if its values for a row depend on others.
        SourceError
            If a column is missing, or a feature refuses a row.
        """
        if not self.on_demand:
            return rows, {}
        from noria.features.on_demand_tables import add_on_demand

        made, computed = add_on_demand(rows, [each.bound() for each in self.on_demand], check=check)
        wanted = {name for each in self.features for name in each.columns}
        only_read = {name for view in self.views for name in view.columns} - wanted
        only_read |= {name for each in self.on_demand for name in each.columns} - wanted
        return made.select([name for name in made.column_names if name not in only_read]), computed


def choose(project: Project, features: Sequence[WantedFeature]) -> Chosen:
    """Give the features of some names.

    Raises
    ------
    ConfigError
        If none is wanted, or one twice.
    NotFound
        If there is none of a name; says what exists.
    """
    chosen = Chosen(tuple(_find(project, each) for each in features))
    if not chosen.features:
        raise ConfigError("no feature view is wanted; name one or more")
    if len(set(chosen.names)) < len(chosen.names):
        twice = sorted(name for name, times in Counter(chosen.names).items() if times > 1)
        raise ConfigError(f"{', '.join(map(repr, twice))} is named more than once; name each once")
    return chosen


def get_features(
    project: Project,
    features: Sequence[WantedFeature],
    entities: Mapping[str, Sequence[str | float | None]],
    *,
    at: datetime | None,
    reader: str | None,
    how: str = "get",
) -> pa.Table:
    """See `noria.workspace.features.features.Features.get`; `how` is the way by which `reader` asks."""
    import pyarrow as pa

    chosen = choose(project, features)
    if chosen.views:
        named = {name for view in chosen.views for name in view.spec().entity}
        # Fields that on-demand features read come along; no view looks at them.
        columns = {
            name: _entities(name, values) if name in named else cast("list[int]", values)
            for name, values in entities.items()
        }
        _check_lengths(columns)
        rows = get_online(project, chosen.views, columns, at=at)
    else:
        _check_lengths(entities)
        rows = pa.table({name: asked_column(name, values) for name, values in entities.items()})
    note_read(project, (*chosen.views, *chosen.on_demand), entities=rows.num_rows, how=how, who=reader)
    return chosen.complete(rows)[0]


def request_columns(project: Project, wanted: WantedFeature) -> tuple[Field, ...]:
    """Give the columns that a look-up has to be given: entities, then what comes with a request."""
    chosen = choose(project, [wanted])
    named = {name: Field(name, "category") for view in chosen.views for name in view.spec().entity}
    return tuple((named | {each.name: each for each in fields_of(chosen.features)}).values())


def differing_on_demand(
    project: Project, release: Release, rows: pa.Table
) -> Iterator[tuple[OnDemandSpec, list[int], tuple[str, ...]]]:
    """Hold on-demand features that a release served against the same computed again by its code.

    Parameters
    ----------
    rows
        Logged predictions of the release, with `inputs` and `features`.

    Yields
    ------
    tuple
        A feature, the rows that differ by their position, and the columns in which they do.

    Raises
    ------
    SourceError
        If the log lacks a column.
    """
    import numpy as np
    import pyarrow as pa

    from noria.features.agreeing import differing_rows

    if not release.on_demand:
        return
    structs = [rows[name].combine_chunks() for name in ("inputs", "features")]
    logged = pa.table(
        {field.name: each.field(place) for each in structs for place, field in enumerate(each.type)}
    )
    again = project.registry.add_on_demand(project.ledger.get_version_by_id(release.model), logged)
    for spec in release.on_demand:
        found = {}
        for name in spec.columns:
            one, other = (each[name].to_numpy() for each in (logged, again))
            found[name] = np.flatnonzero(differing_rows(one, other, 0.0)).tolist()
        places = sorted({place for each in found.values() for place in each})
        yield spec, places, tuple(name for name, each in found.items() if each)


def show_on_demand(project: Project, wanted: WantedFeature) -> OnDemandDetails:
    """See `noria.workspace.features.features.Features.show_on_demand`."""
    (found,) = choose(project, [wanted]).features
    if not isinstance(found, OnDemand):
        raise ConfigError(f"{found.name!r} is a feature view, not computed on demand; `show` tells about it")
    return tell_on_demand(project, found)


def _entities(name: str, values: Sequence[str | float | None]) -> list[str | int | None]:
    """Give the entities of a column; NaN is a missing one, as frames have it."""
    found = [None if isinstance(each, float) and isnan(each) else each for each in _listed(name, values)]
    if any(isinstance(each, float) for each in found):
        raise SourceError(f"entity column {name!r} holds fractions; an entity is a text or a whole number")
    others = [each for each in found if not isinstance(each, str | int | None) or isinstance(each, bool)]
    if others:
        raise SourceError(
            f"entity column {name!r} holds {others[0]!r}; an entity is a text, a whole number or None"
        )
    return cast("list[str | int | None]", found)


def _listed(name: str, values: object) -> list[Any]:
    """Give the plain values of a list, an array, or a column of a frame."""
    if isinstance(values, str | bytes):
        raise SourceError(f"column {name!r} is {values!r}; give a list of values, such as [{values!r}]")
    for method in ("to_pylist", "tolist", "to_list"):  # Arrow; numpy and pandas; Polars
        if hasattr(values, method):
            return list(getattr(values, method)())
    return list(cast("Iterable[Any]", values))


def _check_lengths(columns: Mapping[str, Sequence[Any]]) -> None:
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
        raise SourceError(f"columns differ in length: {told}; give a value of each for every entity")


def _find(project: Project, wanted: WantedFeature) -> FeatureView | OnDemand:
    if not isinstance(wanted, str):
        return wanted
    declared: dict[str, FeatureView | OnDemand] = {
        **project.declarations.views, **project.declarations.on_demand
    }  # fmt: skip
    if wanted not in declared:
        raise NotFound("feature view", wanted, declared)
    return declared[wanted]
