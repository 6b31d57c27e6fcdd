"""Who asks: proven by a password or a token, once; then known by a keyed digest of what was sent.

The digest is kept in memory alone, under a key of this process. Passwords are tried one at a time, and who is
wrong too often has to wait: guesses take one core at most, however many guess.
"""

import asyncio
import base64
import hashlib
import logging
import re
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.answers import answer
from noria.api.mlflow.application import after_prefix
from noria.api.mlflow.errors import ErrorCode, MlflowFault, refusal
from noria.api.mlflow.signing import holder_of
from noria.errors import ConfigError
from noria.ledger.acting import acting_as
from noria.workspace.users import MAX_PASSWORD, Role, User, UserFile, Users, is_password

__all__ = ["Authenticated", "needed_role"]

_LOG = logging.getLogger(__name__)
_REMEMBERED = 1_024  # proven credentials
_TRIED = 4_096  # names and addresses that were wrong of late
_WAITING = 16  # passwords that may wait for their turn
_WRONG_OF_NAME, _WRONG_OF_ADDRESS = 5, 50  # before one has to wait
_LONGEST_S = 60.0
_FORGOTTEN_S = 3_600.0  # without a wrong one: many share an address, and mistype now and then
_MAX_HEADER = MAX_PASSWORD * 8
_OPEN = frozenset({"/health", "/version"})
_CHALLENGE = {"www-authenticate": 'Basic realm="noria", charset="UTF-8"'}
_MLFLOW_PATHS = ("/api/2.0", "/api/3.0", "/ajax-api/", "/get-artifact", "/model-versions/")
_CHANGELESS = frozenset({"GET", "HEAD", "OPTIONS"})
_READS = frozenset(
    {
        "/experiments/search",
        "/experiments/search-datasets",
        "/runs/search",
        "/logged-models/search",
        "/registered-models/get-latest-versions",
    }
)
_READS_OF_NORIA = re.compile(r"/features/(get|[^/]+/trace)")
_OF_ADMINS = frozenset({"/experiments/delete", "/experiments/restore", "/registered-models/delete"})


@dataclass(frozen=True, slots=True)
class _Proven:
    """What was found out about credentials."""

    user: User
    ends_at: datetime | None


class _Refused(Exception):
    """Credentials that prove nothing, or were not looked at."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Authenticated:
    """Lets requests through whose user is known and may do what is asked; then events are that user's.

    The user is in the scope of the request as `user` (`noria.workspace.users.User`).

    Parameters
    ----------
    file
        Who may ask. It is looked at with every request, and read again once it has changed.
    """

    def __init__(self, app: ASGIApp, file: UserFile) -> None:
        self._app, self._file = app, file
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, _Proven] = OrderedDict()
        self._asking: dict[tuple[bytes, str], asyncio.Future[bool]] = {}
        self._users, self._fault = Users(), ""
        self._wrong = _Wrong()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="noria-passwords")
        self._identity: tuple[int, ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        self._look()
        if self._fault:
            await _refused(scope, ErrorCode.TEMPORARILY_UNAVAILABLE, self._fault, {"retry-after": "5"})(
                scope, receive, send
            )
            return
        holder = holder_of(scope["path"])
        try:
            user = await self._user_of(scope) if holder is None else self._holder(holder)
        except _Refused as err:
            await _unproven(scope, err)(scope, receive, send)
            return
        needed = needed_role(scope["method"], scope["path"])
        if not user.role.includes(needed):
            told = (
                f"{user.name} may {user.role.value}, and this needs {needed.value}: whoever runs the server "
                f"can say `noria user add {user.name} --role {needed.value} --replace`"
            )
            await _refused(scope, ErrorCode.PERMISSION_DENIED, told, {})(scope, receive, send)
            return
        scope["user"] = user
        with acting_as(user.actor):
            await self._app(scope, receive, send)

    def _look(self) -> None:
        """Read the file again if it has changed."""
        identity = self._file.identity()
        if identity == self._identity:
            return
        self._fault = ""
        try:
            self._users = self._file.read()
        except ConfigError as err:
            _LOG.error("nobody is let in: %s", err)
            self._users = Users()
            self._fault = "the server cannot tell who may ask; what `noria up` printed says why"
        for digest, proven in list(self._proven.items()):
            if self._users.find(proven.user.name) != proven.user:
                del self._proven[digest]
        self._identity = identity

    def _holder(self, name: str) -> User:
        """Give the user to whom an address was given that proves itself."""
        user = self._users.find(name)
        if user is None:
            raise _Refused("the address was given to nobody who may ask; ask for another one")
        return user

    async def _user_of(self, scope: Scope) -> User:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not header:
            raise _Refused(
                "say who asks: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token as "
                "MLFLOW_TRACKING_TOKEN"
            )
        if len(header) > _MAX_HEADER:
            raise _Refused("the credentials are longer than any that there are")
        digest = hashlib.blake2b(header, key=self._key, digest_size=32).digest()
        known = self._proven.get(digest)
        if known is not None and (known.ends_at is None or datetime.now(UTC) < known.ends_at):
            return known.user
        proven = await self._prove(header, digest, (scope.get("client") or ("",))[0])
        self._proven[digest] = proven
        if len(self._proven) > _REMEMBERED:
            self._proven.popitem(last=False)
        return proven.user

    async def _prove(self, header: bytes, digest: bytes, address: str) -> _Proven:
        kind, _, rest = header.partition(b" ")
        if kind.lower() == b"bearer":
            found = self._users.of_token(rest.strip().decode("latin-1"), at=datetime.now(UTC))
            if found is None:
                raise _Refused("the token is none, or has ended; `noria user token NAME` makes another")
            return _Proven(found[0], found[1].ends_at)
        if kind.lower() != b"basic":
            raise _Refused("send the header `authorization` with Basic or Bearer")
        name, password = _basic(rest)
        user = self._users.find(name)
        self._wrong.check(address, name)
        if not await self._is_password(digest, user, password, guess=(address, name)):
            raise _Refused("name or password is wrong")
        self._wrong.forget(address, name)
        if user is None or user != self._users.find(name):  # the file has changed meanwhile
            raise _Refused("who may ask has just changed; try again")
        return _Proven(user, None)

    async def _is_password(
        self, digest: bytes, user: User | None, password: str, *, guess: tuple[str, str]
    ) -> bool:
        """Try a password, one at a time; who asks with the same one at the same time gets the same answer."""
        key = digest, "" if user is None else user.password
        asking = self._asking.get(key)
        if asking is None:
            if len(self._asking) >= _WAITING:
                raise _Refused("too many passwords are being looked at; try again", wait_s=2.0)
            loop = asyncio.get_running_loop()
            asking = loop.run_in_executor(self._threads, is_password, user, password)
            self._asking[key] = asking

            def ended(found: asyncio.Future[bool]) -> None:
                del self._asking[key]
                if not found.cancelled() and found.exception() is None and not found.result():
                    self._wrong.note(*guess)  # once, however many have asked so

            asking.add_done_callback(ended)
        return await asyncio.shield(asking)


class _Wrong:
    """Counts what was wrong, by name and address, and says how long they have to wait."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    def check(self, address: str, name: str) -> None:
        """Raise `_Refused` while one has to wait."""
        now = time.monotonic()
        for key in ((address,), (address, name)):
            _, until = self._counts.get(key, (0, 0.0))
            if until > now:
                wait_s = until - now
                raise _Refused(f"too often wrong; try again in {wait_s:.0f} s", wait_s=wait_s)

    def note(self, address: str, name: str) -> None:
        """Count a wrong one."""
        for key, free in (((address,), _WRONG_OF_ADDRESS), ((address, name), _WRONG_OF_NAME)):
            before, until = self._counts.pop(key, (0, 0.0))
            count = 1 if time.monotonic() - until > _FORGOTTEN_S else before + 1
            wait_s = min(2.0 ** min(count - free, 10), _LONGEST_S) if count >= free else 0.0
            if wait_s == _LONGEST_S or count == free:
                _LOG.warning("%d wrong passwords from %s; it has to wait", count, address or "nowhere")
            self._counts[key] = (count, time.monotonic() + wait_s)
            if len(self._counts) > _TRIED:
                self._counts.popitem(last=False)

    def forget(self, address: str, name: str) -> None:
        """Begin anew: it was right."""
        self._counts.pop((address, name), None)


def needed_role(method: str, path: str) -> Role:
    """Give what a user has to be for a request; what is not known to change nothing needs `write`."""
    if method in _CHANGELESS:
        return Role.READ
    rest = after_prefix(path)
    if rest is None:
        return Role.READ if _READS_OF_NORIA.fullmatch(path) else Role.WRITE
    if rest in _READS:
        return Role.READ
    return Role.ADMIN if rest in _OF_ADMINS else Role.WRITE


def _basic(rest: bytes) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except ValueError as err:
        raise _Refused("the header `authorization` is not name and password in base64") from err
    if not colon:
        raise _Refused("the header `authorization` is not name and password in base64")
    return name, password


def _unproven(scope: Scope, error: _Refused) -> Response:
    if error.wait_s is None:
        return _refused(scope, ErrorCode.UNAUTHENTICATED, str(error), _CHALLENGE)
    headers = {"retry-after": str(int(error.wait_s) + 1)}
    return _refused(scope, ErrorCode.REQUEST_LIMIT_EXCEEDED, str(error), headers)


def _refused(scope: Scope, code: ErrorCode, message: str, headers: dict[str, str]) -> Response:
    """Answer as the clients of a path expect it."""
    if scope["path"].startswith(_MLFLOW_PATHS):
        return refusal(MlflowFault(code, message), headers=headers)
    status = {
        ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
        ErrorCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
        ErrorCode.REQUEST_LIMIT_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.TEMPORARILY_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    }[code]
    kind = {
        ErrorCode.UNAUTHENTICATED: "Unauthenticated",
        ErrorCode.PERMISSION_DENIED: "PermissionDenied",
        ErrorCode.REQUEST_LIMIT_EXCEEDED: "Busy",
        ErrorCode.TEMPORARILY_UNAVAILABLE: "StoreError",
    }[code]
    return answer({"error": {"kind": kind, "message": message}}, status, headers)
