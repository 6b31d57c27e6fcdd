"""How an online store lies in Redis: plain strings, one packed value per entity and view.

All keys begin with the store's prefix:

- `<prefix>:head`: the head, then 8 random bytes that are others after every change;
- `<prefix>:catalogue`: which views there are, of what definition, and where the rows of each are;
- `<prefix>:writer`: who may write, until it runs out;
- `<prefix>:<rows>:<key>`: a view's keys and values, as `noria.features.online_format` has them.

A view that is loaded again gets rows of a new name; when they are all there, one change of the catalogue puts
them in the place of the old ones.
"""

import os
from typing import Any

import msgspec

from noria.errors import StoreError
from noria.features.backends.redis_connection import AGAIN, Connection
from noria.features.online_format import HEAD, pack_head, unpack_head

__all__ = ["Catalogue", "Head", "KeptView", "decode_catalogue", "new_rows", "read_standing", "rows_prefix"]

_NONCE_BYTES = 8


class KeptView(msgspec.Struct, frozen=True):
    """A view in the store."""

    digest: str
    rows: str


class Catalogue(msgspec.Struct, frozen=True):
    """The views in the store, and the rows that are in no view: not yet, or not any more."""

    views: dict[str, KeptView] = {}
    apart: list[str] = []

    def with_view(self, name: str, view: KeptView | None) -> "Catalogue":
        """Give the catalogue with another view of that name, or none; the rows it had are apart then."""
        views = {**self.views}
        held = views.pop(name, None)
        apart = [each for each in self.apart if view is None or each != view.rows]
        if held is not None:
            apart.append(held.rows)
        if view is not None:
            views[name] = view
        return Catalogue(views, apart)


class Head(msgspec.Struct, frozen=True):
    """At which change the store stands; `raw` is empty where there is no store."""

    raw: bytes = b""
    generation: int = 0
    position: int | None = None

    @classmethod
    def decode(cls, raw: bytes | None, place: str) -> "Head":
        """Read it. Raises `StoreError` if this is no store of ours."""
        if raw is None:
            return cls()
        if len(raw) != HEAD.size + _NONCE_BYTES:
            raise StoreError(
                f"the online store {place} is damaged, or its prefix is another program's; choose another "
                f"prefix, or delete its keys and {AGAIN}"
            )
        return cls(raw, *unpack_head(raw[: HEAD.size], place, again=f"delete its keys and {AGAIN}"))

    def following(self, *, redefined: bool, position: int | None) -> "Head":
        """Give the head of another change; the position stays where it is `None`."""
        # A store that was flushed begins at another generation than the one it had.
        generation = (self.generation if self.raw else int.from_bytes(os.urandom(6))) + redefined
        standing = self.position if position is None else position
        return Head(pack_head(generation, standing) + os.urandom(_NONCE_BYTES), generation, standing)


def new_rows() -> str:
    """Give a name for rows that none had before."""
    return os.urandom(6).hex()


def rows_prefix(connection: Connection, rows: str) -> bytes:
    """Give what the keys of these rows begin with."""
    return connection.key(rows) + b":"


def decode_catalogue(raw: Any, place: str) -> Catalogue:
    """Read a catalogue. Raises `StoreError` if it is damaged."""
    if raw is None:
        return Catalogue()
    try:
        return msgspec.json.decode(raw, type=Catalogue)
    except msgspec.DecodeError as err:
        raise StoreError(
            f"the catalogue of the online store {place} is damaged; delete its keys, {AGAIN}"
        ) from err


def read_standing(connection: Connection) -> tuple[Head, Catalogue]:
    """Give the head and the catalogue, as of one instant."""
    head, catalogue = connection.get(connection.key("head"), connection.key("catalogue"))
    return Head.decode(head, connection.place), decode_catalogue(catalogue, connection.place)
