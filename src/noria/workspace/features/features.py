"""Feature views as their users see them: what there is, values then and now, and where a value comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.features.declarations import FeatureView
from noria.workspace.features.on_demand import (
    WantedFeature,
    get_features,
    request_columns,
    show_on_demand,
)
from noria.workspace.features.on_demand_details import list_on_demand
from noria.workspace.features.online import compare_online, materialize_views, trace_values
from noria.workspace.features.reads import note_read
from noria.workspace.features.records import (
    Compared,
    FoundViews,
    Loaded,
    OnDemandDetails,
    Registered,
    Traced,
    ViewDetails,
    ViewSummary,
)
from noria.workspace.features.sets import make_training_set, read_training_set
from noria.workspace.features.views import (
    Wanted,
    find_view,
    list_views,
    register_named,
    search_project,
    show_view,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.features.fields import Field
    from noria.features.following import Brought, HeldUp
    from noria.features.statistics.records import SetStatistics
    from noria.lake.declarations import ArrowFrame
    from noria.training.declarations import Spine
    from noria.workspace.features.parity import ParityReport
    from noria.workspace.features.reader_records import FeatureReaders
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

    def search(self, text: str = "", *, tags: Collection[str] = (), owner: str | None = None) -> FoundViews:
        """Search views and on-demand features by words: names, descriptions, sources, rules, tags, owners.

        Parameters
        ----------
        text
            Words that all have to be found; a beginning of one will do. Case does not count.
        tags
            That all have to be there.
        owner
            Whose features.

        Returns
        -------
        FoundViews
            `.views` and `.on_demand`, the best first; where there is none, `.meant`: words that are near.
        """
        return search_project(self._project, text, tags=tags, owner=owner)

    def list_on_demand(self) -> tuple[OnDemandDetails, ...]:
        """Tell about every on-demand feature that the project declares, by name."""
        return list_on_demand(self._project)

    def show_on_demand(self, name: WantedFeature) -> OnDemandDetails:
        """Tell all about one on-demand feature. Raises `NotFound`, which says what exists."""
        return show_on_demand(self._project, name)

    def request_columns(self, name: WantedFeature) -> tuple[Field, ...]:
        """Give the columns that `get` has to be given for a feature: entities, and fields of a request."""
        return request_columns(self._project, name)

    def show(self, name: Wanted) -> ViewDetails:
        """Tell all about one view. Raises `NotFound`, which says what exists."""
        return show_view(self._project, name)

    def register(self, features: Sequence[WantedFeature] = ()) -> tuple[Registered, ...]:
        """Put definitions on record, by default all, and measure the features of views.

        Training sets, trainings and `materialize` do so by themselves. A definition that is on record stays
        the version it is; it is measured again where its source has changed since.

        Raises
        ------
        ConfigError
            If code of an on-demand feature was changed since it was loaded, or lies in no file.
        NotFound
            If there is no such feature.
        """
        return register_named(self._project, features)

    def training_set(
        self,
        spine: ArrowFrame | Spine | str,
        features: Sequence[WantedFeature],
        *,
        name: str = "training_set",
        at: str = "at",
        corrected: bool = False,
        rows_at_once: int | None = None,
        cause: str | None = None,
    ) -> pa.Table:
        """Join rows with features as they were known at each row's instant, and keep the result as a version.

        No row is lost or doubled, and their order stays. The same set again is the same version. It may be
        larger than memory: rows are joined piece by piece, and the table that is given lies on the disk.

        Parameters
        ----------
        spine
            Rows with the views' entity columns and an instant each: a frame or a stream of its batches, a
            `noria.Spine`, or a SELECT.
        features
            Views and on-demand features, or their names. What those read of the request is in the rows.
        name
            Of the version.
        at
            The column of instants; a `noria.Spine` names its own.
        corrected
            Take every row as it is now, from when it happened on, not as it was known then. The version and
            the table say so, and no gate lets a model pass that was made from it.
        rows_at_once
            How many rows are joined at a time; None: a million. The set is the same whatever it is.
        cause
            The event that led to it; by default that somebody asked.

        Returns
        -------
        Table
            The spine's columns, then `<view>__<feature>` as float64, NaN where missing. Its schema's
            metadata has `noria.version`, and `noria.missing` where an on-demand feature failed for rows.

        Raises
        ------
        NotFound
            If there is no such view, or nothing has landed in its source.
        SourceError
            If the spine lacks a column, or an instant has no time zone.
        """
        return make_training_set(
            self._project,
            spine,
            features,
            name=name,
            at=at,
            corrected=corrected,
            rows_at_once=rows_at_once,
            cause=cause,
        )

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
        from noria.workspace.features.statistics import statistics_of_frame, statistics_of_model

        if isinstance(wanted, str):
            return statistics_of_model(self._project, wanted)
        return statistics_of_frame(wanted, label=label, at=at)

    def get(
        self,
        features: Sequence[WantedFeature],
        entities: Mapping[str, Sequence[str | float | None]],
        *,
        at: datetime | None = None,
        reader: str | None = None,
    ) -> pa.Table:
        """Give online features of entities as of now, and note that they were read.

        Parameters
        ----------
        features
            Views and on-demand features, or their names.
        entities
            Columns of the entities, such as `{"carrier": ["UA", "B6"]}`; None is a missing entity. Beside
            them, those of a request that on-demand features read.
        at
            The instant; by default the project's. It moves windows only: what the store knows already counts,
            also where that was known later.
        reader
            Who asks, for `readers`; by default the user of this machine.

        Returns
        -------
        Table
            The entities' columns, then `<view>__<feature>` as float64, NaN where missing.

        Raises
        ------
        Conflict, NotFound
            If the online store has another definition of a view, or none: `materialize` it.
        """
        return get_features(self._project, features, entities, at=at, reader=reader)

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

    def follow(self) -> tuple[Brought | HeldUp, ...]:
        """Count online what came to the tables since, once, as `noria up` does all the time.

        Followed are the views that the project declares and those that deployed releases need. One that
        cannot be counted is held up, and stays as it is.

        Raises
        ------
        LeaseHeld
            If another process writes the store all the time.
        StoreError
            If the store is away.
        """
        from noria.workspace.features.follower import bring_on

        return bring_on(self._project)

    def compare(self, name: Wanted, *, limit: int = _COMPARED, at: datetime | None = None) -> Compared:
        """Compare online values of a view with the same computed offline, for its first entities by name.

        Raises
        ------
        NotFound
            If the online store does not hold it.
        """
        return compare_online(self._project, name, limit=limit, at=at)

    def verify(
        self,
        deployment: str,
        environment: str = "production",
        *,
        since: datetime | None = None,
        most: int = 1_000,
    ) -> ParityReport:
        """Compare features that a deployment served with the same computed offline.

        What differs from the newest state of its source is held against those of the minute before, or of the
        view's `freshness`: what agrees with one of them was late, and nothing else is wrong with it.

        Parameters
        ----------
        since
            Only predictions that were logged after it; they are those in the lake.
        most
            So many predictions, chosen by their ids: the same ones each time.

        Raises
        ------
        ConfigError, NotFound
            If there is no such environment, or it goes by the clock of a replay.
        """
        from noria.workspace.features.parity import verify_deployment

        return verify_deployment(self._project, environment, deployment, since=since, least=most, most=most)

    def trace(
        self,
        name: Wanted,
        entity: Mapping[str, Any],
        *,
        at: datetime | None = None,
        reader: str | None = None,
    ) -> Traced:
        """List the source rows that made an entity's features as of an instant, and note that they were read.

        Parameters
        ----------
        entity
            A value for each of the view's entity columns.
        at
            The instant; by default the project's.
        reader
            Who asks, for `readers`; by default the user of this machine.

        Raises
        ------
        NotFound
            If there is no such view, or nothing has landed in its source.
        SourceError
            If `entity` does not name the view's entity columns, or a value cannot be one of that column.
        """
        traced = trace_values(self._project, name, entity, at=at)
        note_read(self._project, [self.view(name)], entities=1, how="trace", who=reader)
        return traced

    def readers(self, wanted: WantedFeature) -> FeatureReaders:
        """Tell who used a view or an on-demand feature, or one column of it, as far as that is on record.

        Trainings and model versions, training sets and who made them, deployments and when, how many requests
        these scored by day, and who read online features by `get` or `trace`, here or over HTTP, by day.

        Parameters
        ----------
        wanted
            A view or an on-demand feature, or its name, or `VIEW__FEATURE`; one that is declared no more is
            known all the same.

        Raises
        ------
        NotFound
            If there is no such view or feature.
        """
        from noria.workspace.features.readers import readers_of

        return readers_of(self._project, wanted)
