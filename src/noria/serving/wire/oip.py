"""Open Inference Protocol v2 over REST: JSON, and the binary tensor extension.

What a request holds is checked here as far as the protocol goes (names once, shapes, datatypes, sizes);
whether a model has such columns is checked where the model is known. No message repeats a request's data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Union, cast

import msgspec
import orjson

from noria.clock import parse_instant, to_micros
from noria.serving.requests import (
    PREDICTION_ID,
    BadRequestError,
    Column,
    InferRequest,
    OutputColumn,
    Prediction,
    shown,
    too_many_rows,
)
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.tensors import DATATYPES, flat_type, read_binary, read_json, write_binary

__all__ = [
    "EXTENSIONS",
    "LENGTH_HEADER",
    "MAX_ROWS",
    "Reply",
    "encode_answer",
    "parse_request",
    "read_instant",
]

EXTENSIONS = ("binary_tensor_data", "model_repository")
LENGTH_HEADER = "Inference-Header-Content-Length"
MAX_ROWS = 100_000
_MAX_MICROS = to_micros(datetime.fromisoformat("9999-12-31T00:00:00Z"))
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Reply:
    """How the answer is to be written.

    Attributes
    ----------
    binary
        Whether outputs go as bytes where nothing else is said of them.
    by_output
        What is said of some.
    """

    binary: bool = False
    by_output: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        """Whether an output is to go as bytes."""
        return self.by_output.get(output, self.binary)


_PLAIN = Reply()
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # longer ones could not even be told


class _TensorParameters(msgspec.Struct, gc=False):
    binary_data_size: _Int64 | None = None


class _OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class _Parameters(msgspec.Struct, gc=False):
    at: Any = None
    binary_data_output: bool = False


class _Tensor(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[_Int64]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: _TensorParameters | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _OutputParameters | None = None


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


_DECODER = msgspec.json.Decoder(_Request)
_READ_TO = 1 << 19  # bytes of a body whose numbers are read before its shapes are looked at
_HEAD = 1_024  # bytes in which nested data is looked for: it is not read in one pass


def _read_tensor(datatype: str) -> Any:
    """Give the type of a tensor whose flat data is read with it, which `datatype` tells."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("name", str),
        ("shape", list[_Int64]),
        ("data", flat_type(datatype) | msgspec.UnsetType, msgspec.UNSET),
        ("parameters", _TensorParameters | None, None),
    ]
    return msgspec.defstruct(
        f"_{datatype}Tensor",
        fields,
        namespace={"datatype": datatype},
        tag_field="datatype",
        tag=datatype,
        gc=False,
    )


_READ_TENSOR: Any = Union[tuple(_read_tensor(each) for each in sorted(DATATYPES))]  # noqa: UP007
_READ_REQUEST = cast(
    type[_Request],
    msgspec.defstruct("_ReadRequest", [("inputs", list[_READ_TENSOR])], bases=(_Request,), gc=False),
)
_READER = msgspec.json.Decoder(_READ_REQUEST)


def parse_request(
    body: bytes, header_length: str | None = None, *, max_rows: int = MAX_ROWS
) -> tuple[InferRequest, Reply]:
    """Read the body of an infer request.

    Parameters
    ----------
    body
        JSON; with a `header_length`, JSON of that many bytes, then the tensors in the order of the inputs.
    header_length
        The value of the header `Inference-Header-Content-Length`, where there is one.
    max_rows
        More are refused.

    Returns
    -------
    tuple of InferRequest and Reply
        The outputs that are asked for are not checked: models differ.

    Raises
    ------
    BadRequestError
        If it is no such request; the message says where and what was expected.
    """
    rest = None
    if header_length is not None:
        start = _read_length(header_length, len(body))
        text, rest = memoryview(body)[:start], memoryview(body)[start:]
        request = decode_body(_DECODER, text, what="no infer request")
    else:
        request = _decode(body)
    if not request.inputs:
        raise BadRequestError("`inputs` is empty; send one tensor per request column")
    columns: dict[str, Column] = {}
    first, used = request.inputs[0].shape, 0
    _check_shape(request.inputs[0], max_rows)
    for tensor in request.inputs:
        name, shape = tensor.name, tensor.shape
        if name in columns:
            raise BadRequestError(f"input {shown(name)} is there twice")
        if shape != first:
            _check_shape(tensor, max_rows, rows=first[0])
        if tensor.datatype not in DATATYPES:
            raise BadRequestError(
                f"input {shown(name)} has an unknown datatype; there is {', '.join(sorted(DATATYPES))}"
            )
        size = None if tensor.parameters is None else tensor.parameters.binary_data_size
        if size is not None:
            columns[name] = _read_bytes(tensor, rest, used, size)
            used += size
        elif tensor.data is msgspec.UNSET:
            raise BadRequestError(f"input {shown(name)} has neither `data` nor a `binary_data_size`")
        else:
            columns[name] = read_json(name, tensor.datatype, shape, tensor.data)
    if rest is not None and used != len(rest):
        raise BadRequestError(
            f"{len(rest)} bytes follow the JSON, but the inputs' `binary_data_size` add up to {used}"
        )
    ids = columns.pop(PREDICTION_ID, None)
    parameters = request.parameters
    read = InferRequest(
        id=request.id or None,
        at=None if parameters is None else read_instant(parameters.at),
        rows=first[0],
        columns=columns,
        prediction_ids=None if ids is None else _read_ids(ids),
        outputs=_read_outputs(request.outputs),
    )
    return read, _read_reply(request)


def encode_answer(
    prediction: Prediction, reply: Reply = _PLAIN, *, model: str, request_id: str | None = None
) -> tuple[bytes, int | None]:
    """Write an infer answer. A number that is NaN or infinite is null in JSON, and itself in bytes.

    Parameters
    ----------
    prediction
        What is answered.
    reply
        Of `parse_request`.
    model
        The name that was asked.
    request_id
        The request's, given back.

    Returns
    -------
    tuple of bytes and int or None
        The body, and the length of its JSON where tensors follow: then that goes into the header
        `Inference-Header-Content-Length`, and the content type is application/octet-stream.
    """
    version = prediction.version
    answer: dict[str, object] = {"model_name": model}
    if version is not None:
        answer["model_version"] = str(version)
    if request_id is not None:
        answer["id"] = request_id
    answer["parameters"] = _told(prediction)
    tensors: list[bytes] = []
    rows = len(prediction.ids)
    may_be_binary = reply.binary or reply.by_output
    outputs: list[dict[str, object]] = []
    for column in prediction.all_columns:
        tensor = _tensor(column, rows)
        if may_be_binary and reply.is_binary(column.name):
            data = write_binary(column.datatype, column.values)
            tensor["parameters"] = {**_labels(column), "binary_data_size": len(data)}
            tensors.append(data)
        else:
            if column.labels:
                tensor["parameters"] = _labels(column)
            tensor["data"] = column.values
        outputs.append(tensor)
    answer["outputs"] = outputs
    head = orjson.dumps(answer, option=_OPTIONS)
    if not tensors:
        return head, None
    return b"".join((head, *tensors)), len(head)


def read_instant(given: object) -> int | None:
    """Read a request's instant: ISO 8601 with an offset, or microseconds since 1970.

    Raises
    ------
    BadRequestError
        If it is neither.
    """
    match given:
        case None:
            return None
        case bool():
            pass
        case int() if 0 <= given <= _MAX_MICROS:
            return given
        case str():
            try:
                return to_micros(parse_instant(given))
            except ValueError:
                pass
    raise BadRequestError("`at` is no instant: send ISO 8601 or whole microseconds since 1970")


def _decode(body: bytes) -> _Request:
    """Read JSON: in one pass where its data is flat and right, else in two, which tell what is wrong."""
    if len(body) <= _READ_TO and body.find(b"[[", 0, _HEAD) < 0:
        try:
            return _READER.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    return decode_body(_DECODER, body, what="no infer request")


def _read_length(given: str, there: int) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 19) or int(given) > there:
        raise BadRequestError(
            f"the header {LENGTH_HEADER} is the number of bytes of the JSON before the tensors, "
            f"at most the body's {there}"
        )
    return int(given)


def _check_shape(tensor: _Tensor, max_rows: int, *, rows: int | None = None) -> None:
    shape, name = tensor.shape, tensor.name
    if not 1 <= len(shape) <= 2:
        raise BadRequestError(f"input {shown(name)} has {len(shape)} dimensions; send [n], [n, 1] or [n, k]")
    if min(shape) < 1:
        raise BadRequestError(
            f"input {shown(name)} has shape {shape}; at least one row and one value are needed"
        )
    if shape[0] > max_rows:
        raise too_many_rows(shape[0], max_rows)
    if rows not in (None, shape[0]):
        raise BadRequestError(f"input {shown(name)} has {shape[0]} rows, the inputs before it have {rows}")


def _read_bytes(tensor: _Tensor, rest: memoryview | None, used: int, size: int) -> Column:
    if size < 0:
        raise BadRequestError(f"input {shown(tensor.name)} has a negative `binary_data_size`")
    if tensor.data is not msgspec.UNSET:
        raise BadRequestError(f"input {shown(tensor.name)} has `data` and a `binary_data_size`; send one")
    if rest is None:
        raise BadRequestError(
            f"input {shown(tensor.name)} has a `binary_data_size`, but the request has no header "
            f"{LENGTH_HEADER}: send `data`, or that header and the bytes after the JSON"
        )
    if used + size > len(rest):
        raise BadRequestError(
            f"the bytes of input {shown(tensor.name)} reach beyond the body: {used + size} are wanted "
            f"after the JSON, there are {len(rest)}"
        )
    return read_binary(tensor.name, tensor.datatype, tensor.shape, rest[used : used + size])


def _read_ids(column: Column) -> list[str]:
    values = column.values
    if not column.is_text or column.width != 1 or not all(values):
        raise BadRequestError(f"input '{PREDICTION_ID}' is a BYTES tensor of non-empty ids, one per row")
    return list(values)


def _read_outputs(wanted: list[_Output] | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(each.name for each in wanted)) if wanted else None


def _read_reply(request: _Request) -> Reply:
    by_output = {}
    for output in request.outputs or ():
        given = output.parameters
        if given is None:
            continue
        if given.classification is not None or given.shared_memory_region is not None:
            raise BadRequestError(
                f"output {shown(output.name)}: neither the classification nor the shared memory extension "
                f"is spoken here; there is {', '.join(EXTENSIONS)}"
            )
        if given.binary_data is not None:
            by_output[output.name] = given.binary_data
    binary = request.parameters is not None and request.parameters.binary_data_output
    return Reply(binary, by_output) if binary or by_output else _PLAIN


def _told(prediction: Prediction) -> dict[str, object]:
    told: dict[str, object] = {"route": prediction.route_number, "logged": prediction.logged}
    releases = prediction.releases
    if releases and releases.count(releases[0]) == len(releases):
        told["release"] = releases[0]
    for name, rows in (("defaulted", prediction.defaulted), ("stale", prediction.stale)):
        if rows:  # parameters are scalars in this protocol
            told[name] = ", ".join(f"{view}={count}" for view, count in rows.items())
    return told


def _tensor(column: OutputColumn, rows: int) -> dict[str, object]:
    shape = [rows, column.width] if column.width else [rows]
    return {"name": column.name, "datatype": column.datatype, "shape": shape}


def _labels(column: OutputColumn) -> dict[str, object]:
    return {"labels": column.labels} if column.labels else {}
