"""Pages as bytes: templates, links below a prefix, and the headers that let nothing run in them."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from noria.web import words

__all__ = ["HEADERS", "STYLE", "Links", "page"]

_HERE = Path(__file__).parent / "templates"
STYLE = _HERE / "style.css"
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Links:
    """Writes links to pages of this server, below its prefix."""

    def __init__(self, request: Request) -> None:
        self._prefix: str = request.scope.get("prefix", "")
        self.server = f"{request.url.scheme}://{request.url.netloc}{self._prefix}"

    def __call__(self, *parts: str, **query: str | Iterable[str] | None) -> str:
        """Give the link of a path, given part by part; of a query what is None or empty is left out."""
        path = "/".join(quote(_utf8(each), safe="") for each in parts)
        given: list[tuple[str, str]] = []
        for name, value in query.items():
            several = [value] if isinstance(value, str) else [*(value or ())]
            given += [(name, _utf8(each)) for each in several if each]
        return f"{self._prefix}/{path}" + (f"?{urlencode(given)}" if given else "")


def page(
    request: Request,
    template: str,
    values: Mapping[str, Any],
    *,
    project: str,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Give a page as an answer.

    Parameters
    ----------
    template
        Its name without the ending.
    project
        The project's name, above every page.
    """
    made = _environment().get_template(f"{template}.html.j2")
    text = made.render(url=Links(request), project=project, **values)
    return Response(
        text.encode("utf-8"),
        status_code=status,
        headers={**HEADERS, **(headers or {})},
        media_type="text/html",
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "as_is": _as_is,
        "brief": words.brief,
        "duration": words.duration,
        "literal": _literal,
        "moment": words.moment,
        "number": words.number,
        "size": words.size,
    }
    return environment


def _finalized(value: Any) -> Any:
    """Write out, in whatever stands on a page, the signs that cannot be seen."""
    return words.plain(value) if type(value) is str else value


def _literal(value: str) -> str:
    """Give a text as Python and shells read it, between double quotes."""
    return json.dumps(value, ensure_ascii=False)


def _as_is(value: str) -> Markup:
    """Escape a text and nothing more: for the values of fields, which are sent back."""
    return escape(_utf8(value))
