"""Who may ask the control plane: names, roles, and what proves them, in a file of its owner's alone.

A password is kept as scrypt makes it, which takes its time on purpose. A token is a random number of 256 bits
that nobody guesses: its SHA-256 is enough.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from noria.errors import ConfigError, Conflict, NotFound
from noria.storage.private_files import PrivateFile
from noria.workspace.opened import Opened

__all__ = [
    "MadeToken",
    "Role",
    "Token",
    "User",
    "UserFile",
    "Users",
    "checked_password",
    "is_password",
    "user_file",
]

MIN_PASSWORD, MAX_PASSWORD = 12, 1_024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")  # a colon would end it in HTTP's Basic
_LOG_N, _R, _P = 15, 8, 3  # 32 MiB and a quarter of a second
_SCRYPT_BYTES = 96 << 20
_MAX_LOG_N, _MAX_R, _MAX_P = 17, 8, 8  # of a file that somebody wrote
_TOKEN_BYTES = 32
_TOKEN_MARK = "noria_"


class Role(StrEnum):
    """What a user may do; each may also do what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Tell whether this role may do what another one may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One token of a user; what it is is known to its owner alone."""

    id: str
    sha256: str
    made_at: datetime
    ends_at: datetime | None = None


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who may ask."""

    name: str
    role: Role
    password: str = ""  # "scrypt$LOG_N$R$P$SALT$HASH"; empty: tokens only
    made_at: datetime
    tokens: tuple[Token, ...] = ()

    @property
    def actor(self) -> str:
        """What the events are signed with that this user causes."""
        return f"person:{self.name}"


class MadeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is shown, once."""

    id: str
    token: str
    ends_at: datetime | None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    users: tuple[User, ...] = ()


class Users:
    """Users as they were read."""

    def __init__(self, users: Sequence[User] = ()) -> None:
        self.all = tuple(users)
        self._named = {each.name: each for each in users}
        self._by_token = {token.sha256: (each, token) for each in users for token in each.tokens}

    def find(self, name: str) -> User | None:
        """Give a user by name."""
        return self._named.get(name)

    def of_token(self, token: str, *, at: datetime) -> tuple[User, Token] | None:
        """Give whose token this is and what is known of it, unless it has ended."""
        # A table of digests: how long a look takes tells of the digest alone, from which no token follows.
        found = self._by_token.get(_token_digest(token))
        if found is None or (found[1].ends_at is not None and found[1].ends_at <= at):
            return None
        return found


class UserFile:
    """The file that keeps users. Changes are made one after the other, each whole or not at all.

    Parameters
    ----------
    path
        It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, PrivateFile(path, of="users")

    def read(self) -> Users:
        """Give the users; none if there is no such file.

        Raises
        ------
        ConfigError
            If it is no file of users, or others than its owner may read or change it.
        """
        return Users(self._read().users)

    def identity(self) -> tuple[int, ...]:
        """Give what is another one once the file has changed; empty if there is none."""
        return self._file.identity()

    def add(self, name: str, role: Role, *, password: str | None = None, replace: bool = False) -> User:
        """Add a user; with `replace` give one another role, and another password if there is one.

        Raises
        ------
        ConfigError
            If name or password can be none.
        Conflict
            If there is a user of that name and `replace` was not said.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name[:40]!r} is no name of a user: letters, digits, '.', '_', '-', '@', at most 100 of "
                "them, a letter or a digit first"
            )
        kept = "" if password is None else _kept(checked_password(password))
        with self._changing() as users:
            known = users.get(name)
            if known is not None and not replace:
                raise Conflict(
                    f"there is a user {name!r} already, who may {known.role.value}; `--replace` gives "
                    "another role or password"
                )
            if known is None:
                made = User(name=name, role=role, password=kept, made_at=_now())
            else:
                made = msgspec.structs.replace(known, role=role, password=kept or known.password)
            users[name] = made
        return made

    def remove(self, name: str) -> None:
        """Remove a user with all tokens. Raises `NotFound`."""
        with self._changing() as users:
            _get(users, name)
            del users[name]

    def add_token(self, name: str, *, lasts: timedelta | None = None) -> MadeToken:
        """Make a token of a user; it is shown here, and never again. Raises `NotFound`."""
        token = f"{_TOKEN_MARK}{secrets.token_urlsafe(_TOKEN_BYTES)}"
        made_at = _now()
        kept = Token(
            id=secrets.token_hex(4),
            sha256=_token_digest(token),
            made_at=made_at,
            ends_at=None if lasts is None else made_at + lasts,
        )
        with self._changing() as users:
            known = _get(users, name)
            users[name] = msgspec.structs.replace(known, tokens=(*known.tokens, kept))
        return MadeToken(id=kept.id, token=token, ends_at=kept.ends_at)

    def remove_token(self, name: str, id: str) -> None:
        """Let a token be none any more. Raises `NotFound`."""
        with self._changing() as users:
            known = _get(users, name)
            left = tuple(each for each in known.tokens if each.id != id)
            if len(left) == len(known.tokens):
                raise NotFound("token", id, [each.id for each in known.tokens])
            users[name] = msgspec.structs.replace(known, tokens=left)

    def _read(self) -> _File:
        data = self._file.read()
        if data is None:
            return _File()
        try:
            found = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ConfigError(
                f"the file of users {self.path} cannot be read: {err}; restore it, or remove it and add "
                "its users again by `noria user add`"
            ) from err
        names = [each.name for each in found.users]
        if len(set(names)) != len(names):
            raise ConfigError(f"the file of users {self.path} names a user twice; leave one of them")
        for each in found.users:
            if each.password:
                _parameters(each.password)
        return found

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        """Give the users by name, and write them when the block ends well."""
        with self._file.changing():
            users = {each.name: each for each in self._read().users}
            yield users
            content = _File(users=tuple(users[name] for name in sorted(users)))
            self._file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def user_file(opened: Opened) -> UserFile:
    """Give the file of a project's users. Raises `ConfigError` if its settings name none."""
    named = opened.settings.server.users
    if not named:
        raise ConfigError(
            "the project asks nobody who it is; name a file of users in noria.toml: `[server] users = "
            '".noria/users.json"\''
        )
    return UserFile(opened.root / named)


def checked_password(password: str) -> str:
    """Give a password. Raises `ConfigError` if it can be none, without a word of what it was."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ConfigError(
            f"a password has {MIN_PASSWORD} to {MAX_PASSWORD:,} characters, this one {len(password):,}; "
            "choose another"
        )
    if not password.isprintable():
        raise ConfigError("a password is one line of text that can be typed; choose another")
    return password


def is_password(user: User | None, password: str) -> bool:
    """Tell whether this is the user's password. It takes as long if there is no such user."""
    kept = _DUMMY if user is None or not user.password else user.password
    log_n, r, p, salt, wanted = _parameters(kept)
    found = _scrypt(password, salt, log_n=log_n, r=r, p=p, length=len(wanted))
    return hmac.compare_digest(found, wanted) and kept is not _DUMMY


def _get(users: Mapping[str, User], name: str) -> User:
    if name not in users:
        raise NotFound("user", name, users)
    return users[name]


def _kept(password: str) -> str:
    salt = secrets.token_bytes(16)
    found = _scrypt(password, salt, log_n=_LOG_N, r=_R, p=_P, length=32)
    return f"scrypt${_LOG_N}${_R}${_P}${_text(salt)}${_text(found)}"


def _parameters(kept: str) -> tuple[int, int, int, bytes, bytes]:
    try:
        kind, *numbers, salt, wanted = kept.split("$")
        log_n, r, p = (int(each) for each in numbers)
        given = log_n, r, p, base64.b64decode(salt, validate=True), base64.b64decode(wanted, validate=True)
    except ValueError as err:
        raise ConfigError("the file of users has a password that was not written by noria") from err
    is_good = kind == "scrypt" and 1 <= log_n <= _MAX_LOG_N and 1 <= r <= _MAX_R and 1 <= p <= _MAX_P
    if not is_good or not 16 <= len(given[4]) <= 64:
        raise ConfigError("the file of users has a password that was not written by noria")
    return given


def _scrypt(password: str, salt: bytes, *, log_n: int, r: int, p: int, length: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    most = max(_SCRYPT_BYTES, 160 * r << log_n)
    return hashlib.scrypt(data, salt=salt, n=1 << log_n, r=r, p=p, maxmem=most, dklen=length)


def _token_digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _now() -> datetime:
    return datetime.now(UTC)


_DUMMY = f"scrypt${_LOG_N}${_R}${_P}${_text(bytes(16))}${_text(bytes(32))}"
