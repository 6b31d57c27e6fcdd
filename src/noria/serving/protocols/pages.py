"""What a worker shows people: its OpenAPI document, and a page that needs nothing from elsewhere."""

from http import HTTPStatus

from noria.serving.formats.samples import sample_row
from noria.serving.http.answering import Answering
from noria.serving.http.docs_page import docs_page
from noria.serving.http.exchange import Reply, Request, json_reply
from noria.serving.http.openapi import DescribedModel, openapi_document
from noria.serving.models import Target

__all__ = ["docs", "openapi", "welcome"]

_TITLE = "Models of noria"


def welcome(request: Request) -> Reply | None:
    """Send a browser to the page; None for others."""
    if "text/html" not in (request.header(b"accept") or ""):
        return None
    return Reply(b"", HTTPStatus.SEE_OTHER, headers=((b"location", b"docs"),))


def openapi(answering: Answering) -> Reply:
    """Answer `GET /openapi.json`."""
    deployments = list(answering.hosting)
    document = openapi_document(
        _described(answering),
        title=_TITLE,
        default=deployments[0] if len(deployments) == 1 else None,
        max_rows=answering.limits.max_rows,
    )
    return json_reply(document)


def docs(answering: Answering, request: Request) -> Reply:
    """Answer `GET /docs`."""
    body, headers = docs_page(_described(answering), title=_TITLE, address=request.address)
    sent = {name.lower(): value for name, value in headers.items()}
    content_type = sent.pop("content-type", "text/html; charset=utf-8")
    return Reply(
        body,
        content_type=content_type.encode(),
        headers=[(name.encode(), value.encode()) for name, value in sent.items()],
    )


def _described(answering: Answering) -> list[DescribedModel]:
    found = []
    for name in answering.hosting.names:
        hosted = answering.hosting.find(name)
        loaded = hosted.loaded if hosted else None
        if loaded is not None and name in loaded.targets:
            found.append(_model(loaded.targets[name]))
    return found


def _model(target: Target) -> DescribedModel:
    return DescribedModel(
        name=target.name,
        versions=target.versions,
        columns=target.plan.columns,
        outputs=target.outputs,
        example=sample_row(target.scoring[0].served),
    )
