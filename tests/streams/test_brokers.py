"""Consuming from real brokers, and what is special about each."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from tests.servers.kafka import kafka_url
from tests.servers.nats import NatsServer, free_port, nats_server
from tests.streams.conftest import Consumer, clicks, event

from noria.errors import ConfigError, SourceError, StoreError
from noria.streams.consuming import HeldUp
from noria.streams.contract import BEFORE_ALL, EventStream, Extent
from noria.streams.declarations import Stream

__all__ = ["kafka_url", "nats_server"]

pytest.importorskip("nats")
pytest.importorskip("confluent_kafka")

from noria.streams.backends.kafka import KafkaStream
from noria.streams.backends.nats import NatsStream


def on_server(server: NatsServer, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something with JetStream that no stream of noria does."""
    import nats

    async def run() -> Any:
        connection = await nats.connect(server.url)
        try:
            return await work(connection.jetstream())
        finally:
            await connection.close()

    return asyncio.run(run())


def test_nats_is_consumed_in_batches_larger_than_servers_like(
    nats_server: NatsServer, consumer: Consumer
) -> None:
    """1,000 unacknowledged events are where a durable consumer stalls by default."""
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([event(number) for number in range(6_000)] + [b"broken"])
    declared = Stream("clicks", into=clicks(), rows=4_000)
    told = consumer.run(stream, declared=declared)
    assert [each.events for each in told] == [4_000, 2_001]
    assert consumer.run(stream, declared=declared) == []
    assert len(set(consumer.ids())) == len(consumer.ids()) == 6_000
    assert consumer.rejected()[0][1] == "broken"
    stream.close()


def test_events_that_others_publish_are_read_as_well(nats_server: NatsServer, consumer: Consumer) -> None:
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([event(1)])

    async def publish(jetstream: Any) -> None:
        await jetstream.publish("clicks", event(2))

    on_server(nats_server, publish)
    consumer.run(stream)
    assert consumer.ids() == ["e000001", "e000002"]
    stream.close()


def test_a_purge_of_what_has_not_landed_is_noticed(nats_server: NatsServer, consumer: Consumer) -> None:
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([event(number) for number in range(10)])
    consumer.run(stream)
    stream.append([event(number) for number in range(10, 20)])

    async def purge(jetstream: Any) -> None:
        await jetstream.purge_stream("clicks", seq=16)

    on_server(nats_server, purge)
    assert stream.extent(0) == Extent(16, 21)
    with pytest.raises(SourceError, match="begins with offset 16, wanted is 11"):
        stream.read(0, after=10, rows=5)
    with pytest.raises(SourceError, match="accept-gap"):
        consumer.run(stream)
    consumer.run(stream, accept_gap=True)
    assert len(consumer.ids()) == 15
    with pytest.raises(SourceError, match="ends before offset 21, but was read up to 40"):
        stream.read(0, after=40, rows=5)
    stream.close()


def test_a_message_that_was_deleted_in_the_middle_is_passed_over(nats_server: NatsServer) -> None:
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([b"1", b"2", b"3"])

    async def delete(jetstream: Any) -> None:
        await jetstream.delete_msg("clicks", 2)

    on_server(nats_server, delete)
    assert [each.offset for each in stream.read(0, after=BEFORE_ALL, rows=9)] == [1, 3]
    assert [each.offset for each in stream.read(0, after=1, rows=9)] == [3]
    stream.close()


def test_a_stream_that_may_not_be_read_directly_says_how_to_allow_it(nats_server: NatsServer) -> None:
    from nats.js.api import StreamConfig

    async def make(jetstream: Any) -> None:
        await jetstream.add_stream(StreamConfig(name="clicks", subjects=["clicks"], allow_direct=False))
        await jetstream.publish("clicks", b"x")

    on_server(nats_server, make)
    stream = NatsStream(nats_server.url, "clicks")
    with pytest.raises(ConfigError, match="nats stream edit clicks --allow-direct"):
        stream.read(0, after=BEFORE_ALL, rows=1)
    stream.close()


def test_a_subject_that_another_stream_has_is_refused(nats_server: NatsServer) -> None:
    from nats.js.api import StreamConfig

    async def make(jetstream: Any) -> None:
        await jetstream.add_stream(StreamConfig(name="other", subjects=["clicks"]))

    on_server(nats_server, make)
    stream = NatsStream(nats_server.url, "clicks")
    with pytest.raises(ConfigError, match="cannot be made: subjects overlap"):
        stream.append([b"x"])
    stream.close()


def test_an_append_outlasts_a_server_that_is_killed_and_comes_back(nats_server: NatsServer) -> None:
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([b"before"])
    nats_server.kill()
    back = threading.Timer(0.5, nats_server.start)
    back.start()
    assert stream.append([b"%d" % number for number in range(700)]) == {0: 701}
    back.join()
    payloads = [each.payload for each in stream.read(0, after=BEFORE_ALL, rows=1_000)]
    assert payloads == [b"before", *(b"%d" % number for number in range(700))]
    stream.close()


def test_a_consumer_outlasts_a_server_that_is_killed_and_comes_back(
    nats_server: NatsServer, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.streams.consume._RETRY_S", (0.05,))
    stream = NatsStream(nats_server.url, "clicks")
    stream.append([event(1)])
    stop, news = threading.Event(), threading.Condition()
    told: list[object] = []

    def tell(each: object) -> None:
        with news:
            told.append(each)
            news.notify_all()

    def wait_for(count: int, kind: type) -> None:
        with news:
            assert news.wait_for(lambda: sum(isinstance(each, kind) for each in told) >= count, 60)

    declared = Stream("clicks", into=clicks(), every="1s")
    worker = threading.Thread(
        target=lambda: consumer.run(stream, declared=declared, until_empty=False, stop=stop, tell=tell)
    )
    worker.start()
    with news:
        assert news.wait_for(lambda: len(told) == 1, 60)
    nats_server.kill()
    wait_for(1, HeldUp)
    nats_server.start()
    other = NatsStream(nats_server.url, "clicks")
    other.append([event(2)])
    deadline = time.monotonic() + 60
    while consumer.ids() != ["e000001", "e000002"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    worker.join()
    held = next(each for each in told if isinstance(each, HeldUp))
    assert f"the NATS server at {nats_server.url} is away" in held.reason
    stream.close()
    other.close()


def test_partitions_of_kafka_are_consumed(kafka_url: str, consumer: Consumer) -> None:
    servers = kafka_url.removeprefix("kafka://")
    stream = KafkaStream(servers, "wide", partitions=3)
    stream.append([event(number) for number in range(500)], keys=[b"k%d" % (n % 20) for n in range(500)])
    declared = Stream("wide", into=clicks(), partitions=3, rows=100)
    told = consumer.run(stream, declared=declared)
    assert list(stream.partitions()) == [0, 1, 2]
    assert {each.partition for each in told} == {0, 1, 2}
    stream.append([event(number) for number in range(500, 600)] + [b"broken"])
    consumer.run(stream, declared=declared)
    assert consumer.run(stream, declared=declared) == []
    assert sorted(consumer.ids()) == [f"e{number:06d}" for number in range(600)]
    assert len(consumer.rejected()) == 1
    stream.close()


def test_a_topic_that_was_made_anew_is_noticed(kafka_url: str) -> None:
    stream = KafkaStream(kafka_url.removeprefix("kafka://"), "nothing")
    with pytest.raises(SourceError, match="ends before offset 0, but was read up to 5"):
        stream.read(0, after=5, rows=1)
    stream.close()


def test_brokers_that_are_away_are_told_of_by_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.streams.backends.nats._APPEND_S", 0.2)
    monkeypatch.setattr("noria.streams.backends.kafka._ANSWER_S", 1.0)
    port = free_port()
    nats, kafka = NatsStream(f"nats://127.0.0.1:{port}", "s"), KafkaStream(f"127.0.0.1:{port}", "s")
    streams: list[EventStream] = [nats, kafka]
    for stream in streams:
        looks: list[Callable[[], object]] = [
            stream.partitions,
            partial(stream.extent, 0),
            partial(stream.append, [b"x"]),
            partial(stream.read, 0, after=BEFORE_ALL, rows=1),
        ]
        for look in looks:
            with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{port}"):
                look()
        stream.close()
