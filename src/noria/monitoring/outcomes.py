"""What became of predictions: recorded as it is learned, kept in the lake's table `outcomes`."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec
import numpy as np
import pyarrow as pa

from noria.streams.spool import Spool, drop_segments, read_spool

__all__ = ["OUTCOMES", "OutcomeLog"]

OUTCOMES = "outcomes"
_INSTANT = pa.timestamp("us", "UTC")


class Table(Protocol):
    """What a lake has to offer: `noria.lake.store.Lake` does."""

    def append(self, name: str, table: pa.Table, *, batch: int, app_id: str) -> bool:
        """Append once per `app_id` and `batch`; False if that or a later batch is there."""
        ...

    def last_batch(self, name: str, app_id: str) -> int | None:
        """Give the newest batch of `app_id`."""
        ...


class _Frame(msgspec.Struct, array_like=True, frozen=True):
    ids: list[str]
    outcomes: list[float | None]
    known_at: list[int]


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
        self, ids: Sequence[str], outcomes: Sequence[float | None], *, known_at: Sequence[int]
    ) -> None:
        """Record outcomes: 0, 1, or None where it is known that none will come.

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
        odd = next((each for each in outcomes if each is not None and each not in (0, 1)), None)
        if odd is not None:
            raise ValueError(f"outcome {odd!r} is neither 0, 1 nor None")
        if ids:
            self._spool.append(msgspec.msgpack.encode(_Frame(list(ids), list(outcomes), list(known_at))))

    def ship(self, lake: Table) -> int:
        """Move what was recorded into the lake; give the rows moved. Again after a kill: none is doubled.

        An outcome that was recorded twice since the last call, as a retry does, is moved once.
        """
        through = self._spool.rotate()
        app_id = f"outcomes/{self._deployment}"
        last = lake.last_batch(OUTCOMES, app_id) or 0
        drop_segments(self._folder, through=last)
        frames = [
            msgspec.msgpack.decode(payload, type=_Frame)
            for position, payload in read_spool(self._folder, after=(last + 1, 0))
            if position.segment <= through
        ]
        table = _table(frames, self._deployment)
        if table.num_rows:
            lake.append(OUTCOMES, table, batch=through, app_id=app_id)
        drop_segments(self._folder, through=through)
        return int(table.num_rows)


def _table(frames: Sequence[_Frame], deployment: str) -> pa.Table:
    rows = {
        (each, known): outcome
        for frame in frames
        for each, outcome, known in zip(frame.ids, frame.outcomes, frame.known_at, strict=True)
    }
    return pa.table(
        {
            "prediction_id": pa.array([each for each, _ in rows], pa.string()),
            "deployment": pa.array([deployment] * len(rows), pa.string()),
            "outcome": pa.array(rows.values(), pa.float64()),
            "known_at": pa.array(np.array([known for _, known in rows], dtype=np.int64)).cast(_INSTANT),
        }
    )
