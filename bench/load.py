"""Load on an HTTP server from a process of its own: kept connections that ask again once they are answered.

`offer` prepares it and starts `python -m bench.load`, so that asking is no part of the server's figures.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import uvloop

from bench.measuring import cpu_of_tree

__all__ = ["Measured", "Slice", "ended", "offer", "request_bytes", "start"]

_END = b"\r\n\r\n"
_STUCK_S = 5.0


class _Load(msgspec.Struct, kw_only=True):
    """What to ask, as the process reads it."""

    host: str
    port: int
    requests: list[bytes]  # whole ones, head and body; the connections take them in turn
    connections: int
    seconds: float
    warm_s: float
    servers: list[int]  # the roots of the server's process trees


class Slice(msgspec.Struct, kw_only=True):
    """One second of a measurement: what was answered in it."""

    answers: int
    p99_us: float
    max_us: float


class Measured(msgspec.Struct, kw_only=True):
    """What came of a load after it was warm.

    Attributes
    ----------
    began_at
        When it was warm, seconds since 1970.
    failed
        Requests without an answer: the connection ended, or nothing came in five seconds.
    reconnected
        Connections made anew: the server closed them, with or without a request on them.
    server_cpu_us
        Of all processes of the server, per answer.
    own_cpu_us
        Of this process, per answer.
    """

    began_at: float
    seconds: float
    answers: int
    statuses: dict[int, int]
    failed: int
    reconnected: int
    p50_us: float
    p99_us: float
    max_us: float
    server_cpu_us: float
    own_cpu_us: float
    slices: list[Slice]

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def unanswered(self) -> int:
        """Requests that got no answer, or another than 200."""
        return self.failed + sum(count for status, count in self.statuses.items() if status != 200)


def request_bytes(path: str, body: bytes, *, headers: Mapping[str, str] | None = None) -> bytes:
    """Give a POST of a body as it goes over the wire, JSON unless `headers` say otherwise."""
    named = {"Content-Type": "application/json", **(headers or {})}
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join(lines).encode() + _END + body


def offer(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float = 3.0,
    warm_s: float = 0.5,
    servers: Sequence[int] = (),
) -> Measured:
    """Ask a server for a while, and give what came of it.

    Parameters
    ----------
    requests
        Of `request_bytes`, asked over and over.
    connections
        How many requests are under way at once.
    seconds, warm_s
        How long is measured, and how long is asked before that.
    servers
        Process ids of the server: the CPU of them and of all below them is counted.
    """
    with start(
        port, requests, connections=connections, seconds=seconds, warm_s=warm_s, servers=servers
    ) as asking:
        return ended(asking)


def start(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    warm_s: float = 0.5,
    servers: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start what `offer` waits for; `ended` gives what came of it."""
    load = _Load(
        host="127.0.0.1",
        port=port,
        requests=list(requests),
        connections=connections,
        seconds=seconds,
        warm_s=warm_s,
        servers=list(servers),
    )
    command = [sys.executable, "-m", "bench.load"]
    asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert asking.stdin is not None
    asking.stdin.write(msgspec.msgpack.encode(load))
    asking.stdin.close()
    return asking


def ended(asking: "subprocess.Popen[bytes]") -> Measured:
    """Wait until a load is over, and give what came of it."""
    assert asking.stdout is not None
    told = asking.stdout.read()
    if code := asking.wait():
        raise RuntimeError(f"the load generator ended with status {code}")
    return msgspec.msgpack.decode(told, type=Measured)


class _Tally:
    """What the connections saw, from the moment on that it counts."""

    def __init__(self) -> None:
        self.counts = False
        self.done: list[tuple[float, float]] = []  # when, and after how long
        self.statuses: Counter[int] = Counter()
        self.failed = self.reconnected = 0


class _Connection(asyncio.Protocol):
    """Sends the next request once the last one is answered in full."""

    def __init__(self, load: _Load, place: int, tally: _Tally, closed: "asyncio.Future[None]") -> None:
        self._requests, self._next = load.requests, place * 7_919
        self._tally, self._closed = tally, closed
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._lacking = -1  # bytes of the answer under way; -1 before its head is there
        self._status = 0
        self.sent_at = 0.0
        self.asks = True  # once it is answered
        self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._lacking < 0:
            if self._held:
                data = self._held + data
            end = data.find(_END)
            if end < 0:
                self._held = data
                return
            self._held = b""
            self._status = int(data[9:12])
            self._lacking = _content_length(data[: end + 2]) - (len(data) - end - 4)
        else:
            self._lacking -= len(data)
        if self._lacking > 0:
            return
        if self._lacking < 0:
            raise ValueError("the server sent more than it was asked for")
        self._lacking = -1
        self.waits = False
        now = time.perf_counter()
        tally = self._tally
        if tally.counts:
            tally.done.append((now, now - self.sent_at))
            tally.statuses[self._status] += 1
        if self.asks:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tally.counts and self.asks:
            self._tally.failed += self.waits
        self.waits = False
        if not self._closed.done():
            self._closed.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None
        self.waits = True
        self.sent_at = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def close(self) -> None:
        self.asks = False
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    start = head.find(b"ontent-length: ")
    if start < 0:
        start = head.find(b"ontent-Length: ")
    if start < 0:
        raise ValueError(f"an answer without a length: {head!r}")
    return int(head[start + 15 : head.index(b"\r\n", start)])


def _given(connection: _Connection) -> _Connection:
    return connection


async def _keep_asking(load: _Load, place: int, tally: _Tally, live: dict[int, _Connection]) -> None:
    """Hold one connection open, again after the server closed it."""
    loop = asyncio.get_running_loop()
    while True:
        closed = loop.create_future()
        connection = _Connection(load, place, tally, closed)
        try:
            await loop.create_connection(partial(_given, connection), load.host, load.port)
        except OSError:
            if tally.counts:
                tally.failed += 1
            await asyncio.sleep(0.05)
            continue
        live[place] = connection
        await closed
        if not connection.asks:
            return
        if tally.counts:
            tally.reconnected += 1


async def _measure(load: _Load) -> Measured:
    tally = _Tally()
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    live: dict[int, _Connection] = {}
    asking = [
        asyncio.create_task(_keep_asking(load, place, tally, live)) for place in range(load.connections)
    ]
    await asyncio.sleep(load.warm_s)
    server_cpu = sum(map(cpu_of_tree, load.servers))
    began_at, own_cpu, started = time.time(), time.process_time(), time.perf_counter()
    tally.counts = True
    await asyncio.sleep(load.seconds)
    tally.counts = False
    now = time.perf_counter()
    seconds, own_cpu = now - started, time.process_time() - own_cpu
    server_cpu = sum(map(cpu_of_tree, load.servers)) - server_cpu
    stuck = sum(each.waits and now - each.sent_at > _STUCK_S for each in live.values())
    if wrong:
        raise RuntimeError(f"{len(wrong)} failures such as {wrong[0]['message']}") from wrong[0].get(
            "exception"
        )
    for connection in live.values():
        connection.close()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return _measured(
        tally, began_at, started, seconds, failed=tally.failed + stuck, server_cpu=server_cpu, own_cpu=own_cpu
    )


def _measured(
    tally: _Tally,
    began_at: float,
    started: float,
    seconds: float,
    *,
    failed: int,
    server_cpu: float,
    own_cpu: float,
) -> Measured:
    answers = len(tally.done)
    by_second: list[list[float]] = [[] for _ in range(max(1, round(seconds)))]
    for at, taken in tally.done:
        by_second[min(int(at - started), len(by_second) - 1)].append(taken)
    every = sorted(taken for _, taken in tally.done)
    return Measured(
        began_at=began_at,
        seconds=seconds,
        answers=answers,
        statuses=dict(tally.statuses),
        failed=failed,
        reconnected=tally.reconnected,
        p50_us=_quantile(every, 0.5),
        p99_us=_quantile(every, 0.99),
        max_us=_quantile(every, 1.0),
        server_cpu_us=server_cpu / max(1, answers) * 1e6,
        own_cpu_us=own_cpu / max(1, answers) * 1e6,
        slices=[
            Slice(
                answers=len(each), p99_us=_quantile(sorted(each), 0.99), max_us=_quantile(sorted(each), 1.0)
            )
            for each in by_second
        ],
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Give a quantile in microseconds; NaN of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6 if ordered else float("nan")


if __name__ == "__main__":
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Load)
    sys.stdout.buffer.write(msgspec.msgpack.encode(uvloop.run(_measure(asked))))
