"""What checking may look at beside the rows: earlier batches, other datasets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import pyarrow as pa

__all__ = ["Surroundings"]


class Surroundings(Protocol):
    """Where a batch stands: the rules `fresh`, `row_count` and `references` ask for it."""

    @property
    def at(self) -> datetime:
        """The instant of the batch."""
        ...

    @property
    def event_at(self) -> str:
        """The column that says when a row happened."""
        ...

    def earlier_rows(self, since: datetime) -> Sequence[int]:
        """Give how many rows each batch had that landed from `since` on, before this one."""
        ...

    def find_keys(self, dataset: str, columns: Sequence[str], wanted: pa.Table) -> pa.Table:
        """Give rows of `columns` of another dataset: at least all that are in `wanted`, with its columns.

        Raises `NotFound` if there is no such dataset.
        """
        ...
