"""MLflow's scoring protocol: `/invocations` in all its forms, and what else its clients ask.

A request's `params` are read and not used: no model takes any. No message repeats a request's data, which
MLflow's own server does, and there is no stack trace in one.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import orjson

from noria.serving.binding import RequestPlan
from noria.serving.requests import BadRequestError, InferRequest, Prediction, RequestError
from noria.serving.wire.csv_rows import parse_csv
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.named_values import of_columns, of_records, of_rows, values_by_row
from noria.serving.wire.oip import MAX_ROWS
from noria.serving.wire.parquet import parse_parquet

__all__ = [
    "CONTENT_TYPES",
    "PING",
    "encode_error",
    "encode_predictions",
    "instances_request",
    "is_table",
    "parse_invocations",
    "predictions_of",
]

_PARQUET = "application/vnd.apache.parquet"
CONTENT_TYPES = ("text/csv", "application/json", _PARQUET)
PING = b"\n"  # what `/ping` and `/health` answer, as application/json
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    HTTPStatus.CONFLICT: "RESOURCE_CONFLICT",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "INVALID_PARAMETER_VALUE",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "TEMPORARILY_UNAVAILABLE",
}


class _Split(msgspec.Struct, gc=False):
    data: list[list[Any]]
    columns: list[str | Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]] | None = None


class _Body(msgspec.Struct, gc=False):
    dataframe_split: _Split | msgspec.UnsetType = msgspec.UNSET
    dataframe_records: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    instances: list[Any] | msgspec.UnsetType = msgspec.UNSET
    inputs: list[Any] | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Body)


def parse_invocations(
    body: bytes, content_type: str | None, plan: RequestPlan, *, name: str, max_rows: int = MAX_ROWS
) -> InferRequest:
    """Read the body of a request to `/invocations`.

    A column `prediction_id`, in any form that names columns, holds the ids of the rows.

    Parameters
    ----------
    body
        What came.
    content_type
        The header's value; without one it is JSON.
    plan
        What the target takes: types of CSV come from it.
    name
        Of the target, for messages.
    max_rows
        More are refused.

    Raises
    ------
    RequestError
        415 of a content type, charset or parameter that MLflow does not take; else 400.
    """
    match _media_type(content_type):
        case "application/json":
            return _read_json(body, plan, name=name, max_rows=max_rows)
        case "text/csv":
            return parse_csv(body, plan, name=name, max_rows=max_rows)
        case media_type if media_type == _PARQUET:
            return parse_parquet(body, plan, name=name, max_rows=max_rows)
    raise _unsupported(
        f"this server takes the content types {', '.join(CONTENT_TYPES)}; name one in the header content-type"
    )


def is_table(content_type: str | None) -> bool:
    """Whether a body of this type, CSV or Parquet, takes long to read: to be done beside the loop."""
    return (content_type or "").partition(";")[0].strip().lower() in ("text/csv", _PARQUET)


def instances_request(
    instances: list[Any], plan: RequestPlan, *, name: str, max_rows: int = MAX_ROWS
) -> InferRequest:
    """Give the request of a list of rows: each an object, a list of values, or the one value of one column.

    Raises
    ------
    BadRequestError
        If they are not all of one form, or do not fit the target.
    """
    kinds = set(map(type, instances))
    if kinds == {dict}:
        return of_records(instances, plan, name=name, max_rows=max_rows)
    if kinds == {list}:
        return of_rows(instances, plan, name=name, max_rows=max_rows)
    if kinds & {dict, list}:
        raise BadRequestError(
            "the rows are of several forms: send objects by column name, or lists of values"
        )
    return of_rows([[each] for each in instances], plan, name=name, max_rows=max_rows)


def predictions_of(prediction: Prediction) -> object:
    """Give the predictions in MLflow's shape: a list of values, of lists, or of records."""
    if len(prediction.outputs) == 1:
        return values_by_row(prediction.outputs[0])
    columns = [values_by_row(each) for each in prediction.outputs]
    names = [each.name for each in prediction.outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def encode_predictions(prediction: Prediction) -> bytes:
    """Write the answer of `/invocations`, and of KServe's `:predict`; a number that is NaN is null."""
    return orjson.dumps({"predictions": predictions_of(prediction)}, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_error(error: RequestError) -> tuple[bytes, str]:
    """Write an error as MLflow's clients know it, and give its content type."""
    if error.status is HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return str(error).encode(), "text/plain"
    code = _CODES.get(error.status, "BAD_REQUEST" if error.status < 500 else "INTERNAL_ERROR")
    return orjson.dumps({"error_code": code, "message": str(error)}), "application/json"


def _media_type(content_type: str | None) -> str:
    if not content_type:
        return "application/json"
    media_type, *parameters = (each.strip() for each in content_type.split(";"))
    for parameter in filter(None, parameters):
        key, _, value = parameter.partition("=")
        if key.strip().lower() != "charset":
            raise _unsupported("of a content type, `charset` is the one parameter that is taken")
        if value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise _unsupported("the scoring server only supports UTF-8")
    return media_type.lower()


def _unsupported(message: str) -> RequestError:
    return RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


def _read_json(body: bytes, plan: RequestPlan, *, name: str, max_rows: int) -> InferRequest:
    given = decode_body(_DECODER, body, what="no scoring request")
    there = [each for each in _FORMS if getattr(given, each) is not msgspec.UNSET]
    if len(there) != 1:
        raise BadRequestError(
            f"the body is a JSON object with exactly one of {', '.join(_FORMS)}; "
            f"it has {' and '.join(there) or 'none of them'}"
        )
    if isinstance(given.dataframe_split, _Split):
        return _read_split(given.dataframe_split, plan, name=name, max_rows=max_rows)
    if isinstance(given.dataframe_records, list):
        return of_records(given.dataframe_records, plan, name=name, max_rows=max_rows)
    if isinstance(given.instances, list):
        return instances_request(given.instances, plan, name=name, max_rows=max_rows)
    if isinstance(given.inputs, list):
        return instances_request(given.inputs, plan, name=name, max_rows=max_rows)
    assert isinstance(given.inputs, dict)
    if not all(type(values) is list for values in given.inputs.values()):
        raise BadRequestError("`inputs` by column name holds a list for each, one value a row")
    return of_columns(given.inputs, plan, name=name, max_rows=max_rows)


def _read_split(split: _Split, plan: RequestPlan, *, name: str, max_rows: int) -> InferRequest:
    columns = split.columns
    if columns is None or columns == list(range(len(columns))):  # a frame of an array has numbers for names
        return of_rows(split.data, plan, name=name, max_rows=max_rows)
    names = list(map(str, columns))
    if len(set(names)) < len(names):
        raise BadRequestError("`columns` of `dataframe_split` holds a name twice")
    if set(map(len, split.data)) - {len(names)}:
        raise BadRequestError(f"the rows of `dataframe_split` do not have its {len(names)} columns")
    if not names or not split.data:
        raise BadRequestError(f"`dataframe_split` has no rows or no columns; {plan.expected(name)}")
    by_column = dict(zip(names, zip(*split.data, strict=True), strict=True))
    return of_columns(by_column, plan, name=name, max_rows=max_rows)
