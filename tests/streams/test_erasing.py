"""Events go from the middle of a local stream for good; the others keep their places."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import StoreError
from noria.streams.backends.log import LogStream
from noria.streams.contract import BEFORE_ALL, StreamEvent
from noria.streams.erasing import ErasableStream

SECRET = b"zoe@example.org"


def read_all(
    stream: LogStream, partition: int = 0, *, rows: int = 50
) -> list[tuple[int, bytes, bytes | None]]:
    found: list[StreamEvent] = []
    while some := stream.read(partition, after=found[-1].offset if found else BEFORE_ALL, rows=rows):
        found += some
    return [(each.offset, each.payload, each.key) for each in found]


def of(*payloads: bytes) -> Callable[[Sequence[StreamEvent]], list[bool]]:
    return lambda events: [each.payload in payloads for each in events]


def bytes_in(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"bb", SECRET]), st.sampled_from([None, b"", b"k"])), max_size=4
        ),
        max_size=8,
    ),
    rows=st.integers(1, 5),
    again=st.booleans(),
)
def test_what_is_left_keeps_offsets_and_keys_for_whoever_reads(
    frames: list[list[tuple[bytes, bytes | None]]], rows: int, again: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer, reader = (LogStream(Path(folder), name="s", segment_bytes=60) for _ in range(2))
        for frame in frames:
            if frame:
                writer.append([each for each, _ in frame], keys=[key for _, key in frame])
        whole = read_all(reader)
        extent = writer.extent(0)
        count = writer.erase(of(SECRET))
        assert count == sum(payload == SECRET for _, payload, _ in whole)
        left = [each for each in whole if each[1] != SECRET]
        for stream in (writer, reader, LogStream(Path(folder), name="s")):
            assert read_all(stream, rows=rows) == left
            assert stream.extent(0) == extent
        assert SECRET not in bytes_in(Path(folder))
        if again:
            assert writer.erase(of(SECRET)) == 0
        writer.append([b"last"])
        assert read_all(reader, rows=rows) == [*left, (extent.following, b"last", None)]


def test_a_consumer_goes_on_behind_what_was_erased(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s")
    stream.append([b"one", SECRET])
    stream.append([SECRET, SECRET])
    stream.erase(of(SECRET))
    assert [each.payload for each in stream.read(0, after=BEFORE_ALL, rows=10)] == [b"one"]
    for _ in range(3):
        assert stream.read(0, after=0, rows=10) == []
    assert stream.read(0, after=3, rows=10) == []
    stream.append([b"two"])
    assert [each.offset for each in stream.read(0, after=0, rows=10)] == [4]
    assert [each.offset for each in stream.read(0, after=BEFORE_ALL, rows=10)] == [0, 4]


def test_others_append_where_they_did(tmp_path: Path) -> None:
    first, second = LogStream(tmp_path, name="s"), LogStream(tmp_path, name="s")
    first.append([b"one"])
    second.append([SECRET])
    first.erase(of(SECRET))
    assert second.append([b"three"]) == {0: 2}
    assert first.append([b"four"]) == {0: 3}
    assert [each[:2] for each in read_all(second)] == [(0, b"one"), (2, b"three"), (3, b"four")]


def test_all_partitions_are_looked_through(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", partitions=3)
    keys = [b"%d" % number for number in range(30)]
    stream.append([SECRET] * 30, keys=keys)
    assert isinstance(stream, ErasableStream)
    assert stream.erase(of(SECRET), dry_run=True) == 30
    assert sum(len(read_all(stream, number)) for number in range(3)) == 30
    assert stream.erase(of(SECRET)) == 30
    assert SECRET not in bytes_in(tmp_path)


def test_what_a_kill_left_is_swept_and_a_stream_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    LogStream(tmp_path / "none", name="s").erase(of(SECRET))
    assert not (tmp_path / "none").exists()
    stream = LogStream(tmp_path / "s", name="s")
    stream.append([b"one"])
    stray = tmp_path / "s" / "0" / "00000000000000000000.log.erasing"
    stray.write_bytes(SECRET)
    assert stream.erase(of(SECRET)) == 0
    assert not stray.exists()


def test_a_damaged_file_stays_as_it_is(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", segment_bytes=10)
    stream.append([SECRET])
    stream.append([b"two"])
    path = sorted((tmp_path / "0").glob("*.log"))[0]
    path.write_bytes(path.read_bytes().replace(b"zoe", b"eve"))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="damaged"):
        LogStream(tmp_path, name="s").erase(of(SECRET))
    assert path.read_bytes() == before
