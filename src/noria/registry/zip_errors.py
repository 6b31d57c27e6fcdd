"""What reading a ZIP archive raises where its bytes are damaged, or are not what they say."""

import struct
import zlib
from lzma import LZMAError
from zipfile import BadZipFile

__all__ = ["ZIP_ERRORS"]

# Beside those of damage: a newer, encrypted or unknown kind of archive is a `RuntimeError`.
ZIP_ERRORS: tuple[type[Exception], ...] = (
    BadZipFile, LZMAError, zlib.error, struct.error, EOFError, OSError, LookupError, ValueError, RuntimeError,
)  # fmt: skip
