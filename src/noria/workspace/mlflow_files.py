"""The files of runs of an MLflow store, where they lie in a folder that is readable here."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from noria.errors import BadPath, ConfigError
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.workspace.mlflow_source import LeftBehind, SourceFile

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
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda each: each.name)
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
