"""Features over HTTP: found, shown, read, traced, and who read them. Engines come with the first request."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from noria.api.answers import answer
from noria.api.bodies import read_body
from noria.api.errors import BadRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.workspace.project import Project

__all__ = ["FeatureRoutes"]

MAX_ENTITIES = 10_000
_MAX_BODY_BYTES = 8 << 20
_ROWS, _MAX_ROWS = 100, 1_000
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Reader = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_UNKNOWN = "unknown"


class _GetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    views: list[str]
    entities: dict[str, list[str | int | float | None]]
    at: _Instant | None = None
    reader: _Reader = _UNKNOWN


class _TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entity: dict[str, str | int]
    at: _Instant | None = None
    rows: Annotated[int, msgspec.Meta(ge=0, le=_MAX_ROWS)] = _ROWS
    reader: _Reader = _UNKNOWN


class FeatureRoutes:
    """Tells of a project's features. Plain functions run in threads."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def search(self, request: Request) -> Response:
        """List features; with `search`, `tag` or `owner` those that are found, the best first."""
        query = request.query_params
        found = self._project.features.search(
            query.get("search", ""), tags=query.getlist("tag"), owner=query.get("owner")
        )
        return answer(found)

    def show(self, request: Request) -> Response:
        """Tell all about a view or an on-demand feature."""
        name = request.path_params["view"]
        if name in self._project.declarations.on_demand:
            return answer(self._project.features.show_on_demand(name))
        return answer(self._project.features.show(name))

    def readers(self, request: Request) -> Response:
        """Tell who used a view, or a feature of it."""
        return answer(self._project.features.readers(request.path_params["view"]))

    async def get(self, request: Request) -> Response:
        """Read online features of entities; what is missing is null."""
        asked = await read_body(request, _GetRequest, most=_MAX_BODY_BYTES)
        return answer(await run_in_threadpool(lambda: self._get(asked)))

    async def trace(self, request: Request) -> Response:
        """List the rows that made an entity's features."""
        asked = await read_body(request, _TraceRequest)
        view = request.path_params["view"]
        return answer(await run_in_threadpool(lambda: self._trace(view, asked)))

    def _get(self, asked: _GetRequest) -> dict[str, Any]:
        from noria.workspace.features.on_demand import get_features

        sizes = {name: len(values) for name, values in asked.entities.items()}
        if len(set(sizes.values())) != 1 or max(sizes.values()) > MAX_ENTITIES:
            told = ", ".join(f"{name!r} has {size}" for name, size in sizes.items()) or "there is none"
            raise BadRequest(
                f"entities: {told}; give columns of equal length, of at most {MAX_ENTITIES} entities: "
                '{"entities": {"courier": ["ada", "ben"]}}'
            )
        at = asked.at or self._project.clock.now()
        found = get_features(
            self._project, asked.views, asked.entities, at=at, reader=asked.reader, how="http get"
        )
        return {"at": at, "entities": found.num_rows, "columns": _columns(found)}

    def _trace(self, view: str, asked: _TraceRequest) -> dict[str, Any]:
        from noria.workspace.features.online import trace_values
        from noria.workspace.features.reads import note_read

        traced = trace_values(self._project, view, asked.entity, at=asked.at)
        views = [self._project.features.view(view)]
        note_read(self._project, views, entities=1, how="http trace", who=asked.reader)
        return {
            "view": traced.view,
            "entity": traced.entity,
            "at": traced.at,
            "values": traced.values,
            "found": traced.rows.num_rows,
            "rows": traced.rows.slice(0, asked.rows).to_pylist(),
        }


def _columns(found: pa.Table) -> dict[str, list[Any]]:
    """Give columns as lists; NaN is null in JSON."""
    return {name: found.column(name).to_pylist() for name in found.column_names}
