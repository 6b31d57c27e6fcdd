"""Who read online features, and when: an append-only log of this machine. No entity is named in it."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from noria.errors import ConfigError, SourceError, StoreError
from noria.streams.backends.log import LogStream

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from noria.features.declarations import FeatureView
    from noria.features.on_demand import OnDemand
    from noria.workspace.project import Project

__all__ = ["ReadLog", "ReadNote", "note_read", "reads_table"]

_SEGMENT_BYTES = 4 << 20
_KEPT_BYTES = 32 << 20
_FORGET_EVERY = 1_000
_AT_ONCE = 10_000
_LONGEST_NAME = 200


class ReadNote(msgspec.Struct, frozen=True, array_like=True):
    """One reading: when on the wall, who, by which way, how many entities, and which definitions by view."""

    at: datetime
    who: str
    how: str
    entities: int
    views: Mapping[str, str]


class ReadLog:
    """The readings of a project's features on this machine, up to 32 MiB of them: 200,000 or more.

    What was noted survives the kill of its process. Any number of processes may write.
    """

    def __init__(self, folder: Path, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        segment = min(_SEGMENT_BYTES, max(1, kept_bytes // 4))
        self._log = LogStream(folder, name="feature reads", segment_bytes=segment)
        self._encoder = msgspec.json.Encoder()
        self._noted = 0

    def note(self, note: ReadNote) -> None:
        """Append a note. Raises `StoreError` if it cannot be written."""
        last = self._log.append([self._encoder.encode(note)])[0]
        if self._noted % _FORGET_EVERY == 0:
            self._log.forget(0, through=last, keep_bytes=self._kept_bytes)
        self._noted += 1

    def read(self) -> Iterator[ReadNote]:
        """Give the notes that are kept, the oldest first; those that are dropped meanwhile may be missing.

        Raises
        ------
        StoreError
            If they are damaged.
        """
        decoder = msgspec.json.Decoder(ReadNote)
        after = self._log.extent(0).first - 1
        while True:
            try:
                events = self._log.read(0, after=after, rows=_AT_ONCE)
            except (SourceError, StoreError):
                first = self._log.extent(0).first
                if first <= after + 1:
                    raise
                after = first - 1  # the oldest were dropped, here or by another process
                continue
            if not events:
                return
            for event in events:
                yield decoder.decode(event.payload)
            after = events[-1].offset

    def close(self) -> None:
        """Let go of its files."""
        self._log.close()


def note_read(
    project: Project,
    views: Iterable[FeatureView | OnDemand],
    *,
    entities: int,
    how: str,
    who: str | None = None,
) -> None:
    """Note that somebody read features: by default the user of this machine.

    Raises
    ------
    ConfigError
        If `who` is no name that can be shown.
    StoreError
        If it cannot be written.
    """
    project.feature_reads.note(
        ReadNote(
            at=datetime.now(UTC),
            who=_user() if who is None else _name(who),
            how=how,
            entities=entities,
            views={each.name: each.spec().digest for each in views},
        )
    )


def reads_table(project: Project) -> pa.Table:
    """Give the readings that are kept as a table, a row for each view: `at`, `who`, `how`, ..."""
    import pyarrow as pa

    schema = pa.schema(
        {
            "at": pa.timestamp("us", "UTC"),
            "who": pa.string(),
            "how": pa.string(),
            "view": pa.string(),
            "definition": pa.string(),
            "entities": pa.int64(),
        }
    )
    rows = [
        (note.at, note.who, note.how, view, digest, note.entities)
        for note in project.feature_reads.read()
        for view, digest in note.views.items()
    ]
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.table([pa.array(each, kind) for each, kind in zip(columns, schema.types, strict=True)], schema)


def _name(who: str) -> str:
    if not isinstance(who, str) or not who.strip() or not who.isprintable() or len(who) > _LONGEST_NAME:
        shown = repr(who)[:_LONGEST_NAME]
        raise ConfigError(
            f"the reader is {shown}; give a name of 1 to {_LONGEST_NAME} characters that can be shown: "
            "letters, digits, signs and spaces"
        )
    return who


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no account of that number, as in some containers
        return "unknown"
