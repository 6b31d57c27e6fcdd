"""What became of predictions, on its way into the lake: each outcome in a spool, and known again.

A worker and a project write spools of their own beside each other and share an index, so that what is told
twice is recorded once, whoever is told. The index is written after the spool, and catches up with it.
"""

import re
import secrets
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb
import msgspec

from noria.errors import Conflict, DiskFull, StoreError
from noria.features.scrubbing import scrub
from noria.serving.logs.index_files import close_index, open_index
from noria.streams.spool import Spool, read_spool

__all__ = [
    "OUTCOME_INDEX",
    "Outcome",
    "OutcomeBook",
    "OutcomeFrame",
    "OutcomeIndex",
    "decode_outcomes",
    "encode_outcomes",
    "outcome_spool",
]

OUTCOME_INDEX = "outcome-index"
_PROJECT = "outcomes-project"
_MAP_BYTES = 1 << 34  # address space, not disk
_LENGTH = struct.Struct(">H")
_INSTANT = struct.Struct(">Q")
_ZERO = 1 << 63  # instants before 1970 sort before those after
_NO_ROOM = re.compile("No space|File too large|quota")  # the driver gives no error number
_BATCH = 1_000


def outcome_spool(worker: int | None = None) -> str:
    """Give the name of the spool of a worker, or of whoever records without a server."""
    if worker is None:
        return _PROJECT
    return "outcomes" if worker == 0 else f"outcomes-{worker}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a prediction.

    Parameters
    ----------
    value
        A number, such as 0 or 1; a text for a label; None where it is known that none will come.
    known_at
        Since when it is known, microseconds since 1970; None: since now.
    """

    prediction_id: str
    value: float | str | None
    known_at: int | None = None


class OutcomeFrame(msgspec.Struct, array_like=True, frozen=True):
    """Outcomes that were recorded together. Fields are only ever added, at the end, with a default."""

    ids: list[str]
    outcomes: list[float | None]
    known_at: list[int]
    labels: list[str | None] = []  # one each where any outcome is a text
    stamp: int = 0  # tells the frames of one deployment apart, whoever wrote them; 0: not told

    def values(self) -> list[float | str | None]:
        """Give the outcomes, labels among them."""
        if not self.labels:
            return list(self.outcomes)
        pairs = zip(self.outcomes, self.labels, strict=True)
        return [number if label is None else label for number, label in pairs]


class _Known(msgspec.Struct, array_like=True, frozen=True):
    value: float | str | None
    stamp: int


_ENCODER = msgspec.msgpack.Encoder()
_FRAMES = msgspec.msgpack.Decoder(OutcomeFrame)
_KNOWN = msgspec.msgpack.Decoder(_Known)


def encode_outcomes(outcomes: Sequence[Outcome], *, stamp: int = 0) -> bytes:
    """Write outcomes, each with its instant, as one frame."""
    labels = [each.value if isinstance(each.value, str) else None for each in outcomes]
    return _ENCODER.encode(
        OutcomeFrame(
            ids=[each.prediction_id for each in outcomes],
            outcomes=[None if isinstance(each.value, str) else each.value for each in outcomes],
            known_at=[each.known_at or 0 for each in outcomes],
            labels=labels if any(each is not None for each in labels) else [],
            stamp=stamp,
        )
    )


def decode_outcomes(data: bytes) -> OutcomeFrame:
    """Read what `encode_outcomes` wrote. Raises `StoreError` if it is something else."""
    try:
        return _FRAMES.decode(data)
    except msgspec.MsgspecError as err:
        raise StoreError(f"a frame of outcomes cannot be read ({err}); it is of another program") from err


class OutcomeIndex:
    """Which outcomes of a deployment are recorded, in LMDB. Processes may share it; it survives kill -9.

    Parameters
    ----------
    path
        Its folder; made if it is not there.
    synchronous
        Whether what is entered is on the disk when it is found.
    """

    def __init__(self, path: Path, *, synchronous: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._env, (self._db,) = open_index(
                path, b"outcomes", map_bytes=_MAP_BYTES, databases=3, synchronous=synchronous
            )
        except lmdb.Error as err:
            raise self._fault(err) from err

    def enter(
        self, outcomes: Iterable[Outcome], *, now: int, write: Callable[[list[Outcome], int], None]
    ) -> int:
        """Record outcomes, with nobody else recording any meanwhile; give how many were recorded before.

        An outcome without an instant is known since `now`, or right after the last one of its prediction
        where that is later, so that it counts; one that tells what the last one told is recorded already.

        Parameters
        ----------
        write
            Puts those that are new into the spool, under a stamp. What it raises leaves the index as it was.

        Raises
        ------
        Conflict
            If an outcome of a prediction is recorded as another one of the same instant; nothing is written.
        DiskFull, StoreError
            If they cannot be entered: those that `write` took may be recorded, again they are so once.
        """
        new: list[Outcome] = []
        repeated, stamp = 0, secrets.randbits(63) | 1
        try:
            with self._env.begin(write=True, db=self._db) as txn:
                for each in outcomes:
                    dated = _dated(txn, each, now)
                    if dated is None:
                        repeated += 1
                        continue
                    assert dated.known_at is not None
                    new.append(dated)
                    txn.put(
                        _key(dated.prediction_id, dated.known_at), _ENCODER.encode(_Known(dated.value, stamp))
                    )
                if new:
                    write(new, stamp)
        except lmdb.Error as err:
            raise self._fault(err) from err
        return repeated

    def catch_up(self, spool: Path) -> None:
        """Enter what is in a spool and was not entered by whoever was killed."""
        batch: list[OutcomeFrame] = []
        for _, payload in read_spool(spool):
            batch.append(decode_outcomes(payload))
            if len(batch) >= _BATCH:
                self._add(batch)
                batch = []
        self._add(batch)

    def stamps(self, ids: Sequence[str], known_at: Sequence[int]) -> list[int]:
        """Give the stamp of the frame that each outcome is recorded in, 0 where that is not told."""
        with self._env.begin(db=self._db) as txn:
            found = [txn.get(_key(*each)) for each in zip(ids, known_at, strict=True)]
        return [0 if each is None else _KNOWN.decode(each).stamp for each in found]

    def sync(self) -> None:
        """Return when all is on the disk."""
        self._env.sync(True)

    def list_ids(self) -> Iterator[str]:
        """List the predictions of which an outcome is recorded."""
        last = b""
        with self._env.begin(db=self._db) as txn:
            for key in txn.cursor().iternext(values=False):
                found = _id_of(bytes(key))
                if found != last:
                    yield found.decode()
                last = found

    def forget(self, ids: Collection[str]) -> int:
        """Take outcomes out for good, and leave no byte of their ids behind; give how many there were.

        Raises
        ------
        StoreError
            If it cannot be written; it is as it was.
        """
        gone = {each.encode() for each in ids}
        try:
            held = self._write_anew(gone) if gone else 0
            scrub(self._env)
        except lmdb.Error as err:
            raise self._fault(err) from err
        return held

    def _write_anew(self, gone: Collection[bytes]) -> int:
        """Copy what stays into a database beside it and back, in one transaction: pages keep old keys."""
        beside = self._env.open_db(b"beside")
        held = 0
        with self._env.begin(write=True) as txn:
            for source, target in ((self._db, beside), (beside, self._db)):
                with txn.cursor(target) as written:
                    for key, value in txn.cursor(source):
                        if _id_of(bytes(key)) in gone:
                            held += 1
                        else:
                            written.put(key, value, append=True)
                txn.drop(source, delete=source is beside)
        return held

    def close(self) -> None:
        """Let go of it."""
        close_index(self._path, self._env)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, frames: Iterable[OutcomeFrame]) -> None:
        try:
            with self._env.begin(write=True, db=self._db) as txn:
                for frame in frames:
                    rows = zip(frame.ids, frame.known_at, frame.values(), strict=True)
                    for prediction_id, known_at, value in rows:
                        known = _ENCODER.encode(_Known(value, frame.stamp))
                        txn.put(_key(prediction_id, known_at), known, overwrite=False)
        except lmdb.Error as err:
            raise self._fault(err) from err

    def _fault(self, err: lmdb.Error) -> StoreError:
        if isinstance(err, lmdb.DiskError | lmdb.MapFullError) or _NO_ROOM.search(str(err)):
            return DiskFull(str(self._path))
        return StoreError(f"the index of outcomes in {self._path} cannot be used: {err}")


class OutcomeBook:
    """Where outcomes of one deployment are recorded: a spool of one writer, and the index that all share.

    What `record` has returned survives kill -9. One thread at a time.

    Parameters
    ----------
    folder
        Of the deployment.
    spool
        The name of the spool; see `outcome_spool`.
    synchronous
        Whether it survives a loss of power, too.
    wait_s
        How long to wait for another process to let go of the spool.

    Raises
    ------
    LeaseHeld
        If another process writes this spool.
    StoreError
        If the spool or the index is damaged.
    """

    def __init__(self, folder: Path, *, spool: str, synchronous: bool = False, wait_s: float = 0.0) -> None:
        self.path = folder / spool
        self._synchronous = synchronous
        self._spool = Spool(self.path, wait_s=wait_s)
        try:
            self._index = OutcomeIndex(folder / OUTCOME_INDEX, synchronous=synchronous)
            self._index.catch_up(self.path)
        except BaseException:
            self._spool.close()
            raise

    def record(self, outcomes: Iterable[Outcome], *, now: int) -> int:
        """Record outcomes; give how many of them were recorded before. Raises as `OutcomeIndex.enter`."""
        return self._index.enter(outcomes, now=now, write=self._write)

    def rotate(self) -> int:
        """Close the current segment of the spool and give the number of the last closed one."""
        self._spool.sync()
        segment = self._spool.rotate()
        self._index.sync()
        return segment

    def close(self) -> None:
        """Write to the disk and let go."""
        self._spool.sync()
        self._spool.close()
        self._index.sync()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, outcomes: list[Outcome], stamp: int) -> None:
        self._spool.append(encode_outcomes(outcomes, stamp=stamp), sync=self._synchronous)


def _prefix(prediction_id: str) -> bytes:
    name = prediction_id.encode()
    return _LENGTH.pack(len(name)) + name


def _key(prediction_id: str, known_at: int) -> bytes:
    return _prefix(prediction_id) + _INSTANT.pack(known_at + _ZERO)


def _id_of(key: bytes) -> bytes:
    return key[_LENGTH.size : -_INSTANT.size]


def _dated(txn: lmdb.Transaction, outcome: Outcome, now: int) -> Outcome | None:
    """Give an outcome with its instant; None where it is recorded."""
    if outcome.known_at is None:
        last = _last(txn, outcome.prediction_id)
        if last is None:
            return msgspec.structs.replace(outcome, known_at=now)
        known_at, value = last
        if _is_same(value, outcome.value):
            return None
        return msgspec.structs.replace(outcome, known_at=max(now, known_at + 1))
    found = txn.get(_key(outcome.prediction_id, outcome.known_at))
    if found is None:
        return outcome
    if not _is_same(_KNOWN.decode(found).value, outcome.value):
        raise Conflict(
            "an outcome is recorded as another one of the same prediction and instant; a correction has a "
            "later `known_at`"
        )
    return None


def _last(txn: lmdb.Transaction, prediction_id: str) -> tuple[int, float | str | None] | None:
    """Give the last instant at which an outcome became known, and what it was."""
    prefix = _prefix(prediction_id)
    with txn.cursor() as cursor:
        there = cursor.prev() if cursor.set_range(prefix + b"\xff" * (_INSTANT.size + 1)) else cursor.last()
        key = bytes(cursor.key()) if there else b""
        if len(key) != len(prefix) + _INSTANT.size or not key.startswith(prefix):
            return None
        (instant,) = _INSTANT.unpack(key[len(prefix) :])
        return instant - _ZERO, _KNOWN.decode(cursor.value()).value


def _is_same(one: float | str | None, other: float | str | None) -> bool:
    return type(one) is type(other) and one == other
