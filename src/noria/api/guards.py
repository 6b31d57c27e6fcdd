"""What is kept out: requests that a page of a foreign site makes a browser send to this machine.

The control plane asks for no password, because it listens on the machine alone. So a request to a loopback
address has to name one as its host (a foreign name that leads here does not), and what changes something has
to be JSON (which a foreign page may not send unasked).
"""

import ipaddress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.answers import answer

__all__ = ["LoopbackHosts", "is_loopback"]


class LoopbackHosts:
    """Lets requests through that name a loopback address, or `localhost`, as their host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "http" and not is_loopback(_name(Headers(scope=scope).get("host", ""))):
            message = (
                "this server answers on this machine alone; ask it by http://127.0.0.1 or http://localhost"
            )
            refusal = answer(
                {"error": {"kind": "BadRequest", "message": message}}, HTTPStatus.MISDIRECTED_REQUEST
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is that of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Give the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
