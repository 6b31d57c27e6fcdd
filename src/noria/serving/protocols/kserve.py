"""The routes of KServe's first protocol: `/v1/models/NAME` and `/v1/models/NAME:predict`."""

from http import HTTPStatus

from noria.serving.http.answering import Answering, Question, Wire
from noria.serving.http.exchange import Head, Reply, Request, refusal
from noria.serving.models import Target
from noria.serving.records import Limits
from noria.serving.requests import InferRequest, Prediction, RequestError
from noria.serving.wire import kserve

__all__ = ["WIRE", "answer"]

_PREDICT = ":predict"
_EXPLAIN = ":explain"


class _Kserve:
    def read(self, body: bytes, target: Target, head: Head, limits: Limits) -> tuple[InferRequest, None]:
        return kserve.parse_predict(body, target.plan, name=target.name, max_rows=limits.max_rows), None

    def write(self, prediction: Prediction, asked: InferRequest, how: None, *, name: str) -> Reply:
        return Reply(kserve.encode_predictions(prediction), headers=prediction.headers)

    def refuse(self, error: RequestError) -> Reply:
        return refusal(error)


WIRE: Wire = _Kserve()


async def answer(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    """Answer what is below `/v1`; None where nothing is there."""
    match parts:
        case ["models"]:
            request.allow("GET")
            return Reply(kserve.encode_models(answering.hosting.names))
        case ["models", name] if name.endswith(_PREDICT):
            request.allow("POST")
            return await answering.predict(request, Question(WIRE, name.removesuffix(_PREDICT)))
        case ["models", name] if name.endswith(_EXPLAIN):
            request.allow("POST")
            from noria.serving.protocols.explaining import explain_instances

            return await explain_instances(answering, request, name.removesuffix(_EXPLAIN))
        case ["models", name]:
            request.allow("GET")
            ready = answering.is_ready(name)
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            return Reply(kserve.encode_ready(name, ready=ready), status)
    return None
