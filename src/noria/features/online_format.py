"""The keys and values of an online store, whatever keeps them.

- the head: magic, format, generation, position; the generation changes whenever a view's definition, or
  where its rows are, may have.
- a view's rows: `=<entity>` -> a header (magic with the width of words, minute tiles, hour tiles, day tiles,
  pruned, bytes of the last rows, bytes of what decays), the last rows (each event_us, bytes of the key, the
  key, float64 columns), what decays (the newest event_us, float64 sums as of it) and the tiles, oldest first,
  in words of 32 bit, or of 64 once one did not fit;
  `=<entity> 255 m|h|d <bucket>` -> counts of 32 bit of that tile's histograms;
  `=<entity> 255 M|H|D <bucket>` -> that tile's first rows;
  `=<entity> 255 v` -> texts and vectors of last rows, see `noria.features.kept_values`;
  `255 definition` and `255 standing`: see `noria.features.standing`.
"""

import hashlib
import struct
from typing import Any

from noria.errors import StoreDamaged
from noria.features.layout import TierLayout

__all__ = ["entity_key", "firsts_key", "is_entity", "pack_head", "tile_key", "unpack_head", "values_key"]

FORMAT = 3
HEAD = struct.Struct("<8sqqq")  # magic, format, generation, position
HEAD_MAGIC = b"noriaonl"
# magic, minute tiles, hour tiles, day tiles, pruned, bytes of last rows and of decayed
VALUE = struct.Struct("<4s6I4x")
NARROW, WIDE = "i", "q"  # words of a value: 32 or 64 bits
VALUE_MAGIC = {NARROW: b"nv32", WIDE: b"nv64"}
# Bits: the oldest tile also holds what older, dropped ones held.
MINUTE_PRUNED, HOUR_PRUNED, DAY_PRUNED = 1, 2, 4
LAST = struct.Struct("<qq")  # event_us, bytes of the key
NEWEST = struct.Struct("<q")  # event_us
LEAST_POSITION = -(2**63)
GREATEST = {NARROW: 2**31 - 1, WIDE: 2**63 - 1}  # the minimum of no values
LEAST = {NARROW: -(2**31), WIDE: -(2**63)}  # the maximum of no values
LONGEST_ENTITY = 480  # bytes; LMDB's keys end at 511
_DIGEST_KEY = 33


def entity_key(text: str) -> bytes:
    """Give the key of an entity: its UTF-8, or a digest where that is too long.

    Examples
    --------
    >>> entity_key("UA")
    b'=UA'
    """
    plain = text.encode("utf-8", "surrogatepass")
    if len(plain) <= LONGEST_ENTITY:
        return b"=" + plain
    return b"#" + hashlib.sha256(plain).digest()


def tile_key(tier: TierLayout, entity: bytes, bucket: int) -> bytes:
    """Give the key of a tile's histograms."""
    # A byte 255 is in no UTF-8, so no entity's key is another one's tile. The newest tile comes first: it
    # shares a page with the value as often as not.
    return b"%b\xff%c%b" % (entity, tier.tier[0].encode(), (2**63 - 1 - bucket).to_bytes(8, "big"))


def firsts_key(tier: TierLayout, entity: bytes, bucket: int) -> bytes:
    """Give the key of a tile's first rows."""
    return b"%b\xff%c%b" % (entity, tier.tier[0].upper().encode(), (2**63 - 1 - bucket).to_bytes(8, "big"))


def values_key(entity: bytes) -> bytes:
    """Give the key of an entity's texts and vectors."""
    return entity + b"\xffv"


def is_entity(key: bytes) -> bool:
    """Tell whether a key of a view is that of an entity's value, not of what lies beside it."""
    return len(key) == _DIGEST_KEY if key[:1] == b"#" else b"\xff" not in key


def pack_head(generation: int, position: int | None) -> bytes:
    """Encode the head."""
    return HEAD.pack(HEAD_MAGIC, FORMAT, generation, LEAST_POSITION if position is None else position)


def unpack_head(raw: Any, place: object, *, again: str) -> tuple[int, int | None]:
    """Give the generation and the position. Raises `StoreDamaged` if this is no store of ours."""
    if len(raw) != HEAD.size:
        raise StoreDamaged(f"the online store {place} is damaged; {again}")
    magic, version, generation, position = HEAD.unpack(raw)
    if magic != HEAD_MAGIC or version != FORMAT:
        raise StoreDamaged(
            f"the online store {place} has format {version}, this noria reads {FORMAT}; {again}"
        )
    return generation, None if position == LEAST_POSITION else position
