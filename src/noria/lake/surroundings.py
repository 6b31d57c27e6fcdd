"""Where a batch stands: what rules of its contract may ask beside its rows."""

from collections.abc import Sequence
from datetime import datetime
from threading import RLock

import pyarrow as pa
import pyarrow.dataset as pads

from noria.errors import NotFound
from noria.lake.declarations import Dataset
from noria.lake.recording import Batch, IngestRecords
from noria.lake.tables import Tables

__all__ = ["LakeSurroundings"]


class LakeSurroundings:
    """A `noria.checks.surroundings.Surroundings` of one batch of a lake."""

    def __init__(
        self, dataset: Dataset, batch: Batch, *, tables: Tables, guard: RLock, records: IngestRecords | None
    ) -> None:
        self._batch = batch
        self._tables = tables
        self._guard = guard
        self._records = records
        self.at = batch.at
        self.event_at = dataset.event_at

    def earlier_rows(self, since: datetime) -> Sequence[int]:
        """Give how many rows each batch had that landed from `since` on, before this one."""
        return [] if self._records is None else self._records.earlier_rows(self._batch, since)

    def earlier_rejected(self, since: datetime, rule: str) -> Sequence[tuple[int, int]]:
        """Give rejected and all rows of earlier batches; see `IngestRecords.earlier_rejected`."""
        return [] if self._records is None else self._records.earlier_rejected(self._batch, since, rule)

    def find_keys(self, dataset: str, columns: Sequence[str], wanted: pa.Table) -> pa.Table:
        """Give rows of `columns` of another table that have a value of `wanted` in the first of them.

        Raises
        ------
        NotFound
            If there is no such table: its name may be misspelt, and no row is set aside for that.
        """
        with self._guard:
            table = self._tables.find(dataset)
            if table is None and dataset != self._batch.dataset:
                raise NotFound("table", dataset, self._tables.names())
        if table is None:
            return wanted.slice(0, 0)
        first = columns[0]
        where = None
        if first in table.schema.names and table.schema.field(first).type == wanted.schema.field(first).type:
            where = pads.field(first).isin(wanted[first].unique())
        return table.read(columns=columns, where=where)
