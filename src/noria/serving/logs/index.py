"""Which predictions a deployment has answered, by id, so that a retry gets the answer it was given.

The spool is the log; this index only makes it findable, also after the log has moved to the lake. It is
written after the spool without waiting for the disk, and catches up with the spool when the worker starts.
"""

import logging
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import msgspec
import numpy as np

from noria.errors import DiskFull, StoreError
from noria.features.scrubbing import scrub
from noria.serving.logs.index_files import close_index, open_index
from noria.serving.logs.log import PredictionFrame, ReleaseScores, decode_frame
from noria.streams.spool import read_spool

__all__ = ["MAX_ID_BYTES", "Answer", "PredictionIndex", "rows_of_outputs"]

MAX_ID_BYTES = 256
_LOG = logging.getLogger(__name__)
_MAP_BYTES = 1 << 36  # address space, not disk: 64 GiB hold some 500 million answers
# Input digest, score, version, stamp of the frame, bytes of the release's name; the name follows, and then,
# where the model gives other than a score, its outputs as MessagePack.
_FIXED = struct.Struct("<16sdqQH")
_TAIL = struct.Struct("<qQH")  # of it, what all rows of a release in a frame share
_DIGEST, _SCORE = struct.Struct("16s"), struct.Struct("8s")
_CATCH_UP_ROWS = 10_000
_OUTPUTS = msgspec.msgpack.Encoder()
_NO_ROOM = re.compile("No space|File too large|quota")  # the driver gives no error number


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a prediction id was answered."""

    digest: bytes
    score: float
    version: int
    release: str
    outputs: Sequence[Any] = ()  # a value each, where the model gives other than one score


class PredictionIndex:
    """Answers by prediction id, in LMDB. Processes may share it; it survives kill -9.

    Parameters
    ----------
    path
        Folder of the index; made if it is not there.
    spool
        The name of the spool of which this process enters the frames: those of a deployment share an index.
    synchronous
        Whether what is entered is on the disk when it is found.
    """

    def __init__(self, path: Path, *, spool: str = "spool", synchronous: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path, self._mark = path, _mark_key(spool)
        try:
            self._env, (self._answers, self._marks) = open_index(
                path, b"answers", b"marks", map_bytes=_MAP_BYTES, databases=4, synchronous=synchronous
            )
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
            if self._waiting
            else found
        )

    def stamps(self, ids: Iterable[str]) -> list[int]:
        """Give the stamp of the frame that each id was answered in, 0 where it was not or is not told."""
        with self._env.begin(db=self._answers, buffers=True) as txn:
            values = (txn.get(each.encode()) for each in ids)
            return [0 if value is None else _FIXED.unpack_from(value)[3] for value in values]

    def enter(
        self,
        frames: Sequence[PredictionFrame],
        *,
        named: Sequence[bool],
        write: Callable[[Sequence[PredictionFrame]], None],
    ) -> list[int]:
        """Log frames and enter their answers, with nobody else entering any meanwhile.

        Where there is no room in the index the frames wait in memory, still found: they are logged, so their
        answers stand.

        Parameters
        ----------
        named
            Of each frame, whether its ids came from a client: one of them may be known by now.
        write
            Puts those that are entered into the spool. What it raises leaves the index as it was.

        Returns
        -------
        list of int
            Places of the frames that were neither logged nor entered, as an id of theirs is known.

        Raises
        ------
        StoreError
            If nothing can be entered, before anything was written.
        """
        late: list[int] = []
        entered: list[PredictionFrame] = []

        def first(txn: lmdb.Transaction) -> None:
            for place, frame in enumerate(frames):
                if named[place] and self._knows(txn, frame.ids):
                    late.append(place)
                else:
                    entered.append(frame)
            if entered:
                write(entered)

        self._enter(entered, first)
        return late

    def _knows(self, txn: lmdb.Transaction, ids: Iterable[str]) -> bool:
        return any(
            txn.get(each.encode()) is not None or (self._waiting and self._find_waiting(each) is not None)
            for each in ids
        )

    def _enter(self, frames: Sequence[PredictionFrame], first: Callable[[lmdb.Transaction], None]) -> None:
        """Put frames in one transaction, after `first`, from whose return on they are in the spool."""
        is_logged = False
        try:
            with self._env.begin(write=True, db=self._answers) as txn:
                first(txn)
                is_logged = True
                _put(txn, (*self._waiting, *frames))
            self._waiting = []
        except lmdb.Error as err:
            error = self._fault(err)
            if not is_logged:
                raise error from err
            self._waiting = [*self._waiting, *frames]
            _LOG.warning("%d frames wait to be entered: %s", len(self._waiting), error)

    def catch_up(self, spool: Path) -> int:
        """Enter the frames of the spool that a killed worker had not entered; give how many answers."""
        read, rows, batch = 0, 0, list[PredictionFrame]()
        for _, payload in read_spool(spool, after=(self._indexed_through() + 1, 0)):
            batch.append(decode_frame(payload))
            read, rows = read + batch[-1].answered_rows, rows + len(batch[-1].ids)
            if rows >= _CATCH_UP_ROWS:
                self._add(batch)
                rows, batch = 0, []
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
            txn.put(self._mark, str(segment).encode())
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
        close_index(self._path, self._env)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _indexed_through(self) -> int:
        with self._env.begin(db=self._marks) as txn:
            return int(txn.get(self._mark, b"0"))

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
                        more = rows_of_outputs(release)
                        return Answer(
                            frame.digest(row), score, release.version, release.release,
                            more[row] if more else (),
                        )  # fmt: skip
        return None

    def _add(self, frames: Iterable[PredictionFrame]) -> None:
        try:
            with self._env.begin(write=True, db=self._answers) as txn:
                _put(txn, frames)
        except lmdb.Error as err:
            raise self._fault(err) from err

    def _fault(self, err: lmdb.Error) -> StoreError:
        if isinstance(err, lmdb.DiskError | lmdb.MapFullError) or _NO_ROOM.search(str(err)):
            return DiskFull(str(self._path))
        return StoreError(f"the index of answered predictions in {self._path} cannot be written: {err}")


def _mark_key(spool: str) -> bytes:
    return b"segment" if spool == "spool" else f"segment:{spool}".encode()


def rows_of_outputs(release: ReleaseScores) -> list[list[Any]]:
    """Give the outputs of each row, where the release gives other than one score."""
    if not release.outputs:
        return []
    rows = len(release.answered)
    columns: list[Sequence[Any]] = []
    for values in release.outputs.values():
        if isinstance(values, bytes):
            columns.append(np.frombuffer(values, dtype="<f8").reshape(rows, -1).tolist())
        else:
            columns.append(values)
    return [list(row) for row in zip(*columns, strict=True)]


def _put(txn: lmdb.Transaction, frames: Iterable[PredictionFrame]) -> None:
    """The first answer of an id is the answer: a later one is never put over it."""
    items: list[tuple[bytes, bytes]] = []
    for frame in frames:
        for release in frame.releases:
            if 1 in release.answered:
                items += _items(frame, release)
    if len(items) == 1:
        txn.put(*items[0], overwrite=False)
    elif items:
        with txn.cursor() as cursor:
            cursor.putmulti(items, overwrite=False)


def _items(frame: PredictionFrame, release: ReleaseScores) -> list[tuple[bytes, bytes]]:
    """Give what is entered for the rows that a release answered, by their ids."""
    ids, digests, scores, answered = frame.ids, frame.digests, release.scores, release.answered
    name = release.release.encode()
    tail = _TAIL.pack(release.version, frame.stamp, len(name)) + name
    if not release.outputs:
        if len(ids) == 1:
            return [(ids[0].encode(), digests + scores + tail)]
        rows = zip(ids, _DIGEST.iter_unpack(digests), _SCORE.iter_unpack(scores), strict=True)
        items = [(each.encode(), digest + score + tail) for each, (digest,), (score,) in rows]
        return items if 0 not in answered else [*compress(items, answered)]
    more = rows_of_outputs(release)
    return [
        (
            each.encode(),
            frame.digest(row) + scores[8 * row : 8 * row + 8] + tail + _OUTPUTS.encode(more[row]),
        )
        for row, each in enumerate(ids)
        if answered[row]
    ]


def _decode(value: memoryview) -> Answer:
    digest, score, version, _, size = _FIXED.unpack_from(value)
    at = _FIXED.size + size
    release = str(value[_FIXED.size : at], "utf-8")
    if len(value) == at:
        return Answer(digest, score, version, release)
    return Answer(digest, score, version, release, msgspec.msgpack.decode(value[at:]))
