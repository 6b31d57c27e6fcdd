"""Which requests are of people with a browser: the paths of pages, and whatever else asks for HTML."""

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ForBrowsers"]

_PAGES = frozenset({"", "experiments", "models", "pages", "runs"})
_CHANGELESS = frozenset({"GET", "HEAD"})
_OF_PROGRAMS = frozenset({"ajax-api", "api", "graphql"})


class ForBrowsers:
    """Hands requests of browsers to pages.

    Parameters
    ----------
    otherwise
        Answers the others.
    """

    def __init__(self, pages: ASGIApp, *, otherwise: ASGIApp) -> None:
        self._pages, self._otherwise = pages, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        app = self._pages if scope["type"] == "http" and _is_of_browser(scope) else self._otherwise
        await app(scope, receive, send)


def _is_of_browser(scope: Scope) -> bool:
    first = scope["path"].lstrip("/").partition("/")[0]
    if first in _PAGES:
        return True
    if scope["method"] not in _CHANGELESS or first in _OF_PROGRAMS:
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
