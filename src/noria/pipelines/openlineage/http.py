"""Events posted to an OpenLineage endpoint by a thread, out of a spool on the disk."""

import base64
import http.client
import logging
import random
import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib.metadata import version
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from noria.errors import ConfigError, StoreError
from noria.pipelines.openlineage.spool import EventSpool
from noria.records import sha256_hex

__all__ = ["Endpoint", "HttpSink"]

_LOG = logging.getLogger(__name__)
_TOKEN = re.compile(r"[\x21-\x7e]+")
_DEFAULT_PATH = "/api/v1/lineage"
_UNREADABLE = re.compile(r"[\x00-\x20\x7f]")
_NEVER_TAKEN = frozenset({400, 413, 422})  # the event is what is wrong; all else may pass
_MAX_ANSWER_BYTES = 1 << 14
_MAX_ANSWER_CHARS = 500
_WANTED = "write http(s)://HOST[:PORT][/PATH], with TOKEN@ or USER:PASSWORD@ before HOST if it wants one"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are posted to."""

    secure: bool
    host: str
    port: int | None
    target: str = field(repr=False)  # path and query
    authorization: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read a URL. Raises `ConfigError`, which never shows credentials."""
        if _UNREADABLE.search(url):
            raise ConfigError(f"the lineage URL has spaces or control characters; {_WANTED}")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:  # its text may show a part of a password
            raise ConfigError(f"the lineage URL has no readable host and port; {_WANTED}") from None
        if not host:
            raise ConfigError(f"the lineage URL names no host; {_WANTED}")
        path = _DEFAULT_PATH if parts.path in ("", "/") else parts.path
        target = path + (f"?{parts.query}" if parts.query else "")
        return cls(
            parts.scheme == "https", host, port, quote(target, safe="/%?:@!$&'()*+,;=~-._"), _login(parts)
        )

    def __str__(self) -> str:
        """Give the address as people may see it: a query may hold a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{'https' if self.secure else 'http'}://{host}{port}{self.target.partition('?')[0]}"

    @property
    def digest(self) -> str:
        """What it is known by on the disk; the same with other credentials."""
        return sha256_hex(f"{self} {self.target}".encode())

    def connect(self, *, timeout_s: float) -> http.client.HTTPConnection:
        """Give a connection, which opens at the first request."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)

    def post(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, str]:
        """Post one event; give status and text of the answer.

        Raises
        ------
        OSError, http.client.HTTPException
            If there is none.
        """
        headers = {"Content-Type": "application/json", "User-Agent": f"noria/{version('noria')}"}
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        connection.request("POST", self.target, body, headers)
        answer = connection.getresponse()
        text = answer.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
        if not answer.isclosed():  # more than anybody wants to read
            connection.close()
        return answer.status, text[:_MAX_ANSWER_CHARS]


class _Round(Enum):
    """How an attempt to send all that is there came out."""

    DONE = auto()
    ELSEWHERE = auto()  # another process is at it
    UNWILLING = auto()  # it answers, but does not take the event now
    AWAY = auto()
    OUT_OF_TIME = auto()


class HttpSink:
    """Posts what is spooled, oldest first, one event a request.

    An answer of 2xx takes an event off the spool; 400, 413 and 422 set it aside in `refused.jsonl`; after
    anything else (401 and 404 too: a token or a path may be put right) it is tried again, after a wait that
    doubles from `first_wait_s` to `longest_wait_s`.

    Parameters
    ----------
    poll_s
        How often to look whether another process that sends has ended.
    answer_timeout_s
        How long an endpoint may take to answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        spool: EventSpool,
        *,
        first_wait_s: float = 0.2,
        longest_wait_s: float = 30.0,
        poll_s: float = 1.0,
        answer_timeout_s: float = 10.0,
    ) -> None:
        self._endpoint, self._spool = endpoint, spool
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._poll_s, self._answer_timeout_s = poll_s, answer_timeout_s
        self._guard = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._deadline = float("inf")  # of the monotonic clock
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None  # what was said last; said once
        if not spool.is_empty():
            self._wake()

    @classmethod
    def open(cls, url: str, *, root: Path) -> "HttpSink":
        """Open `http(s)://…`, with the spool in the project's `.noria`; see `LineageEmitter.open`."""
        endpoint = Endpoint.parse(url)
        folder = root / ".noria" / "openlineage" / endpoint.digest[:16]
        return cls(endpoint, EventSpool(folder))

    def write(self, line: bytes) -> None:
        """Spool one event."""
        if self._closing.is_set():
            raise StoreError(f"the lineage emitter to {self._endpoint} is closed; open it again")
        self._spool.append(line)
        self._wake()

    def pending(self) -> int:
        """Count what the endpoint has not taken."""
        return self._spool.count()

    def close(self, *, timeout_s: float) -> None:
        """Send what is left while the endpoint answers, for `timeout_s` at most."""
        with self._guard:
            thread = self._thread
            self._deadline = min(self._deadline, time.monotonic() + timeout_s)
            self._closing.set()
            self._news.set()
        if thread is not None:
            thread.join(timeout_s)

    def _wake(self) -> None:
        self._news.set()
        if self._thread is None:
            with self._guard:
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._work, name="noria-openlineage", daemon=True)
                    self._thread.start()

    def _work(self) -> None:
        failures = 0
        while True:
            self._news.clear()
            last = self._closing.is_set()  # before the round: it has all that was written before closing
            came_out = self._send_all()
            if came_out is _Round.DONE:
                failures = 0
                if last:
                    return
                self._news.wait()
            elif came_out is _Round.ELSEWHERE:
                if last:
                    return
                self._closing.wait(self._poll_s)
            else:
                failures += 1
                if not self._may_try_again(came_out, failures):
                    return

    def _may_try_again(self, came_out: _Round, failures: int) -> bool:
        """Wait before the next attempt; False if there is to be none."""
        longest = min(self._longest_wait_s, self._first_wait_s * 2 ** min(failures - 1, 30))
        wait_s = longest * random.uniform(0.5, 1.0)  # many processes do not come back at once
        if not self._closing.is_set():
            self._closing.wait(wait_s)
            return True
        if came_out is not _Round.UNWILLING or time.monotonic() + wait_s > self._deadline:
            return False
        time.sleep(wait_s)
        return True

    def _send_all(self) -> _Round:
        """Send until nothing is left. What came in while the right was held is looked for again after it."""
        try:
            while not self._spool.is_empty():
                with self._spool.taking_off() as mine:
                    came_out = self._send_mine() if mine else _Round.ELSEWHERE
                if came_out is not _Round.DONE:
                    return came_out
        except OSError as err:  # the disk's; the events are where they were
            self._tell_of_trouble(f"is not written to, the spool cannot be read or written ({err})")
            return _Round.AWAY
        return _Round.DONE

    def _send_mine(self) -> _Round:
        with closing(self._endpoint.connect(timeout_s=self._answer_timeout_s)) as connection:
            for event in self._spool.unsent():
                if time.monotonic() > self._deadline:
                    return _Round.OUT_OF_TIME
                try:
                    status, answer = self._endpoint.post(connection, event.line)
                except (OSError, http.client.HTTPException) as err:
                    self._tell_of_trouble(f"does not answer ({str(err) or type(err).__name__})")
                    return _Round.AWAY
                if 200 <= status < 300:
                    self._trouble = None
                    self._spool.mark_sent(event)
                elif status in _NEVER_TAKEN:
                    self._spool.set_aside(event, status=status, answer=answer)
                    _LOG.warning("%s refused a lineage event (%d): %s", self._endpoint, status, answer)
                else:
                    self._tell_of_trouble(f"answers {status}")
                    return _Round.UNWILLING
        self._spool.shrink()
        return _Round.DONE

    def _tell_of_trouble(self, what: str) -> None:
        if what != self._trouble:
            self._trouble = what
            _LOG.warning("%s %s; lineage events wait in %s", self._endpoint, what, self._spool.folder)


def _login(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    user = unquote(parts.username)
    if parts.password is None:
        if not _TOKEN.fullmatch(user):
            raise ConfigError(f"the token of the lineage URL is not of printable ASCII characters; {_WANTED}")
        return f"Bearer {user}"
    pair = f"{user}:{unquote(parts.password)}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
