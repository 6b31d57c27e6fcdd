"""Models that are folders of files: verified as they are read, and laid out where a model wants a folder."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from noria.errors import DeploymentError, DigestMismatch
from noria.records import sha256_hex
from noria.registry.folders.contents import KeptContents, checked_member
from noria.registry.records import Part
from noria.serving.records import ServedFile, ServedModel

__all__ = ["contents_of", "laid_out", "read_file"]

_BLOCK = 1 << 20


def read_file(served: ServedModel, name: str, *, folder: Path) -> bytes:
    """Give the bytes of one file of a model, verified.

    Raises
    ------
    DeploymentError
        If the model has no such file, or it cannot be read.
    DigestMismatch
        If it is not what was recorded.
    """
    found = next((each for each in served.files if each.name == name), None)
    if found is None:
        there = ", ".join(each.name for each in served.files) or "none"
        raise DeploymentError(
            f"{served.model}:{served.version} names no file {name!r} (there is {there}); release it again"
        )
    try:
        data = (folder / found.path).read_bytes()
    except OSError as err:
        raise _unreadable(found, folder, err) from err
    if (digest := sha256_hex(data)) != found.digest:
        raise DigestMismatch(f"the model file {folder / found.path}", found.digest, digest)
    return data


def contents_of(served: ServedModel, *, folder: Path) -> KeptContents:
    """Give the files of a model as a folder of MLflow is read: each verified when it is."""
    paths = {each.name: folder / each.path for each in served.files}

    def fetch(name: str, _: Part) -> Path:
        path = paths[name]
        if not path.is_file():
            raise DeploymentError(f"the model file {path} is gone; deploy {served.model} again")
        return path

    files = {each.name: Part(each.digest, 0) for each in served.files}
    return KeptContents(f"{served.model}:{served.version}", files, fetch)


def laid_out(files: Sequence[ServedFile], *, folder: Path, prefix: str) -> tuple[Path, Callable[[], None]]:
    """Copy the files below `prefix` into a folder of their own, verified; give it, and what removes it.

    Raises like `read_file`.
    """
    made = Path(tempfile.mkdtemp(prefix="noria-model-"))

    def remove() -> None:
        shutil.rmtree(made, ignore_errors=True)

    try:
        for each in files:
            if each.name.startswith(prefix):
                name = checked_member(each.name.removeprefix(prefix), "the model")
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(each, folder, made / name)
    except BaseException:
        remove()
        raise
    return made, remove


def _copy(file: ServedFile, folder: Path, into: Path) -> None:
    digest = hashlib.sha256()
    try:
        with (folder / file.path).open("rb") as source, into.open("wb") as sink:
            while block := source.read(_BLOCK):
                digest.update(block)
                sink.write(block)
    except OSError as err:
        raise _unreadable(file, folder, err) from err
    if digest.hexdigest() != file.digest:
        raise DigestMismatch(f"the model file {folder / file.path}", file.digest, digest.hexdigest())


def _unreadable(file: ServedFile, folder: Path, err: OSError) -> DeploymentError:
    return DeploymentError(f"the model file {folder / file.path} cannot be read: {err.strerror}")
