"""Rows that were pushed: a body that lies in a file, landed once under the key that its sender gave it."""

from dataclasses import replace
from pathlib import Path

import msgspec

from noria.errors import ConfigError, Conflict
from noria.lake.reading import Reading
from noria.lake.recording import Batch, Ingested, IngestRecords
from noria.lake.sources.opening import open_file
from noria.workspace.opened import Opened
from noria.workspace.source_openings import Watched, expected_types

__all__ = ["PushedRows", "push_rows"]

MAX_KEY_CHARACTERS = 256
MAX_UNPACKED_BYTES = 2 << 30


class PushedRows(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a push; see `noria.lake.recording.Ingested`."""

    dataset: str
    state: str
    accepted: int
    rejected: int
    repeated: int
    replaced: int
    version: str | None


def push_rows(
    project: Opened,
    name: str,
    body: Path,
    *,
    format: str,
    encoding: str | None = None,
    key: str | None = None,
) -> PushedRows:
    """Take in the rows of a body. The same key again does nothing; without a key the content is one.

    Parameters
    ----------
    format
        See `noria.lake.sources.opening.FORMATS`.

    Raises
    ------
    NotFound
        If no such dataset is declared.
    Conflict
        If the key came with another content before.
    TooLarge
        If it is more than 2 GiB once it is unpacked.
    SourceError, BatchBlocked
        If it cannot be read; if it breaks the contract. Nothing of it was written.
    """
    dataset = project.declarations.dataset(name)
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
        raise ConfigError(f"the key has to be 1 to {MAX_KEY_CHARACTERS} printable characters")
    reading = expected_types(dataset, Reading.of(dataset.reading))
    if encoding is not None:
        reading = replace(reading, encoding=encoding)
    source = open_file(body, format=format, reading=reading, name="the body", most_bytes=MAX_UNPACKED_BYTES)
    app = f"file:{source.digest}" if key is None else f"push:{key}"
    label = f"push:{source.digest}"
    if key is not None:
        _refuse_other_content(project, name, app=app, label=label, key=key)
    done = project.lake.ingest(dataset, Watched(source, dataset), batch=1, app=app, source=label)
    if key is not None and done.state == "already":  # by a push that landed since it was looked for
        _refuse_other_content(project, name, app=app, label=label, key=key)
    return _told(name, done)


def _refuse_other_content(project: Opened, name: str, *, app: str, label: str, key: str) -> None:
    this = Batch(name, 1, label, None, project.clock.now(), app)
    before = IngestRecords(project.ledger).find(this)
    if before is not None and before.payload["source"] != label:
        raise Conflict(
            f"the key {key!r} came with other rows before, so nothing was taken; give new rows a key of "
            "their own"
        )


def _told(name: str, done: Ingested) -> PushedRows:
    return PushedRows(
        dataset=name,
        state=done.state,
        accepted=done.accepted,
        rejected=done.rejected,
        repeated=done.repeated,
        replaced=done.replaced,
        version=None if done.version is None else done.version.ref,
    )
