"""How far a view of an online store is, and what is kept of each definition beside its values.

A view is kept by its name and the digest of its definition, so that an old definition serves on while a new
one is loaded. Two keys that are no entity's hold the definition itself, and where it stands.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from noria.errors import NotFound, StoreDamaged
from noria.features.declarations import ViewSpec
from noria.features.layout import Layout

__all__ = [
    "Standing",
    "decode_definition",
    "decode_standing",
    "digests_of",
    "encode_definition",
    "encode_standing",
    "lacking",
    "view_id",
]

_T = TypeVar("_T")

_DIGEST_CHARACTERS = 16
_SHOWN = 12
# A byte 255 is in no entity's key; both come after all of them.
DEFINITION_KEY, STANDING_KEY = b"\xffdefinition", b"\xffstanding"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where a view counts the rows of its source.

    Attributes
    ----------
    table
        The identity of the table: one that was made anew under the same name is another.
    version
        The newest commit whose rows are counted, by Delta's own number.
    known_us
        Rows that became known up to this instant are counted; later ones are not yet.
    at_us
        When it was brought there, on the wall.
    max_age_us
        How far `known_us` may lie back for the view's values to count as fresh: its `freshness`. None: any.
    """

    table: str
    version: int
    known_us: int
    at_us: int
    max_age_us: int | None = None

    @property
    def plain(self) -> "Standing":
        """The same without how old it may be."""
        return self if self.max_age_us is None else msgspec.structs.replace(self, max_age_us=None)


def view_id(name: str, digest: str) -> str:
    """Name one definition of a view.

    Examples
    --------
    >>> view_id("carrier", "0123456789abcdef0123456789abcdef")
    'carrier@0123456789abcdef'
    """
    return f"{name}@{digest[:_DIGEST_CHARACTERS]}"


def encode_standing(standing: Standing) -> bytes:
    """Encode where a view stands."""
    return msgspec.json.encode(standing)


def decode_standing(raw: Any, view: str) -> Standing | None:
    """Read where a view stands; None if it was loaded by other means. Raises `StoreDamaged`."""
    return None if raw is None else _decoded(raw, Standing, view)


def encode_definition(spec: ViewSpec) -> bytes:
    """Encode a definition."""
    return msgspec.json.encode(spec)


def decode_definition(raw: Any, view: str) -> ViewSpec:
    """Read a definition. Raises `StoreDamaged`."""
    if raw is None:
        raise _damaged(view)
    return _decoded(raw, ViewSpec, view)


def digests_of(kept: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Give the digests by name, of names and digests."""
    found: dict[str, list[str]] = {}
    for name, digest in sorted(kept):
        found.setdefault(name, []).append(digest)
    return {name: tuple(digests) for name, digests in found.items()}


def lacking(layout: Layout, kept: Mapping[str, tuple[str, ...]]) -> NotFound:
    """Give the error that a store lacks a definition: it names those that it has."""
    name, digest = layout.spec.name, layout.digest[:_SHOWN]
    what_to_do = f"`noria feature materialize {name}` loads it"
    if name not in kept:
        there = f"it has {', '.join(sorted(kept))}" if kept else "it has none yet"
        found = NotFound("online feature view", name, sorted(kept))
        found.args = (f"the online store has no feature view {name!r}; {there}. {what_to_do}",)
        return found
    others = ", ".join(each[:_SHOWN] for each in kept[name])
    found = NotFound("online feature view", f"{name}@{digest}", [])
    found.args = (
        f"the online store has feature view {name!r} as it was defined before ({others}), not as {digest}; "
        f"{what_to_do} beside that",
    )
    return found


def _decoded(raw: Any, kind: type[_T], view: str) -> _T:
    try:
        return msgspec.json.decode(bytes(raw), type=kind)
    except msgspec.DecodeError as err:
        raise _damaged(view) from err


def _damaged(view: str) -> StoreDamaged:
    return StoreDamaged(f"what the online store says of view {view!r} is damaged; load it again")
