"""How an online store lies in LMDB.

- main database: `head` and `view/<name>@<digest>` (name and digest of a definition);
- database `rows/<name>@<digest>`: its keys and values, as `noria.features.online_format` has them.
"""

from pathlib import Path
from typing import Any

import lmdb
import msgspec

from noria.errors import DiskFull, StoreDamaged, StoreError, StoreMissing
from noria.features.layout import Layout
from noria.features.online_format import is_entity, unpack_head
from noria.features.standing import digests_of, lacking, view_id

__all__ = [
    "ROWS",
    "check_definition",
    "entities_of",
    "is_listed",
    "list_definitions",
    "open_environment",
    "orphaned_rows",
    "read_head",
    "rows_name",
    "store_error",
    "view_key",
]

HEAD_KEY = b"head"
MAX_VIEWS = 512
_VIEWS, ROWS = b"view/", b"rows/"
_AGAIN = "delete the folder and load its views again"
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)


class ViewRecord(msgspec.Struct, frozen=True):
    """What the store remembers of a view."""

    name: str
    digest: str


def view_key(layout: Layout) -> bytes:
    """Give the key of a definition's record."""
    return _VIEWS + view_id(layout.spec.name, layout.digest).encode()


def rows_name(layout: Layout) -> bytes:
    """Give the name of a definition's database."""
    return ROWS + view_id(layout.spec.name, layout.digest).encode()


def store_error(path: Path, err: lmdb.Error) -> StoreError:
    """Say in noria's words what LMDB found."""
    if "No space left" in str(err):
        return DiskFull(str(path))
    kind = StoreDamaged if isinstance(err, _DAMAGED) else StoreError
    return kind(
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
        raise StoreMissing(f"there is no online store in {path}; load a view first")
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
                "read through the store that writes it, or wait until what has it open is done"
            ) from err
        raise store_error(path, err) from err
    used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if data.stat().st_size < used:  # reading a page beyond the end of the file would be a bus error
        environment.close()
        raise StoreDamaged(
            f"the online store {path} is cut off ({data.stat().st_size} of {used} bytes); "
            "delete the folder and load its views again: everything in it comes from the lake"
        )
    return environment


def read_head(txn: lmdb.Transaction, path: Path) -> tuple[int, int | None]:
    """Give the generation and the position. Raises `StoreError` if this is no store of ours."""
    raw = txn.get(HEAD_KEY)
    return (0, None) if raw is None else unpack_head(raw, path, again=_AGAIN)


def list_definitions(txn: lmdb.Transaction) -> list[ViewRecord]:
    """List the definitions that are kept. Raises `StoreDamaged` if a record is damaged."""
    found = []
    with txn.cursor() as cursor:
        is_there = cursor.set_range(_VIEWS)
        while is_there and bytes(cursor.key()).startswith(_VIEWS):
            try:
                found.append(msgspec.json.decode(bytes(cursor.value()), type=ViewRecord))
            except msgspec.DecodeError as err:
                name = bytes(cursor.key())[len(_VIEWS) :].decode("utf-8", "replace")
                raise StoreDamaged(
                    f"what the online store says of view {name!r} is damaged; load it again"
                ) from err
            is_there = cursor.next()
    return found


def is_listed(txn: lmdb.Transaction, view: str) -> bool:
    """Say whether a definition is kept, by its name as `view_id` gives it."""
    return txn.get(_VIEWS + view.encode()) is not None


def orphaned_rows(txn: lmdb.Transaction) -> list[bytes]:
    """Name the databases of definitions that were cleared: each of them takes a place."""
    with txn.cursor() as cursor:
        names = [bytes(key) for key in cursor.iternext(values=False)]
    kept = {ROWS + name[len(_VIEWS) :] for name in names if name.startswith(_VIEWS)}
    return [name for name in names if name.startswith(ROWS) and name not in kept]


def check_definition(txn: lmdb.Transaction, layout: Layout) -> None:
    """Raise `NotFound` if the store does not keep this definition; it says what it has."""
    if txn.get(view_key(layout)) is None:
        raise lacking(layout, digests_of((each.name, each.digest) for each in list_definitions(txn)))


def entities_of(txn: lmdb.Transaction, database: Any) -> list[bytes]:
    """List the keys of a view's entities."""
    with txn.cursor(database) as cursor:
        keys = [bytes(key) for key in cursor.iternext(values=False)]
    return [key for key in keys if is_entity(key)]
