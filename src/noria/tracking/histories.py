"""The points of a metric along a run: all of them in pages, or thinned out for a picture."""

import base64
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import BigInteger, Integer, and_, bindparam, case, func, or_, select, tuple_, type_coerce

from noria.database.store import Database
from noria.errors import ConfigError, NotFound
from noria.records import RunId
from noria.tracking.records import MetricPoint
from noria.tracking.store import POINTS, to_point
from noria.tracking.tables import metric_points, tracked_runs

__all__ = ["Curve", "HistoryPage", "HistoryReader"]

_INT64 = 1 << 63
_LARGEST = sys.float_info.max
_SUMMED = 1e150  # larger ones may sum to no float, which PostgreSQL refuses; so is what its avg squares

_PLACE = (metric_points.c.recorded_at, metric_points.c.step, metric_points.c.value, metric_points.c.is_nan)
_AT_US = type_coerce(metric_points.c.recorded_at, BigInteger).label("at_us")
_OF_METRIC = (metric_points.c.run == bindparam("run"), metric_points.c.name == bindparam("name"))
_FIRST = (
    select(metric_points.c.value, type_coerce(metric_points.c.is_nan, Integer), _AT_US, metric_points.c.step)
    .where(*_OF_METRIC)
    .order_by(*_PLACE)
    .limit(bindparam("limit", type_=Integer))
)
_AFTER = _FIRST.where(
    tuple_(_AT_US, *_PLACE[1:])
    > tuple_(bindparam("at_us", type_=BigInteger), bindparam("step"), bindparam("value"), bindparam("is_nan"))
)
_IS_TRACKED = select(tracked_runs.c.run).where(tracked_runs.c.run == bindparam("run"))


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Points of a metric by instant, step and value, in columns.

    Attributes
    ----------
    values, at_us, steps
        Of each point: NaN where it is none, microseconds since 1970.
    next_page
        What gives the points after these; None: there are no more.
    """

    values: list[float]
    at_us: list[int]
    steps: list[int]
    next_page: str | None


@dataclass(slots=True)
class Curve:
    """A metric along a run, its points gathered into parts of equal numbers, in order of steps and instants.

    Attributes
    ----------
    steps, at_us
        Of the last point of each part.
    means, lows, highs
        Of the finite values of each part; the same where it is one point.
    points, unfit
        How many there are in all, and how many of them are NaN or infinite.
    """

    steps: list[int] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    points: int = 0
    unfit: int = 0


class _Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    at_us: int
    step: int
    value: str  # in hex: exact, and there is an infinity
    is_nan: bool


class HistoryReader:
    """Reads the points of metrics."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, run: RunId, name: str, *, limit: int, page: str | None = None) -> HistoryPage:
        """Give points of a metric as they were logged, from the beginning or where a page ended.

        Raises
        ------
        NotFound
            If there is no such run in an experiment.
        ConfigError
            If `page` is none that was given.
        """
        asked: dict[str, object] = {"run": run, "name": name, "limit": limit + 1}
        query = _FIRST
        if page is not None:
            place = _read_place(page)
            asked |= {"at_us": place.at_us, "step": place.step, "is_nan": place.is_nan}
            asked["value"] = float.fromhex(place.value)
            query = _AFTER
        with self._database.read() as connection:
            rows = connection.execute(query, asked).all()
            if not rows and connection.execute(_IS_TRACKED, {"run": run}).first() is None:
                raise NotFound("run", run)
        has_more, rows = len(rows) > limit, rows[:limit]
        columns = [[*each] for each in zip(*rows, strict=True)] if rows else [[], [], [], []]
        values, are_nan, at_us, steps = columns
        following = None
        if has_more:
            following = _page_of(_Place(at_us[-1], steps[-1], float(values[-1]).hex(), bool(are_nan[-1])))
        if any(are_nan):
            values = [math.nan if nan else value for value, nan in zip(values, are_nan, strict=True)]
        return HistoryPage(values, at_us, steps, following)

    def thinned(
        self, runs: Sequence[RunId], name: str, *, first: int | None, last: int | None, limit: int
    ) -> dict[RunId, list[MetricPoint]]:
        """Give points of a metric of several runs by step, evenly chosen; the last one is among them.

        Parameters
        ----------
        first, last
            The steps of interest, both included.
        limit
            How many of each run, at most.
        """
        wanted = [metric_points.c.name == name, metric_points.c.run.in_(runs)]
        wanted += [] if first is None else [metric_points.c.step >= first]
        wanted += [] if last is None else [metric_points.c.step <= last]
        place = func.row_number().over(
            partition_by=metric_points.c.run, order_by=(metric_points.c.step, metric_points.c.recorded_at)
        )
        size = func.count().over(partition_by=metric_points.c.run)
        numbered = POINTS.add_columns(place.label("place"), size.label("size")).where(*wanted).subquery()
        apart = max(limit - 1, 1)  # one place is for the last
        stride = (numbered.c.size + apart - 1) // apart
        chosen = or_(
            numbered.c.size <= limit,
            (numbered.c.place - 1) % stride == 0,
            numbered.c.place == numbered.c.size,
        )
        query = select(numbered).where(chosen).order_by(numbered.c.run, numbered.c.place)
        found: dict[RunId, list[MetricPoint]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query).mappings():
                found.setdefault(RunId(row["run"]), []).append(to_point(row))
        return {run: points[-limit:] for run, points in found.items()}

    def curves(self, runs: Sequence[RunId], name: str, *, parts: int) -> dict[RunId, Curve]:
        """Give a metric along several runs, so that no extreme is lost however many points there are.

        Parameters
        ----------
        parts
            Into how many the points of a run are gathered, at most; fewer points are given as they are.
        """
        wanted = (metric_points.c.name == name, metric_points.c.run.in_(runs))
        order = (metric_points.c.step, metric_points.c.recorded_at)
        place = func.row_number().over(partition_by=metric_points.c.run, order_by=order)
        size = func.count().over(partition_by=metric_points.c.run)
        numbered = POINTS.add_columns(place.label("place"), size.label("size")).where(*wanted).subquery()
        each = numbered.c
        is_finite = and_(~each.is_nan, each.value.between(-_LARGEST, _LARGEST))
        value = case((is_finite, each.value))
        part = case((each.size <= parts, each.place), else_=(each.place - 1) * parts // each.size)
        is_summed = value.between(-_SUMMED, _SUMMED)
        total, rest = case((is_summed, value)), case((~is_summed, value / 2 / each.size))
        query = (
            select(each.run, func.max(each.step), func.max(each.at_us), func.min(value), func.max(value))
            .add_columns(
                func.sum(total), func.sum(rest), func.max(each.size), func.count(), func.count(value)
            )
            .group_by(each.run, part)
            .order_by(each.run, part)
        )
        found: dict[RunId, Curve] = {run: Curve() for run in runs}
        with self._database.read() as connection:
            for row in connection.execute(query):
                run, step, at_us, lowest, highest, total, rest, size, count, finite = row
                curve = found[RunId(run)]
                curve.points += count
                curve.unfit += count - finite
                curve.steps.append(step)
                curve.at_us.append(at_us)
                if not finite:
                    lowest = mean = highest = math.nan
                else:
                    mean = (total or 0.0) / finite + (rest or 0.0) * (2 * size / finite)
                curve.lows.append(lowest)
                curve.highs.append(highest)
                curve.means.append(min(max(mean, lowest), highest))
        return found


def _page_of(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _read_place(page: str) -> _Place:
    try:
        place = msgspec.json.decode(base64.b64decode(page, altchars=b"-_", validate=True), type=_Place)
        float.fromhex(place.value)
        if not all(-_INT64 <= each < _INT64 for each in (place.at_us, place.step)):
            raise ValueError("its numbers have more than 64 bits")
    except (ValueError, OverflowError) as err:
        raise ConfigError(
            f"{page[:40]!r} is no page token of this history; give the one that came with the page before"
        ) from err
    return place
