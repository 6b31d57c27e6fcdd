"""What became of predictions: recorded as it is learned, kept in the lake's table `outcomes`."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.serving.logs.outcomes import (
    OUTCOME_INDEX,
    Outcome,
    OutcomeFrame,
    OutcomeIndex,
    decode_outcomes,
    encode_outcomes,
)
from noria.streams.spool import Spool, drop_segments, read_spool, spool_identity, take_lock

__all__ = ["OUTCOMES", "OutcomeLog", "collect_outcomes", "latest_outcomes", "ship_outcomes"]

OUTCOMES = "outcomes"
_INSTANT = pa.timestamp("us", "UTC")
_LABEL = "label"
_PATIENCE_S = 60.0


class Table(Protocol):
    """What a lake has to offer: `noria.lake.store.Lake` does."""

    def append(self, name: str, table: pa.Table, *, batch: int, app_id: str) -> bool:
        """Append once per `app_id` and `batch`; False if that or a later batch is there."""
        ...

    def last_batch(self, name: str, app_id: str) -> int | None:
        """Give the newest batch of `app_id`."""
        ...


class Readable(Protocol):
    """What reading takes: `noria.lake.store.Lake` has it."""

    def exists(self, name: str) -> bool:
        """Tell whether there is such a table."""
        ...

    def schema(self, name: str) -> pa.Schema:
        """Give a table's columns."""
        ...

    def read(self, name: str, *, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Give rows."""
        ...


class Recording(Protocol):
    """Who records outcomes: `noria.deploy.supervisor.Supervisor`."""

    @property
    def environment(self) -> str:
        """The environment's name."""
        ...

    @property
    def folder(self) -> Path:
        """The environment's folder."""
        ...

    def rotate_outcomes(self, deployment: str) -> Sequence[tuple[Path, int]]:
        """Close what was recorded so far: give each spool with its last closed segment."""
        ...


class OutcomeLog:
    """Outcomes of one deployment on their way into the lake. What `record` returned survives kill -9.

    Parameters
    ----------
    folder
        Of the spool; one process writes.
    deployment
        Whose predictions they are of, as `production/late_arrival`.
    """

    def __init__(self, folder: Path, *, deployment: str, wait_s: float = 10.0) -> None:
        self._folder, self._deployment = folder, deployment
        self._spool = Spool(folder, wait_s=wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the spool."""
        self._spool.close()

    def record(
        self, ids: Sequence[str], outcomes: Sequence[float | str | None], *, known_at: Sequence[int]
    ) -> None:
        """Record outcomes: a number, a text for a label, or None where it is known that none will come.

        Parameters
        ----------
        ids
            Prediction ids.
        known_at
            Since when each is known, microseconds since 1970. Of several outcomes of an id the latest counts.

        Raises
        ------
        ValueError
            If lengths differ, or an outcome is something else.
        DiskFull
            If it could not be kept; record it again.
        """
        if not len(ids) == len(outcomes) == len(known_at):
            raise ValueError(
                f"{len(ids)} ids, {len(outcomes)} outcomes, {len(known_at)} instants; wanted as many"
            )
        odd = next((each for each in outcomes if not _is_outcome(each)), None)
        if odd is not None:
            raise ValueError(f"outcome {odd!r} is no number, no text and not None")
        if ids:
            rows = [
                Outcome(prediction_id=each, value=value, known_at=known)
                for each, value, known in zip(ids, outcomes, known_at, strict=True)
            ]
            self._spool.append(encode_outcomes(rows))

    def ship(self, lake: Table) -> int:
        """Move what was recorded into the lake; give the rows moved. Again after a kill: none is doubled.

        An outcome that was recorded twice since the last call, as a retry does, is moved once.
        """
        app_id = f"outcomes/{self._deployment}"
        return _ship(
            self._folder, self._spool.rotate(), lake, deployment=self._deployment, app_id=app_id, index=None
        )


def collect_outcomes(server: Recording, deployment: str, lake: Table) -> int:
    """Move what a server, and a project beside it, have recorded so far into the lake, once.

    Parameters
    ----------
    server
        Of the environment; running or not.
    deployment
        Whose outcomes.

    Returns
    -------
    int
        How many rows were moved.

    Raises
    ------
    LeaseHeld
        If another process serves the deployment.
    StoreError
        If a spool is damaged or a store cannot be written; what was moved before stands.
    """
    closed = server.rotate_outcomes(deployment)
    place = f"{server.environment}/{deployment}"
    return ship_outcomes(closed, lake, place=place, index=server.folder / deployment / OUTCOME_INDEX)


def ship_outcomes(closed: Iterable[tuple[Path, int]], lake: Table, *, place: str, index: Path) -> int:
    """Move closed segments of spools into the lake; give the rows. Again after a kill: none is doubled.

    Parameters
    ----------
    closed
        Each spool, with the number of its last closed segment.
    place
        Of the deployment, as `production/late_arrival`.
    index
        Folder of the index that the spools share: what another one has recorded first is left out.
    """
    rows = 0
    for spool, segment in closed:
        with _alone(spool):
            app_id = f"outcomes/{place}/{spool_identity(spool)}"
            rows += _ship(spool, segment, lake, deployment=place, app_id=app_id, index=index)
    return rows


def latest_outcomes(
    lake: Readable,
    deployments: Sequence[str],
    *,
    since: datetime | None = None,
    before: datetime | None = None,
) -> pa.Table:
    """Give the one outcome that counts of each prediction: that which became known last.

    Parameters
    ----------
    deployments
        Whose, as `production/late_arrival`.
    since
        Only what became known at this instant or later.
    before
        Only what was known before this instant.

    Returns
    -------
    pyarrow.Table
        `deployment`, `prediction_id`, `outcome` (float64), `label` (string) and `known_at`; both of outcome
        and label are null where it is known that none will come.
    """
    columns = ["deployment", "prediction_id", "outcome", "known_at"]
    if not lake.exists(OUTCOMES):
        kinds = [pa.string(), pa.string(), pa.float64(), _INSTANT]
        found = pa.table({name: pa.array([], kind) for name, kind in zip(columns, kinds, strict=True)})
    else:
        where = ds.field("deployment").isin(list(deployments))
        if since is not None:
            where &= ds.field("known_at") >= pa.scalar(since, _INSTANT)
        if before is not None:
            where &= ds.field("known_at") < pa.scalar(before, _INSTANT)
        more = [_LABEL] if _LABEL in lake.schema(OUTCOMES).names else []
        found = lake.read(OUTCOMES, columns=[*columns, *more], where=where)
    if _LABEL not in found.column_names:
        found = found.append_column(_LABEL, pa.nulls(found.num_rows, pa.string()))
    # By known_at, then by value: rows of one instant, which only files written by hand have, come out alike.
    order = [("known_at", "descending"), ("outcome", "descending"), (_LABEL, "descending")]
    found = found.take(pc.sort_indices(found, sort_keys=order)).combine_chunks()
    keys = pc.binary_join_element_wise(found["deployment"], found["prediction_id"], "\0")
    first = pa.table({"key": keys, "row": np.arange(found.num_rows)})
    rows = first.group_by("key", use_threads=False).aggregate([("row", "min")])["row_min"]
    return found.take(rows).select(["deployment", "prediction_id", "outcome", _LABEL, "known_at"])


def _ship(spool: Path, through: int, lake: Table, *, deployment: str, app_id: str, index: Path | None) -> int:
    last = lake.last_batch(OUTCOMES, app_id) or 0
    drop_segments(spool, through=last)
    frames = [
        decode_outcomes(payload)
        for position, payload in read_spool(spool, after=(last + 1, 0))
        if position.segment <= through
    ]
    if not frames:
        return 0
    if index is None:
        table = _table(frames, deployment, own=None)
    else:
        with OutcomeIndex(index) as recorded:
            table = _table(frames, deployment, own=recorded.stamps)
    if table.num_rows:
        lake.append(OUTCOMES, table, batch=through, app_id=app_id)
    drop_segments(spool, through=through)
    return int(table.num_rows)


@contextmanager
def _alone(spool: Path) -> Iterator[None]:
    """Be the only one who moves a spool's rows away: of two the slower one would move some again."""
    folder = spool / "moving"
    folder.mkdir(exist_ok=True)
    lock = take_lock(folder, _PATIENCE_S)
    try:
        yield
    finally:
        os.close(lock)


def _table(
    frames: Sequence[OutcomeFrame],
    deployment: str,
    *,
    own: Callable[[Sequence[str], Sequence[int]], Sequence[int]] | None,
) -> pa.Table:
    rows: dict[tuple[str, int], float | str | None] = {}
    for frame in frames:
        stamps = [0] * len(frame.ids) if own is None else own(frame.ids, frame.known_at)
        for each, known, value, stamp in zip(frame.ids, frame.known_at, frame.values(), stamps, strict=True):
            if stamp in (0, frame.stamp) or not frame.stamp:
                rows[each, known] = value
    texts = [each if isinstance(each, str) else None for each in rows.values()]
    columns = {
        "prediction_id": pa.array([each for each, _ in rows], pa.string()),
        "deployment": pa.array([deployment] * len(rows), pa.string()),
        "outcome": pa.array(
            [None if isinstance(each, str) else each for each in rows.values()], pa.float64()
        ),
        "known_at": pa.array(np.array([known for _, known in rows], dtype=np.int64)).cast(_INSTANT),
    }
    if any(each is not None for each in texts):
        columns[_LABEL] = pa.array(texts, pa.string())
    return pa.table(columns)


def _is_outcome(value: object) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and np.isfinite(value))
