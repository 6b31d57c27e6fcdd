"""Training sets as `project.features` keeps them: Arrow files in the storage, by version."""

from typing import TYPE_CHECKING

import pyarrow as pa

from noria.errors import NotFound
from noria.ledger.redacted import expected_digest
from noria.records import Version

if TYPE_CHECKING:
    from noria.workspace.opened import Opened

__all__ = ["KIND", "encode", "is_kept", "kept_sets", "read_kept"]

KIND = "training_set"


def is_kept(version: Version) -> bool:
    """Say whether a version is rows that are kept, and no recipe as that of a training."""
    return version.kind == KIND and "views" in version.facts


def kept_sets(project: "Opened", name: str | None = None) -> list[Version]:
    """Give the kept sets by number."""
    return [each for each in project.ledger.list_versions(kind=KIND, name=name) if is_kept(each)]


def encode(table: pa.Table) -> bytes:
    """Write rows as an Arrow file."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_kept(project: "Opened", version: Version) -> pa.Table:
    """Give the rows, as they are since the last redaction. Raises `NotFound` if nothing of them is left."""
    sha256 = expected_digest(project.ledger, version)
    if not sha256:
        raise NotFound(KIND, version.ref, [])
    return pa.ipc.open_file(pa.py_buffer(project.storage.get(sha256))).read_all()
