"""Which predictions a deployment has answered, by id, so that a retry gets the answer it was given.

The spool is the log; this index only makes it findable, also after the log has moved to the lake. It is
written after the spool without waiting for the disk, and catches up with the spool when the worker starts.
"""

import logging
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from noria.errors import DiskFull, StoreError
from noria.features.scrubbing import scrub
from noria.serving.log import PredictionFrame, decode_frame
from noria.streams.spool import read_spool

__all__ = ["MAX_ID_BYTES", "Answer", "PredictionIndex"]

MAX_ID_BYTES = 256
_LOG = logging.getLogger(__name__)
_MAP_BYTES = 1 << 36  # address space, not disk: 64 GiB hold some 500 million answers
_FIXED = struct.Struct("<16sdq")  # input digest, score, version; the release's name follows
_CATCH_UP_FRAMES = 1_000
_NO_ROOM = re.compile("No space|File too large|quota")  # the driver gives no error number


@dataclass(frozen=True, slots=True)
class Answer:
    """What a prediction id was answered."""

    digest: bytes
    score: float
    version: int
    release: str


class PredictionIndex:
    """Answers by prediction id, in LMDB. One process writes; it survives kill -9.

    Parameters
    ----------
    path
        Folder of the index; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._env = lmdb.open(
                str(path), map_size=_MAP_BYTES, max_dbs=4, sync=False, metasync=False, readahead=False
            )
            self._answers = self._env.open_db(b"answers")
            self._marks = self._env.open_db(b"marks")
        except lmdb.Error as err:
            raise StoreError(f"the index of answered predictions in {path} cannot be opened: {err}") from err
        self._waiting: list[PredictionFrame] = []  # logged, but there was no room to enter them

    def find(self, ids: Sequence[str]) -> list[Answer | None]:
        """Give the answer of each id, None where there was none."""
        found: list[Answer | None] = []
        with self._env.begin(db=self._answers, buffers=True) as txn:
            for each in ids:
                value = txn.get(each.encode())
                found.append(None if value is None else _decode(value))
        return (
            [each or self._find_waiting(wanted) for each, wanted in zip(found, ids, strict=True)]
            if (self._waiting)
            else found
        )

    def add(self, frame: PredictionFrame) -> None:
        """Enter the answers of a frame that is in the spool.

        Where there is no room the frame waits in memory, still found: it is logged, so its answer stands.
        """
        self._waiting.append(frame)
        try:
            self._flush()
        except StoreError as err:
            _LOG.warning("%d frames wait to be entered: %s", len(self._waiting), err)

    def catch_up(self, spool: Path) -> int:
        """Enter the frames of the spool that a killed worker had not entered; give how many were read."""
        read, batch = 0, list[PredictionFrame]()
        for _, payload in read_spool(spool, after=(self._indexed_through() + 1, 0)):
            batch.append(decode_frame(payload))
            read += 1
            if len(batch) >= _CATCH_UP_FRAMES:
                self._add(batch)
                batch = []
        self._add(batch)
        return read

    def mark(self, segment: int) -> None:
        """Note durably that the spool's segments up to `segment` are entered, so they may leave it.

        Raises
        ------
        StoreError
            If they are not and cannot be.
        """
        self._flush()
        with self._env.begin(write=True, db=self._marks) as txn:
            txn.put(b"segment", str(segment).encode())
        self._env.sync(True)

    def list_ids(self) -> Iterator[str]:
        """List the ids that were answered, sorted."""
        with self._env.begin(db=self._answers) as txn:
            for key in txn.cursor().iternext(values=False):
                yield bytes(key).decode()

    def forget(self, ids: Collection[str]) -> int:
        """Take answers out for good, and leave no byte of their ids behind; give how many there were.

        All that stay are written anew, as pages keep keys of what was deleted. A worker may be at work: what
        is in its memory it can still write; it is rid of that when it is started anew.

        Raises
        ------
        StoreError
            If it cannot be written; it is as it was.
        """
        gone = {each.encode() for each in ids}
        try:
            with self._env.begin(db=self._answers) as txn:
                held = sum(txn.get(each) is not None for each in gone)
            if held:
                self._write_anew(gone)
            scrub(self._env)
        except lmdb.Error as err:
            raise StoreError(
                f"the index of answered predictions in {self._path} cannot be written: {err}"
            ) from err
        return held

    def _write_anew(self, gone: Collection[bytes]) -> None:
        """Copy what stays into a database beside it and back, in one transaction."""
        beside = self._env.open_db(b"beside")
        with self._env.begin(write=True) as txn:
            for source, target in ((self._answers, beside), (beside, self._answers)):
                with txn.cursor(target) as written:
                    for key, value in txn.cursor(source):
                        if bytes(key) not in gone:
                            written.put(key, value, append=True)
                txn.drop(source, delete=source is beside)

    def close(self) -> None:
        """Write to the disk and let go."""
        self._env.sync(True)
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _indexed_through(self) -> int:
        with self._env.begin(db=self._marks) as txn:
            return int(txn.get(b"segment", b"0"))

    def _flush(self) -> None:
        self._add(self._waiting)
        self._waiting = []

    def _find_waiting(self, prediction_id: str) -> Answer | None:
        for frame in self._waiting:
            if prediction_id in frame.ids:
                row = frame.ids.index(prediction_id)
                for release in frame.releases:
                    if release.answered[row]:
                        score = float(release.score_array()[row])
                        return Answer(frame.digest(row), score, release.version, release.release)
        return None

    def _add(self, frames: Iterable[PredictionFrame]) -> None:
        try:
            with self._env.begin(write=True, db=self._answers) as txn:
                for frame in frames:
                    _put(txn, frame)
        except lmdb.Error as err:
            if isinstance(err, lmdb.DiskError | lmdb.MapFullError) or _NO_ROOM.search(str(err)):
                raise DiskFull(str(self._path)) from err
            raise StoreError(
                f"the index of answered predictions in {self._path} cannot be written: {err}"
            ) from err


def _put(txn: lmdb.Transaction, frame: PredictionFrame) -> None:
    """The first answer of an id is the answer: a later one is never put over it."""
    for release in frame.releases:
        name = release.release.encode()
        scores, answered = release.score_array().tolist(), release.answered
        for row, prediction_id in enumerate(frame.ids):
            if answered[row]:
                value = _FIXED.pack(frame.digest(row), scores[row], release.version) + name
                txn.put(prediction_id.encode(), value, overwrite=False)


def _decode(value: memoryview) -> Answer:
    digest, score, version = _FIXED.unpack_from(value)
    return Answer(digest, score, version, str(value[_FIXED.size :], "utf-8"))
