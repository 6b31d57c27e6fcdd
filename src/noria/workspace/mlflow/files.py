"""The files of runs of an MLflow store, where they lie in a folder that is readable here."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from noria.errors import BadPath, ConfigError
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.workspace.mlflow.source import LeftBehind, SourceFile

__all__ = ["RunFolders"]


class RunFolders:
    """Finds the files of runs on this machine; no link is followed below a run's folder.

    Parameters
    ----------
    beside
        The folder of the store's database, which relative places begin at.
    copied
        A folder with what the store's places hold: `EXPERIMENT/RUN/artifacts/...`.
    """

    def __init__(self, *, beside: Path | None, copied: Path | None) -> None:
        if copied is not None and not copied.is_dir():
            raise ConfigError(f"artifacts: {copied} is no folder; name the one that holds the runs' files")
        self._beside, self._copied = beside, copied

    def files(self, uri: str, *, experiment: str, ending: str) -> Iterator[SourceFile]:
        """Give the files of a run or a model. Raises `LeftBehind` where its folder cannot be looked for.

        Parameters
        ----------
        uri
            Where they are.
        experiment, ending
            What the place ends in: `EXPERIMENT/RUN/artifacts`.
        """
        root = self._folder(uri, experiment, ending)
        if root is not None:
            yield from _walk(root, "")

    def model_files(self, uri: str) -> Iterator[SourceFile]:
        """Give the files of a model that somebody keeps in a folder of its own.

        Raises `LeftBehind` where there is none that is readable here. A folder is taken for a model if it has
        a file `MLmodel`, or lies below the one that holds copies: a store may name any folder at all.
        """
        local, kept = _local(uri, self._beside), _within(uri, "")
        copy = None if self._copied is None or not kept else self._copied / kept
        if copy is not None and copy.is_dir() and not copy.is_symlink():
            yield from _walk(copy, "")
        elif local is None:
            raise LeftBehind(f"they are at {uri or 'no place that is told'}, which is not looked into")
        elif local.is_symlink() or not local.is_dir():
            raise LeftBehind(f"there is no folder {local}")
        elif not (local / "MLmodel").is_file():
            raise LeftBehind(f"the folder {local} has no file MLmodel")
        else:
            yield from _walk(local, "")

    def _folder(self, uri: str, experiment: str, ending: str) -> Path | None:
        """Find a folder; `None`: there is no file, since others beside it have folders."""
        local = _local(uri, self._beside)
        if local is not None and not local.as_posix().endswith(f"/{ending}"):
            raise LeftBehind(f"its files are at {uri}, which does not end in {ending}")
        places = [] if local is None else [local]
        if self._copied is not None:
            places += [
                self._copied / each for each in (_within(uri, ending), f"{experiment}/{ending}") if each
            ]
        for each in places:
            if each.is_dir() and not each.is_symlink():
                return each
        if not places and not uri:
            return None
        depth = ending.count("/")  # of what the experiment's folder holds
        neighbours = [each.parents[depth] for each in places]
        if local is not None:
            neighbours.append(local.parents[depth + 1])
        if any(each.is_dir() for each in neighbours):
            return None
        if places:
            looked = " nor ".join(str(each) for each in places)
            raise LeftBehind(f"there is no {looked}; it has no files, or they are elsewhere")
        raise LeftBehind(f"its files are at {uri}; name a folder that holds a copy (`--artifacts`)")


def _walk(folder: Path, above: str) -> Iterator[SourceFile]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda each: each.name)
    except OSError as err:
        yield SourceFile(above.rstrip("/"), fault=f"the folder {folder} cannot be read: {err.strerror}")
        return
    for entry in entries:
        path = f"{above}{entry.name}"
        if entry.is_symlink():
            yield SourceFile(path, fault="it is a symbolic link, which is not followed")
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{path}/")
        elif entry.is_file(follow_symlinks=False):
            yield SourceFile(path, put=_Put(Path(entry.path)))
        else:
            yield SourceFile(path, fault="it is no plain file")


class _Put:
    """Copies one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, store: ArtifactStore, path: str) -> Artifact:
        return store.put_file(path, self._file)


def _local(uri: str, beside: Path | None) -> Path | None:
    """Give the folder that a place on this machine names; `None`: it is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    if parts.scheme or not uri:
        return None
    path = Path(uri)
    return path if path.is_absolute() else None if beside is None else beside / path


def _within(uri: str, ending: str) -> str | None:
    """Give the path of a place that a server keeps, below its own folder."""
    parts = urlsplit(uri)
    path = parts.path.strip("/")
    if parts.scheme != "mlflow-artifacts" or not path.endswith(ending):
        return None
    try:
        return checked_path(path)
    except BadPath:
        return None
