"""The connections of a worker: slow clients are shown out, one too many is refused, and a drain loses none.

uvicorn waits for ever for the rest of a request that has begun, and for who does not take the answer; it
takes headers of any size, and reads on while requests wait that came behind each other.
"""

import asyncio
import socket
from collections.abc import Callable, Sized
from http import HTTPStatus
from typing import Any, ClassVar, Protocol

import orjson
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from noria.serving.http.answering import Question
from noria.serving.http.exchange import Bodies, Head, Reply, encoded
from noria.serving.records import Limits

__all__ = ["Connection", "Quick", "Server", "connection_class", "guard"]

_LOOK_EVERY_S = 1.0
_IDLE_GRACE_S = 0.5  # a kept connection that is at work sends its next request by then


class Quick(Protocol):
    """Answers requests for predictions, whole bodies at once."""

    def question(self, path: bytes) -> Question | None:
        """Give what a path asks; None if it is to be answered as all others are."""
        ...

    def begin(self, question: Question, head: Head, body: bytes, done: Callable[[Reply], None]) -> None:
        """Answer; `done` gets the reply."""
        ...

    def too_large(self, question: Question) -> Reply:
        """Refuse a body that is too large."""
        ...

    def no_room(self, question: Question) -> Reply:
        """Refuse a body for which there is no room beside others."""
        ...

    @property
    def bodies(self) -> Bodies:
        """Where bodies are counted until they are there."""
        ...


class Connection(HttpToolsProtocol):
    """One connection, with an eye on the clock. `connection_class` gives those of a worker.

    Attributes
    ----------
    limits
        Of the worker.
    draining
        Whether the worker stops: each connection ends with its next answer.
    began_at
        When the request that is being read began, on the loop's clock; 0 between two requests.
    quick
        Answers requests for predictions without what ASGI costs.
    stuck_at
        Since when the client has not taken what was sent; 0 if it has.
    """

    limits: ClassVar[Limits]
    quick: ClassVar[Quick]
    draining: ClassVar[bool] = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.began_at = self.loop.time()
        self.stuck_at = 0.0
        self._has_asked = False  # a first byte came
        self._has_headers = False  # of the request that is being read
        self._running: Any = None  # the answer that a task is at work on
        self._question: Question | None = None  # of the request that is being read, where it goes quickly
        self._body: list[bytes] = []
        self._body_bytes = self._held = 0
        self._has_room = True
        self._head_bytes = 0  # of headers that are not all there yet
        self._idle_since = 0.0  # after a quick answer

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)
        self.flow.resume_reading()  # the rest of its body may be still to come

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go; uvicorn forgets the answer at work where another request came behind it."""
        self._let_go()
        _leave(self._running)
        super().connection_lost(exc)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self.limits.max_connections:
            self.app = _too_many

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is a head without end."""
        if self._head_bytes + len(data) > self.limits.max_header_bytes and not self._is_in_body():
            end = data.find(b"\r\n\r\n", 0, self.limits.max_header_bytes - self._head_bytes + 4)
            if end < 0:
                self._refuse_head()
                return
        super().data_received(data)
        if self.began_at and not self._has_headers:
            self._head_bytes += len(data)

    def _is_in_body(self) -> bool:
        return bool(self.began_at) and self._has_headers

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_LARGE_HEAD)
        self._hang_up()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.transport.write(_NO_HTTP)
        self._hang_up()

    def on_message_begin(self) -> None:
        """Read the first byte of a request."""
        self.began_at = self.loop.time()
        self._has_asked, self._has_headers = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer, or see that this can be done quickly once all is there."""
        self._has_headers, self._head_bytes = True, 0
        if self._goes_quickly():
            self._question = self.quick.question(self.url)
            if self._question is not None:
                self._body, self._body_bytes, self._has_room = [], 0, True
                self.cycle = _Turn()  # type: ignore[assignment]
                return
        super().on_headers_complete()
        if self.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def _goes_quickly(self) -> bool:
        """Whether nothing is asked of this request but what most ask."""
        cycle, parser = self.cycle, self.parser
        return (
            parser.get_method() == b"POST"
            and (cycle is None or cycle.response_complete)
            and not self.pipeline
            and not self.draining
            and self.app is self.config.loaded_app
            and not self.flow.write_paused
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not any(name == b"content-encoding" for name, _ in self.headers)
        )

    def on_body(self, body: bytes) -> None:
        """Read a part of a body."""
        if self._question is None:
            super().on_body(body)
            return
        self._body_bytes += len(body)
        if self._body_bytes > Bodies.FREE and self._has_room:
            counted = None
            if self._body_bytes <= self.limits.max_body_bytes:
                counted = self.quick.bodies.take(self._body_bytes, self._held)
            if counted is None:
                self._has_room = False
                self._body = []
                self._let_go()
            else:
                self._held = counted
        if self._has_room:
            self._body.append(body)

    def _let_go(self) -> None:
        """Count the body no longer: it is there, or nobody wants it."""
        if self._held:
            self.quick.bodies.give(self._held)
            self._held = 0

    def on_message_complete(self) -> None:
        """Read the last byte of a request."""
        self.began_at = 0.0
        question, self._question = self._question, None
        if question is None:
            super().on_message_complete()
            return
        self._let_go()
        turn = self.cycle
        head = Head(
            "POST", self.url.decode("latin-1"), self.headers, scheme=self.scheme or "http", client=self.client
        )
        if self._body_bytes > self.limits.max_body_bytes:
            self._reply(turn, head, self.quick.too_large(question))
            return
        if not self._has_room:
            self._reply(turn, head, self.quick.no_room(question))
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.quick.begin(question, head, body, lambda reply: self._reply(turn, head, reply))

    def _reply(self, turn: Any, head: Head, reply: Reply) -> None:
        """Send the answer to a request that went quickly."""
        turn.response_complete = True
        transport = self.transport
        self.server_state.total_requests += 1
        if transport is None or transport.is_closing():
            return
        body, headers = encoded(reply, head)
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if turn.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        transport.write(b"".join(parts))
        if not turn.keep_alive:
            transport.close()
        elif self.pipeline:  # requests that came behind this one
            self.flow.resume_reading()
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._idle_since = self.loop.time()

    def look(self, now: float) -> None:
        """Close the connection if its client is too slow."""
        transport = self.transport
        if transport.get_write_buffer_size() == 0:
            self.stuck_at = 0.0
        elif not self.stuck_at:
            self.stuck_at = now
        elif now - self.stuck_at > self.limits.read_timeout_s:
            self._hang_up(at_once=True)  # also one that was closed: it waits until all is taken
            return
        if transport.is_closing():
            return
        idle_since = self._idle_since
        is_idle = not self.began_at and (self.cycle is None or self.cycle.response_complete)
        if idle_since and is_idle and now - idle_since > self.limits.keep_alive_s:
            transport.close()
            return
        if self.began_at and now - self.began_at > self.limits.read_timeout_s:
            if self._can_tell():
                transport.write(_TOO_SLOW)
            self._hang_up()

    def hang_up(self) -> None:
        """Cut the connection off."""
        self._hang_up(at_once=True)

    def _hang_up(self, *, at_once: bool = False) -> None:
        """End the connection; answers that are still due are for nobody, and are not written any more."""
        for cycle in (self._running, self.cycle, *(each for each, _ in self.pipeline)):
            _leave(cycle)
        if at_once:
            self.transport.abort()
        else:
            self.transport.close()

    def _can_tell(self) -> bool:
        """Whether an answer to the request that is being read may be sent now."""
        if not self._has_asked or self.pipeline:
            return False
        if self._has_headers:
            return not self.cycle.response_started
        return self.cycle is None or self.cycle.response_complete

    def begin_draining(self) -> None:
        """End with the answer that is due, or with the next one."""
        type(self).draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def close_if_idle(self) -> None:
        """Close the connection if no request is being read or answered."""
        is_reading = self.began_at and self._has_asked
        if not is_reading and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


def _leave(cycle: Any) -> None:
    """Let an answer that is due go nowhere."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


class _Flow(FlowControl):
    """Reads no further while requests wait that came behind each other: they wait in the socket, unread."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, if none waits."""
        if not self._waiting:
            super().resume_reading()


class _Turn:
    """Stands where uvicorn keeps the answer that is due, while a request is answered quickly."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete",
                 "response_started")  # fmt: skip

    def __init__(self) -> None:
        self.response_complete = self.response_started = self.disconnected = False
        self.keep_alive = True
        self.message_event = _NOBODY


class _Nobody:
    """The event that nobody waits for."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY = _Nobody()


def connection_class(limits: Limits, quick: Quick) -> type[Connection]:
    """Give the connections of a worker with these limits."""
    return type("BoundedConnection", (Connection,), {"limits": limits, "quick": quick})


class Server(uvicorn.Server):
    """uvicorn's server, but for how it ends: no request is lost.

    It stops accepting, which leaves who waits to its successor; every connection ends with the answer to its
    request, and is told that it was the last. One that is kept has a moment for its next request, so that a
    busy client never meets a closed door. What is not done in time is cut off.
    """

    def __init__(self, config: uvicorn.Config, *, limits: Limits) -> None:
        super().__init__(config)
        self._limits = limits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, gracefully."""
        for each in self.servers:
            each.close()
        for listener in sockets or ():
            listener.close()
        loop, drain_s = asyncio.get_running_loop(), self._limits.drain_s
        for connection in _connections(self):
            connection.begin_draining()
        started = loop.time()
        while (left := _connections(self)) and loop.time() - started < drain_s:
            if loop.time() - started > min(_IDLE_GRACE_S, drain_s / 2):
                for connection in left:
                    connection.close_if_idle()
            await asyncio.sleep(0.01)
        for connection in _connections(self):
            connection.hang_up()
        for task in list(self.server_state.tasks):
            task.cancel()


async def guard(server: Server, limits: Limits) -> None:
    """Look at all connections every now and then, for ever."""
    loop = asyncio.get_running_loop()
    every_s = min(_LOOK_EVERY_S, limits.read_timeout_s / 4)
    while True:
        await asyncio.sleep(every_s)
        now = loop.time()
        for each in _connections(server):
            each.look(now)


def _connections(server: uvicorn.Server) -> list[Connection]:
    return [each for each in server.server_state.connections if isinstance(each, Connection)]


async def _too_many(scope: Any, receive: Any, send: Any) -> None:
    body = orjson.dumps({"error": "too many connections are open here; try again soon, on fewer"})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"retry-after", b"1"),
    ]
    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _response(status: HTTPStatus, message: str) -> bytes:
    body = orjson.dumps({"error": message})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


_NO_HTTP = _response(HTTPStatus.BAD_REQUEST, "this is no HTTP request that can be read; send HTTP/1.1")
_LARGE_HEAD = _response(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large; send values in the body"
)
_TOO_SLOW = _response(
    HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time; send it anew, on a connection that is fit"
)
