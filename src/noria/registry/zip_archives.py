"""ZIP archives from anywhere: what reading one raises, and how much it may unpack to."""

import struct
import zlib
from lzma import LZMAError
from zipfile import BadZipFile, ZipFile

from noria.errors import ConfigError

__all__ = ["ZIP_ERRORS", "check_unpacked_size"]

# Of damage; beside it a newer, encrypted or unknown kind of archive is a `RuntimeError`.
ZIP_ERRORS: tuple[type[Exception], ...] = (
    BadZipFile, LZMAError, zlib.error, struct.error, EOFError, OSError, LookupError, ValueError, RuntimeError,
    OverflowError,
)  # fmt: skip
_MOST_BYTES = 8 << 30  # of an archive once it is unpacked
_MOST_RATIO = 2_000  # between the two: DEFLATE gives about 1,030 at most


def check_unpacked_size(archive: ZipFile, data: bytes, *, what: str) -> None:
    """Refuse an archive of these bytes if it unpacks to more than a model would. Raises `ConfigError`."""
    size = sum(each.file_size for each in archive.infolist())
    if size > _MOST_BYTES or size > _MOST_RATIO * max(len(data), 1 << 10):
        raise ConfigError(f"the {what} of {len(data)} bytes unpacks to {size}; it is no model")
