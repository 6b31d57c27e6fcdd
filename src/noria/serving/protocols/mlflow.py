"""The routes of MLflow's scoring protocol: `/invocations`, `/ping`, `/health`, `/version`."""

from http import HTTPStatus

from noria.serving.http.answering import Answering, Question, Wire
from noria.serving.http.exchange import Head, Reply, Request
from noria.serving.models import Target
from noria.serving.records import Limits
from noria.serving.requests import InferRequest, Prediction, RequestError
from noria.serving.wire import mlflow

__all__ = ["VERSION", "WIRE", "answer"]

VERSION = "3.17.2"  # of MLflow, whose protocol this is


class _Mlflow:
    def read(self, body: bytes, target: Target, head: Head, limits: Limits) -> tuple[InferRequest, None]:
        content_type = head.header(b"content-type")
        asked = mlflow.parse_invocations(
            body, content_type, target.plan, name=target.name, max_rows=limits.max_rows
        )
        return asked, None

    def write(self, prediction: Prediction, asked: InferRequest, how: None, *, name: str) -> Reply:
        return Reply(mlflow.encode_predictions(prediction), headers=prediction.headers)

    def refuse(self, error: RequestError) -> Reply:
        body, content_type = mlflow.encode_error(error)
        return Reply(body, error.status, content_type=content_type.encode(), headers=error.headers)


WIRE: Wire = _Mlflow()


async def answer(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    """Answer MLflow's clients; None where nothing is there."""
    match parts:
        case ["invocations"]:
            try:
                request.allow("POST")
                if answering.keys is not None:
                    answering.keys.check(request.headers, None)  # what is there is told to no stranger
                name = answering.only(request)
            except RequestError as err:
                return WIRE.refuse(err)
            is_table = mlflow.is_table(request.header(b"content-type"))
            return await answering.predict(request, Question(WIRE, name), reads_long=is_table)
        case ["ping" | "health"]:
            request.allow("GET")
            states = answering.control.status().deployments.values()
            is_up = any(each.state == "ready" for each in states)
            return Reply(mlflow.PING, HTTPStatus.OK if is_up else HTTPStatus.NOT_FOUND)
        case ["version"]:
            request.allow("GET")
            return Reply(VERSION.encode(), content_type=b"text/plain; charset=utf-8")
    return None
