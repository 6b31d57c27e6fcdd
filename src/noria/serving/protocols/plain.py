"""The routes for people: named fields in, named values out."""

from noria.serving.http.answering import Answering, Question, Wire
from noria.serving.http.exchange import Head, Reply, Request, refusal
from noria.serving.models import Target
from noria.serving.records import Limits
from noria.serving.requests import InferRequest, Prediction, RequestError
from noria.serving.wire import plain

__all__ = ["WIRE", "answer"]


class _Plain:
    def read(self, body: bytes, target: Target, head: Head, limits: Limits) -> tuple[InferRequest, bool]:
        return plain.parse_request(body, target.plan, name=target.name, max_rows=limits.max_rows)

    def write(self, prediction: Prediction, asked: InferRequest, how: bool, *, name: str) -> Reply:
        return Reply(plain.encode_answer(prediction, is_single=how))

    def refuse(self, error: RequestError) -> Reply:
        return refusal(error)


WIRE: Wire = _Plain()


async def answer(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    """Answer what is below `/models`; None where nothing is there."""
    match parts:
        case [name, "predict"]:
            request.allow("POST")
            return await answering.predict(request, Question(WIRE, name))
        case [name, "versions", version, "predict"]:
            request.allow("POST")
            return await answering.predict(request, Question(WIRE, name, version))
        case [name, "explain"]:
            request.allow("POST")
            return await _explain(answering, request, name, None)
        case [name, "versions", version, "explain"]:
            request.allow("POST")
            return await _explain(answering, request, name, version)
    return None


async def _explain(answering: Answering, request: Request, name: str, version: str | None) -> Reply:
    from noria.serving.protocols.explaining import explain

    return await explain(answering, request, name, version)
