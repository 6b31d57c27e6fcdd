"""The ASGI app of a worker: every protocol that it speaks, by the first part of the path.

Plain ASGI: a framework would cost more per request than the model.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from noria.serving.http.answering import Answering, Control, Question
from noria.serving.http.exchange import (
    Bodies,
    Gone,
    Head,
    Receive,
    Reply,
    Request,
    Send,
    refusal,
    send_reply,
)
from noria.serving.http.faults import fault_of
from noria.serving.http.keys import Keys
from noria.serving.http.metrics import CONTENT_TYPE, Metrics
from noria.serving.process.hosting import Hosting
from noria.serving.protocols import kserve, mlflow, oip, outcomes, pages, plain
from noria.serving.records import Limits
from noria.serving.requests import RequestError, shown
from noria.serving.wire.kserve import ALIVE

__all__ = ["App"]

_LOG = logging.getLogger(__name__)
_BODIES = 16  # as many of the largest size may be on their way at once

_OPEN = frozenset(
    {
        ("",),
        ("v2", "health", "live"),
        ("v2", "health", "ready"),
        ("ping",),
        ("health",),
        ("version",),
        ("invocations",),  # asks itself, and refuses as MLflow does
    }
)
_SHOWN = {"metrics": (("metrics",),), "docs": (("docs",), ("openapi.json",))}

Routes = Callable[[Answering, Request, list[str]], Awaitable[Reply | None]]


class App:
    """Answers HTTP requests.

    Parameters
    ----------
    hosting
        The deployments, by name.
    control
        Who runs the worker.
    metrics
        Who counts.
    limits
        What is refused.
    keys
        Who may ask; None: anybody.
    without_key
        What is shown to anybody all the same: `metrics`, `docs`.

    Attributes
    ----------
    bodies
        What requests take that are being sent.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        control: Control,
        metrics: Metrics,
        limits: Limits,
        keys: Keys | None = None,
        without_key: Iterable[str] = (),
    ) -> None:
        self._keys, self._open = keys, _OPEN | {path for name in without_key for path in _SHOWN[name]}
        self._answering = Answering(hosting, control=control, metrics=metrics, limits=limits, keys=keys)
        self._metrics, self._max_body_bytes = metrics, limits.max_body_bytes
        self.bodies = Bodies(_BODIES * limits.max_body_bytes)
        self._asked: dict[bytes, Question] = {}  # what the paths of predictions ask
        self._revision = -1
        self._below: Mapping[str, Routes] = {
            "v2": oip.answer,
            "v1": kserve.answer,
            "models": plain.answer,
            "outcomes": outcomes.answer,
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, max_body_bytes=self._max_body_bytes, bodies=self.bodies)
        try:
            reply = await self._answer(request)
        except RequestError as err:
            reply = refusal(err)
        except Gone:
            return
        except Exception as err:  # the outermost loop of a request: the others go on  # noqa: BLE001
            _LOG.error("%s %s failed: %s", request.method, request.path, fault_of(err))
            reply = refusal(
                RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says where")
            )
        await send_reply(reply, request, send)

    def question(self, path: bytes) -> Question | None:
        """Give what a path asks to which a prediction is posted; None if it is another, or maybe."""
        hosting = self._answering.hosting
        if self._revision != hosting.revision:
            self._asked, self._revision = dict(_questions(hosting)), hosting.revision
        return self._asked.get(path)

    def begin(self, question: Question, head: Head, body: bytes, done: Callable[[Reply], None]) -> None:
        """Answer a request for predictions, whose body is there; `done` gets the reply."""
        self._answering.begin(question, head, body, done)

    def too_large(self, question: Question) -> Reply:
        """Refuse a body that is too large."""
        return self._answering.refuse(
            question,
            RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {self._max_body_bytes} bytes; send the rows in several requests",
            ),
        )

    def no_room(self, question: Question) -> Reply:
        """Refuse a body for which there is no room beside others."""
        return self._answering.refuse(question, Bodies.refusal())

    async def _answer(self, request: Request) -> Reply:
        first, *rest = request.path.strip("/").split("/")
        if self._keys is not None and (first, *rest) not in self._open:
            self._keys.check(request.headers, self._deployment_of(first, rest))
        if routes := self._below.get(first):
            reply = await routes(self._answering, request, rest)
        else:
            reply = self._own(request, first, rest) or await mlflow.answer(
                self._answering, request, [first, *rest]
            )
        if reply is None:
            raise RequestError(
                HTTPStatus.NOT_FOUND, f"there is nothing at {shown(request.path)}; /docs shows what there is"
            )
        return reply

    def _deployment_of(self, first: str, rest: list[str]) -> str | None:
        """Give the deployment that a path is about; None: the server itself, or what nobody knows."""
        match [first, *rest]:
            case ["v2" | "v1", "models", name, *_] | ["v2", "repository", "models", name, *_]:
                pass
            case ["models", name, *_]:
                pass
            case _:
                return None
        hosted = self._answering.hosting.find(name.partition(":")[0]) if first == "v1" else None
        hosted = hosted or self._answering.hosting.find(name)
        return None if hosted is None else hosted.name

    def _own(self, request: Request, first: str, rest: list[str]) -> Reply | None:
        match [first, *rest]:
            case [""]:
                request.allow("GET")
                return pages.welcome(request) or Reply(ALIVE)
            case ["metrics"]:
                request.allow("GET")
                return Reply(self._metrics.expose(), content_type=CONTENT_TYPE)
            case ["openapi.json"]:
                request.allow("GET")
                return pages.openapi(self._answering)
            case ["docs"]:
                request.allow("GET")
                return pages.docs(self._answering, request)
        return None


def _questions(hosting: Hosting) -> Iterator[tuple[bytes, Question]]:
    for name in hosting.names:
        quoted = quote(name, safe="").encode()
        yield b"/v2/models/%b/infer" % quoted, Question(oip.WIRE, name)
        yield b"/v1/models/%b:predict" % quoted, Question(kserve.WIRE, name)
        yield b"/models/%b/predict" % quoted, Question(plain.WIRE, name)
