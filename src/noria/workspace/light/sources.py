"""What somebody wants served: a model's file, a folder of MLflow, or a version of a project."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noria.config import find_project
from noria.errors import ConfigError, ProjectNotFound, SourceError
from noria.records import sha256_hex
from noria.registry.folders.mlmodel import FILE_NAME
from noria.workspace.light.folders import FOLDER, name_of

__all__ = ["Source", "find_source"]

_SUFFIXES = {".txt", ".lgb", ".json", ".ubj", ".onnx", ".skops", ".pkl", ".pickle", ".joblib"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes
    ----------
    kind
        "file", "folder" (of MLflow), or "version" (of a project).
    path
        The file or folder; of a version, the project's folder.
    reference
        Of a version.
    """

    kind: Literal["file", "folder", "version"]
    path: Path
    reference: str = ""

    @property
    def label(self) -> str:
        """How it is called."""
        return self.reference or self.path.name

    @property
    def name(self) -> str:
        """How its model is called, where nobody said."""
        named = self.reference.removeprefix("models:/").partition("@")[0].partition(":")[0].partition("/")[0]
        return name_of(Path(named)) if self.kind == "version" else name_of(self.path)

    @property
    def base(self) -> Path:
        """Where its service keeps what it has, where nobody said."""
        return (self.path if self.kind == "version" else self.path.parent) / FOLDER

    def state(self) -> object:
        """Give what changes when a file does, or one of a folder; the same for what is not there."""
        found = []
        for each in self._files():
            try:
                told = each.stat()
            except OSError:
                continue
            found.append((str(each), told.st_ino, told.st_size, told.st_mtime_ns))
        return tuple(found)

    def digest(self) -> str:
        """Give the sha256 of a file; of a folder, over the names and digests of its files.

        Raises
        ------
        SourceError
            If it cannot be read.
        """
        try:
            if self.kind == "file":
                with self.path.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            lines = [
                f"{each.relative_to(self.path).as_posix()} {sha256_hex(each.read_bytes())}"
                for each in self._files()
            ]
        except OSError as err:
            raise SourceError(f"the model {self.path} cannot be read: {err.strerror}") from err
        return sha256_hex("\n".join(lines).encode())

    def _files(self) -> Iterator[Path]:
        if self.kind == "file":
            yield self.path
        elif self.kind == "folder":
            yield from sorted(each for each in self.path.rglob("*") if each.is_file())


def find_source(given: str | os.PathLike[str], *, project: Path | None = None) -> Source:
    """Tell what somebody means: a file or a folder that is there, else a version of the project here.

    Raises
    ------
    SourceError
        If it reads as a path and nothing is there, or it could be a version and there is no project.
    ConfigError
        If it is a folder, and none of MLflow.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise ConfigError(
                f"{path} is a folder without an {FILE_NAME}, so it is no model of MLflow; name the file of a "
                "model"
            )
        return Source("folder", path.absolute())
    if path.exists():
        return Source("file", path.absolute())
    text = os.fspath(given)
    is_reference = text.startswith("models:/")
    if not is_reference and (
        path.suffix.lower() in _SUFFIXES or len(path.parts) > 1 or isinstance(given, Path)
    ):
        raise SourceError(f"there is no model file {path}; found nothing at {path.absolute()}")
    try:
        return Source("version", find_project(project), text)
    except ProjectNotFound as err:
        raise SourceError(
            f"there is no file {text!r}, and no project in {project or Path.cwd()} of whose models it could "
            "be a version; name the file of a model"
        ) from err
