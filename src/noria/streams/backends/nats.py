"""Streams in NATS JetStream: one JetStream stream, and one subject, of the same name.

Events are read by their sequence numbers, in batches that the server sends without being acknowledged
(batched direct get): the offset lies with the table, so no consumer of the server has to remember it, and no
`max_ack_pending` stands between a commit and the events behind it. Events are published with an id each, so
that one that is sent again, because its acknowledgement was lost, is there once.

References
----------
NATS architecture decision 31, JetStream Direct Get.
"""

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from noria.clock import to_micros
from noria.errors import ConfigError, StoreError
from noria.records import new_id
from noria.streams.contract import Extent, StreamEvent, check_place, check_sizes

__all__ = ["NatsStream", "open_nats"]

_KEY = "Noria-Key"
_CONNECT_S, _ANSWER_S = 2.0, 5.0
_APPEND_S = 10.0  # how long an append tries
_AT_ONCE = 500  # events that are published before their acknowledgements are waited for
_POLL_S = 0.05
_AWAY = (NatsError, OSError)  # a timeout is an OSError

T = TypeVar("T")


class NatsStream:
    """A stream of a NATS server; see `noria.streams.contract.EventStream`.

    Parameters
    ----------
    server
        `nats://HOST:PORT`.
    name
        Of the JetStream stream, which is made when it is first appended to.
    """

    def __init__(self, server: str, name: str) -> None:
        self.name = name
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="noria-nats", daemon=True)
        self._thread.start()
        self._connection: Client | None = None
        self._connecting = asyncio.Lock()

    def partitions(self) -> Sequence[int]:
        """Number the partitions: there is one."""
        self._do(self._connected)
        return range(1)

    def append(
        self, payloads: Sequence[bytes], *, keys: Sequence[bytes | None] | None = None
    ) -> dict[int, int]:
        """Publish events and wait until the server has acknowledged each."""
        check_sizes(payloads)
        if not payloads:
            return {}
        batch = new_id()
        last = 0
        for start in range(0, len(payloads), _AT_ONCE):
            messages = [
                (payloads[place], _headers(f"{batch}-{place}", keys[place] if keys else None))
                for place in range(start, min(start + _AT_ONCE, len(payloads)))
            ]
            last = self._publish(messages)
        return {0: last}

    def read(
        self,
        partition: int,
        *,
        after: int,
        rows: int,
        size_bytes: int = 64 << 20,
        wait_s: float = 0.0,
    ) -> list[StreamEvent]:
        """Give the events behind an offset; asks every 50 ms while it waits."""
        deadline = time.monotonic() + wait_s
        is_first = True
        while True:
            events = self._do(lambda: self._fetch(max(after, 0), rows, size_bytes))
            if is_first and (not events or events[0].offset > after + 1):
                check_place(self.name, partition, self.extent(partition), after=after)
            is_first = False
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            time.sleep(min(_POLL_S, left))

    def extent(self, partition: int) -> Extent:
        """Tell from where to where the stream reaches."""
        return self._do(self._extent)

    def forget(self, partition: int, *, through: int, keep_bytes: int) -> None:
        """Do nothing: the stream's own limits decide."""

    def close(self) -> None:
        """Close the connection."""
        if self._thread.is_alive():
            self._do(self._disconnect)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # -- what runs in the loop

    def _do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except (StoreError, ConfigError):
            raise
        except _AWAY as err:
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
            raise self._away(err) from err

    def _away(self, err: BaseException) -> StoreError:
        told = str(err).removeprefix("nats: ") or type(err).__name__
        return StoreError(
            f"stream {self.name!r}: the NATS server at {self._server} is away, or has no JetStream: {told}"
        )

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._connection is None or not self._connection.is_connected:
                self._connection = await nats.connect(
                    self._server,
                    allow_reconnect=False,  # the next call connects anew
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.1,
                    connect_timeout=_CONNECT_S,
                    error_cb=_ignore,
                    pending_size=64 << 20,
                )
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def _publish(self, messages: Sequence[tuple[bytes, dict[str, str]]]) -> int:
        """Publish until all are acknowledged, or the time is up; give the last sequence number."""
        deadline, pause, made = time.monotonic() + _APPEND_S, 0.05, False
        while True:
            try:
                if made:
                    return self._do(lambda: self._send(messages))
                self._do(self._make)
                made = True
            except StoreError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    async def _make(self) -> None:
        """Make the stream, unless it is there."""
        jetstream = (await self._connected()).jetstream(timeout=_ANSWER_S)
        try:
            await jetstream.stream_info(self.name)
        except NotFoundError:
            try:
                await jetstream.add_stream(
                    StreamConfig(name=self.name, subjects=[self.name], allow_direct=True)
                )
            except BadRequestError as err:  # somebody else has the subject
                raise ConfigError(f"stream {self.name!r} cannot be made: {err.description}") from err

    async def _send(self, messages: Sequence[tuple[bytes, dict[str, str]]]) -> int:
        jetstream = (await self._connected()).jetstream(timeout=_ANSWER_S)
        told = await asyncio.gather(
            *(jetstream.publish(self.name, payload, headers=headers) for payload, headers in messages),
            return_exceptions=True,
        )
        for each in told:
            if isinstance(each, BaseException):
                raise each
        return max(each.seq for each in told if not isinstance(each, BaseException))

    async def _fetch(self, after: int, rows: int, size_bytes: int) -> list[StreamEvent]:
        connection = await self._connected()
        events: list[StreamEvent] = []
        last = 0
        ended: asyncio.Future[str] = self._loop.create_future()

        async def take(message: Msg) -> None:
            nonlocal last
            headers = message.headers or {}
            if ended.done():
                return
            if "Status" in headers:
                ended.set_result(headers["Status"])
            elif events and int(headers["Nats-Last-Sequence"]) != last:
                ended.set_result("lost")  # on the way; what came before it counts
            else:
                last = int(headers["Nats-Sequence"])
                events.append(_event(message.data, headers, last))

        inbox = connection.new_inbox()
        subscription = await connection.subscribe(
            inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        asked = {"seq": after + 1, "batch": rows, "max_bytes": size_bytes}
        try:
            await connection.publish(
                f"$JS.API.DIRECT.GET.{self.name}", msgspec.json.encode(asked), reply=inbox
            )
            status = await asyncio.wait_for(ended, _ANSWER_S)
        except TimeoutError:
            if not events:
                raise
            status = "lost"
        finally:
            await subscription.unsubscribe()
        if status == "503":  # nobody answers: no such stream, or one that may not be read directly
            await self._want_direct()
        elif status not in {"204", "404", "lost"}:
            raise StoreError(f"stream {self.name!r}: the NATS server answers with status {status}")
        return events

    async def _want_direct(self) -> None:
        jetstream = (await self._connected()).jetstream(timeout=_ANSWER_S)
        try:
            found = await jetstream.stream_info(self.name)
        except NotFoundError:
            return
        if not found.config.allow_direct:
            raise ConfigError(
                f"stream {self.name!r} of {self._server} may not be read directly; allow it: "
                f"`nats stream edit {self.name} --allow-direct`"
            )

    async def _extent(self) -> Extent:
        jetstream = (await self._connected()).jetstream(timeout=_ANSWER_S)
        try:
            state = (await jetstream.stream_info(self.name)).state
        except NotFoundError:
            return Extent(1, 1)
        return Extent(max(1, state.first_seq), state.last_seq + 1)


def open_nats(url: str, name: str, *, root: Path, partitions: int) -> NatsStream:
    """Open a stream of the server that `nats://HOST:PORT` names."""
    if partitions != 1:
        raise ConfigError(f"stream {name!r}: a stream of NATS has one partition, {partitions} are wanted")
    return NatsStream(url, name)


def _event(payload: bytes, headers: dict[str, str], sequence: int) -> StreamEvent:
    key = headers.get(_KEY)
    return StreamEvent(
        sequence,
        payload,
        to_micros(datetime.fromisoformat(headers["Nats-Time-Stamp"])),
        None if key is None else base64.b64decode(key),
    )


def _headers(id: str, key: bytes | None) -> dict[str, str]:
    headers = {"Nats-Msg-Id": id}
    return headers if key is None else headers | {_KEY: base64.b64encode(key).decode("ascii")}


async def _ignore(error: Exception) -> None:
    """Leave errors of the connection to the calls that meet them."""
