"""How an online store lies in LMDB.

- main database: `head` and `view/<name>` (the definition's digest);
- database `rows/<name>`: the view's keys and values, as `noria.features.online_format` has them.
"""

from pathlib import Path
from typing import Any

import lmdb
import msgspec

from noria.errors import DiskFull, NotFound, StoreError
from noria.features.layout import Layout
from noria.features.online_format import check_digest, is_entity, unpack_head

__all__ = [
    "check_definition",
    "entities_of",
    "list_views",
    "open_environment",
    "read_head",
    "read_record",
    "rows_name",
    "store_error",
    "view_key",
]

HEAD_KEY = b"head"
MAX_VIEWS = 512
_AGAIN = "delete the folder and load its views again"


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
    return (0, None) if raw is None else unpack_head(raw, path, again=_AGAIN)


def list_views(txn: lmdb.Transaction) -> list[str]:
    """List the views in the main database."""
    names = []
    with txn.cursor() as cursor:
        found = cursor.set_range(b"view/")
        while found and bytes(cursor.key()).startswith(b"view/"):
            names.append(bytes(cursor.key())[5:].decode())
            found = cursor.next()
    return names


def read_record(txn: lmdb.Transaction, name: str) -> ViewRecord:
    """Give what the store says of a view. Raises `NotFound`, `StoreError` if that is damaged."""
    raw = txn.get(view_key(name))
    if raw is None:
        raise NotFound("online feature view", name, list_views(txn))
    try:
        return msgspec.json.decode(bytes(raw), type=ViewRecord)
    except msgspec.DecodeError as err:
        raise StoreError(f"what the online store says of view {name!r} is damaged; load it again") from err


def check_definition(txn: lmdb.Transaction, layout: Layout) -> None:
    """Raise `Conflict` if the store's view has another definition, `NotFound` if there is none."""
    check_digest(layout, read_record(txn, layout.spec.name).digest)


def entities_of(txn: lmdb.Transaction, database: Any) -> list[bytes]:
    """List the keys of a view's entities."""
    with txn.cursor(database) as cursor:
        keys = [bytes(key) for key in cursor.iternext(values=False)]
    return [key for key in keys if is_entity(key)]
