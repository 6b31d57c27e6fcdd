"""Pages of models: all of them, the versions of one, and the card of a version."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from noria.errors import ConfigError, NotFound
from noria.registry.catalogue import ModelCatalogue
from noria.web.drawing import Asked, draw_elsewhere
from noria.web.rendering import HEADERS, page
from noria.workspace.project import Project

if TYPE_CHECKING:
    from noria.workspace.models.listing import ListedModel

__all__ = ["ModelPages"]

_MODELS, _VERSIONS, _METRICS = 500, 300, 4
_CARD_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class ModelPages:
    """Answers requests for them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._name = project.settings.project.name

    def list_all(self, request: Request) -> Response:
        """List models by name, with the newest version of each and where it answers."""
        from noria.workspace.models.listing import list_by_name

        by_name: dict[str, list[ListedModel]] = {}
        for each in list_by_name(self._project):
            if each.is_listed:
                by_name.setdefault(each.name, []).append(each)
        rows = [
            {
                "name": name,
                "newest": versions[-1],
                "count": len(versions),
                "places": [(each, place) for each in versions for place in each.stands_in],
                "aliases": [(each, alias) for each in versions for alias in each.aliases],
            }
            for name, versions in sorted(by_name.items())
        ]
        values = {"rows": rows[:_MODELS], "more": len(rows) - _MODELS}
        return page(request, "models", values, project=self._name)

    def show(self, request: Request) -> Response:
        """List the versions of a model, the newest first."""
        from noria.workspace.models.listing import list_by_name

        name = request.path_params["name"]
        found = [each for each in list_by_name(self._project, name) if each.is_listed][::-1]
        if not found:
            raise NotFound("model", name, [])
        try:
            registered = ModelCatalogue(self._project.ledger).get(name)
        except (NotFound, ConfigError):
            registered = None  # somebody deleted its label; its versions answer somewhere
        names = sorted({each for version in found for each in version.model.metrics})
        values: dict[str, Any] = {
            "name": name, "registered": registered, "versions": found[:_VERSIONS],
            "more": len(found) - _VERSIONS, "metrics": _chosen(names),
        }  # fmt: skip
        return page(request, "model", values, project=self._name)

    def card(self, request: Request) -> Response:
        """Show the card of a version."""
        name, version = request.path_params["name"], request.query_params.get("version", "")
        if not (version.isascii() and version.isdecimal() and len(version) <= 18):
            raise NotFound("version", f"{name}:{version}")
        reference = f"{name}:{version}"
        self._project.models.get(reference)
        drawn = draw_elsewhere(Asked(project=str(self._project.root), kind="card", reference=reference))
        if drawn.error:
            raise ConfigError(drawn.error)
        headers = {**HEADERS, "content-security-policy": _CARD_POLICY}
        return Response(drawn.html, headers=headers, media_type="text/html")


def _chosen(names: list[str]) -> list[str]:
    return names[:_METRICS]
