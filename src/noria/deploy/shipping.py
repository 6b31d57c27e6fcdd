"""Moves the prediction log from a worker's spool into the lake's table `predictions`, exactly once.

A batch is the rows of whole closed segments and bears the number of its last one. The table remembers the
last batch of each spool, so that after a kill between commit and drop the segments are only dropped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.serving.logs.log import PredictionFrame, ReleaseScores, decode_frame
from noria.streams.spool import drop_segments, read_spool, spool_identity

__all__ = ["PREDICTIONS", "Shipped", "prediction_table", "ship_predictions"]

PREDICTIONS = "predictions"
_ROWS_PER_BATCH = 250_000
_INSTANT = pa.timestamp("us", "UTC")


class Table(Protocol):
    """What a lake has to offer: `noria.lake.store.Lake` does."""

    def append(self, name: str, table: pa.Table, *, batch: int, app_id: str) -> bool:
        """Append once per `app_id` and `batch`; False if that or a later batch is there."""
        ...

    def last_batch(self, name: str, app_id: str) -> int | None:
        """Give the newest batch of `app_id`."""
        ...


@dataclass(frozen=True, slots=True)
class Shipped:
    """What one call moved."""

    rows: int
    through: int  # the segment up to which the spool is in the lake


def ship_predictions(
    spool: Path,
    lake: Table,
    *,
    app_id: str,
    rotate: Callable[[], int],
    stamps: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> Shipped:
    """Move everything that is logged so far into the lake. Again after a kill: nothing is lost or doubled.

    Parameters
    ----------
    spool
        The worker's spool folder.
    lake
        Where the table is.
    app_id
        Names the deployment in the table's commits, such as `predictions/production/late_arrival`.
    rotate
        Closes the current segment and gives the number of the last closed one.
    stamps
        Gives the stamp of the frame that each id was answered in: `PredictionIndex.stamps`. Where several
        workers share an index, one that was killed before it answered may have left a frame in its log of
        what another one answered then: that frame's rows are left out. None: there is one worker.

    Raises
    ------
    StoreError
        If the spool is damaged or a store cannot be written; what was shipped before stands.
    """
    through = rotate()
    app_id = f"{app_id}/{spool_identity(spool)}"
    last = lake.last_batch(PREDICTIONS, app_id) or 0
    drop_segments(spool, through=last)
    rows = 0
    for segment, frames in _batches(spool, after=last, through=through):
        table = prediction_table(frames, stamps=stamps)
        lake.append(PREDICTIONS, table, batch=segment, app_id=app_id)
        drop_segments(spool, through=segment)
        rows += table.num_rows
    return Shipped(rows=rows, through=max(through, last))


def prediction_table(
    frames: Sequence[PredictionFrame], *, stamps: Callable[[Sequence[str]], Sequence[int]] | None = None
) -> pa.Table:
    """Give the rows of frames as the lake keeps them: one row per prediction and release that scored it.

    Columns: `prediction_id`, `at`, `recorded_at`, `environment`, `deployment`, `route`, `route_number`,
    `release`, `model`, `version`, `answered`, `score`, `latency_us`, `inputs` (struct of the request's
    columns: strings, float64, or lists of float64) and `features` (struct by `<view>__<feature>`, as looked
    up: float64, strings for texts, and of vectors each element; and of float64 by `<name>__<output>`, as the
    release's code computed them on demand).
    What was missing is null; to the model it was NaN. Where a model gives other than one score there is
    `outputs` (struct by their names: float64, lists of them, or strings), `caller` and `trace` where a
    request told them, and `fallbacks` where features of some views could not be looked up: the names of
    these views, whose features are their declared defaults. `inputs`, `features` and these are left out
    where no request had any. `stamps` is as
    `ship_predictions` takes it.
    """
    sizes = [len(frame.ids) for frame in frames]
    scored = [(number, release) for number, frame in enumerate(frames) for release in frame.releases]
    counts = [sizes[number] for number, _ in scored]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    picked = [np.arange(starts[number], starts[number + 1]) for number, _ in scored]
    rows = pa.array(np.concatenate(picked) if picked else np.empty(0, dtype=np.int64), pa.int64())

    def per_row(values: Iterable[Sequence[Any]], kind: pa.DataType) -> pa.Array:
        return pa.array([each for frame in values for each in frame], kind).take(rows)

    def per_frame(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(
            pa.array(np.repeat([number for number, _ in scored], counts), pa.int64())
        )

    def per_release(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(scored)), counts), pa.int64()))

    columns = {
        "prediction_id": per_row([frame.ids for frame in frames], pa.string()),
        "at": per_frame([frame.at for frame in frames], pa.int64()).cast(_INSTANT),
        "recorded_at": per_frame([frame.recorded_at for frame in frames], pa.int64()).cast(_INSTANT),
        "environment": per_frame([frame.environment for frame in frames], pa.string()),
        "deployment": per_frame([frame.deployment for frame in frames], pa.string()),
        "route": per_frame([frame.route for frame in frames], pa.string()),
        "route_number": per_frame([frame.route_number for frame in frames], pa.int64()),
        "release": per_release([release.release for _, release in scored], pa.string()),
        "model": per_release([release.model for _, release in scored], pa.string()),
        "version": per_release([release.version for _, release in scored], pa.int64()),
        "answered": pa.array(_joined([release.answered_array() for _, release in scored], np.bool_)),
        "score": pa.array(_joined([release.score_array() for _, release in scored], np.float64)),
        "latency_us": per_row([frame.row_latencies_us for frame in frames], pa.int64()),
    }
    inputs, features = _inputs(frames), _features(frames)
    if inputs is not None:
        columns["inputs"] = inputs.take(rows)
    looked_up = {} if features is None else _fields(features.take(rows))
    computed = _computed([release for _, release in scored])
    for name in looked_up.keys() & computed.keys():  # a view in one release, on demand in another
        computed[name] = pc.coalesce(computed[name], looked_up[name])
    made = looked_up | computed
    if made:
        columns["features"] = pa.StructArray.from_arrays(list(made.values()), names=list(made))
    outputs = _outputs([release for _, release in scored])
    if outputs is not None:
        columns["outputs"] = outputs
    callers, traces = [frame.row_callers for frame in frames], [frame.row_traces for frame in frames]
    for name, told in (("caller", callers), ("trace", traces)):
        if any(each is not None for values in told for each in values):
            columns[name] = per_row(told, pa.string())
    if any(frame.fallbacks for frame in frames):
        columns["fallbacks"] = per_frame([frame.fallbacks for frame in frames], pa.list_(pa.string()))
    table = pa.table(columns)
    if stamps is None:
        return table
    own = [_is_own(frame, stamps) for frame in frames]
    return table.filter(pa.array(_joined([own[number] for number, _ in scored], np.bool_)))


def _is_own(frame: PredictionFrame, stamps: Callable[[Sequence[str]], Sequence[int]]) -> np.ndarray[Any, Any]:
    """Give for each row of a frame whether its id was not answered in another frame."""
    found = np.array(stamps(frame.ids), dtype=np.uint64)
    own: np.ndarray[Any, Any] = (found == 0) | (found == frame.stamp) | (frame.stamp == 0)
    return own


def _batches(spool: Path, *, after: int, through: int) -> Iterator[tuple[int, list[PredictionFrame]]]:
    """Give the frames of whole segments, several segments together up to some number of rows."""
    frames: list[PredictionFrame] = []
    size, last = 0, 0
    for segment, group in groupby(read_spool(spool, after=(after + 1, 0)), key=lambda each: each[0].segment):
        if segment > through:
            break
        new = [decode_frame(payload) for _, payload in group]
        frames += new
        size += sum(len(frame.ids) for frame in new)
        last = segment
        if size >= _ROWS_PER_BATCH:
            yield last, frames
            frames, size = [], 0
    if frames:
        yield last, frames


def _inputs(frames: Sequence[PredictionFrame]) -> pa.StructArray | None:
    texts = sorted({name for frame in frames for name in frame.texts})
    numbers = sorted({name for frame in frames for name in frame.all_number_names} - set(texts))
    columns = {
        name: pa.array(
            [value for frame in frames for value in frame.texts.get(name) or [None] * len(frame.ids)],
            pa.string(),
        )
        for name in texts
    }
    columns |= {name: _numbers(frames, name) for name in numbers}
    names = sorted(columns)
    return pa.StructArray.from_arrays([columns[name] for name in names], names=names) if names else None


def _numbers(frames: Sequence[PredictionFrame], name: str) -> pa.Array:
    found = [frame.number_array(name) if name in frame.all_number_names else None for frame in frames]
    if any(each is not None and each.ndim > 1 for each in found):
        return pa.array(
            [
                row
                for frame, each in zip(frames, found, strict=True)
                for row in ([None] * len(frame.ids) if each is None else each.reshape(len(frame.ids), -1))
            ],
            pa.list_(pa.float64()),
        )
    return _floats(
        _joined(
            [
                np.full(len(frame.ids), np.nan) if each is None else each
                for frame, each in zip(frames, found, strict=True)
            ],
            np.float64,
        )
    )


def _outputs(releases: Sequence[ReleaseScores]) -> pa.StructArray | None:
    names = sorted({name for each in releases for name in each.outputs})
    if not names:
        return None
    return pa.StructArray.from_arrays([_output(releases, name) for name in names], names=names)


def _output(releases: Sequence[ReleaseScores], name: str) -> pa.Array:
    """Give one output of all rows: numbers, lists of them, and whatever else as text."""
    values: list[Any] = []
    is_vector = is_text = False
    for each in releases:
        rows, found = len(each.answered), each.outputs.get(name)
        if found is None:
            values += [None] * rows
        elif isinstance(found, bytes):
            floats = np.frombuffer(found, dtype="<f8")
            is_vector = is_vector or len(floats) != rows
            values += list(floats if len(floats) == rows else floats.reshape(rows, -1))
        else:
            is_text = True
            values += [None if value is None else str(value) for value in found]
    if is_text:
        return pa.array([None if each is None else str(each) for each in values], pa.string())
    if is_vector:
        return pa.array(values, pa.list_(pa.float64()))
    return _floats(np.array(values, dtype=np.float64))


def _features(frames: Sequence[PredictionFrame]) -> pa.StructArray | None:
    texts = {
        name: pa.array(
            [value for frame in frames for value in frame.feature_texts.get(name) or [None] * len(frame.ids)],
            pa.string(),
        )
        for name in sorted({name for frame in frames for name in frame.feature_texts})
    }
    names = sorted({name for frame in frames for name in frame.feature_names} - texts.keys())
    if not names and not texts:
        return None
    matrix = np.full((len(names), sum(len(frame.ids) for frame in frames)), np.nan)
    position = {name: number for number, name in enumerate(names)}
    start = 0
    for frame in frames:
        stop = start + len(frame.ids)
        for name, values in zip(frame.feature_names, frame.feature_matrix().T, strict=True):
            if name in position:
                matrix[position[name], start:stop] = values
        start = stop
    columns = texts | dict(zip(names, map(_floats, matrix), strict=True))
    names = sorted(columns)
    return pa.StructArray.from_arrays([columns[name] for name in names], names=names)


def _fields(values: pa.StructArray) -> dict[str, pa.Array]:
    return {each.name: values.field(place) for place, each in enumerate(values.type)}


def _computed(releases: Sequence[ReleaseScores]) -> dict[str, pa.Array]:
    """Give on-demand features, row by row of the releases that computed them."""
    names = sorted({name for each in releases for name in each.computed_names})
    values = {name: np.full(sum(len(each.answered) for each in releases), np.nan) for name in names}
    start = 0
    for each in releases:
        stop = start + len(each.answered)
        for name, column in zip(each.computed_names, each.computed_matrix().T, strict=True):
            values[name][start:stop] = column
        start = stop
    return {name: _floats(each) for name, each in values.items()}


def _floats(values: np.ndarray[Any, Any]) -> pa.Array:
    """Give NaN, which is what a model sees for a missing value, as null, which SQL passes over."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _joined(parts: Sequence[np.ndarray[Any, Any]], kind: type) -> np.ndarray[Any, Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)
