"""Bodies that are held in memory while they are worked on: of all requests together, so much and no more."""

import asyncio

from starlette.types import Message, Receive, Scope

from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.requests import MAX_BODY_BYTES, is_json

__all__ = ["Bodies", "HeldBody"]

_MOST_BYTES = 128 << 20  # of all at once
_LARGE_AT_ONCE = 2  # of those beyond the usual size, which take several times as much once they are read
_LARGE_WAITING = 8
_LARGE_WAIT_S = 30.0
_WITHIN_S = 60.0  # a body has to be whole


class Bodies:
    """Counts what is held."""

    def __init__(self) -> None:
        self.bytes = 0
        self.waiting = 0
        self.large = asyncio.Semaphore(_LARGE_AT_ONCE)

    def begin(self) -> "HeldBody":
        """Give room for a body; it has to be ended."""
        return HeldBody(self)


class HeldBody:
    """One body, from its first byte until it is worked on."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self._bytes, self._is_large = bodies, 0, False

    async def read(self, scope: Scope, receive: Receive, most: int) -> bytes:
        """Read a body, which is JSON if there is one.

        Raises
        ------
        MlflowFault
            Like `read_any`; and if it is no JSON by its content type.
        """
        body = await self.read_any(receive, most)
        if scope["method"] != "GET" or body:
            kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
            may_be_none = scope["method"] in {
                "GET",
                "DELETE",
            }  # all that such a request says may be in its path
            if not is_json(kind.decode("latin-1")) and (body or not may_be_none):
                raise MlflowFault.invalid(
                    f"Bad Request. Content-Type must be 'application/json', found {kind.decode('latin-1')!r}"
                )
        return body

    async def read_any(self, receive: Receive, most: int) -> bytes:
        """Read a body, whatever it is.

        Raises
        ------
        MlflowFault
            If it is larger than `most`, too slow, or one too many at once.
        """
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            try:
                async with asyncio.timeout(_WITHIN_S):
                    body = await self._rest(message, receive, most)
            except TimeoutError as err:
                raise MlflowFault(
                    ErrorCode.BAD_REQUEST, f"the body was not whole within {_WITHIN_S:.0f} s; send it again"
                ) from err
        if len(body) > most:
            raise MlflowFault.invalid(f"the body is larger than {most} bytes; send it in several requests")
        return body if isinstance(body, bytes) else bytes(body)

    def end(self) -> None:
        """Give the room back."""
        self._bodies.bytes -= self._bytes
        self._bytes = 0
        if self._is_large:
            self._is_large = False
            self._bodies.large.release()

    async def _rest(self, message: Message, receive: Receive, most: int) -> bytes:
        pieces, size = [message.get("body", b"")], 0
        while True:
            size += len(pieces[-1])
            if size > most:
                break
            self._take(len(pieces[-1]))
            if size > MAX_BODY_BYTES and not self._is_large:
                await self._become_large()
            if not message.get("more_body", False):
                break
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MlflowFault.invalid("the client went away in the middle of its request")
            pieces.append(message.get("body", b""))
        return b"".join(pieces)

    def _take(self, size: int) -> None:
        if self._bodies.bytes + size > _MOST_BYTES:
            raise MlflowFault.busy(
                "the server holds as much of other requests as it may; try again in a while"
            )
        self._bodies.bytes += size
        self._bytes += size

    async def _become_large(self) -> None:
        """Wait for the place of a large body; what has come of it is held meanwhile."""
        bodies = self._bodies
        if bodies.waiting >= _LARGE_WAITING:
            raise MlflowFault.busy("many large requests are being worked on; try again in a while")
        bodies.waiting += 1
        try:
            async with asyncio.timeout(_LARGE_WAIT_S):
                await bodies.large.acquire()
        except TimeoutError as err:
            raise MlflowFault.busy("large requests are being worked on; try again in a while") from err
        finally:
            bodies.waiting -= 1
        self._is_large = True
