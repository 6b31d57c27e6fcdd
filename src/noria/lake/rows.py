"""Rows that come in pieces: what sources give to the lake."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Broken", "Rows"]


@dataclass(frozen=True, slots=True)
class Broken:
    """Something of a source that could not be read as a row.

    Attributes
    ----------
    reason
        What was found and what was wanted.
    payload
        The raw text; bytes that are no UTF-8 are written with backslashes. Of a source's row at most
        1 MiB, and the reason says where it was cut; of an event all.
    row
        Its place in the source, from 0.
    """

    reason: str
    payload: str
    row: int


class Rows(Protocol):
    """Rows that are never whole in memory. One reader reads them, once."""

    name: str  # where they come from, as the records call it

    def pieces(self, wanted: "pa.Schema | None") -> "Iterator[pa.RecordBatch | Sequence[Broken]]":
        """Give the rows, and what is none, in the order of the source.

        Parameters
        ----------
        wanted
            The columns and types of the table, or the declared ones; None where the first batch decides.

        Raises
        ------
        SourceError
            If it cannot be read on; nothing of the batch lands then.
        """
        ...
