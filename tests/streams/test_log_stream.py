"""What is special about a stream that lives in a folder: kills, damage, full disks, files that go."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import DiskFull, SourceError, StoreError
from noria.streams.backends.log import LogStream
from noria.streams.contract import BEFORE_ALL, Extent, StreamEvent

WRITER = """
import os, sys
from pathlib import Path
from noria.streams.backends.log import LogStream
stream = LogStream(Path(sys.argv[1]), name="s", segment_bytes=20_000)
who, start = sys.argv[2], int(sys.argv[3])
for number in range(start, start + 1_000_000, 2):
    stream.append([b"%s:%d:%s" % (who.encode(), each, b"x" * (each % 200)) for each in (number, number + 1)])
    os.write(1, b"%d\\n" % (number + 1))
"""


def everything(stream: LogStream, *, after: int = BEFORE_ALL) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    while some := stream.read(0, after=found[-1].offset if found else after, rows=50):
        found += some
    return found


def files(folder: Path) -> list[Path]:
    return sorted((folder / "0").glob("*.log"))


def test_offsets_count_from_0_over_all_files(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", segment_bytes=300)
    for number in range(40):
        stream.append([b"%d" % number, b"x" * 50])
    assert len(files(tmp_path)) > 3
    assert [each.offset for each in everything(stream)] == list(range(80))
    assert stream.extent(0) == Extent(0, 80)
    for after in (0, 13, 40, 78, 79):
        assert [each.offset for each in everything(stream, after=after)] == list(range(after + 1, 80))
    stream.close()


@given(
    st.lists(
        st.lists(st.tuples(st.none() | st.binary(max_size=5), st.binary(max_size=40)), max_size=6), max_size=8
    ),
    st.integers(1, 400),
    st.integers(1, 7),
)
@settings(max_examples=40, deadline=None)
def test_any_appends_by_two_writers_are_read_in_their_order(
    appends: list[list[tuple[bytes | None, bytes]]], segment_bytes: int, rows: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        writers = [LogStream(Path(name), name="s", segment_bytes=segment_bytes) for _ in range(2)]
        reader = LogStream(Path(name), name="s")
        found: list[StreamEvent] = []
        for turn, append in enumerate(appends):
            writers[turn % 2].append([payload for _, payload in append], keys=[key for key, _ in append])
            found += reader.read(0, after=found[-1].offset if found else BEFORE_ALL, rows=rows)
        while some := reader.read(0, after=found[-1].offset if found else BEFORE_ALL, rows=rows):
            found += some
        wanted = [each for append in appends for each in append]
        assert [(each.key, each.payload) for each in found] == wanted
        assert [each.offset for each in found] == list(range(len(wanted)))
        for each in (*writers, reader):
            each.close()


def test_events_of_a_key_go_to_one_partition_in_their_order(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", partitions=3)
    keys = [b"k%d" % (number % 5) for number in range(60)]
    last = stream.append([b"%d" % number for number in range(60)], keys=keys)
    stream.append([b"no key"])
    stream.close()
    again = LogStream(tmp_path, name="s")  # what is there decides
    assert list(again.partitions()) == [0, 1, 2]
    read = {number: again.read(number, after=BEFORE_ALL, rows=100) for number in range(3)}
    assert sum(map(len, read.values())) == 61
    homes = {each.key: number for number, events in read.items() for each in events if each.key}
    for key, number in homes.items():
        mine = [int(each.payload) for each in read[number] if each.key == key]
        assert len(mine) == 12
        assert mine == sorted(mine)
    assert all(again.extent(number).following >= offset + 1 for number, offset in last.items())
    again.close()


@pytest.mark.parametrize("cut", [1, 5, 12, 30, 40])
def test_a_torn_tail_is_passed_over_and_cut_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    stream = LogStream(tmp_path, name="s")
    stream.append([b"kept"])
    stream.append([b"torn"])
    stream.close()
    file = files(tmp_path)[0]
    file.write_bytes(file.read_bytes()[:-cut])
    reader, writer = LogStream(tmp_path, name="s"), LogStream(tmp_path, name="s")
    assert [each.payload for each in everything(reader)] == [b"kept"]
    assert writer.append([b"next"]) == {0: 1}
    assert [each.payload for each in everything(reader)] == [b"kept", b"next"]
    reader.close()
    writer.close()


def test_damage_is_an_error_that_names_file_and_place(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s")
    stream.append([b"one"])
    stream.append([b"two"])
    file = files(tmp_path)[0]
    whole = file.read_bytes()
    for place in (0, 13, len(whole) - 1):
        data = bytearray(whole)
        data[place] ^= 0xFF
        file.write_bytes(data)
        again = LogStream(tmp_path, name="s")
        with pytest.raises(StoreError, match=r"00\.log is damaged at byte \d+"):
            everything(again)
        with pytest.raises(StoreError, match="restore it"):
            again.append([b"three"])
        assert file.read_bytes() == data
        again.close()
    stream.close()


def test_a_lost_file_in_the_middle_is_noticed(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", segment_bytes=100)
    for number in range(20):
        stream.append([b"%d" % number * 30])
    files(tmp_path)[1].unlink()
    with pytest.raises(StoreError, match=r"\.log is gone, yet a later file exists"):
        everything(stream)
    stream.close()


def test_events_are_forgotten_by_whole_files_and_only_once_they_landed(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", segment_bytes=500)
    for number in range(60):
        stream.append([b"%02d" % number * 20])
    before = len(files(tmp_path))
    stream.forget(0, through=29, keep_bytes=1 << 30)
    assert len(files(tmp_path)) == before  # there is room
    stream.forget(0, through=29, keep_bytes=0)
    first = stream.extent(0).first
    assert 0 < first <= 30
    assert [each.offset for each in everything(stream)] == list(range(first, 60))
    stream.forget(0, through=59, keep_bytes=0)
    assert len(files(tmp_path)) == 1  # the newest stays: it knows the next offset
    assert stream.append([b"x"]) == {0: 60}
    stream.close()


def test_what_is_gone_before_it_was_read_is_an_error_that_counts_it(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", segment_bytes=100)
    for number in range(20):
        stream.append([b"%d" % number * 30])
    stream.forget(0, through=15, keep_bytes=0)
    first = stream.extent(0).first
    with pytest.raises(SourceError, match=rf"begins with offset {first}, wanted is 3.*accept-gap"):
        stream.read(0, after=2, rows=1)
    assert (
        stream.read(0, after=BEFORE_ALL, rows=1)[0].offset == first
    )  # who never read asks for what there is
    stream.close()


def test_a_stream_that_ends_before_what_was_read_is_an_error(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s")
    stream.append([b"one", b"two"])
    with pytest.raises(SourceError, match="ends before offset 2, but was read up to 7"):
        stream.read(0, after=7, rows=1)
    with pytest.raises(SourceError, match="ends before offset 0"):
        LogStream(tmp_path / "other", name="s").read(0, after=7, rows=1)
    stream.close()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from noria.errors import DiskFull
from noria.streams.backends.log import LogStream
stream = LogStream(Path(sys.argv[1]), name="s")
stream.append([b"kept"])
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit))
try:
    stream.append([b"x" * 1_000])
except DiskFull as err:
    print(err)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print(stream.append([b"after"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert "no space left on the disk" in done.stdout
    assert "{0: 1}" in done.stdout
    assert [each.payload for each in everything(LogStream(tmp_path, name="s"))] == [b"kept", b"after"]
    assert issubclass(DiskFull, StoreError)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_producers_that_are_killed_lose_and_double_nothing_that_was_acknowledged(
    tmp_path: Path, kills: int
) -> None:
    """Three processes append at once; one of them is killed, and goes on behind what it was told."""
    rng = random.Random(20240501)
    acknowledged = dict.fromkeys("abc", -1)
    children: dict[str, subprocess.Popen[bytes]] = {}

    def start(who: str) -> None:
        command = [sys.executable, "-c", WRITER, str(tmp_path), who, str(acknowledged[who] + 1)]
        children[who] = subprocess.Popen(command, stdout=subprocess.PIPE)

    def kill(who: str) -> None:
        child = children[who]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        told = child.stdout.read().split()
        child.stdout.close()
        if told:
            acknowledged[who] = int(told[-1])

    for who in "abc":
        start(who)
    for _ in range(kills):
        who = rng.choice("abc")
        time.sleep(0.25 + rng.uniform(0.0, 0.1))  # most of it is the start of Python
        kill(who)
        start(who)
    time.sleep(0.3)
    for who in "abc":
        kill(who)
    stream = LogStream(tmp_path, name="s")
    events = everything(stream)
    assert [each.offset for each in events] == list(range(len(events)))
    told = [each.payload.split(b":") for each in events]
    assert all(len(rest) == int(number) % 200 for _, number, rest in told)
    for who in "abc":
        mine = [int(number) for name, number, _ in told if name == who.encode()]
        assert set(range(acknowledged[who] + 1)) <= set(mine)
        extra = len(mine) - len(set(mine))
        assert extra <= 2 * (
            kills + 1
        )  # an append that was killed before it was acknowledged, and made again
    print(f"{kills} kills of 3 producers: {len(events):,} events, each acknowledged one there")
    stream.close()


def test_a_producer_waits_for_another_one_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("noria.streams.backends.log._LOCK_WAIT_S", 0.05)
    stream = LogStream(tmp_path, name="s")
    stream.append([b"one"])
    held = os.open(tmp_path / "0" / "lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="another process has appended"):
        stream.append([b"two"])
    os.close(held)
    assert stream.append([b"two"]) == {0: 1}
    stream.close()


def test_a_partition_counts_though_none_before_it_was_ever_appended_to(tmp_path: Path) -> None:
    stream = LogStream(tmp_path, name="s", partitions=3)
    key = next(key for key in map(str.encode, map(str, range(99))) if zlib.crc32(key) % 3 == 2)
    assert stream.append([b"event"], keys=[key]) == {2: 0}
    again = LogStream(tmp_path, name="s", partitions=1)
    assert list(again.partitions()) == [0, 1, 2]
    assert [each.payload for each in again.read(2, after=BEFORE_ALL, rows=5)] == [b"event"]
    assert again.read(0, after=BEFORE_ALL, rows=5) == []
