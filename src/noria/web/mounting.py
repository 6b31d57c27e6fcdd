"""Pages as `noria up` takes them: nothing is loaded before the first one is asked for."""

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.workspace.project import Project

__all__ = ["Pages"]


class Pages:
    """Answers requests of browsers by pages (ASGI)."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._loading = asyncio.Lock()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        app = self._app
        if app is None:
            async with self._loading:
                app = self._app
                if app is None:
                    app = self._app = await run_in_threadpool(self._load)
        await app(scope, receive, send)

    def _load(self) -> ASGIApp:
        from noria.web.application import pages

        return pages(self._project)
