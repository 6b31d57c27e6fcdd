"""What is kept out: requests that a page of a foreign site makes a browser send here.

Where no users are named the control plane asks for no password, because it listens on the machine alone. So a
request to a loopback address has to name one as its host (a foreign name that leads here does not), and what
changes something has to be JSON, or come from a page of this server (which a foreign page may not pretend).
"""

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.answers import answer
from noria.config import Server
from noria.errors import ConfigError

__all__ = ["KnownHosts", "Prefixed", "check_strangers", "checked_prefix", "exposures", "is_loopback"]

_CHANGELESS = frozenset({"GET", "HEAD", "OPTIONS"})
_USUAL = frozenset({"127.0.0.1", "::1", "localhost"})


class KnownHosts:
    """Lets requests through that name a host which is this server, from no page of another one.

    Parameters
    ----------
    names
        Names that are this server; none: any is.
    loopback
        Whether this machine's own names are, and no others but `names`.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = (), *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback
        self._names = frozenset(each.lower() for each in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = _name(headers.get("host", ""))
            told = None
            if not self._is_known(host):
                told, status = self._wanted(), HTTPStatus.MISDIRECTED_REQUEST
            elif scope["method"] not in _CHANGELESS and self._is_foreign(headers.get("origin"), host):
                told, status = "a page of another site may change nothing here", HTTPStatus.FORBIDDEN
            if told is not None:
                refusal = answer({"error": {"kind": "BadRequest", "message": told}}, status)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        if host in self._names or (self._loopback and is_loopback(host)):
            return True
        return not self._loopback and not self._names

    def _is_foreign(self, origin: str | None, host: str) -> bool:
        """Tell whether a browser says that another site's page asks."""
        if origin is None:
            return False
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            return True
        return name != host and not (name in self._names or (self._loopback and is_loopback(name)))

    def _wanted(self) -> str:
        if not self._loopback:
            return "this server does not go by that name; `[server] hosts` in its noria.toml has its names"
        if self._names:
            return (
                f"this server answers to {', '.join(sorted(self._names))}, and on this machine to localhost"
            )
        return "this server answers on this machine alone; ask it by http://127.0.0.1 or http://localhost"


class Prefixed:
    """Lets requests through whose path begins with a prefix, without it; it is in the scope as `prefix`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if not path.startswith(f"{self._prefix}/"):
                told = f"there is nothing here; all begins with {self._prefix}/"
                refusal = answer({"error": {"kind": "BadRequest", "message": told}}, HTTPStatus.NOT_FOUND)
                await refusal(scope, receive, send)
                return
            raw: bytes = scope.get("raw_path") or b""
            beginning = self._prefix.encode()
            scope = {
                **scope,
                "path": path[len(self._prefix) :],
                "raw_path": raw.removeprefix(beginning),
                "prefix": self._prefix,
            }
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is that of this machine alone."""
    if host in _USUAL or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_prefix(prefix: str) -> str:
    """Give what stands before every path, empty for nothing. Raises `ConfigError` if it can be none."""
    plain = prefix.rstrip("/")
    parts = plain.split("/")[1:]
    is_good = all(
        each and each.strip(".") and each.isascii() and all(sign.isalnum() or sign in "-_.~" for sign in each)
        for each in parts
    )
    if plain and not (plain.startswith("/") and is_good):
        raise ConfigError(
            f"[server] prefix is {prefix[:60]!r}; it is a path such as '/team/noria', of letters, digits, "
            "'-', '_', '.' and '~'"
        )
    return plain


def check_strangers(server: Server) -> None:
    """Raise `ConfigError` if anybody who reaches this machine could change everything, and nobody said so."""
    if is_loopback(server.host) or server.users or server.strangers == "allow":
        return
    raise ConfigError(
        f"[server] host is {server.host!r}, so whoever reaches this machine could read and change all of the "
        'project. Name a file of users, `[server] users = ".noria/users.json"`, and add some by `noria user '
        'add NAME`; or say `[server] strangers = "allow"` if something in front of it asks who they are'
    )


def exposures(server: Server) -> list[str]:
    """Tell what others may see or do, where the control plane listens beyond this machine."""
    if is_loopback(server.host):
        return []
    told = []
    if not server.users:
        told.append(
            f"ANYBODY who reaches {server.host} may read and change all of this project: [server] strangers "
            "is 'allow', and no users are named"
        )
    elif not server.tls_certificate:
        told.append(
            "passwords and tokens cross the network as plain text: name [server] tls_certificate, unless "
            "something in front of this server speaks TLS"
        )
    return told


def _name(host: str) -> str:
    """Give the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
