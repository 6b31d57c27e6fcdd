"""Who may ask a server: keys of callers, in a file of its owner's alone, looked at by every worker.

A key is a random number of 256 bits that nobody guesses: its SHA-256 is kept, and enough.
"""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import msgspec

from noria.errors import ConfigError, NotFound
from noria.serving.requests import RequestError, shown
from noria.storage.private_files import PrivateFile

__all__ = ["Key", "KeyFile", "Keys", "MadeKey", "key_digest", "new_key"]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # an `@` would end it in NAME@ENVIRONMENT
_KEY_BYTES = 32
_KEY_MARK = "noria_"
_MAX_KEY = 256  # bytes that are looked at
_REMEMBERED = 1_024  # keys that were proven
_HOW = "send a key, as `Authorization: Bearer KEY` or as `X-Api-Key: KEY`"


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of a caller; what it is is known to its owner alone.

    Parameters
    ----------
    name
        Who asks by it: predictions are logged with that as their `caller`.
    deployments
        Where it counts; empty: at all of the environment.
    """

    id: str
    name: str
    sha256: str
    made_at: datetime
    ends_at: datetime | None = None
    deployments: tuple[str, ...] = ()


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is shown, once."""

    id: str
    key: str
    ends_at: datetime | None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keys: tuple[Key, ...] = ()


class KeyFile:
    """The file that keeps an environment's keys.

    Changes are made one after the other, each whole or not at all.

    Parameters
    ----------
    path
        It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, PrivateFile(path, of="keys")

    def identity(self) -> tuple[int, ...]:
        """Give what is another one once the file has changed; empty if there is none."""
        return self._file.identity()

    def read(self) -> tuple[Key, ...]:
        """Give the keys; none if there is no such file.

        Raises
        ------
        ConfigError
            If it is no file of keys, or others than its owner may read or change it.
        """
        data = self._file.read()
        if data is None:
            return ()
        try:
            return msgspec.json.decode(data, type=_File).keys
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ConfigError(
                f"the file of keys {self.path} cannot be read: {err}; restore it, or remove it and make new "
                "keys by `noria key add NAME@ENVIRONMENT`"
            ) from err

    def add(self, name: str, *, deployments: Sequence[str] = (), lasts: timedelta | None = None) -> MadeKey:
        """Make a key of a caller; it is shown here, and never again. A caller may have several.

        Raises
        ------
        ConfigError
            If the name can be none.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name[:40]!r} is no name of a caller: letters, digits, '.', '_' and '-', at most 100 "
                "of them, a letter or a digit first"
            )
        key = new_key()
        made_at = datetime.now(UTC)
        kept = Key(
            id=secrets.token_hex(4),
            name=name,
            sha256=key_digest(key),
            made_at=made_at,
            ends_at=None if lasts is None else made_at + lasts,
            deployments=tuple(dict.fromkeys(deployments)),
        )
        with self._changing() as keys:
            keys.append(kept)
        return MadeKey(id=kept.id, key=key, ends_at=kept.ends_at)

    def revoke(self, name: str, *, id: str | None = None, deployment: str | None = None) -> list[Key]:
        """Let keys of a caller be none any more: all, or the one of an id, or those of one deployment alone.

        Raises
        ------
        NotFound
            If there are none; a key of other deployments too is not taken for one of this.
        """
        with self._changing() as keys:
            of_name = [each for each in keys if each.name == name]
            if not of_name:
                raise NotFound("key", name, sorted({each.name for each in keys}))
            wanted = [
                each
                for each in of_name
                if id in (None, each.id) and (deployment is None or each.deployments == (deployment,))
            ]
            if not wanted:
                raise NotFound("key", id or f"{name} for {deployment}", [each.id for each in of_name])
            keys[:] = [each for each in keys if each not in wanted]
        return wanted

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        with self._file.changing():
            keys = list(self.read())
            yield keys
            content = _File(keys=tuple(sorted(keys, key=lambda each: (each.name, each.made_at, each.id))))
            self._file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


class _Proven(msgspec.Struct, frozen=True, gc=False):
    """What a key was found to be."""

    caller: str
    deployments: frozenset[str] | None  # None: all
    ends_at: float  # seconds since 1970; infinity: never


class Keys:
    """Tells who asks, by the key that comes with a request. Belongs to one event loop.

    A key is hashed when it is seen first; then it is known by itself. Of wrong ones nothing is kept.

    Parameters
    ----------
    file
        Who may ask.
    own
        The SHA-256 of a key of the server's own, by which its supervisor asks; empty: none.

    Raises
    ------
    ConfigError
        If the file cannot be read.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = KeyFile(Path(mkdtemp()) / "keys.json")
    >>> made = file.add("shop", deployments=["late_arrival"])
    >>> Keys(file).check([(b"x-api-key", made.key.encode())], "late_arrival")
    'shop'
    """

    def __init__(self, file: KeyFile, *, own: str = "") -> None:
        self._file, self._own = file, own
        self._bearers: dict[bytes, _Proven] = {}  # by the header as it was sent
        self._plain: dict[bytes, _Proven] = {}
        self._fault = False
        self._identity = file.identity()
        self._by_digest = self._table(file.read())

    def look(self) -> None:
        """Read the file again if it has changed; where it cannot be read, nobody is let in until it can."""
        identity = self._file.identity()
        if identity == self._identity:
            return
        try:
            found = self._table(self._file.read())
        except ConfigError as err:
            _LOG.error("nobody is let in: %s", err)
            found, self._fault = self._table(()), True
        else:
            self._fault = False
        self._by_digest, self._identity = found, identity
        self._bearers.clear()
        self._plain.clear()

    def check(self, headers: Iterable[tuple[bytes, bytes]], deployment: str | None) -> str:
        """Give the caller's name.

        Parameters
        ----------
        headers
            Of the request, named in lower case.
        deployment
            Which is asked; None: the server itself.

        Raises
        ------
        RequestError
            401 if no key came or it is none, 403 if it is one of other deployments, 503 while the file of
            keys cannot be read.
        """
        proven = None
        for name, value in headers:
            if name == b"x-api-key":
                proven = self._plain.get(value) or self._prove(value, value, self._plain)
                break
            if name == b"authorization":
                proven = self._bearers.get(value) or self._prove_bearer(value)
                if proven is not None:
                    break
        if proven is None:
            raise self._unproven(headers)
        if proven.ends_at <= time.time():
            raise RequestError(
                HTTPStatus.UNAUTHORIZED, f"the key of {proven.caller!r} has ended; ask for another"
            )
        if deployment is not None and proven.deployments is not None and deployment not in proven.deployments:
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"the key of {proven.caller!r} is for {', '.join(sorted(proven.deployments))}, not for "
                f"{shown(deployment)}",
            )
        return proven.caller

    def _prove_bearer(self, header: bytes) -> _Proven | None:
        kind, _, key = header.partition(b" ")
        return self._prove(header, key.strip(), self._bearers) if kind.lower() == b"bearer" else None

    def _prove(self, header: bytes, key: bytes, known: dict[bytes, _Proven]) -> _Proven | None:
        if len(key) > _MAX_KEY:
            return None
        # A table of digests: how long a look takes tells of the digest alone, from which no key follows.
        proven = self._by_digest.get(hashlib.sha256(key).hexdigest())
        if proven is not None:
            if len(known) >= _REMEMBERED:
                del known[next(iter(known))]
            known[header] = proven
        return proven

    def _unproven(self, headers: Iterable[tuple[bytes, bytes]]) -> RequestError:
        if self._fault:
            return RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the server cannot tell who may ask; its log says why",
                retry_after_s=5,
            )
        if any(name in (b"authorization", b"x-api-key") for name, _ in headers):
            told = f"what came is no key that counts here, or one that was revoked; {_HOW}"
        else:
            told = f"say who asks: {_HOW}"
        return RequestError(HTTPStatus.UNAUTHORIZED, told)

    def _table(self, keys: Iterable[Key]) -> dict[str, _Proven]:
        table = {
            each.sha256: _Proven(
                each.name,
                frozenset(each.deployments) or None,
                float("inf") if each.ends_at is None else each.ends_at.timestamp(),
            )
            for each in keys
        }
        if self._own:
            table[self._own] = _Proven("noria", None, float("inf"))
        return table


def new_key() -> str:
    """Make a key."""
    return f"{_KEY_MARK}{secrets.token_urlsafe(_KEY_BYTES)}"


def key_digest(key: str) -> str:
    """Give what is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
