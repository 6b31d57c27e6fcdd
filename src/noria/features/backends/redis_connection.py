"""A connection to Redis: its URL, its time-outs, and what its errors mean here.

A call whose connection was closed is sent once more, for one that was idle may have been closed meanwhile;
one that got no answer in time is not. After either nothing is sent for a while, longer each time, and callers
learn at once that Redis is away instead of waiting in line.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError
from redis.retry import Retry

from noria.errors import ConfigError, StoreError

__all__ = ["AGAIN", "Connection", "Options", "OutOfMemory"]

T = TypeVar("T")

AGAIN = "load its views again with `noria feature materialize`: everything in it comes from the lake"
_UNIX = "redis+unix"
_DOUBLINGS = 4


@dataclass(frozen=True, slots=True)
class Options:
    """What a URL says beside where Redis is.

    Parameters
    ----------
    prefix : str
        What the store's keys begin with: stores of other prefixes may be in the same database.
    timeout_ms : int
        How long an answer is waited for.
    connect_timeout_ms : int
        How long a connection is.
    pause_ms : int
        How long nothing is sent after Redis did not answer; twice as long each time, up to 16 times this.
    lease_ms : int
        How long a writer that died keeps others from writing.
    password_file : str
        The path of a file that holds the password; one that is in the URL is also where the URL is.
    """

    prefix: str = "noria"
    timeout_ms: int = 1_000
    connect_timeout_ms: int = 1_000
    pause_ms: int = 200
    lease_ms: int = 10_000
    password_file: str = ""


_NUMBERS = ("timeout_ms", "connect_timeout_ms", "pause_ms", "lease_ms")
_TEXTS = ("prefix", "password_file")


class OutOfMemory(StoreError):
    """Redis has no room for a change, which was not made."""


class Connection:
    """A client of one Redis, for the keys of one store; threads may share it.

    Parameters
    ----------
    url : str
        `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…` through TLS, or
        `redis+unix:///PATH/OF/SOCKET[?db=DB]`; then, as `?name=value&…`, `Options` and what redis-py takes.
    most_s : float or None
        How long an answer or a connection is waited for at most, whatever the URL says.

    Raises
    ------
    ConfigError
        If the URL cannot be understood.
    """

    def __init__(self, url: str, *, most_s: float | None = None) -> None:
        self.place = _without_password(url)
        self.options, plain = _split(url, self.place)
        if most_s is not None:
            self.options = _within(self.options, max(1, round(most_s * 1_000)))
        password = _PasswordFile(Path(self.options.password_file)) if self.options.password_file else None
        try:
            self.client = redis.Redis.from_url(
                plain,
                socket_timeout=self.options.timeout_ms / 1_000,
                socket_connect_timeout=self.options.connect_timeout_ms / 1_000,
                retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
                credential_provider=password,
            )
            urlsplit(plain).port  # noqa: B018 - raises if it is no number
        except (ValueError, TypeError) as err:
            raise ConfigError(
                f"{self.place} is no URL of a Redis ({err}); write redis://HOST:PORT/DB"
            ) from err
        self._paused_until, self._pauses = 0.0, 0

    def key(self, name: str) -> bytes:
        """Give the key of something that the store has once."""
        return f"{self.options.prefix}:{name}".encode()

    def run(self, action: Callable[[redis.Redis], T]) -> T:
        """Call Redis; its errors become noria's.

        Raises
        ------
        OutOfMemory
            If Redis refused a change for want of memory.
        StoreError
            If it does not answer, or refuses.
        """
        left_s = self._paused_until - time.monotonic()
        if left_s > 0:
            raise StoreError(
                f"the online store {self.place} did not answer; it is asked again in {left_s * 1e3:.0f} ms"
            )
        try:
            answer = action(self.client)
        except BusyLoadingError as err:
            self._pause()
            raise StoreError(f"{self.place} is loading its data after a start; try again soon") from err
        except (redis.ConnectionError, redis.TimeoutError) as err:
            self._pause()
            raise StoreError(
                f"the online store {self.place} does not answer ({err}); see that Redis runs and can be "
                f"reached from here, or give it longer than timeout_ms={self.options.timeout_ms}; should it "
                f"come back empty, {AGAIN}"
            ) from err
        except OutOfMemoryError as err:
            raise self._no_room() from err
        except RedisError as err:
            if str(err).startswith("OOM"):
                raise self._no_room() from err
            raise StoreError(
                f"Redis refuses what the online store {self.place} asks ({err}); look at its log, its rights "
                "(ACL) and whether it is a replica, then try again"
            ) from err
        self._pauses = 0
        return answer

    def get(self, *keys: bytes) -> list[bytes | None]:
        """Give the values of keys, all as of one instant."""
        return cast("list[bytes | None]", self.run(lambda client: client.mget(keys)))

    def close(self) -> None:
        """Let go of it."""
        self.client.close()

    def _pause(self) -> None:
        pause_s = self.options.pause_ms / 1_000 * 2 ** min(self._pauses, _DOUBLINGS)
        self._paused_until = time.monotonic() + pause_s
        self._pauses += 1

    def _no_room(self) -> OutOfMemory:
        return OutOfMemory(
            f"Redis has no memory left for the online store {self.place}, the change was not made; raise its "
            "`maxmemory`, or let go of views and of what no window reaches, then try again"
        )


class _PasswordFile(CredentialProvider):
    """The password in a file, read at each connection: it may be changed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str]:
        try:
            return (self._path.read_text(encoding="utf-8").strip(),)
        except OSError as err:
            raise ConfigError(f"the password of Redis cannot be read from {self._path} ({err})") from err


def _within(options: Options, most_ms: int) -> Options:
    return replace(
        options,
        timeout_ms=min(options.timeout_ms, most_ms),
        connect_timeout_ms=min(options.connect_timeout_ms, most_ms),
    )


def _without_password(url: str) -> str:
    """Give the URL as it may be shown: no password, no options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _split(url: str, place: str) -> tuple[Options, str]:
    """Take the options of ours out of a URL; the rest is redis-py's."""
    parts = urlsplit(url)
    mine: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _NUMBERS or name in _TEXTS:
            mine[name] = value
        else:
            others.append((name, value))
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        if name in mine:
            if not mine[name].isdecimal() or not int(mine[name]):
                raise ConfigError(
                    f"{place} has {name}={mine[name]!r}; write milliseconds, such as {name}=500"
                )
            numbers[name] = int(mine[name])
    prefix = mine.get("prefix", "noria")
    if not prefix or prefix != quote(prefix, safe=":") or "~" in prefix:
        raise ConfigError(
            f"{place} has prefix={prefix!r}; write letters, digits and any of - _ . : such as prefix=shop"
        )
    password_file = mine.get("password_file", "")
    if password_file and not Path(password_file).is_absolute():
        raise ConfigError(
            f"{place} has password_file={password_file!r}; write a path that begins with /: workers read "
            "it in other folders"
        )
    if parts.scheme == _UNIX and parts.netloc.rpartition("@")[2]:
        raise ConfigError(f"{place} has a host; write {_UNIX}:///PATH/OF/SOCKET with three slashes")
    scheme = "unix" if parts.scheme == _UNIX else parts.scheme
    asked = f"?{urlencode(others)}" if others else ""
    plain = f"{scheme}://{parts.netloc}{parts.path}{asked}"
    options = Options(prefix=prefix, password_file=password_file, **numbers)
    return options, plain
