"""Feature views as their users see them: what there is, values then and now, and where a value comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.features.declarations import FeatureView
from noria.workspace.feature_online import compare_online, get_online, materialize_views, trace_values
from noria.workspace.feature_records import Compared, Loaded, Traced, ViewDetails, ViewSummary
from noria.workspace.feature_sets import make_training_set, read_training_set
from noria.workspace.feature_views import Wanted, find_view, list_views, show_view

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.features.statistics.records import SetStatistics
    from noria.lake.declarations import ArrowFrame
    from noria.training.declarations import Spine
    from noria.workspace.project import Project

__all__ = ["Features"]

_COMPARED = 1_000  # entities, unless asked for more


class Features:
    """The feature views of a project; `project.features`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def view(self, wanted: Wanted) -> FeatureView:
        """Give a view by its name. Raises `NotFound`, which says what exists."""
        return find_view(self._project, wanted)

    def list(self) -> tuple[ViewSummary, ...]:
        """List the views that the project declares, by name."""
        return list_views(self._project)

    def show(self, name: Wanted) -> ViewDetails:
        """Tell all about one view. Raises `NotFound`, which says what exists."""
        return show_view(self._project, name)

    def training_set(
        self,
        spine: ArrowFrame | Spine | str,
        features: Sequence[Wanted],
        *,
        name: str = "training_set",
        at: str = "at",
        cause: str | None = None,
    ) -> pa.Table:
        """Join rows with features as they were known at each row's instant, and keep the result as a version.

        No row is lost or doubled, and their order stays. The same set again is the same version.

        Parameters
        ----------
        spine
            Rows with the views' entity columns and an instant each: a frame, a `noria.Spine`, or a SELECT.
        features
            Views, or their names.
        name
            Of the version.
        at
            The column of instants; a `noria.Spine` names its own.
        cause
            The event that led to it; by default that somebody asked.

        Returns
        -------
        Table
            The spine's columns, then `<view>__<feature>` as float64, NaN where missing. Its schema's
            metadata has `noria.version`.

        Raises
        ------
        NotFound
            If there is no such view, or nothing has landed in its source.
        SourceError
            If the spine lacks a column, or an instant has no time zone.
        """
        return make_training_set(self._project, spine, features, name=name, at=at, cause=cause)

    def read_training_set(self, name: str = "training_set", number: int | None = None) -> pa.Table:
        """Give a training set again, the newest by default. Raises `NotFound`."""
        return read_training_set(self._project, name, number)

    def statistics(
        self, wanted: str | ArrowFrame, *, label: str | None = None, at: str | None = None
    ) -> SetStatistics:
        """Give statistics of features, and which of them may know the outcome.

        Parameters
        ----------
        wanted
            A model, `NAME`, `NAME:3` or `NAME@production`: what its training kept. Or a frame: computed now.
        label
            The column of a frame that is to be predicted; missing where it is not known yet.
        at
            The column of a frame with the instants of the decisions; without it nothing is said of time.

        Raises
        ------
        ConfigError, NotFound, SourceError
            If a frame comes without its label; if there is no such model, or its training kept none; if a
            column is not there.
        """
        from noria.workspace.feature_statistics import statistics_of_frame, statistics_of_model

        if isinstance(wanted, str):
            return statistics_of_model(self._project, wanted)
        return statistics_of_frame(wanted, label=label, at=at)

    def get(
        self,
        features: Sequence[Wanted],
        entities: Mapping[str, Sequence[str | int | None]],
        *,
        at: datetime | None = None,
    ) -> pa.Table:
        """Give online features of entities as of now.

        Parameters
        ----------
        features
            Views, or their names.
        entities
            Columns of the entities, such as `{"carrier": ["UA", "B6"]}`; None is a missing entity.
        at
            The instant; by default the project's. It may not be before what the store already knows.

        Returns
        -------
        Table
            The entities' columns, then `<view>__<feature>` as float64, NaN where missing.

        Raises
        ------
        Conflict, NotFound
            If the online store has another definition of a view, or none: `materialize` it.
        """
        return get_online(self._project, features, entities, at=at)

    def materialize(self, features: Sequence[Wanted] = ()) -> tuple[Loaded, ...]:
        """Load views into the online store from all that is known, each whole or not at all.

        Readers see the old values until the new ones are there.

        Raises
        ------
        LeaseHeld
            If another process writes the store.
        NotFound
            If there is no such view, or nothing has landed in its source.
        """
        return materialize_views(self._project, features)

    def compare(self, name: Wanted, *, limit: int = _COMPARED, at: datetime | None = None) -> Compared:
        """Compare online values of a view with the same computed offline, for its first entities by name.

        Raises
        ------
        NotFound
            If the online store does not hold it.
        """
        return compare_online(self._project, name, limit=limit, at=at)

    def trace(self, name: Wanted, entity: Mapping[str, Any], *, at: datetime | None = None) -> Traced:
        """List the source rows that made an entity's features as of an instant.

        Parameters
        ----------
        entity
            A value for each of the view's entity columns.
        at
            The instant; by default the project's.

        Raises
        ------
        NotFound
            If there is no such view, or nothing has landed in its source.
        SourceError
            If `entity` does not name the view's entity columns, or a value cannot be one of that column.
        """
        return trace_values(self._project, name, entity, at=at)
