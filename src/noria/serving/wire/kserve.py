"""KServe's first protocol, which its SDK speaks by default: rows in, predictions out."""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from noria.serving.binding import RequestPlan
from noria.serving.requests import BadRequestError, InferRequest
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.mlflow import encode_predictions, instances_request
from noria.serving.wire.oip import MAX_ROWS

__all__ = ["ALIVE", "encode_models", "encode_predictions", "encode_ready", "parse_predict"]

ALIVE = b'{"status":"alive"}'  # what `GET /` answers


class _Body(msgspec.Struct, gc=False):
    instances: list[Any] | msgspec.UnsetType = msgspec.UNSET
    inputs: list[Any] | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(_Body)


def parse_predict(body: bytes, plan: RequestPlan, *, name: str, max_rows: int = MAX_ROWS) -> InferRequest:
    """Read the body of `POST /v1/models/NAME:predict`.

    Parameters
    ----------
    body
        An object with `instances` (or, as KServe's server has it too, `inputs`): a list of rows, each an
        object by column name or a list of values.
    plan, name
        What the target takes, and what it is called.
    max_rows
        More are refused.

    Raises
    ------
    BadRequestError
        If it is no such request, or does not fit the target.
    """
    given = decode_body(_DECODER, body, what="no predict request")
    found = [each for each in (given.instances, given.inputs) if isinstance(each, list)]
    if len(found) != 1:
        raise BadRequestError("the body is a JSON object with `instances`, a list of rows")
    return instances_request(found[0], plan, name=name, max_rows=max_rows)


def encode_ready(name: str, *, ready: bool) -> bytes:
    """Write the answer of `GET /v1/models/NAME`."""
    return orjson.dumps({"name": name, "ready": ready})


def encode_models(names: Iterable[str]) -> bytes:
    """Write the answer of `GET /v1/models`."""
    return orjson.dumps({"models": list(names)})
