"""Overwriting what LMDB has let go of: pages that are free keep their old bytes until they are used again."""

import lmdb

__all__ = ["scrub"]

_JUNK = b"scrub"
_PAGES_AT_ONCE = 64
_PER_PAGE = 2  # entries that fill a leaf
_ENTRY_BYTES = 80  # what a leaf needs beside the values
_ROUNDS = 2


def scrub(environment: lmdb.Environment) -> None:
    """Overwrite the free pages of an environment with zeros, in place; others may read and write meanwhile.

    Zeros are put into a database of their own until the file begins to grow: then no page is free that holds
    anything else. What a transaction frees is taken by the second one after it, once no reader is left that
    began before, so all is done twice. The environment has to have room for one more named database.
    """
    environment.reader_check()
    for _ in range(_ROUNDS):
        junk = environment.open_db(_JUNK)
        _move_on(environment)
        value = b"\0" * (environment.stat()["psize"] // _PER_PAGE - _ENTRY_BYTES)
        size, number = environment.info()["last_pgno"], 0
        while environment.info()["last_pgno"] == size:
            with environment.begin(write=True) as txn, txn.cursor(junk) as cursor:
                for key in range(number, number + _PER_PAGE * _PAGES_AT_ONCE):
                    cursor.put(key.to_bytes(8, "big"), value, append=True)
            number += _PER_PAGE * _PAGES_AT_ONCE
        with environment.begin(write=True) as txn:
            txn.drop(junk)
    _move_on(environment)
    environment.sync(True)


def _move_on(environment: lmdb.Environment) -> None:
    """Commit twice, so that what was freed before may be taken."""
    for _ in range(2):
        with environment.begin(write=True) as txn:
            txn.put(_JUNK + b" mark", b"")
            txn.delete(_JUNK + b" mark")
