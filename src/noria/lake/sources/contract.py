"""What every source of rows is."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Protocol, TypeAlias

import pyarrow as pa

from noria.errors import SourceError
from noria.lake.rows import Broken

__all__ = ["Piece", "Source", "broken", "require"]

MAX_PAYLOAD_BYTES = 1 << 20

Piece: TypeAlias = pa.RecordBatch | Sequence[Broken]


class Source(Protocol):
    """Rows with an identity. One reader reads them, once; see `noria.lake.rows.Rows`."""

    name: str
    size_bytes: int | None  # of what is read, where that is known before
    bytes_read: int  # so far

    @property
    def digest(self) -> str | None:
        """The sha256 of the content, where it is known before it is read as rows."""
        ...

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, and what is none, in the order of the source.

        Parameters
        ----------
        wanted
            The columns that the source has to have, with their types. None: its first rows decide.
        """
        ...

    def where(self, place: int) -> str | None:
        """Say where something stands that was given, counted from 0 with what is no row: `line 7`.

        None where people have no way to find it by a number.
        """
        ...


def broken(reason: str, raw: str | bytes, row: int) -> Broken:
    r"""Make what is kept of something that is no row: all of it, up to 1 MiB.

    What is longer is cut, and its reason says so. Bytes that are no UTF-8 are written with backslashes.

    Examples
    --------
    >>> broken("it is no UTF-8", b"caf\xe9;1", 0).payload
    'caf\\xe9;1'
    """
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > MAX_PAYLOAD_BYTES:
        reason = f"{reason}; what is kept of it is cut at {MAX_PAYLOAD_BYTES >> 20} MiB"
    return Broken(reason, data[:MAX_PAYLOAD_BYTES].decode("utf-8", "ignore"), row)


def require(names: Sequence[str], wanted: pa.Schema | None, source: str) -> None:
    """Want the columns of `wanted` among `names`.

    Raises
    ------
    SourceError
        If one is missing; names the nearest.
    """
    for each in () if wanted is None else wanted.names:
        if each in names:
            continue
        spellings = {name.casefold(): name for name in names}
        near = get_close_matches(each.casefold(), spellings, n=1, cutoff=0.5)
        hint = f"the nearest is {spellings[near[0]]!r}: rename it" if near else "supply it"
        raise SourceError(f"{source} lacks column {each!r}; {hint}. Found {', '.join(names)}")
