"""Feature views as their users see them: what there is, values then and now, and where a value comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.clock import to_micros
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.telling import rule_of
from noria.workspace.feature_records import (
    Compared,
    FeatureShown,
    Loaded,
    Traced,
    ViewDetails,
    ViewSummary,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.features.statistics.records import SetStatistics
    from noria.lake.declarations import ArrowFrame
    from noria.records import Version
    from noria.training.declarations import Spine
    from noria.workspace.project import Project

__all__ = ["Features"]

_KIND = "training_set"
_COMPARED = 1_000  # entities, unless asked for more
Wanted = str | FeatureView


class Features:
    """The feature views of a project; `project.features`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def view(self, wanted: Wanted) -> FeatureView:
        """Give a view by its name. Raises `NotFound`, which says what exists."""
        if isinstance(wanted, FeatureView):
            return wanted
        views = self._project.declarations.views
        if wanted not in views:
            raise NotFound("feature view", wanted, views)
        return views[wanted]

    def list(self) -> tuple[ViewSummary, ...]:
        """List the views that the project declares, by name."""
        online = self._online()
        return tuple(
            self._summary(view, online) for _, view in sorted(self._project.declarations.views.items())
        )

    def show(self, name: Wanted) -> ViewDetails:
        """Tell all about one view. Raises `NotFound`, which says what exists."""
        import pyarrow.compute as pc

        view = self.view(name)
        spec = view.spec()
        newest, as_of = self._newest(spec)
        shown = []
        for column, feature in zip(spec.columns, spec.features, strict=True):
            values = newest.column(column)
            there = values.filter(pc.invert(pc.is_nan(values)))
            bounds = pc.min_max(there).as_py()
            shown.append(
                FeatureShown(
                    name=feature.name,
                    rule=rule_of(feature.aggregation),
                    missing=len(values) - len(there),
                    low=bounds["min"],
                    mean=pc.mean(there).as_py(),
                    high=bounds["max"],
                )
            )
        return ViewDetails(
            summary=self._summary(view, self._online()),
            digest=spec.digest,
            event_at=spec.event_at,
            known_at=spec.known_at,
            entities=newest.num_rows,
            as_of=as_of,
            features=tuple(shown),
            versions=self._versions(spec),
        )

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
        from noria.features.joining import join_features
        from noria.workspace.kept_sets import encode

        project = self._project
        rows, at = self._spine(spine, at)
        views = [self.view(each) for each in features]
        read: dict[str, Version | None] = {}
        asked = {
            "features": [each.name for each in views],
            "at": at,
        }
        with project.ledger.running(_KIND, name, cause=cause, params=asked) as running:
            made = join_features(rows, views, read=_Reading(project, read), at=at)
            for source in read.values():
                if source is not None:
                    running.add_input(source)
            data = encode(made)
            sha256 = project.storage.put(data)
            facts = {
                "rows": made.num_rows,
                "columns": made.num_columns,
                "views": {each.name: each.spec().digest for each in views},
                "size_bytes": len(data),
            }
            version = running.record_version(
                _KIND, name, sha256=sha256, uri=project.storage.uri(sha256), facts=facts
            )
            running.metrics["rows"] = float(made.num_rows)
        return made.replace_schema_metadata({"noria.version": version.ref})

    def read_training_set(self, name: str = "training_set", number: int | None = None) -> pa.Table:
        """Give a training set again, the newest by default. Raises `NotFound`."""
        from noria.workspace.kept_sets import kept_sets, read_kept

        kept = kept_sets(self._project, name)
        found = next((each for each in reversed(kept) if number in (None, each.number)), None)
        if found is None:
            raise NotFound(_KIND, name if number is None else f"{name}:{number}", [each.ref for each in kept])
        return read_kept(self._project, found).replace_schema_metadata({"noria.version": found.ref})

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
        import pyarrow as pa

        from noria.features.online import open_online_store

        project = self._project
        views = [self.view(each) for each in features]
        if not views:
            raise ConfigError("no feature view is wanted; name one or more")
        specs = [each.spec() for each in views]
        try:
            if not project.has_online:
                raise NotFound("online feature view", views[0].name, [])
            with closing(
                open_online_store(project.settings.stores.online, root=project.root, readonly=True)
            ) as store:
                values = store.read(specs, entities, to_micros(at or project.clock.now()))
        except (NotFound, Conflict) as error:
            wanted = " ".join(each.name for each in views)
            error.add_note(f"`noria feature materialize {wanted}` loads it.")
            raise
        names = [name for spec in specs for name in spec.columns]
        return pa.table(
            {**{name: pa.array(each) for name, each in entities.items()}}
            | {name: pa.array(values[:, place]) for place, name in enumerate(names)}
        )

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
        import pyarrow.compute as pc

        from noria.features.online import open_online_store

        project = self._project
        views = [self.view(each) for each in features or sorted(project.declarations.views)]
        if not views:
            raise ConfigError("the project declares no feature view; write one: `noria.FeatureView(...)`")
        loaded = []
        store = open_online_store(project.settings.stores.online, root=project.root)
        try:
            for view in views:
                spec = view.spec()
                rows = project.lake.read(spec.source, columns=spec.source_columns)
                store.load(view, rows)
                until = pc.max(rows[spec.known_at]).as_py()
                loaded.append(Loaded(view=view.name, rows=rows.num_rows, known_until=until))
        finally:
            store.close()
        return tuple(loaded)

    def compare(self, name: Wanted, *, limit: int = _COMPARED, at: datetime | None = None) -> Compared:
        """Compare online values of a view with the same computed offline, for its first entities by name.

        Raises
        ------
        NotFound
            If the online store does not hold it.
        """
        import numpy as np
        import pyarrow as pa

        from noria.features.agreeing import agree, differing, tolerances
        from noria.features.joining import join_features

        project = self._project
        view = self.view(name)
        spec = view.spec()
        now = at or project.clock.now()
        entities = self._entities(spec).slice(0, limit)
        columns = {each: entities.column(each).to_pylist() for each in spec.entity}
        online = self.get([view], columns, at=now)
        instants = pa.array([now] * entities.num_rows, pa.timestamp("us", "UTC"))
        offline = join_features(entities.append_column("at", instants), [view], read=project.lake.read)
        allowed = tolerances([spec])
        different = 0
        examples: list[tuple[str, str, float | None, float | None]] = []
        for column in spec.columns:
            one = online.column(column).to_numpy()
            other = offline.column(column).to_numpy()
            found = differing(one, other, allowed[column])
            different += found
            if found:
                for place in range(len(one)):
                    pair = _plain(one[place]), _plain(other[place])
                    if len(examples) < 5 and not agree(*pair, allowed[column]):
                        who = ", ".join(str(columns[each][place]) for each in spec.entity)
                        examples.append((who, column, *pair))
        return Compared(
            view=view.name,
            at=now,
            entities=entities.num_rows,
            values=int(np.prod((entities.num_rows, len(spec.columns)))),
            different=different,
            examples=tuple(examples),
        )

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
        import pyarrow as pa
        import pyarrow.dataset as ds

        from noria.features.materialize import read_sources
        from noria.features.offline import point_in_time

        project = self._project
        spec = self.view(name).spec()
        if set(entity) != set(spec.entity):
            raise SourceError(
                f"view {spec.name!r} is of {', '.join(map(repr, spec.entity))}; "
                f"given was {', '.join(map(repr, entity)) or 'nothing'}"
            )
        now = at or project.clock.now()
        schema = project.lake.schema(spec.source)
        instants = pa.array([now], pa.timestamp("us", "UTC"))
        spine = pa.table({each: pa.array([str(entity[each])]) for each in spec.entity} | {"at": instants})
        mine = ds.scalar(True)
        for column in spec.entity:
            try:
                mine &= ds.field(column) == pa.scalar(str(entity[column])).cast(schema.field(column).type)
            except pa.ArrowInvalid as err:
                kind = schema.field(column).type
                raise SourceError(
                    f"{column} = {entity[column]!r} is no {kind}, as the source has it"
                ) from err

        def read(source: str, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
            return project.lake.read(source, columns=columns, where=where & mine)

        rows = read_sources([spec], spine, read)[spec.source]
        (values,) = point_in_time(spec, rows, spine).to_pylist()
        order = [(spec.event_at, "descending"), *((each, "descending") for each in spec.key)]
        return Traced(
            view=spec.name,
            entity={each: str(entity[each]) for each in spec.entity},
            at=now,
            values={each: _plain(value) for each, value in values.items()},
            rows=rows.sort_by(order),
        )

    # -- parts

    def _spine(self, spine: ArrowFrame | Spine | str, at: str) -> tuple[pa.Table, str]:
        from noria.lake.schema import as_table
        from noria.training.declarations import Spine

        if isinstance(spine, str):
            return self._project.query(spine), at
        if isinstance(spine, Spine):
            return self._project.lake.read(spine.source.name), spine.at
        return as_table(spine, name="spine"), at

    def _online(self) -> Mapping[str, str]:
        """Give the digest of each view that the online store holds."""
        project = self._project
        if not project.has_online:
            return {}
        from noria.features.online import open_online_store

        store = open_online_store(project.settings.stores.online, root=project.root, readonly=True)
        try:
            return store.definitions()
        finally:
            store.close()

    def _summary(self, view: FeatureView, online: Mapping[str, str]) -> ViewSummary:
        spec = view.spec()
        held = online.get(view.name)
        trainings = self._project.declarations.trainings.values()
        return ViewSummary(
            name=view.name,
            source=spec.source,
            entity=spec.entity,
            features=len(spec.features),
            online="none" if held is None else "current" if held == spec.digest else "other",
            models=tuple(sorted(each.name for each in trainings if view in each.features)),
        )

    def _entities(self, spec: ViewSpec) -> pa.Table:
        """Give every entity of the source, by name."""
        names = list(spec.entity)
        rows = self._project.lake.read(spec.source, columns=names).drop_null()
        return (
            rows.group_by(names).aggregate([]).select(names).sort_by([(each, "ascending") for each in names])
        )

    def _newest(self, spec: ViewSpec) -> tuple[pa.Table, datetime | None]:
        """Give the features of every entity as of the newest row, and when that became known."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from noria.features.offline import point_in_time

        if not self._project.lake.exists(spec.source):
            empty = {name: pa.chunked_array([], pa.float64()) for name in spec.columns}
            return pa.table(empty), None
        rows = self._project.lake.read(spec.source, columns=spec.source_columns)
        newest = pc.max(rows[spec.known_at]).as_py()
        entities = self._entities(spec)
        instants = pa.array([newest] * entities.num_rows, pa.timestamp("us", "UTC"))
        return point_in_time(spec, rows, entities.append_column("at", instants)), newest

    def _versions(self, spec: ViewSpec) -> tuple[str, ...]:
        """Name the model versions whose training read this view, newest first."""
        found: list[Version] = []
        for each in self._project.declarations.trainings.values():
            if spec.name in {view.name for view in each.features}:
                found += self._project.ledger.list_versions(kind="model", name=each.name)
        return tuple(each.ref for each in sorted(found, key=lambda each: each.at, reverse=True))


class _Reading:
    """Reads sources, each at one version, and remembers which."""

    def __init__(self, project: Project, read: dict[str, Version | None]) -> None:
        self._project, self._read = project, read

    def __call__(self, name: str, /, *, columns: Sequence[str], where: Any) -> pa.Table:
        from noria.lake.versions import stored_versions

        if name not in self._read:
            versions = stored_versions(self._project.ledger, name)
            self._read[name] = versions[-1] if versions else None
        return self._project.lake.read(name, columns=columns, where=where, version=self._read[name])


def _plain(value: float) -> float | None:
    return None if value != value else float(value)  # noqa: PLR0124 - NaN
