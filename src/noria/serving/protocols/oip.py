"""The routes of the Open Inference Protocol, version 2, and of its model repository extension."""

from http import HTTPStatus
from importlib.metadata import version as installed_version

from noria.errors import NoriaError
from noria.serving.http.answering import Answering, Question, Wire
from noria.serving.http.exchange import Head, Reply, Request, json_reply, refusal
from noria.serving.models import Target
from noria.serving.records import DeploymentState, Limits
from noria.serving.requests import InferRequest, Prediction, RequestError, shown
from noria.serving.wire import oip, repository

__all__ = ["WIRE", "answer"]

_OCTETS = b"application/octet-stream"
_LENGTH = oip.LENGTH_HEADER.lower().encode()


class _Oip:
    def read(self, body: bytes, target: Target, head: Head, limits: Limits) -> tuple[InferRequest, oip.Reply]:
        return oip.parse_request(body, head.header(_LENGTH), max_rows=limits.max_rows)

    def write(self, prediction: Prediction, asked: InferRequest, how: oip.Reply, *, name: str) -> Reply:
        body, length = oip.encode_answer(prediction, how, model=name, request_id=asked.id)
        if length is None:
            return Reply(body)
        return Reply(body, content_type=_OCTETS, headers=((_LENGTH, b"%d" % length),))

    def refuse(self, error: RequestError) -> Reply:
        return refusal(error)


WIRE: Wire = _Oip()


async def answer(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    """Answer what is below `/v2`; None where nothing is there."""
    match parts:
        case ["models", name, "versions", version, *verb]:
            return await _answer_model(answering, request, name, version, verb)
        case ["models", name, *verb]:
            return await _answer_model(answering, request, name, None, verb)
        case ["repository", *verb]:
            return await _answer_repository(answering, request, verb)
    return _answer_server(answering, request, parts)


def _answer_server(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    match parts:
        case []:
            reply = json_reply(
                {"name": "noria", "version": installed_version("noria"), "extensions": oip.EXTENSIONS}
            )
        case ["health", "live"]:
            reply = json_reply({"live": True})
        case ["health", "ready"]:
            reply = _ready(answering)
        case _:
            return None
    request.allow("GET")
    return reply


async def _answer_repository(answering: Answering, request: Request, verb: list[str]) -> Reply | None:
    match verb:
        case ["index"]:
            request.allow("POST")
            return await _index(answering, request)
        case ["models", name, "load"]:
            request.allow("POST")
            return await _load(answering, request, name)
        case ["models", name, "unload"]:
            request.allow("POST")
            return await _unload(answering, request, name)
    return None


async def _answer_model(
    answering: Answering, request: Request, name: str, version: str | None, verb: list[str]
) -> Reply:
    match verb:
        case ["infer"]:
            request.allow("POST")
            return await answering.predict(request, Question(WIRE, name, version))
        case ["ready"]:
            request.allow("GET")
            return _model_ready(answering, name, version)
        case []:
            request.allow("GET")
            _, target = answering.find(name, version)
            return Reply(
                repository.encode_metadata(
                    name,
                    versions=target.versions,
                    platform=f"noria_{target.scoring[0].served.format}",
                    columns=target.plan.columns,
                    outputs=target.outputs,
                )
            )
    raise RequestError(
        HTTPStatus.NOT_FOUND, f"a model has infer and ready, there is nothing at {shown('/'.join(verb))}"
    )


def _ready(answering: Answering) -> Reply:
    status = answering.control.status()
    deployments = {
        name: {"route": each.route, "wanted": each.wanted, "error": each.error or each.refusal}
        for name, each in status.deployments.items()
    }
    states = status.deployments.values()
    ready = status.state == "ready" and bool(states) and all(each.state == "ready" for each in states)
    return json_reply(
        {"ready": ready, "parameters": deployments},
        HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


def _model_ready(answering: Answering, name: str, version: str | None) -> Reply:
    is_there = answering.is_ready(name, version)
    body: dict[str, object] = {"name": name, "ready": is_there}
    if error := answering.refused(name, version):
        body["error"] = error
    return json_reply(body, HTTPStatus.OK if is_there else HTTPStatus.SERVICE_UNAVAILABLE)


async def _index(answering: Answering, request: Request) -> Reply:
    ready_only = repository.parse_index(await request.body())
    entries = [
        repository.IndexEntry(each.model, str(each.version), each.ready, each.error or _at_rest(state))
        for state in answering.control.status().deployments.values()
        for each in state.models
    ]
    return Reply(repository.encode_index(entries, ready_only=ready_only))


def _at_rest(state: DeploymentState) -> str:
    return "not in memory: the next request loads it" if state.is_resting else ""


async def _load(answering: Answering, request: Request, name: str) -> Reply:
    """Read the route anew: what is loaded is what the environment points to."""
    repository.parse_load(await request.body())
    hosted = answering.hosting.find(name)
    if hosted is None:
        raise answering.unknown(name)
    state = await answering.control.reload(hosted.name)
    if state.error is not None and not state.is_resting:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, state.error)
    try:
        await answering.control.wake(hosted.name)
    except NoriaError as err:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(err)) from err
    return json_reply({})


async def _unload(answering: Answering, request: Request, name: str) -> Reply:
    """Let go of the models of the deployment, in this worker; the next request loads them again."""
    repository.parse_load(await request.body())
    hosted = answering.hosting.find(name)
    if hosted is None:
        raise answering.unknown(name)
    await answering.control.unload(hosted.name)
    return json_reply({})
