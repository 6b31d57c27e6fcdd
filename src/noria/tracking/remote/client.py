"""A server of noria that keeps runs, asked over one connection that stays open.

Whatever it does not do, answer in time or answer at all, is a `StoreError`: what is sent waits. What it will
never take as it is, is `Refused`.
"""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from noria.errors import ConfigError, Conflict, LeaseHeld, NoriaError, NotFound, SourceError, StoreError
from noria.tracking.remote.sending import (
    CONTENT_TYPE,
    PROTOCOL,
    PROTOCOL_HEADER,
    Batch,
    Beginning,
    Begun,
    Kept,
    decode_begun,
    decode_kept,
    encode_wire,
)

__all__ = ["Refused", "RemoteServer", "ServerSpeaksOther", "server_location"]

T = TypeVar("T")
BASE = "/api/noria/tracking"
_CONNECT_S, _ANSWER_S, _FILE_S = 5.0, 20.0, 60.0
_LET_GO_S = 1.0  # how long to wait for another thread's answer before it is cut off
_MOST_ANSWER_BYTES = 256 << 20
_SHOWN_CHARS = 500
_WRONG = {400, 404, 409, 413, 415, 422}


class _Told(msgspec.Struct):
    kind: str = ""
    message: str = ""
    holder: str = ""


class _Error(msgspec.Struct):
    error: _Told


class Refused(Exception):
    """What was sent is nothing that the server will take; `error` is what it says, as noria raises it."""

    def __init__(self, error: NoriaError) -> None:
        super().__init__(str(error))
        self.error = error


class ServerSpeaksOther(StoreError):
    """It takes no logs from us, or of another version: nobody but a person can change that."""


def server_location(url: str) -> str:
    """Give a server's URL as it may be shown and compared: without user, password and last slash.

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> server_location("HTTP://ada:secret@Host:8000/team/")
    'http://host:8000/team'
    """
    scheme, host, port, path = _parts(url)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}{'' if port is None else f':{port}'}{path}"


def _parts(url: str) -> tuple[str, str, int | None, str]:
    wanted = "wanted is http://HOST:PORT or https://HOST, with a path if it has a prefix"
    try:
        found = urlsplit(url)
        port = found.port
    except ValueError:  # what it says quotes the URL, of which a part may be a password
        raise ConfigError(
            f"the server's URL cannot be read; {wanted}; in a password write '/', '?', '#', '@', ':' and '[' "
            "by percents, such as %2F"
        ) from None
    if found.scheme not in {"http", "https"} or not found.hostname or found.query or found.fragment:
        raise ConfigError(f"found a server's URL of scheme {found.scheme!r:.40}, {wanted}")
    if any(each <= " " or each == "\x7f" for each in url):
        raise ConfigError(f"the server's URL has a blank in it; {wanted}")
    return found.scheme, found.hostname, port, found.path.rstrip("/")


class _Line:
    """The connection of one process, and whose turn it is."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.turn = threading.Lock()
        self.connection: http.client.HTTPConnection | None = None


class RemoteServer:
    """Asks a server. Safe to use from many threads, one after the other, and in forked children.

    Parameters
    ----------
    url
        `http://HOST:PORT` or `https://HOST`; a user and a password may be in it.
    token
        Sent where the URL has no password.
    connect_s, answer_s
        How long to wait for a connection, and for each piece of an answer.
    """

    def __init__(
        self, url: str, *, token: str = "", connect_s: float = _CONNECT_S, answer_s: float = _ANSWER_S
    ) -> None:
        self.location = server_location(url)
        self._scheme, self._host, self._port, self._prefix = _parts(url)
        self._authorization = _authorization(url, token)
        self._connect_s, self._answer_s = connect_s, answer_s
        self._line = _Line()

    def begin(self, beginning: Beginning) -> Begun:
        """Say that a run begins. Raises `Refused`, `StoreError`."""
        return self._decoded(decode_begun, self._ask("POST", "/beginnings", encode_wire(beginning)))

    def keep(self, batch: Batch) -> Kept:
        """Send entries. Raises `Refused`, `StoreError`."""
        return self._decoded(decode_kept, self._ask("POST", "/batches", encode_wire(batch)))

    def has_bytes(self, sha256: str, *, is_code: bool) -> bool:
        """Ask whether bytes are there. Raises `StoreError`."""
        return self._ask("HEAD", _path_of(sha256, is_code=is_code), b"", may_lack=True) is not None

    def put_bytes(self, sha256: str, file: Path, *, is_code: bool) -> None:
        """Send the bytes of a file. Raises `Refused`, `StoreError`."""
        try:
            with file.open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                self._ask("PUT", _path_of(sha256, is_code=is_code), opened, size=size)
        except FileNotFoundError as err:
            told = f"the bytes of a file that was logged are gone: there is no {file}; log it anew"
            raise Refused(SourceError(told)) from err

    def interrupt(self) -> None:
        """Let whoever waits for an answer in another thread wait no more."""
        connection = self._line.connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def another(self) -> "RemoteServer":
        """Give one of the same server with a connection of its own."""
        found = RemoteServer(self.location, connect_s=self._connect_s, answer_s=self._answer_s)
        found._authorization = self._authorization
        return found

    def close(self) -> None:
        """Hang up; whoever asks again connects again."""
        line = self._line
        if line.pid == os.getpid() and line.turn.acquire(timeout=_LET_GO_S):
            try:
                self._hang_up(line)
            finally:
                line.turn.release()
        else:
            self.interrupt()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO,
        *,
        size: int | None = None,
        may_lack: bool = False,
    ) -> bytes | None:
        """Ask, once more where a connection that was kept turns out to be gone. None: there is none of it."""
        if self._line.pid != os.getpid():
            self._hang_up(self._line)  # which the parent goes on with
            self._line = _Line()
        line = self._line
        with line.turn:
            is_kept = line.connection is not None
            try:
                return self._answered(line, method, path, body, size, may_lack=may_lack)
            except (http.client.HTTPException, OSError, ValueError) as err:
                self._hang_up(line)
                is_stale = isinstance(err, (http.client.RemoteDisconnected, ConnectionError))
                if isinstance(err, StoreError) or not (is_kept and is_stale):
                    raise err if isinstance(err, StoreError) else self._away(err) from err
            try:
                return self._answered(line, method, path, body, size, may_lack=may_lack)
            except (http.client.HTTPException, OSError, ValueError) as err:
                self._hang_up(line)
                raise err if isinstance(err, StoreError) else self._away(err) from err

    def _answered(
        self, line: _Line, method: str, path: str, body: bytes | BinaryIO, size: int | None, *, may_lack: bool
    ) -> bytes | None:
        if line.connection is None:
            line.connection = self._connected()
        connection = line.connection
        assert connection.sock is not None
        connection.sock.settimeout(self._answer_s if isinstance(body, bytes) else _FILE_S)
        headers = {PROTOCOL_HEADER: PROTOCOL, "Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE}
        if self._authorization:
            headers["Authorization"] = self._authorization
        if not isinstance(body, bytes):
            body.seek(0)
            headers["Content-Length"] = str(size)
        connection.request(method, f"{self._prefix}{BASE}{path}", body, headers)
        response = connection.getresponse()
        data = response.read(_MOST_ANSWER_BYTES + 1)
        if len(data) > _MOST_ANSWER_BYTES or response.will_close:
            self._hang_up(line)
        return self._judged(response, data, may_lack=may_lack)

    def _connected(self) -> http.client.HTTPConnection:
        made: http.client.HTTPConnection
        if self._scheme == "https":
            context = ssl.create_default_context()
            made = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_s, context=context
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_s)
        made.connect()
        assert made.sock is not None
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _hang_up(self, line: _Line) -> None:
        connection, line.connection = line.connection, None
        if connection is not None:
            connection.close()

    def _judged(self, response: http.client.HTTPResponse, data: bytes, *, may_lack: bool) -> bytes | None:
        status, spoken = response.status, response.headers.get(PROTOCOL_HEADER)
        if status in {401, 403}:
            raise ServerSpeaksOther(
                f"the server {self.location} refuses us (HTTP {status}{_told_of(data)}); give it a token by "
                "NORIA_TRACKING__TOKEN, or user and password in its URL"
            )
        if spoken is None:
            raise StoreError(
                f"what answers at {self.location} (HTTP {status}{_told_of(data)}) takes no logs of runs just "
                "now: see whether it is a noria, and up"
            )
        if spoken != PROTOCOL:
            raise ServerSpeaksOther(
                f"the server {self.location} takes logs in version {spoken!r:.20} of the protocol, this "
                f"noria sends version {PROTOCOL}; bring the older one of the two up to date"
            )
        if status in {200, 201}:
            return data
        if may_lack and status == 404:
            return None
        if status in _WRONG:
            raise Refused(self._refusal(status, data))
        raise StoreError(
            f"the server {self.location} answers with HTTP {status}{_told_of(data)}; it may be back soon"
        )

    def _refusal(self, status: int, data: bytes) -> NoriaError:
        told = _read_error(data)
        if told is None:
            return ConfigError(f"the server {self.location} refuses it with HTTP {status}")
        match told.kind:
            case "NotFound":
                error = NotFound("thing", told.message)
                error.args = (told.message,)
                return error
            case "LeaseHeld":
                return LeaseHeld("the run", told.holder or told.message)
            case "Conflict":
                return Conflict(told.message)
            case _:
                return ConfigError(
                    told.message or f"the server {self.location} refuses it with HTTP {status}"
                )

    def _decoded(self, decode: Callable[[bytes], T], data: bytes | None) -> T:
        try:
            return decode(data or b"")
        except msgspec.DecodeError as err:
            raise StoreError(f"the server {self.location} answers with what cannot be read: {err}") from err

    def _away(self, err: Exception) -> StoreError:
        if isinstance(err, ssl.SSLCertVerificationError):
            return StoreError(
                f"the server {self.location} cannot be trusted: {err.verify_message}; if its certificate is "
                "one of your own, name the file of whoever signed it as SSL_CERT_FILE"
            )
        why = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return StoreError(f"the server {self.location} cannot be asked: {why}; see whether it is up")


def _path_of(sha256: str, *, is_code: bool) -> str:
    return f"/{'code' if is_code else 'files'}/{sha256}"


def _authorization(url: str, token: str) -> str:
    found = urlsplit(url)
    if found.username is not None:
        pair = f"{unquote(found.username)}:{unquote(found.password or '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    token = token.strip()
    if not token:
        return ""
    if not token.isascii() or any(each <= " " or each == "\x7f" for each in token):
        raise ConfigError("the token of [tracking] has blanks or other signs in it that no header may have")
    return f"Bearer {token}"


def _read_error(data: bytes) -> _Told | None:
    try:
        return msgspec.json.decode(data, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _told_of(data: bytes) -> str:
    told = _read_error(data)
    return "" if told is None else f": {told.message[:_SHOWN_CHARS]}"
