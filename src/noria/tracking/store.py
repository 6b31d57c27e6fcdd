"""Where what runs log is kept: metric points, parameters, tags."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Connection, RowMapping, Select, Table, bindparam, select, type_coerce

from noria.database.lookups import Lookup
from noria.database.store import Database
from noria.database.upserts import Upsert
from noria.errors import Conflict, NotFound
from noria.records import RunId, canonical_json
from noria.tracking.names import check_title
from noria.tracking.records import MetricPoint, param_text
from noria.tracking.tables import (
    HEAD_CHARS,
    latest_metrics,
    metric_points,
    run_params,
    run_tags,
    tracked_runs,
)

__all__ = ["LATEST", "POINTS", "RUN_NAME_TAG", "TrackingStore", "check_open", "to_point"]

RUN_NAME_TAG = "mlflow.runName"  # is the run's name, whoever sets which


def _points_of(table: Table) -> Select[Any]:
    at_us = type_coerce(table.c.recorded_at, BigInteger).label("at_us")
    return select(table.c.run, table.c.name, table.c.step, table.c.value, table.c.is_nan, at_us)


POINTS, LATEST = _points_of(metric_points), _points_of(latest_metrics)
_FOLDER_OF = Lookup(
    select(tracked_runs.c.experiment, tracked_runs.c.deleted_at).where(
        tracked_runs.c.run == bindparam("run")
    ),
    "run",
)
_POINTS = Upsert(metric_points)
_LATEST = Upsert(
    latest_metrics,
    replaced=("step", "recorded_at", "value", "is_nan"),
    if_greater=("step", "recorded_at", "is_nan", "value"),
)
_PARAMS = Upsert(run_params)
_TAGS = Upsert(run_tags, replaced=("value", "head"))
_KNOWN_PARAMS = select(run_params.c.name, run_params.c.value).where(
    run_params.c.run == bindparam("run"), run_params.c.name.in_(bindparam("names", expanding=True))
)
_DROP_TAG = run_tags.delete().where(
    run_tags.c.run == bindparam("of_run"), run_tags.c.name == bindparam("of_name")
)
_RENAME = tracked_runs.update().where(tracked_runs.c.run == bindparam("of_run"))


class TrackingStore:
    """What runs log, in the project's database. Safe to use from many threads and processes.

    What a call keeps is on record as a whole when it returns. The same point of a metric twice is one point.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def log(
        self,
        run: RunId,
        *,
        points: Iterable[MetricPoint] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        is_open: bool = False,
    ) -> None:
        """Keep points, parameters and tags of a run, all or none.

        Parameters
        ----------
        params
            Any values that JSON can hold.
        is_open
            Only where the run is in an experiment and was not deleted.

        Raises
        ------
        Conflict
            If a parameter has another value already, or the run was deleted.
        ConfigError
            If the tag of the run's name is too long for one.
        NotFound
            If `is_open` and there is no such run in an experiment.
        """
        rows = [_point_row(run, each) for each in points]  # as the database has them
        with self._database.write() as connection:
            folder = _folder_of(connection, run)
            if is_open:
                check_open(run, folder)
            experiment = None if folder is None else folder.experiment
            if params:
                _keep_params(connection, run, experiment, params)
            if rows:
                _keep_points(connection, rows, {run: experiment})
            if tags:
                self._keep_tags(connection, run, experiment, tags)

    def log_points(self, points: Sequence[tuple[RunId, MetricPoint]]) -> list[NotFound | Conflict | None]:
        """Keep points of runs that are in experiments, in one transaction.

        Returns
        -------
        list
            For each point why it is not kept, as `log` raises it where `is_open`; None: it is on record.
        """
        experiments: dict[RunId, int] = {}
        faults: dict[RunId, NotFound | Conflict] = {}
        with self._database.write() as connection:
            for run in dict.fromkeys(run for run, _ in points):
                folder = _folder_of(connection, run)
                try:
                    check_open(run, folder)
                except (NotFound, Conflict) as err:
                    faults[run] = err
                else:
                    assert folder is not None
                    experiments[run] = folder.experiment
            rows = [_point_row(run, each) for run, each in points if run in experiments]
            if rows:
                _keep_points(connection, rows, experiments)
        return [faults.get(run) for run, _ in points]

    def append_points(self, run: RunId, points: Iterable[MetricPoint]) -> None:
        """Keep values of metrics, all or none."""
        self.log(run, points=points)

    def put_tag(self, run: RunId, name: str, value: str) -> None:
        """Set a tag of a run, whatever it was before."""
        self.log(run, tags={name: value})

    def remove_tag(self, run: RunId, name: str) -> None:
        """Take a tag away. Raises `NotFound`, also where the run is in no experiment; `Conflict`."""
        with self._database.write() as connection:
            check_open(run, _folder_of(connection, run))
            if not connection.execute(_DROP_TAG, {"of_run": run, "of_name": name}).rowcount:
                known = connection.execute(select(run_tags.c.name).where(run_tags.c.run == run)).scalars()
                raise NotFound("tag", name, sorted(known))

    def list_points(self, run: RunId, name: str | None = None) -> list[MetricPoint]:
        """Give the values of a run's metrics: by name, then step, then instant."""
        query = POINTS.where(metric_points.c.run == run)
        if name is not None:
            query = query.where(metric_points.c.name == name)
        order = (metric_points.c.name, metric_points.c.step, metric_points.c.recorded_at)
        with self._database.read() as connection:
            return [to_point(row) for row in connection.execute(query.order_by(*order)).mappings()]

    def latest_points(self, run: RunId) -> dict[str, MetricPoint]:
        """Give of each metric the point that is greatest by step, instant and value."""
        query = LATEST.where(latest_metrics.c.run == run).order_by(latest_metrics.c.name)
        with self._database.read() as connection:
            return {row["name"]: to_point(row) for row in connection.execute(query).mappings()}

    def params(self, run: RunId) -> dict[str, Any]:
        """Give the parameters of a run as what they are, by name."""
        query = select(run_params).where(run_params.c.run == run).order_by(run_params.c.name)
        with self._database.read() as connection:
            return {
                row.name: row.value if row.json is None else msgspec.json.decode(row.json)
                for row in connection.execute(query)
            }

    def list_params(self, run: RunId) -> dict[str, str]:
        """Give the parameters of a run as people read them, by name."""
        return self._texts(run_params, run)

    def list_tags(self, run: RunId) -> dict[str, str]:
        """Give the tags of a run, by name."""
        return self._texts(run_tags, run)

    def _texts(self, table: Table, run: RunId) -> dict[str, str]:
        query = select(table.c.name, table.c.value).where(table.c.run == run).order_by(table.c.name)
        with self._database.read() as connection:
            return {row.name: row.value for row in connection.execute(query)}

    def _keep_tags(
        self, connection: Connection, run: RunId, experiment: int | None, tags: Mapping[str, str]
    ) -> None:
        _TAGS.execute(connection, [_text_row(run, experiment, name, value) for name, value in tags.items()])
        if RUN_NAME_TAG in tags and experiment is not None:
            connection.execute(_RENAME, {"of_run": run, "name": check_title("run", tags[RUN_NAME_TAG])})


class _Folder(NamedTuple):
    experiment: int
    deleted_at: int | None


def _folder_of(connection: Connection, run: RunId) -> _Folder | None:
    """Give the experiment that a run is in, and whether it is deleted; None if it is in none."""
    row = _FOLDER_OF.first(connection, run)
    return None if row is None else _Folder(*row)


def check_open(run: str, folder: Any) -> None:
    """Raise `NotFound` or `Conflict` unless something may be added to a run of an experiment."""
    if folder is None:
        raise NotFound("run", run)
    if folder.deleted_at is not None:
        raise Conflict(f"run {run} is deleted, and nothing is added to it; restore it first")


def to_point(row: RowMapping) -> MetricPoint:
    """Make the record of a row of `POINTS` or `LATEST`."""
    return MetricPoint(
        name=row["name"],
        value=math.nan if row["is_nan"] else row["value"],
        step=row["step"],
        at_us=row["at_us"],
    )


_Row = tuple[RunId, str, int, int, float, bool]  # run, name, instant, step, value, whether it is NaN


def _point_row(run: RunId, point: MetricPoint) -> _Row:
    value = point.value
    if value != value:  # noqa: PLR0124 - NaN, asked a thousand times a request
        return (run, point.name, point.at_us, point.step, 0.0, True)
    return (run, point.name, point.at_us, point.step, value, False)


def _keep_points(
    connection: Connection, rows: Sequence[_Row], experiments: Mapping[RunId, int | None]
) -> None:
    """Keep points, and of each metric the greatest, beside the experiment of its run."""
    _POINTS.execute_raw(connection, rows)
    latest = [(*row[:2], experiments[row[0]], *row[2:]) for row in _greatest(rows)]
    _LATEST.execute_raw(connection, latest)


def _greatest(rows: Sequence[_Row]) -> Iterable[_Row]:
    """Give of each metric the row that is greatest by step, instant and value; NaN is beyond all numbers."""
    found: dict[tuple[RunId, str], _Row] = {}
    for row in rows:
        metric = row[:2]
        held = found.get(metric)
        if held is None or _place(row) > _place(held):
            found[metric] = row
    return found.values()


def _place(row: _Row) -> tuple[int, int, bool, float]:
    _, _, at_us, step, value, is_nan = row
    return (step, at_us, is_nan, value)


def _keep_params(
    connection: Connection, run: RunId, experiment: int | None, params: Mapping[str, Any]
) -> None:
    texts = {name: param_text(value) for name, value in params.items()}
    known = connection.execute(_KNOWN_PARAMS, {"run": run, "names": [*texts]})
    for name, value in known:
        if value != texts[name]:
            raise Conflict(
                f"parameter {name!r} of run {run} is {value!r} and cannot become {texts[name]!r}; "
                "log it under another name, or start another run"
            )
    rows = [
        {
            **_text_row(run, experiment, name, text),
            "json": None if isinstance(params[name], str) else canonical_json(params[name]).decode(),
        }
        for name, text in texts.items()
    ]
    _PARAMS.execute(connection, rows)


def _text_row(run: RunId, experiment: int | None, name: str, value: str) -> dict[str, Any]:
    return {"run": run, "name": name, "experiment": experiment, "value": value, "head": value[:HEAD_CHARS]}
