"""From a driver's errors to noria's."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError, OperationalError, StatementError

from noria.errors import ConfigError, DiskFull, StoreError

__all__ = ["is_busy", "translated_faults"]

_NO_DISK_SPACE = "53100"  # PostgreSQL's SQLSTATE disk_full
_TOO_LONG = "54000"  # program_limit_exceeded: a text that is in an index
_LITTLE_ROOM_BYTES = 1 << 16  # SQLite grows its shared memory file by half of that
_SHOWN_CHARS = 40  # on either side of what is wrong
_ADVICE = {
    "SQLITE_CANTOPEN": "check that the folder exists and may be written",
    "SQLITE_READONLY": "it may not be written; check the rights of the file and its folder",
    "SQLITE_NOTADB": "it is not a database; name another file or move this one away",
    "SQLITE_CORRUPT": "it is damaged; restore it from a backup",
    "SQLITE_BUSY": "another process has been writing all the time; stop it and try again",
    "SQLITE_IOERR": "the disk does not take or give the data; check it",
}


def is_busy(err: OperationalError) -> bool:
    """Tell whether the database refused only because somebody else is writing."""
    return _sqlite_name(err).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


@contextmanager
def translated_faults(location: str) -> Iterator[None]:
    """Raise `DiskFull` or `StoreError` for what the disk or the server of `location` is to blame for.

    A name that is too long for an index of PostgreSQL, which takes some 2,700 bytes, is a `ConfigError`, as
    is a text that has no UTF-8: one with half a surrogate pair, such as what a terminal sent in another code.
    Other errors of the driver (a wrong statement, a broken constraint) are faults of the code and pass.
    """
    try:
        yield
    except DatabaseError as err:
        name = _sqlite_name(err)
        if name == "SQLITE_FULL" or _sqlstate(err) == _NO_DISK_SPACE or _may_lack_room(name, location):
            raise DiskFull(location) from err
        if _sqlstate(err) == _TOO_LONG:
            told = str(err.orig).partition("\n")[0]
            raise ConfigError(f"a name is too long for the database: {told}; shorten it") from err
        advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), None)
        if advice is None and not (isinstance(err, OperationalError) and not name):
            raise
        advice = advice or "check that the server is up and the URL right"
        raise StoreError(f"the database {location} cannot be used: {err.orig}; {advice}") from err
    except UnicodeEncodeError as err:
        raise _no_unicode(err) from err
    except StatementError as err:
        if isinstance(err.orig, UnicodeEncodeError):
            raise _no_unicode(err.orig) from err
        raise
    except OSError as err:
        if err.errno in {errno.ENOSPC, errno.EDQUOT} and not isinstance(err, DiskFull):
            raise DiskFull(location) from err
        raise


def _no_unicode(err: UnicodeEncodeError) -> ConfigError:
    found = err.object[max(err.start - _SHOWN_CHARS, 0) : err.start + _SHOWN_CHARS]
    return ConfigError(f"{found!r} is no Unicode text, at character {err.start + 1}; write it in UTF-8")


def _may_lack_room(name: str, location: str) -> bool:
    """Tell whether SQLite failed to make or grow a file beside its own because the disk is full."""
    if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")):
        return False
    try:
        return shutil.disk_usage(Path(location).parent).free < _LITTLE_ROOM_BYTES
    except OSError:
        return False


def _sqlite_name(err: DatabaseError) -> str:
    return getattr(err.orig, "sqlite_errorname", None) or ""


def _sqlstate(err: DatabaseError) -> str:
    return getattr(err.orig, "sqlstate", None) or ""
