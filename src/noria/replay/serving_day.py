"""One day's traffic: rows become known, online features follow, predictions are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import to_micros
from noria.features.declarations import ViewSpec
from noria.features.online import Change, OnlineStore
from noria.features.prepared import Prepared
from noria.serving.client import ServingClient
from noria.training.declarations import Training

__all__ = ["DayTraffic", "RequestColumns", "serve_day"]


@dataclass(frozen=True, slots=True)
class DayTraffic:
    """What a day's traffic came to."""

    requests: int
    predictions: int


class RequestColumns:
    """Spine rows as requests: the columns that a model and its views ask of a client.

    Parameters
    ----------
    training
        Says which columns, and which is the id.
    rows
        Spine rows.
    """

    def __init__(self, training: Training, rows: pa.Table) -> None:
        kinds = {name: "category" for view in training.views for name in view.spec().entity}
        kinds |= {each.name: each.kind for each in training.request_fields}
        self.columns: Mapping[str, list[Any]] = {
            name: (rows[name].cast(pa.string()) if kind == "category" else rows[name]).to_pylist()
            for name, kind in kinds.items()
        }
        self.ids: list[str] = rows[training.spine.id].cast(pa.string()).to_pylist()

    def slice(self, start: int, stop: int) -> tuple[dict[str, Sequence[Any]], list[str]]:
        """Give columns and ids of the rows from `start` to before `stop`."""
        return {name: values[start:stop] for name, values in self.columns.items()}, self.ids[start:stop]


class _Inflow:
    """The day's rows on their way into the online store."""

    def __init__(
        self, online: OnlineStore, views: Sequence[ViewSpec], arrived: Mapping[str, pa.Table]
    ) -> None:
        self._online = online
        self._rows: list[tuple[ViewSpec, Prepared]] = [
            (view, online.prepare(view, arrived[view.source])) for view in views
        ]
        self._reached = [0] * len(self._rows)

    def advance(self, at_us: int) -> None:
        """Bring the store up to what is known at an instant."""
        changes: list[Change] = []
        for number, (view, prepared) in enumerate(self._rows):
            start, stop = self._reached[number], prepared.until(at_us)
            if stop > start:
                changes.append((view, prepared, start, stop))
                self._reached[number] = stop
        if changes:
            self._online.apply(changes, position=at_us)


def serve_day(
    training: Training,
    spine: pa.Table,
    arrived: Mapping[str, pa.Table],
    *,
    online: OnlineStore,
    client: ServingClient,
    end: datetime,
) -> DayTraffic:
    """Replay one day in the order in which things became known.

    Before the predictions of an instant are asked for, in one request, the online store holds exactly what
    was known at that instant.

    Parameters
    ----------
    spine
        The rows to predict, each with its instant within the day.
    arrived
        By dataset: the rows that became known within the day, already held against their contracts.
    end
        The end of the day, up to which the store is brought afterwards.
    """
    spine = spine.take(
        pc.sort_indices(spine, sort_keys=[(training.spine.at, "ascending"), (training.spine.id, "ascending")])
    )
    instants = spine[training.spine.at].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    requests = RequestColumns(training, spine)
    inflow = _Inflow(online, [view.spec() for view in training.views], arrived)
    moments, starts = np.unique(instants, return_index=True)
    bounds = [*starts.tolist(), len(instants)]
    for number, at_us in enumerate(moments.tolist()):
        inflow.advance(at_us)
        columns, ids = requests.slice(bounds[number], bounds[number + 1])
        client.infer(training.name, columns, ids=ids, at=at_us)
    inflow.advance(to_micros(end) - 1)
    return DayTraffic(requests=len(moments), predictions=len(instants))
