"""What is kept in all, read through at once: how many results, how large, whether their bytes are there."""

from collections.abc import Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from noria.pipelines.store import CacheEntry, PipelineStore
from noria.pipelines.tables import step_cache
from noria.pipelines.trees import stored_in
from noria.storage.contract import Storage

__all__ = ["KeptRow", "KeptState", "look_at_kept", "read_kept"]

_AT_ONCE = 500
_LOOKED_AT = 200  # a request each, where the storage is an object store
_ENTRY = msgspec.json.Decoder(CacheEntry)


class KeptRow(msgspec.Struct, frozen=True):
    """One kept result and where it is found."""

    scope: str
    key: str
    at: datetime  # when it was made, by the wall clock
    entry: CacheEntry


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept.

    Attributes
    ----------
    results
        How many.
    size_bytes
        Of all that they name; what several name counts once.
    looked_at
        How many of the newest were looked for.
    gone
        Of these, those whose bytes are not there: their steps run again when they are needed.
    """

    results: int
    size_bytes: int
    looked_at: int
    gone: tuple[str, ...]


def read_kept(connection: Connection, scope: str | None = None) -> Iterator[KeptRow]:
    """Give kept results, newest first: of one scope, or of all."""
    query = select(step_cache).order_by(step_cache.c.at.desc(), step_cache.c.key)
    if scope is not None:
        query = query.where(step_cache.c.scope == scope)
    for row in connection.execute(query, execution_options={"yield_per": _AT_ONCE}):
        yield KeptRow(row.scope, row.key, row.at, _ENTRY.decode(row.output))


def look_at_kept(store: PipelineStore, storage: Storage, *, most: int = _LOOKED_AT) -> KeptState:
    """Tell what is kept, and whether the bytes of the newest results are there.

    Parameters
    ----------
    most
        How many are looked for: that takes time, while the others are only counted.
    """
    sizes: dict[str, int] = {}
    newest: list[KeptRow] = []
    count = 0
    with store.database.read() as connection:
        for row in read_kept(connection, store.scope):
            count += 1
            sizes.update((each.sha256, each.size_bytes) for each in stored_in(row.entry.output))
            if len(newest) < most:
                newest.append(row)
    found = [(row, list(stored_in(row.entry.output))) for row in newest]
    there = store.known_values({each.sha256 for _, parts in found for each in parts if each.is_small})
    large = {each.sha256 for _, parts in found for each in parts if not each.is_small}
    there |= {sha256 for sha256 in large if storage.exists(sha256)}
    return KeptState(
        results=count,
        size_bytes=sum(sizes.values()),
        looked_at=len(newest),
        gone=tuple(row.entry.run for row, parts in found if any(each.sha256 not in there for each in parts)),
    )
