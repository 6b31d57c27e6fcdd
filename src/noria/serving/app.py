"""The ASGI app of a worker: Open Inference Protocol v2, metrics, and a few words to its supervisor.

Plain ASGI: a framework would cost more per request than the model.
"""

import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
import orjson

from noria.errors import NoriaError
from noria.serving.metrics import CONTENT_TYPE, Metrics
from noria.serving.models import Target
from noria.serving.predictor import Predictor
from noria.serving.records import ModelState, WorkerStatus
from noria.serving.requests import OUTPUTS, BadRequestError, RequestError, shown
from noria.serving.wire.oip import BINARY_REFUSED, encode_answer, parse_request

__all__ = ["App", "Control"]

_LOG = logging.getLogger(__name__)
_JSON = b"application/json"
_DRAIN_TIMES = 8  # a body too large is read on this far, so that its sender gets to read the answer

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


class Control(Protocol):
    """What the app asks of the worker around it."""

    def status(self) -> WorkerStatus:
        """Tell the worker's state."""
        ...

    async def reload(self) -> WorkerStatus:
        """Read the route file now; return when it answers or is refused."""
        ...

    def rotate(self) -> int:
        """Close the current segment of the prediction log and give the number of the last closed one."""
        ...


@dataclass(frozen=True, slots=True)
class _Reply:
    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: bytes = _JSON
    headers: Headers = ()


class App:
    """Answers HTTP requests.

    Parameters
    ----------
    predictor, control, metrics
        Who answers, who runs the worker, who counts.
    max_body_bytes
        A larger body gets 413.
    """

    def __init__(
        self, predictor: Predictor, *, control: Control, metrics: Metrics, max_body_bytes: int
    ) -> None:
        self._predictor, self._control, self._metrics = predictor, control, metrics
        self._max_body_bytes = max_body_bytes
        self._pages: Mapping[str, Callable[[], _Reply]] = {
            "v2": lambda: _json({"name": "noria", "version": version("noria"), "extensions": []}),
            "v2/health/live": lambda: _json({"live": True}),
            "v2/health/ready": self._ready,
            "metrics": lambda: _Reply(metrics.expose(), content_type=CONTENT_TYPE),
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except RequestError as err:
            reply = _refusal(err)
        except _GoneError:
            return
        except Exception:  # the outermost loop of a request: the others go on  # noqa: BLE001
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            reply = _refusal(
                RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says where")
            )
        await send(
            {
                "type": "http.response.start",
                "status": reply.status.value,
                "headers": [
                    (b"content-type", reply.content_type),
                    (b"content-length", str(len(reply.body)).encode()),
                    *reply.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> _Reply:
        method: str = scope["method"]
        match scope["path"].strip("/").split("/"):
            case ["v2", "models", name, "versions", version, *verb]:
                return await self._answer_model(scope, receive, name=name, version=version, verb=verb)
            case ["v2", "models", name, *verb]:
                return await self._answer_model(scope, receive, name=name, version=None, verb=verb)
            case ["admin", verb] if _is_local(scope):
                return await self._administer(verb, method)
            case [*parts] if answer := self._pages.get("/".join(parts)):
                _allow(method, "GET")
                return answer()
        raise RequestError(
            HTTPStatus.NOT_FOUND, f"there is nothing at {shown(scope['path'])}; GET /v2 is where to begin"
        )

    async def _answer_model(
        self, scope: dict[str, Any], receive: Receive, *, name: str, version: str | None, verb: list[str]
    ) -> _Reply:
        match verb:
            case ["infer"]:
                _allow(scope["method"], "POST")
                return await self._infer(scope, receive, name=name, version=version)
            case ["ready"]:
                _allow(scope["method"], "GET")
                return self._model_ready(name, version)
            case []:
                _allow(scope["method"], "GET")
                return self._describe(name, version)
        raise RequestError(
            HTTPStatus.NOT_FOUND, f"a model has infer and ready, there is nothing at {shown('/'.join(verb))}"
        )

    async def _infer(
        self, scope: dict[str, Any], receive: Receive, *, name: str, version: str | None
    ) -> _Reply:
        body = await self._read_body(scope, receive)
        arrived_ns = time.perf_counter_ns()
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            target = self._predictor.find_target(name, version)
            _refuse_encodings(scope["headers"])
            request = parse_request(body)
            prediction = self._predictor.predict(request, target=target, arrived_ns=arrived_ns)
            outputs = prediction.outputs
            versions = set(prediction.versions)
            answer = encode_answer(
                model=name,
                version=str(versions.pop()) if len(versions) == 1 else None,
                request_id=request.id,
                parameters={"route": prediction.route_number, "logged": prediction.logged},
                outputs={each: outputs[each] for each in request.outputs},
            )
            status = HTTPStatus.OK
        except RequestError as err:
            status = err.status
            raise
        finally:
            self._metrics.count_request(status, seconds=(time.perf_counter_ns() - arrived_ns) / 1e9)
        self._metrics.count_rows(
            scored=prediction.scored, answered=prediction.answered, repeated=prediction.logged
        )
        self._metrics.count_failed(prediction.failed)
        return _Reply(answer)

    async def _read_body(self, scope: dict[str, Any], receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        more = True
        while more and size <= _DRAIN_TIMES * self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            chunks.append(chunk)
            if size > self._max_body_bytes:
                chunks = []
            more = message.get("more_body", False)
        if size > self._max_body_bytes:
            self._metrics.count_request(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, seconds=0.0)
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {self._max_body_bytes} bytes; send the rows in several requests",
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _ready(self) -> _Reply:
        status = self._control.status()
        ready = status.state == "ready"
        body: dict[str, object] = {
            "ready": ready,
            "parameters": {
                "route": status.route,
                "wanted": status.wanted,
                "error": status.error or status.refusal,
            },
        }
        return _json(body, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def _describe(self, name: str, version: str | None) -> _Reply:
        target = self._predictor.find_target(name, version)
        inputs = [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in target.text_columns]
        inputs += [{"name": each, "datatype": "FP64", "shape": [-1]} for each in target.number_columns]
        return _json(
            {
                "name": name,
                "versions": [str(each) for each in target.versions],
                "platform": f"noria_{target.scoring[0].served.format}",
                "inputs": inputs,
                "outputs": [
                    {"name": each, "datatype": datatype, "shape": [-1]} for each, datatype in OUTPUTS.items()
                ],
            }
        )

    def _model_ready(self, name: str, version: str | None) -> _Reply:
        refused = [each for each in self._control.status().models if _is_refused(each, name, version)]
        error = "; ".join(f"{each.model}:{each.version}: {each.error}" for each in refused)
        try:
            target: Target | None = self._predictor.find_target(name, version)
        except RequestError:
            if not refused:
                raise
            target = None
        body: dict[str, object] = {"name": name, "ready": target is not None}
        if error:
            body["error"] = error
        return _json(body, HTTPStatus.OK if target else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _administer(self, verb: str, method: str) -> _Reply:
        match verb:
            case "status":
                _allow(method, "GET")
                return _Reply(msgspec.json.encode(self._control.status()))
            case "reload":
                _allow(method, "POST")
                return _Reply(msgspec.json.encode(await self._control.reload()))
            case "rotate":
                _allow(method, "POST")
                try:
                    return _json({"segment": self._control.rotate()})
                except NoriaError as err:
                    raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(err)) from err
        raise RequestError(HTTPStatus.NOT_FOUND, "there is status, reload and rotate")


class _GoneError(Exception):
    """The client left before its request was read."""


def _is_refused(state: ModelState, name: str, version: str | None) -> bool:
    return not state.ready and state.model == name and version in (None, str(state.version))


def _allow(method: str, wanted: str) -> None:
    if method != wanted:
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not taken here; send {wanted}")


def _refuse_encodings(headers: Sequence[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if name == b"inference-header-content-length":
            raise BadRequestError(BINARY_REFUSED)
        if name == b"content-encoding" and value != b"identity":
            raise BadRequestError("compressed bodies are not read here: send the JSON as it is")


def _is_local(scope: dict[str, Any]) -> bool:
    client = scope.get("client")
    return client is not None and ipaddress.ip_address(client[0]).is_loopback


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> _Reply:
    return _Reply(orjson.dumps(value), status)


def _refusal(error: RequestError) -> _Reply:
    headers: Headers = ()
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = ((b"retry-after", b"1"),)
    elif error.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = ((b"allow", str(error).rpartition(" ")[2].encode()),)
    return _Reply(orjson.dumps({"error": str(error)}), error.status, headers=headers)
