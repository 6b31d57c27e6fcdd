"""The pages' routes, and what is told where something is wrong: always a page, never a trace."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.answers import told_of_store
from noria.api.errors import status_of
from noria.errors import BadFilter, BadPath, NoriaError, StoreError
from noria.web.comparison import ComparisonPage
from noria.web.drawing import Busy
from noria.web.experiments import ExperimentPages
from noria.web.files import FilePages
from noria.web.models import ModelPages
from noria.web.rendering import HEADERS, STYLE, Links, page
from noria.web.runs import RunPage
from noria.web.scores import ScorePages
from noria.workspace.project import Project

__all__ = ["pages"]

_LOG = logging.getLogger(__name__)
_STYLE_KEPT_S = 3_600


def pages(project: Project) -> Starlette:
    """Give the application that answers browsers."""
    experiments, scores = ExperimentPages(project), ScorePages(project)
    files, models = FilePages(project), ModelPages(project)
    told = _Told(project)
    app = Starlette(
        routes=[
            Route("/", _begin),
            Route("/runs", _begin),
            Route("/experiments/", _begin),
            Route("/experiments", experiments.list_all),
            Route("/experiments/{id}", experiments.show),
            Route("/experiments/{id}/leaderboard", scores.leaderboard),
            Route("/experiments/{id}/pictures", scores.pictures),
            Route("/runs/compare", ComparisonPage(project).show),
            Route("/runs/{id}", RunPage(project).show),
            Route("/runs/{id}/file", files.show),
            Route("/models", models.list_all),
            Route("/models/{name:path}/card", models.card),
            Route("/models/{name:path}", models.show),
            Route("/pages/style.css", _style),
        ],
        exception_handlers={NoriaError: told.error, HTTPException: told.refusal, Exception: told.fault},
    )
    app.router.redirect_slashes = False  # it would be told without the prefix
    app.add_middleware(_WithoutNul, told=told)
    return app


class _Told:
    """Answers errors by pages."""

    def __init__(self, project: Project) -> None:
        self._name = project.settings.project.name

    def error(self, request: Request, error: Exception) -> Response:
        """Answer for an error that noria raises on purpose."""
        assert isinstance(error, NoriaError)
        notes = list(getattr(error, "__notes__", ()))
        headers = {}
        if isinstance(error, Busy):
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
            headers = {"retry-after": "60"}
        elif isinstance(error, BadFilter | BadPath):
            status, message = HTTPStatus.BAD_REQUEST, str(error)
        else:
            status, message = status_of(error), str(error)
        if isinstance(error, StoreError):  # its text names places of this machine
            _LOG.error("page %s could not be made: %s", request.url.path, error)
            message, notes, headers = told_of_store(error), [], {"retry-after": "5"}
        return self._page(request, status, message, notes=notes, headers=headers)

    def refusal(self, request: Request, error: Exception) -> Response:
        """Answer for a path or a method that there is not."""
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        message = f"There is no page at {request.url.path}."
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            message = "Pages only show; nothing is changed through them."
        return self._page(request, status, message, headers=dict(error.headers or {}))

    def nul(self, request: Request) -> Response:
        """Answer for an address with the character NUL."""
        message = "The address holds the character NUL, which is in no name."
        return self._page(request, HTTPStatus.BAD_REQUEST, message)

    def fault(self, request: Request, error: Exception) -> Response:
        """Answer for a fault; the server's log says where it came from."""
        _LOG.error("page %s failed: %s: %s", request.url.path, type(error).__name__, error)
        message = "This page could not be made. What `noria up` printed says more."
        return self._page(request, HTTPStatus.INTERNAL_SERVER_ERROR, message)

    def _page(
        self,
        request: Request,
        status: HTTPStatus,
        message: str,
        *,
        notes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        values = {"status": status.value, "phrase": status.phrase, "message": message, "notes": notes}
        return page(request, "error", values, project=self._name, status=status, headers=headers)


class _WithoutNul:
    """Refuses addresses with the character NUL: nothing is called so, and PostgreSQL takes no such text."""

    def __init__(self, app: ASGIApp, told: _Told) -> None:
        self._app, self._told = app, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        app = self._app
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            app = self._told.nul(Request(scope))
        await app(scope, receive, send)


def _begin(request: Request) -> Response:
    """Lead to the experiments."""
    return RedirectResponse(Links(request)("experiments"), HTTPStatus.SEE_OTHER, headers=HEADERS)


async def _style(request: Request) -> Response:
    headers = {"cache-control": f"max-age={_STYLE_KEPT_S}", "x-content-type-options": "nosniff"}
    return FileResponse(STYLE, media_type="text/css", headers=headers)
