"""Streams in Kafka, or in what speaks its protocol: one topic of the stream's name.

Partitions are read from given offsets, outside of any consumer group: the offset lies with the table.
Events are written by an idempotent producer and acknowledged by all replicas that are in step.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from noria.errors import ConfigError, StoreError
from noria.streams.contract import BEFORE_ALL, Extent, StreamEvent, check_place, check_sizes

__all__ = ["KafkaStream", "open_kafka"]

_ANSWER_S = 5.0
_APPEND_S = 10.0  # how long an append tries
_AT_ONCE = 10_000
_FIRST = 16  # events by which it is seen how large they are
_LOOK_S = 0.05
_NO_TOPIC_S = 0.5
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class KafkaStream:
    """A topic; see `noria.streams.contract.EventStream`.

    Parameters
    ----------
    servers
        `HOST:PORT`, or several with commas between.
    name
        Of the topic, which is made when it is first appended to.
    partitions
        How many it gets then.
    """

    def __init__(self, servers: str, name: str, *, partitions: int = 1) -> None:
        self.name = name
        self._servers, self._wanted = servers, partitions
        self._guard = threading.Lock()
        self._admin = AdminClient(self._settings())
        self._producer: Producer | None = None
        self._readers: dict[tuple[int, str], _Reader] = {}

    def partitions(self) -> Sequence[int]:
        """Number the partitions of the topic, or those that it would get."""
        try:
            topics = self._admin.list_topics(timeout=_ANSWER_S).topics  # to ask for one may make it
        except KafkaException as err:
            raise self._away(err.args[0]) from err
        return sorted(topics[self.name].partitions) if self.name in topics else range(self._wanted)

    def append(
        self, payloads: Sequence[bytes], *, keys: Sequence[bytes | None] | None = None
    ) -> dict[int, int]:
        """Produce events and wait until each is acknowledged."""
        check_sizes(payloads)
        if not payloads:
            return {}
        with self._guard:
            if self._producer is None:
                self._make()
                self._producer = Producer(
                    self._settings()
                    | {
                        "enable.idempotence": True,
                        "message.max.bytes": 1 << 20,  # what brokers take by default
                        "message.timeout.ms": int(_APPEND_S * 1_000),
                        "linger.ms": 2,
                    }
                )
            return self._produce(self._producer, payloads, keys)

    def read(
        self,
        partition: int,
        *,
        after: int,
        rows: int,
        size_bytes: int = 64 << 20,
        wait_s: float = 0.0,
    ) -> list[StreamEvent]:
        """Give the events behind an offset; those of transactions that were not committed are left out."""
        try:
            return self._reader(partition, "events").read(after, rows, size_bytes, wait_s)
        except _Gone:
            check_place(self.name, partition, self.extent(partition), after=after)
            raise StoreError(
                f"stream {self.name!r}: the broker has no offset {after + 1} in partition {partition}"
            ) from None
        except KafkaException as err:
            if err.args[0].code() not in _NO_TOPIC:
                raise self._away(err.args[0]) from err
        if after > BEFORE_ALL:
            check_place(self.name, partition, Extent(0, 0), after=after)
        time.sleep(min(wait_s, _NO_TOPIC_S))
        return []

    def extent(self, partition: int) -> Extent:
        """Tell from where to where a partition reaches."""
        try:
            return self._reader(partition, "extent").extent()
        except KafkaException as err:
            if err.args[0].code() in _NO_TOPIC:
                return Extent(0, 0)
            raise self._away(err.args[0]) from err

    def forget(self, partition: int, *, through: int, keep_bytes: int) -> None:
        """Do nothing: the topic's retention decides."""

    def close(self) -> None:
        """Close the connections."""
        with self._guard:
            for each in self._readers.values():
                each.close()
            self._readers.clear()
            self._producer = None

    def _reader(self, partition: int, use: str) -> "_Reader":
        with self._guard:
            found = self._readers.get((partition, use))
            if found is None:
                found = self._readers[partition, use] = _Reader(self._settings(), self.name, partition)
            return found

    def _settings(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._servers,
            "log_level": 0,
            "error_cb": lambda error: None,  # the calls that meet an error tell of it
            "socket.connection.setup.timeout.ms": 2_000,
            "reconnect.backoff.max.ms": 500,
        }

    def _away(self, error: KafkaError) -> StoreError:
        return StoreError(f"stream {self.name!r}: the broker at {self._servers} is away: {error.str()}")

    def _make(self) -> None:
        """Make the topic, unless it is there."""
        new = NewTopic(self.name, num_partitions=self._wanted, replication_factor=-1)
        try:
            self._admin.create_topics([new], request_timeout=_ANSWER_S)[self.name].result(_ANSWER_S)
        except KafkaException as err:
            if err.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._away(err.args[0]) from err
        except TimeoutError as err:
            raise StoreError(f"stream {self.name!r}: the broker at {self._servers} does not answer") from err

    def _produce(
        self, producer: Producer, payloads: Sequence[bytes], keys: Sequence[bytes | None] | None
    ) -> dict[int, int]:
        last: dict[int, int] = {}
        faults: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                faults.append(error)
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None
            last[partition] = max(offset, last.get(partition, offset))

        try:
            for place, payload in enumerate(payloads):
                key = None if keys is None else keys[place]
                producer.produce(self.name, payload, key=key, on_delivery=delivered)
                if place % _AT_ONCE == _AT_ONCE - 1:
                    producer.flush(_APPEND_S + _ANSWER_S)
            left = producer.flush(_APPEND_S + _ANSWER_S)
        except (KafkaException, BufferError) as err:
            self._producer = None
            raise StoreError(
                f"stream {self.name!r}: the broker at {self._servers} does not take events: {err}"
            ) from err
        if faults or left:
            self._producer = None  # what it still holds goes with it
            raise self._away(faults[0] if faults else KafkaError(KafkaError._MSG_TIMED_OUT))
        return last


class _Gone(Exception):
    """The broker has no such offset."""


class _Reader:
    """Reads one partition. One thread at a time."""

    def __init__(self, settings: dict[str, Any], topic: str, partition: int) -> None:
        self._topic, self._partition = topic, partition
        self._guard = threading.Lock()
        self._next: int | None = None  # what comes next by itself
        self._is_at_end = False
        self._trouble: KafkaError | None = None  # of the connection
        self._consumer = Consumer(
            settings
            | {
                "error_cb": self._notice,
                "group.id": "noria",  # has to be named, though nothing is committed to it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": 32_768,
            }
        )

    def close(self) -> None:
        self._consumer.close()

    def read(self, after: int, rows: int, size_bytes: int, wait_s: float) -> list[StreamEvent]:
        with self._guard:
            if self._next != after + 1:
                self._go_to(after + 1)
            began = time.monotonic()
            events: list[StreamEvent] = []
            size = 0
            while len(events) < rows and size < size_bytes:
                fit = (size_bytes - size) // (1 + size // len(events)) if events else _FIRST
                most = max(1, min(rows - len(events), fit, _AT_ONCE))
                for message in self._consumer.consume(most, timeout=_LOOK_S):
                    error = message.error()
                    if error is None:
                        event = _event(message)
                        events.append(event)
                        size += len(event.payload)
                        self._next, self._is_at_end = event.offset + 1, False
                    else:
                        self._meet(error)
                waited_s = time.monotonic() - began
                if self._is_at_end and (events or waited_s >= wait_s):
                    break
                if not self._is_at_end and waited_s > max(wait_s, _ANSWER_S) and not events:
                    self._next = None
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if not events and self._trouble is not None:
                self._trouble = None
                self._consumer.list_topics(self._topic, timeout=_ANSWER_S)  # raises if it is not over
            return events

    def extent(self) -> Extent:
        place = TopicPartition(self._topic, self._partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_S)
        if high <= low:
            return Extent(low, high)
        # some brokers tell the beginning of the newest batch as the end: read on from there
        while some := self.read(high - 1, _AT_ONCE, 1 << 30, 0.0):
            high = some[-1].offset + 1
        return Extent(low, high)

    def _go_to(self, offset: int) -> None:
        self._next = None
        place = TopicPartition(self._topic, self._partition, offset)
        low, _ = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_S)  # raises without a topic
        if offset <= 0:
            place.offset = low
        elif offset < low:
            raise _Gone
        self._consumer.assign([place])
        self._next, self._is_at_end = offset, False

    def _notice(self, error: KafkaError) -> None:
        self._trouble = error

    def _meet(self, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._is_at_end = True
            return
        self._next = None
        if error.code() in _GONE:
            raise _Gone
        raise KafkaException(error)


def open_kafka(url: str, name: str, *, root: Path, partitions: int) -> KafkaStream:
    """Open a topic of the broker that `kafka://HOST:PORT` names."""
    servers = urlsplit(url).netloc
    if ":" not in servers:
        raise ConfigError(f"no broker in {url!r}; write kafka://HOST:PORT")
    return KafkaStream(servers, name, partitions=partitions)


def _event(message: Message) -> StreamEvent:
    offset, key, value = message.offset(), message.key(), message.value()
    assert offset is not None
    millis = message.timestamp()[1]
    return StreamEvent(
        offset,
        b"" if value is None else bytes(value),
        millis * 1_000 if millis > 0 else time.time_ns() // 1_000,
        None if key is None else bytes(key),
    )
