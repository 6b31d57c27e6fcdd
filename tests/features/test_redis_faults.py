"""The online store on Redis when writers are killed and paused, answers lost, and Redis away or emptied."""

import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest
from tests.features.redis_trips import END, LINES, SPEC, VIEW, Reader, WriterProcess, offline, online, trips
from tests.servers.redis import RedisServer, own_redis, redis_server, redis_url

from noria.clock import to_micros
from noria.errors import LeaseHeld, StoreError

redis = pytest.importorskip("redis", reason="redis-py is not installed: the extra `redis` brings it")

from noria.features.backends.redis import RedisOnlineStore  # noqa: E402

__all__ = ["own_redis", "redis_server", "redis_url"]


def _opened(url: str, *, within_s: float = 10) -> RedisOnlineStore:
    """Open a store to write as soon as the lease of a writer that died has run out."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return RedisOnlineStore(url)
        except LeaseHeld:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _kill_writers(url: str, *, kills: int, rows: int) -> None:
    made, known, done = random.Random(kills), trips(rows), 0
    url = url.replace("lease_ms=2000", "lease_ms=300")
    for _ in range(kills):
        writer = WriterProcess(url, rows)
        assert writer.first == done
        writer.say(str(rows))  # as many changes as it can
        heard = done
        until = time.monotonic() + made.random() * 0.4
        while time.monotonic() < until:
            heard = writer.hear()
        writer.process.send_signal(signal.SIGKILL)
        while (more := writer.hear()) is not None:
            heard = more
        writer.close_killed()
        with closing(_opened(url)) as store:
            position = store.position() or 0
            assert heard <= position <= heard + 3  # nothing that was acknowledged is lost
            np.testing.assert_array_equal(online(store), offline(known.slice(0, position)))
            done = position
    with closing(_opened(url)) as store:
        store.apply([(SPEC, store.prepare(VIEW, known), done, rows)], position=rows)
        np.testing.assert_array_equal(online(store), offline(known))
    assert 0 < done < rows


def test_killed_writers_lose_no_change_and_double_none(redis_url: str) -> None:
    _kill_writers(redis_url, kills=3, rows=9_000)


@pytest.mark.soak
def test_many_killed_writers_lose_no_change_and_double_none(redis_url: str) -> None:
    _kill_writers(redis_url, kills=25, rows=60_000)


def test_a_second_writer_learns_who_the_first_is(redis_url: str) -> None:
    first = WriterProcess(redis_url, 30)
    with pytest.raises(LeaseHeld, match=f"{first.name} on {socket.gethostname()}"):
        RedisOnlineStore(redis_url)
    time.sleep(2.5)  # longer than a lease: it is renewed without a change
    with pytest.raises(LeaseHeld, match=first.name):
        RedisOnlineStore(redis_url)
    assert first.ask("1") == 3
    first.close()
    _opened(redis_url).close()


@pytest.mark.parametrize("ended", [True, False])
def test_a_writer_that_was_paused_does_not_write_over_another(redis_url: str, *, ended: bool) -> None:
    """Neither while the other one is there nor after it."""
    url, rows = redis_url.replace("lease_ms=2000", "lease_ms=300"), trips(60)
    paused = WriterProcess(url, 60)
    assert paused.ask("1") == 3
    paused.process.send_signal(signal.SIGSTOP)
    with closing(_opened(url)) as store:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 3, 60)], position=60)
        if not ended:
            paused.process.send_signal(signal.SIGCONT)
            assert paused.ask("1").startswith("LeaseHeld: ")
            assert paused.ask("1").startswith("LeaseHeld: ")
    if ended:
        paused.process.send_signal(signal.SIGCONT)
        told = paused.ask("1")
        assert told.startswith("StoreError: ")
        assert "at position 60" in told
        assert "is not as this writer left it" in paused.ask("1")
    paused.close()
    with closing(_opened(url)) as store:
        assert store.position() == 60
        np.testing.assert_array_equal(online(store), offline(rows))


def test_redis_that_is_killed_and_comes_back_with_its_data(own_redis: RedisServer) -> None:
    rows, url = trips(9_000), f"{own_redis.url}?pause_ms=50&timeout_ms=2000"
    with RedisOnlineStore(url) as store, closing(Reader(url)) as reader:
        prepared = store.prepare(VIEW, rows)
        done = 0
        for turn in range(3):
            store.apply([(SPEC, prepared, done, done + 5)], position=done + 5)
            done += 5
            killer = threading.Timer(0.02 * turn, own_redis.kill)
            killer.start()
            with pytest.raises(StoreError):
                while True:
                    store.apply([(SPEC, prepared, done, done + 5)], position=done + 5)
                    done += 5
            killer.join()
            assert reader.read().startswith("StoreError: the online store redis://127.0.0.1:")
            own_redis.start()
            time.sleep(0.06)
            position = store.position()
            assert position in (done, done + 5)  # the change in flight was made, or was not
            done = position
            np.testing.assert_array_equal(reader.read(), offline(rows.slice(0, done)))
        assert 15 < done < 9_000
        store.apply([(SPEC, prepared, done, 9_000)], position=9_000)
        np.testing.assert_array_equal(reader.read(), offline(rows))


def test_redis_that_comes_back_empty_is_told_until_the_view_is_loaded(own_redis: RedisServer) -> None:
    rows = trips(90)
    with RedisOnlineStore(own_redis.url) as store:
        store.load(VIEW, rows.slice(0, 60), position=60)
        prepared = store.prepare(VIEW, rows)
        reader = Reader(own_redis.url)
        assert not isinstance(reader.read(), str)
        own_redis.command("FLUSHALL")
        assert "is empty: Redis was flushed" in reader.read()
        with pytest.raises(StoreError, match=r"is empty: Redis was flushed.*materialize"):
            store.apply([(SPEC, prepared, 60, 61)], position=61)
        with pytest.raises(StoreError, match="flushed"):  # it does not begin anew from nothing
            store.apply([(SPEC, prepared, 61, 62)], position=62)
        assert store.position() is None
        store.load(VIEW, rows.slice(0, 60), position=60)
        store.apply([(SPEC, prepared, 60, 90)], position=90)
        np.testing.assert_array_equal(reader.read(), offline(rows))
        reader.close()


def test_redis_that_comes_back_with_older_data_is_told(own_redis: RedisServer) -> None:
    rows = trips(90)
    with RedisOnlineStore(own_redis.url) as store, redis.Redis.from_url(own_redis.url) as client:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 0, 30)], position=30)
        kept = {key: client.get(key) for key in client.scan_iter() if not key.endswith(b":writer")}
        store.apply([(SPEC, prepared, 30, 60)], position=60)
        client.flushall()
        client.mset(kept)
        for _ in range(2):
            with pytest.raises(StoreError, match="older data"):
                store.apply([(SPEC, prepared, 60, 90)], position=90)
    with RedisOnlineStore(own_redis.url) as store:
        assert store.position() == 30
        store.apply([(SPEC, prepared, 30, 90)], position=90)
        np.testing.assert_array_equal(online(store), offline(rows))


def test_a_redis_that_hangs_is_waited_for_once(own_redis: RedisServer) -> None:
    with RedisOnlineStore(own_redis.url) as store:
        store.load(VIEW, trips(90))
    assert own_redis.process is not None
    url = f"{own_redis.url}?timeout_ms=150&pause_ms=400"
    with closing(RedisOnlineStore(url, readonly=True)) as store:
        online(store)
        own_redis.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(StoreError, match="timeout_ms=150"):
            online(store)
        assert 0.14 < time.monotonic() - began < 1.5
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreError, match="asked again in"):
                online(store)
        assert time.monotonic() - began < 0.3
        own_redis.process.send_signal(signal.SIGCONT)
        time.sleep(0.45)
        np.testing.assert_array_equal(online(store), offline(trips(90)))


class Proxy:
    """Stands between a client and Redis; loses changes on their way there, or the answers to them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.lose_requests = self.lose_answers = 0
        self._stopped = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._stopped = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stopped:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, suppress(OSError):
            lost = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    if not (data := ready.recv(1 << 20)):
                        return
                    if ready is client:
                        is_change = b"EVALSHA" in data and b":head" in data
                        if is_change and self.lose_requests:
                            self.lose_requests -= 1
                            return
                        if is_change and self.lose_answers:
                            self.lose_answers -= 1
                            lost = True
                        server.sendall(data)
                    elif lost:
                        return
                    else:
                        client.sendall(data)


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with closing(Proxy(redis_server.port)) as made:
        yield made


def _through(proxy: Proxy, url: str) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0?pause_ms=1&{url.partition('?')[2]}"


def test_a_change_whose_answer_is_lost_is_made_once(redis_url: str, proxy: Proxy) -> None:
    rows = trips(90)
    with RedisOnlineStore(_through(proxy, redis_url)) as store:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 0, 10)], position=10)
        proxy.lose_answers = 1
        store.apply([(SPEC, prepared, 10, 20)], position=20)  # sent again
        assert proxy.lose_answers == 0
        proxy.lose_requests = 1
        store.apply([(SPEC, prepared, 20, 30)], position=30)
        assert proxy.lose_requests == 0
        np.testing.assert_array_equal(online(store), offline(rows.slice(0, 30)))


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("made", [True, False])
def test_a_change_that_may_have_been_made_is_never_made_twice(
    redis_url: str, proxy: Proxy, *, made: bool, asks: bool
) -> None:
    """The position says whether it was; who does not ask for it is told."""
    rows = trips(90)
    with RedisOnlineStore(_through(proxy, redis_url)) as store:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 0, 10)], position=10)
        if made:
            proxy.lose_answers = 2
        else:
            proxy.lose_requests = 2
        with pytest.raises(StoreError, match="does not answer"):
            store.apply([(SPEC, prepared, 10, 20)], position=20)
        time.sleep(0.01)
        if asks:
            assert store.position() == (20 if made else 10)
        elif made:
            with pytest.raises(StoreError, match=r"was made.* stands at position 20"):
                store.apply([(SPEC, prepared, 10, 20)], position=20)
        done = 20 if made else 10
        store.apply([(SPEC, prepared, done, 90)], position=90)
        np.testing.assert_array_equal(online(store), offline(rows))


def test_a_change_that_comes_late_changes_nothing(redis_url: str, redis_server: RedisServer) -> None:
    """One that was on its way while it was asked whether it was made never will be."""
    rows, sent = trips(90), list[dict[str, Any]]()
    with RedisOnlineStore(redis_url) as store:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 0, 10)], position=10)
        change = store._writing()._change

        def hold_back(**arguments: Any) -> None:
            sent.append(arguments)
            raise redis.TimeoutError("no answer")

        before = online(store)
        store._writing()._change = hold_back  # type: ignore[assignment]
        with pytest.raises(StoreError, match="no answer"):
            store.apply([(SPEC, prepared, 10, 11)], position=11)
        store._writing()._change = change
        time.sleep(0.25)
        assert store.position() == 10
        assert change(**sent[0])[0] == b"moved"  # it arrives
        np.testing.assert_array_equal(online(store), before)
        store.apply([(SPEC, prepared, 10, 90)], position=90)
        np.testing.assert_array_equal(online(store), offline(rows))


def test_a_writer_killed_in_a_load_leaves_the_old_values_and_no_key(redis_url: str) -> None:
    url = redis_url.replace("lease_ms=2000", "lease_ms=300")
    with RedisOnlineStore(url) as store:
        store.load(VIEW, trips(200))
    location, _, asked = url.partition("?")
    prefix = asked.partition("prefix=")[2].partition("&")[0]
    with redis.Redis.from_url(location) as client:
        before = len(list(client.scan_iter(f"{prefix}:*")))
        loading = WriterProcess(url, 10)
        loading.process.kill()
        loading.close_killed()
        with closing(_opened(url)) as store:
            writer = store._writing()
            apart = type(writer.catalogue)(writer.catalogue.views, ["feedfeedfeed"])
            writer.commit({connection_key(prefix): b"half"}, catalogue=apart)
        with closing(_opened(url)) as store:  # sweeps
            np.testing.assert_array_equal(
                store.read([SPEC], {"line": LINES}, to_micros(END)), offline(trips(200))
            )
        assert len(list(client.scan_iter(f"{prefix}:*"))) == before


def connection_key(prefix: str) -> bytes:
    return f"{prefix}:feedfeedfeed:=line 1".encode()
