import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import DiskFull, LeaseHeld, StoreError
from noria.streams.spool import Position, Spool, drop_segments, read_spool

WRITER = """
import os, sys
from noria.streams.spool import Spool
spool = Spool(sys.argv[1], segment_bytes=20_000)
start = int(sys.argv[2])
for number in range(start, start + 1_000_000):
    spool.append(b"%d:" % number + b"x" * (number % 200))
    os.write(1, b"%d\\n" % number)
"""


def payloads(folder: Path, after: tuple[int, int] = (0, 0)) -> list[bytes]:
    return [payload for _, payload in read_spool(folder, after=after)]


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as spool:
        spool.append(b"one")
        for each in (b"", b"three"):
            spool.append(each)
        spool.sync()
        assert payloads(tmp_path / "s") == [b"one", b"", b"three"]
    assert payloads(tmp_path / "nothing") == []


@given(st.lists(st.lists(st.binary(max_size=40), max_size=6), max_size=6), st.integers(1, 120))
@settings(max_examples=40, deadline=None)
def test_reading_goes_on_behind_any_position(batches: list[list[bytes]], segment_bytes: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for batch in batches:  # each by a writer of its own
            with Spool(name, segment_bytes=segment_bytes) as spool:
                for each in batch:
                    spool.append(each)
        whole = list(read_spool(name))
        assert [payload for _, payload in whole] == [each for batch in batches for each in batch]
        for place, (position, _) in enumerate(whole):
            assert list(read_spool(name, after=position)) == whole[place + 1 :]


def test_rotating_closes_a_segment_and_dropping_removes_closed_ones(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"a")
        assert spool.rotate() == 1
        assert spool.rotate() == 1  # nothing new to close
        spool.append(b"b")
        assert spool.rotate() == 2
        spool.append(b"c")
        drop_segments(tmp_path, through=1)
        assert payloads(tmp_path) == [b"b", b"c"]
        drop_segments(tmp_path, through=99)
        assert payloads(tmp_path) == [b"c"]
        assert spool.position.segment == 3
    with Spool(tmp_path) as again:
        assert again.position == Position(3, 13)


def test_a_segment_that_cannot_be_begun_leaves_the_log_in_the_one_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with Spool(folder, segment_bytes=10) as spool:
        spool.append(b"a")
        folder.rename(tmp_path / "away")
        spool.append(b"b")
        with (tmp_path / "other").open("wb") as other:  # may get a number that was let go of
            spool.append(b"c")
            assert os.fstat(other.fileno()).st_size == 0
        (tmp_path / "away").rename(folder)
        spool.append(b"d")
        spool.append(b"e")
        assert payloads(folder) == [b"a", b"b", b"c", b"d", b"e"]
        assert len(list(folder.glob("*.log"))) > 1


def test_a_second_process_is_told_who_writes(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        Spool(tmp_path)
    Spool(tmp_path).close()


def test_a_writer_can_wait_for_the_other(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    threading.Timer(0.1, first.close).start()
    Spool(tmp_path, wait_s=5.0).close()


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 14])
def test_a_torn_tail_is_passed_over_and_cut_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"kept")
        spool.append(b"torn")
    segment = tmp_path / "00000001.log"
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert payloads(tmp_path) == [b"kept"]
    with Spool(tmp_path) as spool:
        spool.append(b"next")
    assert payloads(tmp_path) == [b"kept", b"next"]


def test_zeros_that_a_loss_of_power_leaves_are_a_torn_tail(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"kept")
    segment = tmp_path / "00000001.log"
    segment.write_bytes(segment.read_bytes() + bytes(100))
    with Spool(tmp_path) as spool:
        spool.append(b"next")
    assert payloads(tmp_path) == [b"kept", b"next"]


@pytest.mark.parametrize("place", [0, 4, 8, 13])
def test_damage_in_the_middle_is_an_error_and_nothing_is_cut(tmp_path: Path, place: int) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"one")
        spool.append(b"two")
    segment = tmp_path / "00000001.log"
    data = bytearray(segment.read_bytes())
    data[place] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(StoreError, match="damaged at byte 0"):
        payloads(tmp_path)
    with pytest.raises(StoreError):
        Spool(tmp_path)
    assert segment.read_bytes() == data


def test_a_cut_segment_that_is_not_the_last_is_an_error(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"one")
        spool.rotate()
        spool.append(b"two")
    first = tmp_path / "00000001.log"
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(StoreError, match="cut off"):
        payloads(tmp_path)
    with pytest.raises(StoreError, match="was cut"):
        payloads(tmp_path, after=(1, 999))


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for attempt in range(6):
        start = acknowledged[-1] + 1 if acknowledged else 0
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 * (attempt + 1))
        os.kill(child.pid, signal.SIGKILL)
        told = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        acknowledged = list(range(start, int(told[-1]) + 1)) if told else [start]
        numbers = [int(each.split(b":")[0]) for each in payloads(tmp_path)]
        assert set(range(acknowledged[-1] + 1)) <= set(numbers)
        assert len(numbers) <= numbers[-1] + 1 + attempt + 1  # at most the frame after the last word, again
        assert all(each.endswith(b"x" * (int(each.split(b":")[0]) % 200)) for each in payloads(tmp_path))


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    script = """
import resource, sys
from noria.errors import DiskFull
from noria.streams.spool import Spool
spool = Spool(sys.argv[1])
spool.append(b"kept")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    spool.append(b"x" * 1_000)
except DiskFull as err:
    print(err)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
spool.append(b"after")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert "no space left" in done.stdout
    assert payloads(tmp_path) == [b"kept", b"after"]
    assert issubclass(DiskFull, StoreError)


def test_the_spool_loads_nothing_heavy() -> None:
    heavy = "('numpy', 'pyarrow', 'duckdb', 'sqlalchemy')"
    script = f"import sys, noria.streams.spool; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
