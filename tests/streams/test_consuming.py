"""Events into a table: exactly once, whatever is wrong with them, whoever else is at it."""

import dataclasses
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.streams.conftest import Consumer, clicks, event

from noria import check
from noria.errors import BatchBlocked, ConfigError, LeaseHeld, NoriaError, SourceError, StoreError
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.streams.backends.log import LogStream
from noria.streams.consume import committed_offset, consume
from noria.streams.consuming import Committed, HeldUp, Told
from noria.streams.contract import StreamEvent
from noria.streams.declarations import Stream

SMALL = Stream("clicks", into=clicks(), rows=10)


def test_events_land_in_micro_batches_and_the_table_holds_the_offset(
    consumer: Consumer, log: LogStream
) -> None:
    log.append([event(number) for number in range(25)])
    told = consumer.run(log, declared=SMALL)
    assert [(each.offset, each.events, each.accepted, each.lag_events) for each in told] == [
        (9, 10, 10, 15), (19, 10, 10, 5), (24, 5, 5, 0),
    ]  # fmt: skip
    assert told[0].lag_s > 0
    assert told[-1].lag_s == 0
    assert consumer.ids() == [f"e{number:06d}" for number in range(25)]
    assert committed_offset(SMALL, 0, consumer.lake) == 24
    rows = consumer.lake.read("clicks")
    assert rows["at"].to_pylist()[0] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert rows["known_at"].null_count == 0


def test_who_starts_again_goes_on_behind_what_has_landed(consumer: Consumer, log: LogStream) -> None:
    for start in range(0, 60, 20):
        log.append([event(number) for number in range(start, start + 20)])
        assert sum(each.events for each in consumer.run(log, declared=SMALL)) == 20
    assert consumer.run(log) == []
    assert consumer.ids() == [f"e{number:06d}" for number in range(60)]
    assert [each.payload["source"] for each in consumer.ledger.list_events(verb="dataset.ingested")][:1] == [
        "stream clicks/0"
    ]


def test_what_is_wrong_is_set_aside_with_its_reason_and_holds_nothing_up(
    consumer: Consumer, log: LogStream
) -> None:
    bad = [
        b"",
        b"not json",
        b'{"id":"\xff"}',
        event(1, user="x"),
        event(2, extra=1),
        event(3, x=1_000),
        event(4, id=None),
    ]
    log.append([*bad, event(5)])
    (told,) = consumer.run(log)
    assert (told.events, told.accepted, told.rejected) == (8, 1, 7)
    assert consumer.ids() == ["e000005"]
    reasons = [reason for reason, _ in consumer.rejected()]
    for part in (
        "empty",
        "no JSON",
        "no UTF-8",
        "got `str`",
        "unknown field",
        "between(x, 0, 100)",
        "not_null(id)",
    ):
        assert sum(part in reason for reason in reasons) == 1, part
    assert dict(consumer.rejected())[next(each for each in reasons if "no JSON" in each)] == "not json"


def test_a_micro_batch_of_nothing_but_wrong_events_moves_on(consumer: Consumer, log: LogStream) -> None:
    log.append([b"x"] * 3)
    consumer.run(log)
    log.append([event(1)])
    consumer.run(log)
    assert consumer.ids() == ["e000001"]
    assert len(consumer.rejected()) == 3
    assert consumer.run(log) == []


def test_a_field_that_is_missing_is_null_and_the_contract_decides(consumer: Consumer, log: LogStream) -> None:
    log.append([b'{"id":"a","at":"2024-05-01T10:00:00Z"}', b'{"id":"b","x":1}'])
    consumer.run(log)
    assert consumer.ids() == ["a"]
    assert consumer.rejected()[0][0] == "not_null(at)"


def test_an_event_that_a_producer_sent_twice_lands_once(consumer: Consumer, log: LogStream) -> None:
    log.append([event(1), event(2), event(1)])
    consumer.run(log)
    log.append([event(2), event(3)])
    told = consumer.run(log)
    assert sorted(consumer.ids()) == ["e000001", "e000002", "e000003"]
    assert (told[0].accepted, told[0].repeated, told[0].rejected) == (1, 1, 0)


def test_late_events_are_rows_like_others_and_are_counted(consumer: Consumer, log: LogStream) -> None:
    declared = Stream("clicks", into=clicks(), rows=2, late_after="1m")
    hours = ["10:00:00", "10:05:00", "10:04:30", "10:03:59", "11:00:00", "09:00:00"]
    log.append([event(number, at=f"2024-05-01T{hour}Z") for number, hour in enumerate(hours)])
    told = consumer.run(log, declared=declared)
    assert [each.late for each in told] == [0, 1, 1]  # against the newest of the commits before
    assert len(consumer.ids()) == 6


def test_a_producer_whose_clock_is_a_little_ahead_breaks_no_contract(
    consumer: Consumer, log: LogStream
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    log.append([event(1, at=soon.isoformat()), event(2)])
    (told,) = consumer.run(log)
    assert (told.accepted, told.ahead) == (2, 0)
    rows = consumer.lake.read("clicks")
    assert rows["known_at"].to_pylist() == [soon, soon]  # not before it happened


def test_a_producer_whose_clock_is_far_ahead_makes_no_others_late(consumer: Consumer, log: LogStream) -> None:
    declared = Stream("clicks", into=clicks(), rows=2)
    log.append([event(1, at="2999-01-01T00:00:00Z"), event(2), event(3), event(4)])
    told = consumer.run(log, declared=declared)
    assert [(each.ahead, each.late) for each in told] == [(1, 0), (0, 0)]
    assert consumer.ids() == ["e000002", "e000003", "e000004"]
    assert consumer.rejected()[0][0] == "known_at not before at"


def test_a_rule_that_blocks_stops_the_consumer_before_the_batch(consumer: Consumer, log: LogStream) -> None:
    blocking = clicks(checks=[check.between("x", 0, 100, severity="block")])
    declared = Stream("clicks", into=blocking, rows=2)
    log.append([event(0), event(1), event(2, x=999), event(3)])
    with pytest.raises(BatchBlocked, match="nothing of it was written") as caught:
        consumer.run(log, declared=declared)
    assert "999" in caught.value.example
    assert "999" not in str(caught.value)
    assert consumer.ids() == ["e000000", "e000001"]
    loosened = dataclasses.replace(declared, into=clicks(checks=[]))
    consumer.run(log, declared=loosened)
    assert len(consumer.ids()) == 4


def test_types_have_to_be_known(consumer: Consumer, log: LogStream) -> None:
    import pyarrow as pa

    log.append([event(1)])
    untyped = Stream("clicks", into=clicks(schema=None, checks=[]))
    with pytest.raises(ConfigError, match="declare its schema, or ingest a batch first"):
        consumer.run(log, declared=untyped)
    at = pa.array([datetime(2024, 5, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    first = pa.table({"id": ["z"], "user": [1], "x": [1.0], "at": at})
    consumer.lake.ingest(untyped.into, first, batch=1)
    consumer.run(log, declared=untyped)
    assert sorted(consumer.ids()) == ["e000001", "z"]


def test_partitions_are_consumed_side_by_side(consumer: Consumer, tmp_path: Path) -> None:
    log = LogStream(tmp_path / "wide", name="clicks", partitions=3)
    for start in range(0, 90, 30):
        log.append(
            [event(number) for number in range(start, start + 30)],
            keys=[b"%d" % number for number in range(30)],
        )
    told = consumer.run(log, declared=Stream("clicks", into=clicks(), partitions=3, rows=10))
    assert {each.partition for each in told} == {0, 1, 2}
    assert sorted(consumer.ids()) == [f"e{number:06d}" for number in range(90)]
    assert consumer.run(log) == []
    log.close()


def test_a_partition_has_one_consumer_at_a_time(consumer: Consumer, log: LogStream, ledger: Ledger) -> None:
    log.append([event(1)])
    lease = ledger.acquire_lease("stream:clicks/0", ttl_s=30)
    with pytest.raises(LeaseHeld, match="stream:clicks/0"):
        consumer.run(log)
    ledger.release_lease(lease)
    consumer.run(log)
    assert consumer.ids() == ["e000001"]
    ledger.release_lease(ledger.acquire_lease("stream:clicks/0", ttl_s=30))  # it was given back


def test_two_consumers_without_a_lease_land_each_event_once(
    consumer: Consumer, log: LogStream, tmp_path: Path, ledger: Ledger
) -> None:
    """Each looks where the table stands, reads on, and finds the other one there when it commits."""
    log.append([event(number) for number in range(400)])
    others = [Lake(str(tmp_path / "lake"), ledger=ledger) for _ in range(2)]
    faults: list[NoriaError] = []

    def work(lake: Lake, rows: int) -> None:
        try:
            Consumer(lake, ledger).run(log, declared=Stream("clicks", into=clicks(), rows=rows), leases=None)
        except NoriaError as err:
            faults.append(err)

    threads = [
        threading.Thread(target=work, args=(lake, rows)) for lake, rows in zip(others, (7, 11), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sorted(consumer.ids()) == [f"e{number:06d}" for number in range(400)]
    assert committed_offset(SMALL, 0, consumer.lake) == 399
    for each in others:
        each.close()


def test_a_consumer_that_lost_its_lease_and_was_overtaken_stops(
    consumer: Consumer, log: LogStream, ledger: Ledger, tmp_path: Path
) -> None:
    log.append([event(number) for number in range(30)])
    other = Lake(str(tmp_path / "lake"), ledger=ledger)

    class Slow:
        """Between reading and committing, another consumer takes over."""

        def __init__(self) -> None:
            self.name, self.is_over = "clicks", False

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        def read(self, partition: int, **asked: Any) -> list[StreamEvent]:
            found = log.read(partition, **asked)
            if not self.is_over:
                self.is_over = True
                with ledger.database.write() as connection:
                    from sqlalchemy import text

                    connection.execute(text("delete from leases"))
                ledger.acquire_lease("stream:clicks/0", ttl_s=30, holder="another")
                Consumer(other, ledger).run(log, declared=SMALL, leases=None)
            return found

    with pytest.raises(LeaseHeld, match="another"):
        consumer.run(Slow(), declared=Stream("clicks", into=clicks(), rows=25))
    assert sorted(consumer.ids()) == [f"e{number:06d}" for number in range(30)]
    other.close()


def test_events_that_are_gone_stop_the_consumer_until_somebody_accepts_it(
    consumer: Consumer, tmp_path: Path, ledger: Ledger
) -> None:
    log = LogStream(tmp_path / "short", name="clicks", segment_bytes=200)
    for number in range(10):
        log.append([event(number)])
    consumer.run(log)
    for number in range(10, 40):
        log.append([event(number)])
    log.forget(0, through=25, keep_bytes=0)  # a retention that was too short
    first = log.extent(0).first
    with pytest.raises(SourceError, match=r"are gone that were not read.*--accept-gap"):
        consumer.run(log)
    consumer.run(log, accept_gap=True)
    assert consumer.ids() == [f"e{number:06d}" for number in [*range(10), *range(first, 40)]]
    (told,) = ledger.list_events(verb="stream.gap_accepted")
    assert told.payload == {"partition": 0, "after": 9, "next": first}
    log.close()


def test_a_stream_that_was_cut_or_made_anew_is_noticed(consumer: Consumer, tmp_path: Path) -> None:
    log = LogStream(tmp_path / "cut", name="clicks")
    log.append([event(number) for number in range(10)])
    consumer.run(log)
    log.close()
    shutil.rmtree(tmp_path / "cut")
    log = LogStream(tmp_path / "cut", name="clicks")
    log.append([event(100)])
    with pytest.raises(SourceError, match="ends before offset 1, but was read up to 9"):
        consumer.run(log)
    log.close()


class Flaky:
    """A stream that is away for a while, now and then."""

    def __init__(self, log: LogStream, *, every: int) -> None:
        self.name, self._log, self._every, self._calls = "clicks", log, every, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, partition: int, **asked: Any) -> list[StreamEvent]:
        self._calls += 1
        if self._calls % self._every == 0:
            raise StoreError("the broker is away")
        return self._log.read(partition, **asked)


def test_a_broker_that_is_away_holds_up_and_loses_nothing(
    consumer: Consumer, log: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.streams.consume._RETRY_S", (0.01, 0.02))
    log.append([event(number) for number in range(60)])
    stop = threading.Event()
    told: list[Told] = []

    def tell(each: Told) -> None:
        told.append(each)
        if isinstance(each, Committed) and each.offset == 59:
            stop.set()

    consumer.run(Flaky(log, every=3), declared=SMALL, until_empty=False, stop=stop, tell=tell)
    held = [each for each in told if isinstance(each, HeldUp)]
    assert {(each.partition, each.reason) for each in held} == {(0, "the broker is away")}
    assert held[0].again_in_s == 0.01
    assert consumer.ids() == [f"e{number:06d}" for number in range(60)]
    log.append([event(60)])
    with pytest.raises(StoreError, match="away"):
        consumer.run(Flaky(log, every=1))  # `until_empty` waits for nobody


def test_a_full_disk_holds_up_and_the_same_events_land_later(
    consumer: Consumer, log: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noria.errors import DiskFull

    monkeypatch.setattr("noria.streams.consume._RETRY_S", (0.01,))
    log.append([event(number) for number in range(20)])
    real, left = consumer.lake.ingest, [3]

    def full(*given: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise DiskFull("/lake")
        return real(*given, **named)

    monkeypatch.setattr(consumer.lake, "ingest", full)
    stop = threading.Event()
    told: list[Told] = []

    def tell(each: Told) -> None:
        told.append(each)
        if isinstance(each, Committed) and each.offset == 19:
            stop.set()

    consumer.run(log, until_empty=False, declared=SMALL, stop=stop, tell=tell)
    assert sum(isinstance(each, HeldUp) for each in told) == 3
    assert consumer.ids() == [f"e{number:06d}" for number in range(20)]


def test_a_few_events_land_once_they_have_waited_long_enough(consumer: Consumer, log: LogStream) -> None:
    stop = threading.Event()
    landed = threading.Event()
    declared = Stream("clicks", into=clicks(), every="1s")

    def tell(told: Told) -> None:
        landed.set()

    worker = threading.Thread(
        target=lambda: consumer.run(log, declared=declared, until_empty=False, stop=stop, tell=tell)
    )
    worker.start()
    began = time.monotonic()
    log.append([event(1)])
    assert landed.wait(20)
    assert time.monotonic() - began >= 0.9
    log.append([event(2)])
    stop.set()  # what was read by now still lands; what was not stays in the log
    worker.join()
    consumer.run(log)
    assert consumer.ids() == ["e000001", "e000002"]


def test_a_consumer_holds_no_more_than_a_micro_batch(log: LogStream, consumer: Consumer) -> None:
    """However much waits: what is read at once is bounded by rows and by bytes."""
    asked: list[tuple[int, int]] = []

    class Watched(Flaky):
        def read(self, partition: int, **given: Any) -> list[StreamEvent]:
            asked.append((given["rows"], given["size_bytes"]))
            return super().read(partition, **given)

    log.append([event(number) for number in range(95)])
    told = consumer.run(Watched(log, every=10_000), declared=SMALL)
    assert max(each.events for each in told) == 10
    assert max(rows for rows, _ in asked) <= 10
    assert max(size for _, size in asked) <= 64 << 20


def test_consumed_events_are_forgotten_by_the_log_as_declared(consumer: Consumer, tmp_path: Path) -> None:
    log = LogStream(tmp_path / "small", name="clicks", segment_bytes=1_000)
    for number in range(200):
        log.append([event(number)])
    consumer.run(log, declared=Stream("clicks", into=clicks(), rows=50, keep_bytes=3_000))
    size = sum(each.stat().st_size for each in (tmp_path / "small" / "0").glob("*.log"))
    assert size <= 5_000
    assert log.extent(0).following == 200
    assert len(consumer.ids()) == 200
    assert consumer.run(log) == []
    log.close()


def test_consume_needs_no_ledger(tmp_path: Path, log: LogStream) -> None:
    lake = Lake(str(tmp_path / "bare"), ledger=None)
    log.append([event(1)])
    stop = threading.Event()
    consume(SMALL, log, lake, leases=None, tell=lambda told: None, stop=stop, until_empty=True)
    assert lake.read("clicks").num_rows == 1
    lake.close()
