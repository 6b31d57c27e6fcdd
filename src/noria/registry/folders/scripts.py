"""TorchScript archives, read without PyTorch: what they hold is judged, and written anew.

PyTorch finds members by other rules than Python does: whatever their case, by another directory of the same
archive. What it is given holds what was judged and nothing else.
"""

import re
from collections import Counter
from io import BytesIO
from typing import NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from noria.errors import ConfigError
from noria.registry.zip_archives import ZIP_ERRORS, check_unpacked_size

__all__ = ["Script", "read_script"]

_CODE, _CONSTANTS, _EARLY = "code/", "constants.pkl", "model.json"
_OF_FILES = re.compile(rb"\b(?:from_file|save|load|read_file|write_file)\b")  # maps, writes or reads files


class Script(NamedTuple):
    """A TorchScript archive: one that holds its own code, and no pickled classes."""

    archive: bytes
    opens_files: bool  # its code names what does, or is where it cannot be told


def read_script(data: bytes) -> Script | None:
    """Judge a TorchScript archive; None where bytes are none.

    Raises
    ------
    ConfigError
        If they are one that cannot be read, holds a name twice, or unpacks to very much.
    """
    try:
        with ZipFile(BytesIO(data)) as archive:
            parts = [_part(each) for each in archive.namelist()]
    except ZIP_ERRORS:
        return None
    if _CONSTANTS not in parts or not any(each.startswith(_CODE) for each in parts):
        return None
    try:
        with ZipFile(BytesIO(data)) as archive:
            check_unpacked_size(archive, data, what="TorchScript module")
            return _written_anew(archive)
    except ConfigError:
        raise
    except ZIP_ERRORS as err:
        raise ConfigError(
            f"the bytes are no TorchScript module that can be read: {type(err).__name__}: {err}"
        ) from err


def _written_anew(archive: ZipFile) -> Script:
    members = [each for each in archive.infolist() if not each.is_dir()]
    named = Counter(each.filename.lower() for each in members)
    if twice := [each.filename for each in members if named[each.filename.lower()] > 1]:
        raise ConfigError(
            f"the TorchScript module holds {twice[0]!r} twice: nobody can tell which is meant; save it anew"
        )
    opens_files = False
    written = BytesIO()
    with ZipFile(written, "w", ZIP_STORED) as anew:
        for each in members:
            content, part = archive.read(each), _part(each.filename).lower()
            if part == _EARLY or (_is_code(part) and _OF_FILES.search(content)):
                opens_files = True
            anew.writestr(ZipInfo(each.filename), content)
    return Script(written.getvalue(), opens_files)


def _is_code(part: str) -> bool:
    return part.startswith(_CODE) and part.endswith(".py")


def _part(name: str) -> str:
    """Give a member's name within the folder that all are in."""
    return name.split("/", 1)[-1]
