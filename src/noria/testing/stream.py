"""What every stream must do.

Subclass `StreamContract` and supply `url`, where no stream is yet.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from noria.streams.contract import BEFORE_ALL, MAX_EVENT_BYTES, EventStream, StreamEvent
from noria.streams.opening import open_stream

__all__ = ["StreamContract"]

_A_WHILE_S = 15.0


def _payloads(stream: EventStream, *, after: int = BEFORE_ALL) -> list[bytes]:
    return [each.payload for each in _events(stream, after=after)]


def _events(stream: EventStream, *, after: int = BEFORE_ALL, partition: int = 0) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    while some := stream.read(partition, after=found[-1].offset if found else after, rows=1_000):
        found += some
    return found


class StreamContract:
    """Subclass it, and give the fixture that follows."""

    @pytest.fixture
    def url(self) -> str:
        """Give the URL of a place for streams."""
        raise NotImplementedError

    @pytest.fixture
    def name(self) -> str:
        """Give a name that no stream has."""
        return f"s{uuid4().hex[:12]}"

    def open(self, url: str, name: str, *, root: Path, partitions: int = 1) -> EventStream:
        """Open a stream there, as another process would."""
        return open_stream(url, name, root=root, partitions=partitions)

    @pytest.fixture
    def stream(self, url: str, name: str, tmp_path: Path) -> Iterator[EventStream]:
        """Give an open stream that is not there yet."""
        opened = self.open(url, name, root=tmp_path)
        yield opened
        opened.close()

    def test_a_stream_that_is_not_there_is_empty(self, stream: EventStream) -> None:
        """Looking at it is no error, and makes nothing."""
        assert list(stream.partitions()) == [0]
        assert stream.read(0, after=BEFORE_ALL, rows=10) == []
        extent = stream.extent(0)
        assert extent.first == extent.following
        assert extent.waiting(after=BEFORE_ALL) == 0
        assert stream.append([]) == {}

    def test_what_was_appended_is_read_in_order_with_its_offsets(self, stream: EventStream) -> None:
        """Whatever bytes it has, in one append or several."""
        first = stream.append([b"one", b"", b"\xff\x00"])
        then = stream.append([b"four"], keys=[b"k\x00"])
        events = _events(stream)
        assert [each.payload for each in events] == [b"one", b"", b"\xff\x00", b"four"]
        offsets = [each.offset for each in events]
        assert offsets == sorted(set(offsets))
        assert (first, then) == ({0: offsets[2]}, {0: offsets[3]})
        assert [each.key for each in events] == [None, None, None, b"k\x00"]
        assert all(abs(each.at_us / 1e6 - time.time()) < 60 for each in events)

    def test_reading_begins_behind_any_offset_and_gives_the_same_again(self, stream: EventStream) -> None:
        """Reading takes nothing away."""
        stream.append([b"%d" % number for number in range(30)])
        events = _events(stream)
        for place in (29, 0, 17, 3, 28):
            assert _events(stream, after=events[place].offset) == events[place + 1 :]

    def test_a_reading_gives_no_more_than_was_asked_for(self, stream: EventStream) -> None:
        """By rows, and by bytes: then at least one event, and not many more than fit."""
        stream.append([b"x" * 1_000] * 50)
        assert len(stream.read(0, after=BEFORE_ALL, rows=7)) == 7
        for _ in range(9):
            stream.append([b"y" * 300_000] * 3)
        last = _events(stream)[49].offset
        some = stream.read(0, after=last, rows=27, size_bytes=700_000, wait_s=_A_WHILE_S)
        assert 1 <= len(some) <= 20

    def test_the_extent_tells_what_is_there(self, stream: EventStream) -> None:
        """From the first offset up to the one that comes next."""
        for count in (3, 5, 1):
            stream.append([b"x"] * count)
        events = _events(stream)
        extent = stream.extent(0)
        assert (extent.first, extent.following) == (events[0].offset, events[-1].offset + 1)
        assert extent.waiting(after=BEFORE_ALL) == 9
        assert extent.waiting(after=events[5].offset) == 3
        assert extent.waiting(after=events[8].offset) == 0

    def test_a_reader_waits_for_what_comes(self, stream: EventStream) -> None:
        """And gets it soon after it was appended, without asking anew."""
        stream.append([b"before"])
        last = _events(stream)[-1].offset
        writer = threading.Timer(0.2, lambda: stream.append([b"late"]))
        writer.start()
        began = time.monotonic()
        assert [each.payload for each in stream.read(0, after=last, rows=5, wait_s=_A_WHILE_S)] == [b"late"]
        assert time.monotonic() - began < _A_WHILE_S
        writer.join()

    def test_nothing_comes_of_waiting_for_nothing(self, stream: EventStream) -> None:
        """Once the time is up, an empty answer."""
        stream.append([b"x"])
        last = _events(stream)[-1].offset
        began = time.monotonic()
        assert stream.read(0, after=last, rows=5, wait_s=0.2) == []
        assert time.monotonic() - began >= 0.2

    def test_what_was_appended_is_there_after_opening_again(
        self, stream: EventStream, url: str, name: str, tmp_path: Path
    ) -> None:
        """For others as well, while it is open."""
        stream.append([b"one", b"two"])
        other = self.open(url, name, root=tmp_path)
        assert _payloads(other) == [b"one", b"two"]
        other.append([b"three"])
        other.close()
        assert _payloads(stream) == [b"one", b"two", b"three"]

    def test_many_append_at_once(self, stream: EventStream, url: str, name: str, tmp_path: Path) -> None:
        """Nothing is lost, doubled or torn, and what one of them appends stays in its order."""
        stream.append([b"begin"])
        others = [self.open(url, name, root=tmp_path) for _ in range(2)]

        def write(who: int) -> None:
            target = [stream, *others][who % 3]
            for number in range(20):
                target.append([b"%d:%d" % (who, 2 * number), b"%d:%d" % (who, 2 * number + 1)])

        threads = [threading.Thread(target=write, args=(who,)) for who in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = [each.split(b":") for each in _payloads(stream)[1:]]
        for who in range(5):
            assert [int(number) for name, number in told if int(name) == who] == list(range(40))
        for other in others:
            other.close()

    def test_an_event_that_is_too_large_is_refused_with_the_limit(self, stream: EventStream) -> None:
        """And nothing of the append is there; one that just fits is."""
        with pytest.raises(ValueError, match=str(MAX_EVENT_BYTES)):
            stream.append([b"small", b"x" * (MAX_EVENT_BYTES + 1)])
        stream.append([b"x" * MAX_EVENT_BYTES])
        assert [len(each) for each in _payloads(stream)] == [MAX_EVENT_BYTES]
