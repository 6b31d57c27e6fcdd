"""What lies beside a log for a server, on the machine that sends it.

A log is a folder `RUN.TOKEN` as those for a database are, in a folder of its server. In it are also `head`,
how the run begins, `SHA256.bytes`, the files that were logged, and `refused`, what the server does not take.
"""

import base64
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from noria.errors import ConfigError, SourceError, StoreDamaged, StoreError
from noria.records import sha256_hex
from noria.streams.frames import log_fault
from noria.tracking.remote.sending import Beginning, decode_beginning, encode_wire
from noria.tracking.spools.records import Entry, decode, encode
from noria.tracking.spools.spool import RunSpool

__all__ = [
    "REFUSED",
    "RefusedEntry",
    "drop_file",
    "file_path",
    "is_unsure",
    "keep_bytes",
    "keep_copy",
    "let_go",
    "mark_unsure",
    "note_refused",
    "put_server",
    "read_head",
    "read_refused",
    "server_folder",
    "server_of",
    "write_head",
    "write_refused",
]

REFUSED = "refused"
_HEAD, _SERVER, _UNSURE, _ENDING = "head", "server", "unsure", ".bytes"
_PIECE_BYTES = 1 << 20
_DIGEST_CHARS, _SHOWN_CHARS = 12, 40


class RefusedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a server does not take, and why."""

    position: tuple[int, int]  # of its end in the log
    reason: str
    at: datetime
    entry: str  # as it is in a log, in base64

    def decoded(self) -> Entry:
        """Give the entry."""
        entry: Entry = decode(base64.b64decode(self.entry))
        return entry


_decode_line = msgspec.json.Decoder(RefusedEntry).decode


def _encode_line(note: RefusedEntry) -> bytes:
    return msgspec.json.encode(note) + b"\n"


def server_folder(root: Path, location: str) -> Path:
    """Give the folder of a server's logs; it says which server that is."""
    shown = "".join(each if each.isalnum() or each in ".-" else "_" for each in location.partition("//")[2])
    return root / f"{shown[:_SHOWN_CHARS]}.{sha256_hex(location.encode())[:_DIGEST_CHARS]}"


def server_of(folder: Path) -> str | None:
    """Give the URL of the server that a folder of logs is for; None: it is none of those."""
    try:
        return (folder / _SERVER).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def put_server(folder: Path, location: str) -> None:
    """Let a folder of logs say which server they are for. Raises `DiskFull`, `StoreError`."""
    if server_of(folder) == location:
        return
    with _translated(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_whole(folder / _SERVER, f"{location}\n".encode())


def write_head(folder: Path, beginning: Beginning) -> None:
    """Write how the run of a log begins. Raises `DiskFull`, `StoreError`."""
    with _translated(folder):
        _write_whole(folder / _HEAD, encode_wire(beginning))


def read_head(folder: Path) -> Beginning | None:
    """Give how the run of a log begins; None: nothing was logged yet. Raises `StoreDamaged`."""
    try:
        return decode_beginning((folder / _HEAD).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as err:
        raise StoreError(f"the log {folder} cannot be read: {err.strerror}") from err
    except msgspec.DecodeError as err:
        raise StoreDamaged(f"the log {folder} is damaged: how its run begins cannot be read ({err})") from err


def mark_unsure(folder: Path) -> None:
    """Say that a run did not go on with this log, but may be said to have. Raises `StoreError`."""
    with _translated(folder):
        (folder / _UNSURE).touch()


def is_unsure(folder: Path) -> bool:
    """Tell whether that was said."""
    return (folder / _UNSURE).exists()


def file_path(folder: Path, sha256: str) -> Path:
    """Give where the bytes of a file lie that was logged."""
    return folder / f"{sha256}{_ENDING}"


def keep_bytes(folder: Path, data: bytes, sha256: str) -> None:
    """Keep bytes beside a log. Raises `DiskFull`, `StoreError`."""
    with _translated(folder):
        _write_whole(file_path(folder, sha256), data)


def keep_copy(folder: Path, file: Path) -> tuple[str, int]:
    """Keep a copy of a file beside a log; give its sha256 and size.

    Raises
    ------
    SourceError
        If it cannot be read, is a link or no plain file, or changes while it is read.
    DiskFull, StoreError
        If it finds no room.
    """
    before = _plain(file)
    digest, size = hashlib.sha256(), 0
    try:
        source = file.open("rb")
    except OSError as err:
        raise SourceError(f"the file {file} cannot be read: {err.strerror}; give one that exists") from err
    with source, _translated(folder):
        descriptor, name = tempfile.mkstemp(prefix="incoming-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as copy:
                while piece := source.read(_PIECE_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    copy.write(piece)
                copy.flush()
                os.fdatasync(copy.fileno())
            if _plain(file) != before:
                raise SourceError(f"the file {file} was changed while it was read; put it once it is whole")
            Path(name).rename(file_path(folder, digest.hexdigest()))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return digest.hexdigest(), size


def drop_file(folder: Path, sha256: str) -> None:
    """Remove the bytes of a file that the server has."""
    with suppress(OSError):  # it goes with the log
        file_path(folder, sha256).unlink(missing_ok=True)


def note_refused(folder: Path, entry: Entry, position: tuple[int, int], reason: str) -> None:
    """Set an entry aside; the same one twice is one. Raises `DiskFull`, `StoreError`."""
    text = base64.b64encode(encode(entry)).decode()
    line = _encode_line(RefusedEntry(position=position, reason=reason, at=datetime.now(UTC), entry=text))
    with _translated(folder), (folder / REFUSED).open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":  # the last one was cut off
            end = (folder / REFUSED).read_bytes().rfind(b"\n") + 1
            file.truncate(end)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_refused(folder: Path) -> list[RefusedEntry]:
    """Give what was set aside. Raises `StoreDamaged`."""
    try:
        *lines, _ = (folder / REFUSED).read_bytes().split(b"\n")  # what follows the last one was cut off
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StoreError(f"the log {folder} cannot be read: {err.strerror}") from err
    try:
        return list({each.position: each for each in map(_decode_line, lines)}.values())
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise StoreDamaged(f"{folder / REFUSED} is damaged: {err}; look at it, then remove it") from err


def write_refused(folder: Path, notes: Sequence[RefusedEntry]) -> None:
    """Put what was set aside. Raises `DiskFull`, `StoreError`."""
    with _translated(folder):
        if notes:
            _write_whole(folder / REFUSED, b"".join(map(_encode_line, notes)))
        else:
            (folder / REFUSED).unlink(missing_ok=True)


def let_go(spool: RunSpool) -> None:
    """Remove a log of which all was moved, unless something of it was refused; and let go of it."""
    with suppress(OSError):
        (spool.folder / _UNSURE).unlink(missing_ok=True)  # its name comes after `lock`
    if (spool.folder / REFUSED).exists():
        spool.close()
    else:
        spool.remove()


def _plain(file: Path) -> tuple[int, ...]:
    try:
        found = file.lstat()
    except OSError as err:
        raise SourceError(f"the file {file} cannot be read: {err.strerror}; give one that exists") from err
    if stat.S_ISLNK(found.st_mode):
        raise SourceError(f"{file} is a symbolic link, which is not followed; put the file that it names")
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{file} is no plain file; put the files of a folder one by one")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix="incoming-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if isinstance(err, (StoreError, SourceError, ConfigError)):
            raise
        if err.errno == errno.ENOENT:
            raise StoreError(
                f"the log {folder} was removed while it was at work; begin the run anew"
            ) from err
        raise log_fault(err, folder) from err
