"""Paths of artifacts as requests name them, and what is told of those that can be none."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.errors import BadPath, DigestMismatch

__all__ = ["path_of", "told"]


def path_of(request: Request) -> str:
    """Give the path that a URL names; what is no UTF-8 must not become the name of something else."""
    path: str = request.path_params["path"]
    if "\ufffd" in path:
        try:
            unquote_to_bytes(request.scope["raw_path"]).decode()
        except UnicodeDecodeError as err:
            raise MlflowFault.invalid(f"Invalid path: it is no UTF-8 once it is decoded: {err}") from err
    return path


@contextmanager
def told() -> Iterator[None]:
    """Tell of paths in the words that clients know, and of damage as the fault of this side."""
    try:
        yield
    except BadPath as err:
        raise MlflowFault.invalid(f"Invalid path: {err}") from err
    except DigestMismatch as err:
        raise MlflowFault(ErrorCode.INTERNAL_ERROR, str(err)) from err
