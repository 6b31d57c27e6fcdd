"""How an online store lies in Redis: plain strings, one packed value per entity and view.

All keys begin with the store's prefix:

- `<prefix>:head`: the head, then 8 random bytes that are others after every change;
- `<prefix>:catalogue`: which definitions of views there are, and where the rows of each are;
- `<prefix>:writer`: who may write, until it runs out;
- `<prefix>:<rows>:<key>`: a view's keys and values, as `noria.features.online_format` has them.

A view that is loaded again gets rows of a new name; when they are all there, one change of the catalogue puts
them in the place of the old ones.
"""

import os
from typing import Any

import msgspec

from noria.errors import StoreDamaged
from noria.features.backends.redis_connection import AGAIN, Connection
from noria.features.layout import Layout
from noria.features.online_format import HEAD, pack_head, unpack_head
from noria.features.standing import digests_of, view_id

__all__ = ["Catalogue", "Head", "KeptView", "decode_catalogue", "new_rows", "read_standing", "rows_prefix"]

_NONCE_BYTES = 8


class KeptView(msgspec.Struct, frozen=True):
    """One definition of a view in the store."""

    name: str
    digest: str
    rows: str


class Catalogue(msgspec.Struct, frozen=True):
    """The views in the store, and the rows that are in no view: not yet, or not any more."""

    views: dict[str, KeptView] = {}  # by name and digest, as `view_id` has them
    apart: list[str] = []

    def find(self, layout: Layout) -> KeptView | None:
        """Give a definition's place; None if there is none."""
        return self.views.get(view_id(layout.spec.name, layout.digest))

    def with_view(self, layout: Layout, rows: str | None) -> "Catalogue":
        """Give the catalogue with other rows for that definition, or none; those it had are apart then."""
        views, key = {**self.views}, view_id(layout.spec.name, layout.digest)
        held = views.pop(key, None)
        apart = [each for each in self.apart if each != rows]
        if held is not None:
            apart.append(held.rows)
        if rows is not None:
            views[key] = KeptView(layout.spec.name, layout.digest, rows)
        return Catalogue(views, apart)

    def definitions(self) -> dict[str, tuple[str, ...]]:
        """Give the digests of the definitions of each view."""
        return digests_of((each.name, each.digest) for each in self.views.values())


class Head(msgspec.Struct, frozen=True):
    """At which change the store stands; `raw` is empty where there is no store."""

    raw: bytes = b""
    generation: int = 0
    position: int | None = None

    @classmethod
    def decode(cls, raw: bytes | None, place: str) -> "Head":
        """Read it. Raises `StoreDamaged` if this is no store of ours."""
        if raw is None:
            return cls()
        if len(raw) != HEAD.size + _NONCE_BYTES:
            raise StoreDamaged(
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
    """Read a catalogue. Raises `StoreDamaged` if it is damaged."""
    if raw is None:
        return Catalogue()
    try:
        return msgspec.json.decode(raw, type=Catalogue)
    except msgspec.DecodeError as err:
        raise StoreDamaged(
            f"the catalogue of the online store {place} is damaged; delete its keys, {AGAIN}"
        ) from err


def read_standing(connection: Connection) -> tuple[Head, Catalogue]:
    """Give the head and the catalogue, as of one instant."""
    head, catalogue = connection.get(connection.key("head"), connection.key("catalogue"))
    return Head.decode(head, connection.place), decode_catalogue(catalogue, connection.place)
