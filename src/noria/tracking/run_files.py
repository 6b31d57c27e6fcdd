"""What a run leaves as files: what is on the disk already, and what is made for it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import msgspec

from noria.errors import ConfigError, Conflict, SourceError
from noria.tracking.artifact_paths import checked_folder, checked_path

__all__ = ["PathsTaken", "RunFiles"]

_MAX_NAME_BYTES, _ENDING_CHARS = 255, 16  # of a file on the disk; a run's path may be longer


class PathsTaken:
    """The paths of a run's files, as far as this process knows: none is a file and a folder at once."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str) -> None:
        """Know of a file."""
        self._files.add(path)
        self._folders.update(_above(path))

    def check_free(self, path: str) -> None:
        """Raise `Conflict` where a path cannot be that of a file."""
        if path in self._folders:
            raise Conflict(f"{path!r} is a folder of the run's files; give the file a name below it")
        found = next((each for each in _above(path) if each in self._files), None)
        if found is not None:
            raise Conflict(
                f"nothing can be put at {path!r}: {found!r} is a file of the run; choose another folder"
            )


class RunFiles:
    """The verbs of a run's files: each is kept, by its digest, when a call returns.

    A path may be given again: it then names the newer file.
    """

    def log_artifact(self, path: str | Path, to: str | PurePath = "") -> None:
        """Keep a file under its name.

        Parameters
        ----------
        path
            Of the file.
        to
            The folder among the run's files.

        Raises
        ------
        SourceError
            If it is no plain file, or changes while it is read.
        """
        file = Path(path)
        if file.is_dir():
            raise SourceError(f"{file} is a folder; log it with log_artifacts")
        self._put(_joined(to, file.name), file)

    def log_artifacts(self, folder: str | Path, to: str | PurePath = "") -> int:
        """Keep all files of a folder and below it; give how many.

        Raises
        ------
        SourceError
            If it is no folder, or holds a link.
        """
        base = Path(folder)
        if not base.is_dir():
            raise SourceError(f"{base} is no folder; log a file with log_artifact")
        files = sorted(each for each in base.rglob("*") if each.is_symlink() or not each.is_dir())
        for each in files:
            self._put(_joined(to, each.relative_to(base).as_posix()), each)
        return len(files)

    def log_text(self, text: str, path: str | PurePath) -> None:
        """Keep a text as UTF-8. Raises `ConfigError` if it is none."""
        self._put_bytes(path, _utf8(text, path))

    def log_html(self, html: str, path: str | PurePath) -> None:
        """Keep a page; pages of others are never run in noria's own. Raises `ConfigError` if it is none."""
        self._put_bytes(path, _utf8(html, path))

    def log_dict(self, value: Any, path: str | PurePath) -> None:
        """Keep what JSON can hold as JSON, indented. Raises `SourceError` if it is something else."""
        try:
            data = msgspec.json.format(msgspec.json.encode(value), indent=2)
        except (TypeError, ValueError, RecursionError) as err:
            raise SourceError(f"what was given for {path!r} is nothing that JSON can hold: {err}") from err
        self._put_bytes(path, data + b"\n")

    def log_table(self, frame: object, path: str | PurePath) -> None:
        """Keep a frame of pandas, Polars, Arrow or DuckDB as Parquet. Raises `SourceError` if it is none."""
        from pyarrow import parquet

        from noria.lake.schema import as_table

        table = as_table(frame, name=str(path))
        with self._made(path) as file:
            parquet.write_table(table, file, compression="zstd")

    def log_figure(self, figure: Any, path: str | PurePath) -> None:
        """Keep a figure: of matplotlib in the format of the path's ending, of plotly or Altair as HTML.

        Raises
        ------
        ConfigError
            If it is none, or cannot be written so.
        """
        from noria.tracking.pictures import write_figure

        with self._made(path) as file:
            write_figure(figure, file)

    def log_image(self, image: Any, path: str | PurePath) -> None:
        """Keep an array as PNG, or a picture of Pillow.

        An array is (height, width) or (height, width, channels): gray, gray and alpha, RGB or RGBA, as whole
        numbers of 0 to 255, booleans, or floats of 0 to 1.

        Raises
        ------
        ConfigError
            If it is none of these.
        """
        from noria.tracking.pictures import write_image

        with self._made(path) as file:
            write_image(image, file)

    def _put(self, path: str, file: Path) -> None:
        raise NotImplementedError

    def _put_bytes(self, path: str | PurePath, data: bytes) -> None:
        with self._made(path) as file:
            file.write_bytes(data)

    @contextmanager
    def _made(self, wanted: str | PurePath) -> Iterator[Path]:
        """Give a fresh file of that ending to fill; it is kept when the block ends well."""
        path = checked_path(_path_text(wanted))
        name = path.rpartition("/")[2]
        with tempfile.TemporaryDirectory(prefix="noria-") as folder:
            is_short = len(name.encode()) <= _MAX_NAME_BYTES
            file = Path(folder) / (name if is_short else f"made{Path(name).suffix[:_ENDING_CHARS]}")
            yield file
            self._put(path, file)


def _path_text(path: object) -> str:
    if isinstance(path, str):
        return path
    if isinstance(path, PurePath):
        return path.as_posix()
    raise ConfigError(f"found {path!r:.200}, a {type(path).__name__}, wanted a path among the run's files")


def _utf8(text: object, path: str | PurePath) -> bytes:
    if not isinstance(text, str):
        raise ConfigError(
            f"found {text!r:.200}, a {type(text).__name__}, for {str(path)!r}, wanted a text; give one, or "
            "log it with log_dict"
        )
    try:
        return text.encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the text for {str(path)!r} is no Unicode ({err}); clean it") from err


def _joined(wanted: str | PurePath, name: str) -> str:
    folder = checked_folder(_path_text(wanted))
    return f"{folder}/{name}" if folder else name


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
