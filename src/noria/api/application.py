"""The routes of the control plane. Every answer is JSON."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from noria.api.answers import answer
from noria.api.auth import Authenticated
from noria.api.bodies import read_body
from noria.api.browsers import ForBrowsers
from noria.api.errors import HANDLERS, BadRequest
from noria.api.features import FeatureRoutes
from noria.api.guards import KnownHosts, Prefixed, checked_prefix, is_loopback
from noria.api.mlflow.wiring import mlflow_application
from noria.api.rows import RowRoutes
from noria.api.schedules import list_schedules
from noria.api.streams import StreamRoutes
from noria.api.tracking import TrackingRoutes, WithProtocol
from noria.errors import NotFound
from noria.records import Event, RunState
from noria.workspace.project import Project
from noria.workspace.status import project_status
from noria.workspace.up.records import UpState
from noria.workspace.up.requests import request_run
from noria.workspace.users import user_file

__all__ = ["application"]

_ACTOR = "api"
_RUNS, _MAX_RUNS = 50, 1_000


class _RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    params: dict[str, Any] = {}
    key: str | None = None


class _CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def application(
    project: Project, state: Callable[[], UpState], *, host: str, pages: ASGIApp | None = None
) -> ASGIApp:
    """Make the application; MLflow's clients are answered as well.

    Parameters
    ----------
    state
        Tells where this process of `noria up` stands, without asking the database.
    host
        Where it will listen: on a loopback address it answers requests to one only.
    pages
        Answers browsers, where no other path is asked for.
    """
    routes = _Routes(project, state)
    features = FeatureRoutes(project)
    own = Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/api/noria/status", routes.status),
            Route("/api/noria/schedules", routes.schedules),
            Route("/api/noria/runs", routes.runs),
            Route("/api/noria/runs/{id}", routes.run),
            Route("/api/noria/runs/{id}/cancel", routes.cancel, methods=["POST"]),
            Route("/api/noria/pipelines/{name}/runs", routes.request, methods=["POST"]),
            Route("/datasets/{name}/rows", RowRoutes(project).push, methods=["POST"]),
            Route("/features", features.search),
            Route("/features/get", features.get, methods=["POST"]),
            Route("/features/{view}", features.show),
            Route("/features/{view}/readers", features.readers),
            Route("/features/{view}/trace", features.trace, methods=["POST"]),
            Route("/streams/{name}", StreamRoutes(project).push, methods=["POST"]),
            *TrackingRoutes(project).routes(),
        ],
        exception_handlers=HANDLERS,
    )
    own.router.redirect_slashes = False  # a path is what it is; and it would be told without the prefix
    if pages is not None:
        own.router.default = ForBrowsers(pages, otherwise=own.router.default)
    return _guarded(mlflow_application(project, otherwise=WithProtocol(own)), project, host)


def _guarded(app: ASGIApp, project: Project, host: str) -> ASGIApp:
    """Put before an application what `[server]` asks for: hosts, a prefix, users."""
    server = project.settings.server
    if server.users:
        app = Authenticated(app, user_file(project))
    prefix = checked_prefix(server.prefix)
    if prefix:
        app = Prefixed(app, prefix)
    return KnownHosts(app, server.hosts, loopback=is_loopback(host))


class _Routes:
    """Plain functions run in threads; those that read a body wait for it first."""

    def __init__(self, project: Project, state: Callable[[], UpState]) -> None:
        self._project, self._state = project, state

    async def health(self, request: Request) -> Response:
        """Say that the process lives, and whether it leads. The database is not asked."""
        state = self._state()
        return answer(
            {
                "status": "ok",
                "role": state.role,
                "since": state.since,
                "leader": state.leader,
                "database": state.database,
            }
        )

    def status(self, request: Request) -> Response:
        """Tell where the project stands, as `noria status` does, and this process."""
        return answer({"project": project_status(self._project), "up": self._state()})

    def schedules(self, request: Request) -> Response:
        """List triggers with the next instants of their schedules."""
        return answer(list_schedules(self._project, at=self._now()))

    def runs(self, request: Request) -> Response:
        """List runs, newest first."""
        query = request.query_params
        state = query.get("state")
        if state is not None and state not in set(RunState):
            raise NotFound("state", state, set(RunState))
        return answer(
            self._project.ledger.list_runs(
                kind=query.get("kind"),
                name=query.get("name"),
                state=None if state is None else RunState(state),
                limit=_limit(query.get("limit")),
            )
        )

    def run(self, request: Request) -> Response:
        """Show a run: its record, its cause, what it read and wrote, its steps."""
        ledger, runs = self._project.ledger, self._project.runs
        found = runs.get(request.path_params["id"])
        edges = ledger.list_edges(run=found.id)
        versions = [(edge.role, ledger.get_version_by_id(edge.version)) for edge in edges]
        return answer(
            {
                "run": found,
                "cause": None if found.cause is None else ledger.get_event(found.cause),
                "inputs": [version for role, version in versions if role == "input"],
                "outputs": [version for role, version in versions if role == "output"],
                "steps": runs.steps(found),
                "progress": runs.progress(found),
            }
        )

    async def cancel(self, request: Request) -> Response:
        """Ask for the end of a run."""
        await read_body(request, _CancelRequest)
        run = request.path_params["id"]
        return _accepted(await run_in_threadpool(lambda: self._cancel(run)))

    async def request(self, request: Request) -> Response:
        """Ask for a run of a pipeline."""
        asked = await read_body(request, _RunRequest)
        name = request.path_params["name"]
        return _accepted(
            await run_in_threadpool(
                lambda: request_run(
                    self._project, name, params=asked.params, key=asked.key, actor=_ACTOR, at=self._now()
                )
            )
        )

    def _cancel(self, run: str) -> Event:
        self._project.ledger.mark_killed()  # what has died cannot be cancelled
        return self._project.runs.cancel(run, reason="asked for over HTTP")

    def _now(self) -> datetime:
        return self._project.clock.now()


def _accepted(event: Event) -> Response:
    """Answer that something is asked for: whoever leads acts upon it."""
    return answer(
        {"event": event.id, "verb": event.verb, "subject": event.subject, "reason": event.payload["reason"]},
        HTTPStatus.ACCEPTED,
    )


def _limit(text: str | None) -> int:
    if text is None:
        return _RUNS
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MAX_RUNS):
        raise BadRequest(f"limit is {text!r}; it goes from 1 to {_MAX_RUNS}")
    return int(text)
