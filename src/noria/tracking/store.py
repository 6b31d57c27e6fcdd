"""Where experiments, metric points and tags live."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from noria.database.store import Database
from noria.errors import Conflict, NotFound
from noria.records import RunId
from noria.tracking.records import Experiment, MetricPoint
from noria.tracking.tables import experiments, metric_points, run_tags

__all__ = ["TrackingStore"]


class TrackingStore:
    """Experiments, metric points and tags in the project's database. Safe to use from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_experiment(self, name: str, *, at: datetime | None = None) -> Experiment:
        """Make an experiment.

        Raises
        ------
        Conflict
            If there is one of that name.
        """
        made_at = datetime.now(UTC) if at is None else at
        with self._database.write() as connection:
            if connection.execute(select(experiments.c.id).where(experiments.c.name == name)).first():
                raise Conflict(f"there is an experiment {name!r} already; use it, or choose another name")
            statement = insert(experiments).values(name=name, at=made_at).returning(experiments.c.id)
            number = connection.execute(statement).scalar_one()
        return Experiment(id=str(number), name=name, at=made_at)

    def find_experiment(self, name: str) -> Experiment | None:
        """Give the experiment of that name, or `None`."""
        with self._database.read() as connection:
            row = connection.execute(select(experiments).where(experiments.c.name == name)).first()
        return None if row is None else Experiment(id=str(row.id), name=row.name, at=row.at)

    def get_experiment(self, name: str) -> Experiment:
        """Give the experiment of that name. Raises `NotFound`, naming those that exist."""
        found = self.find_experiment(name)
        if found is None:
            raise NotFound("experiment", name, [each.name for each in self.list_experiments()])
        return found

    def open_experiment(self, name: str) -> Experiment:
        """Give the experiment of that name; make it if it is not there. Two may do so at once."""
        found = self.find_experiment(name)
        if found is not None:
            return found
        with self._database.write():
            return self.find_experiment(name) or self.create_experiment(name)

    def list_experiments(self) -> list[Experiment]:
        """Give all experiments, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(experiments).order_by(experiments.c.id)).all()
        return [Experiment(id=str(row.id), name=row.name, at=row.at) for row in rows]

    def append_points(self, run: RunId, points: Iterable[MetricPoint]) -> None:
        """Keep values of metrics, all or none."""
        rows = [
            {
                "run": run,
                "name": each.name,
                "step": each.step,
                "value": None if math.isnan(each.value) else each.value,
                "recorded_at": each.recorded_at,
            }
            for each in points
        ]
        if rows:
            with self._database.write() as connection:
                connection.execute(insert(metric_points), rows)

    def list_points(self, run: RunId, name: str | None = None) -> list[MetricPoint]:
        """Give the values of a run's metrics: by name, then step, then arrival."""
        query = select(metric_points).where(metric_points.c.run == run)
        if name is not None:
            query = query.where(metric_points.c.name == name)
        order = (metric_points.c.name, metric_points.c.step, metric_points.c.id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(*order)).all()
        return [
            MetricPoint(
                name=row.name,
                step=row.step,
                value=math.nan if row.value is None else row.value,
                recorded_at=row.recorded_at,
            )
            for row in rows
        ]

    def put_tag(self, run: RunId, name: str, value: str) -> None:
        """Set a tag of a run, whatever it was before."""
        with self._database.write() as connection:
            connection.execute(delete(run_tags).where(run_tags.c.run == run, run_tags.c.name == name))
            connection.execute(insert(run_tags).values(run=run, name=name, value=value))

    def list_tags(self, run: RunId) -> dict[str, str]:
        """Give the tags of a run, by name."""
        query = select(run_tags.c.name, run_tags.c.value).where(run_tags.c.run == run)
        with self._database.read() as connection:
            return {row.name: row.value for row in connection.execute(query.order_by(run_tags.c.name))}
