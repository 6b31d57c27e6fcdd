"""An object store as a file system of pyarrow, for reading: with the credentials of the store itself.

pyarrow's own file systems look for credentials by rules of their own, and know no `az://`.
"""

import io
from collections.abc import Iterable
from typing import Any, NoReturn

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

__all__ = ["reading_of"]


def reading_of(store: ObjectStore) -> pafs.FileSystem:
    """Give the file system whose paths are those of the objects of `store`."""
    return pafs.PyFileSystem(_Reading(store))


class _Reading(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reading) and other._store == self._store

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "obstore"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Iterable[str]) -> list[pafs.FileInfo]:
        return [self._info(each) for each in paths]

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(_Object(self._store, path), mode="r")

    open_input_stream = open_input_file

    def get_file_info_selector(self, selector: Any) -> NoReturn:
        _refuse()

    def create_dir(self, path: str, recursive: bool) -> NoReturn:
        _refuse()

    def delete_dir(self, path: str) -> NoReturn:
        _refuse()

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> NoReturn:
        _refuse()

    def delete_root_dir_contents(self) -> NoReturn:
        _refuse()

    def delete_file(self, path: str) -> NoReturn:
        _refuse()

    def move(self, src: str, dest: str) -> NoReturn:
        _refuse()

    def copy_file(self, src: str, dest: str) -> NoReturn:
        _refuse()

    def open_output_stream(self, path: str, metadata: Any) -> NoReturn:
        _refuse()

    def open_append_stream(self, path: str, metadata: Any) -> NoReturn:
        _refuse()

    def _info(self, path: str) -> pafs.FileInfo:
        try:
            found = obstore.head(self._store, path)
        except FileNotFoundError:
            return pafs.FileInfo(path, pafs.FileType.NotFound)
        except BaseError as err:
            raise _as_os_error(err) from err
        return pafs.FileInfo(path, pafs.FileType.File, size=found["size"])


class _Object(io.RawIOBase):
    """The bytes of one object, fetched range by range."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        try:
            self._size = obstore.head(store, path)["size"]
        except FileNotFoundError:
            raise
        except BaseError as err:
            raise _as_os_error(err) from err
        self._store, self._path, self._place = store, path, 0

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._place)
        length = left if size < 0 else min(size, left)
        if not length:
            return b""
        try:
            data = bytes(obstore.get_range(self._store, self._path, start=self._place, length=length))
        except FileNotFoundError:
            raise
        except BaseError as err:
            raise _as_os_error(err) from err
        self._place += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        """Give how many bytes there are, which pyarrow asks for."""
        return int(self._size)


def _refuse() -> NoReturn:
    raise NotImplementedError("objects are written by noria.lake.files, and read here only")


def _as_os_error(err: BaseError) -> OSError:
    return OSError(str(err).strip().partition("\n")[0])
