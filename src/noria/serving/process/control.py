"""The words between a supervisor and a worker: MessagePack behind its length, over a pair of sockets.

The supervisor calls, the worker answers, and either knows by the end of the channel that the other is gone.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import msgspec

from noria.errors import DeploymentError, NoriaError

__all__ = ["ChannelClosedError", "Closed", "ControlChannel", "answer_calls"]

_LOG = logging.getLogger(__name__)
_LENGTH = struct.Struct("<I")
_LIMIT_BYTES = 64 * 2**20

T = TypeVar("T")


class ChannelClosedError(DeploymentError):
    """The worker is gone, or does not answer any more."""


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """A worker's log as far as it may be shipped."""

    spool: str  # the folder's name, in that of the deployment
    segment: int  # the last closed one


class _Call(msgspec.Struct, frozen=True, array_like=True):
    id: int
    verb: str
    arguments: tuple[str, ...] = ()


class _Reply(msgspec.Struct, frozen=True, array_like=True):
    id: int
    value: msgspec.Raw
    error: str | None = None


_ENCODER = msgspec.msgpack.Encoder()
_CALLS = msgspec.msgpack.Decoder(_Call)
_REPLIES = msgspec.msgpack.Decoder(_Reply)


class ControlChannel:
    """The supervisor's end. Calls may overlap; one event loop uses it.

    Parameters
    ----------
    reader, writer
        Of the socket; `over` makes them.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._last = 0
        self.closed = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Speak over one end of a pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def call(self, verb: str, *arguments: str, kind: type[T], timeout_s: float | None = None) -> T:
        """Ask the worker for something and give its answer.

        Raises
        ------
        ChannelClosedError
            If the worker ends meanwhile, or does not answer in time.
        DeploymentError
            If it could not do it.
        """
        if self.closed.is_set():
            raise ChannelClosedError(f"the worker ended before it could be asked to {verb}")
        self._last += 1
        number = self._last
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            _write(self._writer, _Call(number, verb, arguments))
            async with asyncio.timeout(timeout_s):
                return msgspec.msgpack.decode(await answer, type=kind)
        except TimeoutError:
            raise ChannelClosedError(
                f"the worker did not answer to {verb} within {timeout_s:.0f} s; its log says what it does"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def say(self, verb: str) -> None:
        """Tell the worker something, and wait for nothing."""
        _write(self._writer, _Call(0, verb))

    async def close(self) -> None:
        """Let go of the channel: a worker that lives stops then."""
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while (data := await _read(self._reader)) is not None:
                reply = _REPLIES.decode(data)
                waiting = self._waiting.get(reply.id)
                if waiting is None or waiting.done():
                    continue
                if reply.error is None:
                    waiting.set_result(reply.value)
                else:
                    waiting.set_exception(DeploymentError(reply.error))
        finally:
            self.closed.set()
            self._writer.close()
            for each in self._waiting.values():
                if not each.done():
                    each.set_exception(ChannelClosedError("the worker ended before it answered"))


async def answer_calls(
    end: socket.socket, answer: Callable[[str, tuple[str, ...]], Awaitable[object]]
) -> None:
    """Answer the supervisor's calls, each as soon as it can be, until the channel ends.

    Parameters
    ----------
    end
        The worker's end of the pair.
    answer
        Gives what a verb and its arguments ask for. A `NoriaError` is told to the supervisor.
    """
    reader, writer = await asyncio.open_unix_connection(sock=end)
    tasks: set[asyncio.Task[None]] = set()

    async def reply(call: _Call) -> None:
        try:
            value, error = msgspec.Raw(_ENCODER.encode(await answer(call.verb, call.arguments))), None
        except NoriaError as err:
            value, error = msgspec.Raw(_ENCODER.encode(None)), str(err)
        except Exception as err:  # the outermost loop of a call: the others go on  # noqa: BLE001
            _LOG.exception("%s failed", call.verb)
            value = msgspec.Raw(_ENCODER.encode(None))
            error = f"the worker failed at {call.verb} ({type(err).__name__}); its log says where"
        _write(writer, _Reply(call.id, value, error))

    try:
        while (data := await _read(reader)) is not None:
            task = asyncio.create_task(reply(_CALLS.decode(data)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        writer.close()
        for task in tasks:
            task.cancel()


def _write(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    if not writer.is_closing():  # else the other end is gone, and whoever waits is told so
        data = _ENCODER.encode(message)
        writer.write(_LENGTH.pack(len(data)) + data)


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """Give the next message; None when the other end is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > _LIMIT_BYTES:
            raise DeploymentError(f"a message of {length} bytes on a control channel: another program's")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
