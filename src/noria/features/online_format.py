"""The format of the online store in LMDB.

- main database: `head` (format, generation, position) and `view/<name>` (the definition's digest); the
  generation changes whenever a view's definition may have.
- database `rows/<name>`: `=<entity>` -> a header (magic with the width of words, hour tiles, day tiles,
  pruned, bytes of the last rows, bytes of what decays), the last rows (each event_us, bytes of the key, the
  key, float64 columns), what decays (the newest event_us, float64 sums as of it) and the tiles, oldest first,
  in words of 32 bit, or of 64 once one did not fit;
  `=<entity> 255 h|d <bucket>` -> counts of 32 bit of that tile's histograms;
  `=<entity> 255 H|D <bucket>` -> that tile's first rows.
"""

import hashlib
import struct
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from noria.errors import Conflict, DiskFull, NotFound, StoreError
from noria.features.layout import Layout, TierLayout

__all__ = [
    "check_definition",
    "entities_of",
    "entity_key",
    "firsts_key",
    "list_views",
    "open_environment",
    "read_head",
    "store_error",
    "tile_key",
]

FORMAT = 2
HEAD_KEY = b"head"
HEAD = struct.Struct("<8sqqq")  # magic, format, generation, position
HEAD_MAGIC = b"noriaonl"
VALUE = struct.Struct("<4s5I")  # magic, hour tiles, day tiles, pruned, bytes of last rows and of decayed
NARROW, WIDE = "i", "q"  # words of a value: 32 or 64 bits
VALUE_MAGIC = {NARROW: b"nv32", WIDE: b"nv64"}
HOUR_PRUNED, DAY_PRUNED = 1, 2  # bits: the oldest tile also holds what older, dropped ones held
LAST = struct.Struct("<qq")  # event_us, bytes of the key
NEWEST = struct.Struct("<q")  # event_us
LEAST_POSITION = -(2**63)
GREATEST = {NARROW: 2**31 - 1, WIDE: 2**63 - 1}  # the minimum of no values
LEAST = {NARROW: -(2**31), WIDE: -(2**63)}  # the maximum of no values
MAX_VIEWS = 512
_LONGEST_ENTITY = 480  # bytes; LMDB's keys end at 511
_DIGEST_KEY = 33


class ViewRecord(msgspec.Struct, frozen=True):
    """What the store remembers of a view."""

    name: str
    digest: str


def view_key(name: str) -> bytes:
    """Give the key of a view's record."""
    return b"view/" + name.encode()


def rows_name(name: str) -> bytes:
    """Give the name of a view's database."""
    return b"rows/" + name.encode()


def entity_key(text: str) -> bytes:
    """Give the key of an entity: its UTF-8, or a digest where that is too long.

    Examples
    --------
    >>> entity_key("UA")
    b'=UA'
    """
    plain = text.encode("utf-8", "surrogatepass")
    if len(plain) <= _LONGEST_ENTITY:
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


def store_error(path: Path, err: lmdb.Error) -> StoreError:
    """Say in noria's words what LMDB found."""
    if "No space left" in str(err):
        return DiskFull(str(path))
    return StoreError(
        f"the online store {path} cannot be used ({err}); delete the folder and load its views again: "
        "everything in it comes from the lake"
    )


def open_environment(path: Path, *, map_size: int | None) -> lmdb.Environment:
    """Open the LMDB environment; without `map_size`, for reading.

    Raises
    ------
    StoreError
        If it is not there, damaged, or already open in this process.
    """
    data = path / "data.mdb"
    if map_size is None and not data.is_file():
        raise StoreError(f"there is no online store in {path}; load a view first")
    try:
        environment = (
            lmdb.open(str(path), max_dbs=MAX_VIEWS, readonly=True, create=False, readahead=False)
            if map_size is None
            else lmdb.open(
                str(path),
                max_dbs=MAX_VIEWS,
                map_size=map_size,
                sync=False,
                metasync=False,
                readahead=False,
                max_spare_txns=2,
            )
        )
    except lmdb.Error as err:
        if "already open in this process" in str(err):
            raise StoreError(
                f"the online store {path} is already open in this process; LMDB allows it once: "
                "read through the store that writes it"
            ) from err
        raise store_error(path, err) from err
    used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if data.stat().st_size < used:  # reading a page beyond the end of the file would be a bus error
        environment.close()
        raise StoreError(
            f"the online store {path} is cut off ({data.stat().st_size} of {used} bytes); "
            "delete the folder and load its views again: everything in it comes from the lake"
        )
    return environment


def read_head(txn: lmdb.Transaction, path: Path) -> tuple[int, int | None]:
    """Give the generation and the position. Raises `StoreError` if this is no store of ours."""
    raw = txn.get(HEAD_KEY)
    if raw is None:
        return 0, None
    if len(raw) != HEAD.size:
        raise StoreError(f"the online store {path} is damaged; delete the folder and load its views again")
    magic, version, generation, position = HEAD.unpack(raw)
    if magic != HEAD_MAGIC or version != FORMAT:
        raise StoreError(
            f"the online store {path} has format {version}, this noria reads {FORMAT}; "
            "delete the folder and load its views again"
        )
    return generation, None if position == LEAST_POSITION else position


def list_views(txn: lmdb.Transaction) -> list[str]:
    """List the views in the main database."""
    names = []
    with txn.cursor() as cursor:
        found = cursor.set_range(b"view/")
        while found and bytes(cursor.key()).startswith(b"view/"):
            names.append(bytes(cursor.key())[5:].decode())
            found = cursor.next()
    return names


def check_definition(txn: lmdb.Transaction, layout: Layout) -> None:
    """Raise `Conflict` if the store's view has another definition, `NotFound` if there is none."""
    name = layout.spec.name
    raw = txn.get(view_key(name))
    if raw is None:
        raise NotFound("online feature view", name, list_views(txn))
    try:
        record = msgspec.json.decode(bytes(raw), type=ViewRecord)
    except msgspec.DecodeError as err:
        raise StoreError(f"what the online store says of view {name!r} is damaged; load it again") from err
    if record.digest != layout.digest:
        raise Conflict(
            f"feature view {name!r} was loaded as {record.digest[:12]}, now it is {layout.digest[:12]}: "
            "its definition changed; load it again"
        )


def entities_of(txn: lmdb.Transaction, database: Any) -> list[bytes]:
    """List the keys of a view's entities."""
    with txn.cursor(database) as cursor:
        keys = [bytes(key) for key in cursor.iternext(values=False)]
    return [key for key in keys if (len(key) == _DIGEST_KEY if key[:1] == b"#" else b"\xff" not in key)]
