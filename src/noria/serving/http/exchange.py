"""One HTTP request and its reply, as the routes of a worker see them."""

import ipaddress
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import orjson

from noria.serving.requests import BadRequestError, RequestError

__all__ = [
    "JSON",
    "Bodies",
    "Gone",
    "Head",
    "Receive",
    "Reply",
    "Request",
    "Send",
    "encoded",
    "json_reply",
    "refusal",
    "send_reply",
]

JSON = b"application/json"
_DRAIN_TIMES = 8  # a body too large is read on this far, so that its sender gets to read the answer
_PACKED_FROM = 4_096  # bytes: below that packing costs more than it saves

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


class Gone(Exception):
    """The client left before its request was read."""


class Bodies:
    """What bodies take that are not whole yet, over all connections of a worker.

    The first 64 KiB of each are not counted: so a small request is read however many large ones come slowly.

    Parameters
    ----------
    limit
        Bytes of all of them.
    """

    FREE = 65_536

    def __init__(self, limit: int) -> None:
        self._limit, self.held = limit, 0

    def take(self, size: int, held: int) -> int | None:
        """Count a body that is `size` bytes so far, `held` of them counted; None if there is no room.

        Returns
        -------
        int
            How much of it is counted now: what `give` is to be called with.
        """
        counted = max(size - self.FREE, 0)
        if counted > held and self.held + counted - held > self._limit:
            return None
        self.held += counted - held
        return counted

    def give(self, held: int) -> None:
        """Count a body no longer."""
        self.held -= held

    @staticmethod
    def refusal() -> RequestError:
        """Give the error for a body for which there is no room."""
        return RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too many large requests are being sent at once; send fewer at a time, or of fewer rows each",
            retry_after_s=1,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: bytes = JSON
    headers: Headers = ()


class Head:
    """What an HTTP request says before its body.

    Parameters
    ----------
    method, path
        As text, the path decoded.
    headers
        Names in lower case.
    query
        What follows the `?`.
    scheme, client
        How, and from where, it came.
    """

    __slots__ = ("_query", "client", "headers", "method", "path", "scheme")

    def __init__(
        self,
        method: str,
        path: str,
        headers: Headers,
        *,
        query: bytes = b"",
        scheme: str = "http",
        client: tuple[str, int] | None = None,
    ) -> None:
        self.method, self.path, self.headers = method, path, headers
        self._query, self.scheme, self.client = query, scheme, client

    def header(self, name: bytes) -> str | None:
        """Give a header by its name in lower case, None where it is not there."""
        for each, value in self.headers:
            if each == name:
                return value.decode("latin-1")
        return None

    def query(self, name: str) -> str | None:
        """Give a parameter of the address."""
        found = parse_qs(self._query.decode("latin-1")).get(name) if self._query else None
        return found[-1] if found else None

    @property
    def address(self) -> str:
        """How the client reached this server, as `http://host:8080`; empty where it does not say."""
        host = self.header(b"host")
        return f"{self.scheme}://{host}" if host else ""

    @property
    def is_local(self) -> bool:
        """Whether it comes from this machine."""
        return self.client is not None and ipaddress.ip_address(self.client[0]).is_loopback

    def allow(self, wanted: str) -> None:
        """Refuse another method than `wanted` with 405."""
        if self.method != wanted and not (wanted == "GET" and self.method == "HEAD"):
            raise RequestError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{self.method} is not taken here; send {wanted}"
            )


class Request(Head):
    """An HTTP request, its body still to be read.

    Parameters
    ----------
    scope, receive
        As ASGI hands them.
    max_body_bytes
        A larger body, packed or not, is refused.
    bodies
        Where it is counted until it is there.
    """

    __slots__ = ("_bodies", "_max_body_bytes", "_receive")

    def __init__(
        self, scope: dict[str, Any], receive: Receive, *, max_body_bytes: int, bodies: Bodies
    ) -> None:
        super().__init__(
            scope["method"],
            scope["path"],
            scope["headers"],
            query=scope["query_string"],
            scheme=scope.get("scheme", "http"),
            client=scope.get("client"),
        )
        self._receive, self._max_body_bytes, self._bodies = receive, max_body_bytes, bodies

    async def body(self) -> bytes:
        """Read the body, unpacked.

        Raises
        ------
        RequestError
            413 if it is too large, 503 if there is no room for it beside others, 400 if it is not packed as
            it says, 415 if it is packed in an unknown way.
        Gone
            If the client left.
        """
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            data: bytes = message.get("body", b"")
            if len(data) > self._max_body_bytes:
                raise self._too_large()
        else:
            data = await self._read_on(message)
        for name, value in self.headers:
            if name == b"content-encoding" and value.lower() not in (b"identity", b""):
                return self._unpacked(data, value.decode("latin-1").lower().strip())
        return data

    async def _read_on(self, message: dict[str, Any]) -> bytes:
        chunks: list[bytes] = []
        size = held = 0
        has_room = True
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk = message.get("body", b"")
                size += len(chunk)
                if has_room and size <= self._max_body_bytes:
                    counted = self._bodies.take(size, held)
                    has_room, held = counted is not None, counted or held
                    chunks.append(chunk)
                if not has_room or size > self._max_body_bytes:
                    chunks = []
                    self._bodies.give(held)
                    held = 0
                if not message.get("more_body", False) or size > _DRAIN_TIMES * self._max_body_bytes:
                    break
                message = await self._receive()
        finally:
            self._bodies.give(held)
        if size > self._max_body_bytes:
            raise self._too_large()
        if not has_room:
            raise Bodies.refusal()
        return b"".join(chunks)

    def _unpacked(self, data: bytes, encoding: str) -> bytes:
        """Unpack a body, never further than it may be large: a small one may unpack to any size."""
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "the body is packed in a way that is not read here; send gzip, deflate or as it is",
            )
        wrapper = zlib.MAX_WBITS | (16 if "gzip" in encoding else 0)
        try:
            try:
                return self._inflated(data, wrapper)
            except zlib.error:
                if encoding != "deflate":
                    raise
                return self._inflated(data, -zlib.MAX_WBITS)  # raw, which some senders take it for
        except zlib.error as err:
            raise BadRequestError(f"the body is no {encoding}, as its Content-Encoding says") from err

    def _inflated(self, data: bytes, wbits: int) -> bytes:
        unpacker = zlib.decompressobj(wbits)
        found = unpacker.decompress(data, self._max_body_bytes + 1)
        if len(found) > self._max_body_bytes:
            raise self._too_large()
        if not unpacker.eof:
            raise zlib.error("cut short")
        return found

    def _too_large(self) -> RequestError:
        return RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is larger than {self._max_body_bytes} bytes; send the rows in several requests",
        )


def json_reply(value: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    """Answer with a JSON document."""
    return Reply(orjson.dumps(value), status)


def refusal(error: RequestError) -> Reply:
    """Answer with an error, as all protocols but MLflow's do."""
    return Reply(orjson.dumps({"error": str(error)}), error.status, headers=error.headers)


async def send_reply(reply: Reply, request: Request, send: Send) -> None:
    """Send a reply."""
    body, headers = encoded(reply, request)
    await send({"type": "http.response.start", "status": reply.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def encoded(reply: Reply, head: Head) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Give a reply's body, packed where the client takes that and it is worth it, and all its headers."""
    body, more = reply.body, list(reply.headers)
    if len(body) >= _PACKED_FROM and (encoding := _packing(head)):
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
        body = packer.compress(body) + packer.flush()
        more.append((b"content-encoding", encoding.encode()))
    length = b"%d" % len(body)
    if head.method == "HEAD":
        body = b""
    return body, [(b"content-type", reply.content_type), (b"content-length", length), *more]


def _packing(head: Head) -> str | None:
    accepted = head.header(b"accept-encoding")
    if accepted is None:
        return None
    named = [each.strip().partition(";")[0] for each in accepted.lower().split(",") if "q=0" not in each]
    return next((each for each in ("gzip", "deflate") if each in named), None)
