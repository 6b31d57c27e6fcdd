"""Open Inference Protocol v2 over REST, as JSON.

What a request holds is checked here as far as the protocol goes (names once, shapes, datatypes); whether a
model has such columns is checked where the model is known. No message repeats a request's data.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson

from noria.clock import parse_instant, to_micros
from noria.serving.requests import OUTPUTS, PREDICTION_ID, BadRequestError, Column, InferRequest, shown

__all__ = ["BINARY_REFUSED", "encode_answer", "parse_request"]

_FLOATS = frozenset(("FP16", "FP32", "FP64"))
_INTS = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2**bits - 1 if sign else 2 ** (bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
_NUMBERS = frozenset((*_FLOATS, *_INTS, "BOOL"))
_DATATYPES = frozenset((*_NUMBERS, "BYTES"))
_NONE = type(None)
_JSON_TYPES: Mapping[str, frozenset[type]] = {
    **{name: frozenset((float, int, _NONE)) for name in _FLOATS},
    **{name: frozenset((int, _NONE)) for name in _INTS},
    "BOOL": frozenset((bool, _NONE)),
    "BYTES": frozenset((str, _NONE)),
}
BINARY_REFUSED = (
    "the binary tensor extension is not spoken here: send `data` as JSON and ask for no binary output"
)
_MAX_MICROS = to_micros(datetime.fromisoformat("9999-12-31T00:00:00Z"))


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[_Output] | None = None


_DECODER = msgspec.json.Decoder(_Request)


def parse_request(body: bytes) -> InferRequest:
    """Read the body of an infer request.

    Raises
    ------
    BadRequestError
        If it is not one; the message says where and what was expected.
    """
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as err:
        raise BadRequestError(f"the body is no infer request: {err}") from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        reason = "its text is not UTF-8" if isinstance(err, UnicodeDecodeError) else err
        raise BadRequestError(f"the body is not JSON: {reason}") from err
    if request.parameters.get("binary_data_output"):
        raise BadRequestError(BINARY_REFUSED)
    if not request.inputs:
        raise BadRequestError("`inputs` is empty; send one tensor per request column")
    columns: dict[str, Column] = {}
    rows = -1
    for tensor in request.inputs:
        column = _read_tensor(tensor)
        if tensor.name in columns:
            raise BadRequestError(f"input {shown(tensor.name)} is there twice")
        if rows not in (-1, len(column.values)):
            raise BadRequestError(
                f"input {shown(tensor.name)} has {len(column.values)} rows, the inputs before it have {rows}"
            )
        rows = len(column.values)
        columns[tensor.name] = column
    ids = columns.pop(PREDICTION_ID, None)
    return InferRequest(
        id=request.id or None,
        at=_read_instant(request.parameters.get("at")),
        rows=rows,
        columns=columns,
        prediction_ids=None if ids is None else _read_ids(ids),
        outputs=_read_outputs(request.outputs),
    )


def encode_answer(
    *,
    model: str,
    version: str | None,
    request_id: str | None,
    parameters: Mapping[str, object],
    outputs: Mapping[str, Sequence[object]],
) -> bytes:
    """Write an infer answer as JSON; a score that is NaN becomes null."""
    answer: dict[str, object] = {"model_name": model}
    if version is not None:
        answer["model_version"] = version
    if request_id is not None:
        answer["id"] = request_id
    answer["parameters"] = parameters
    answer["outputs"] = [
        {"name": name, "datatype": OUTPUTS[name], "shape": [len(values)], "data": values}
        for name, values in outputs.items()
    ]
    return orjson.dumps(answer)


def _read_tensor(tensor: _Tensor) -> Column:
    name = shown(tensor.name)
    if "binary_data_size" in tensor.parameters:
        raise BadRequestError(BINARY_REFUSED)
    if tensor.datatype not in _DATATYPES:
        raise BadRequestError(
            f"input {name} has an unknown datatype; there is {', '.join(sorted(_DATATYPES))}"
        )
    shape = tensor.shape
    if not 1 <= len(shape) <= 2 or (len(shape) == 2 and shape[1] != 1):
        raise BadRequestError(
            f"input {name} has shape {_shape(shape)}; send one column per tensor, [n] or [n, 1]"
        )
    if shape[0] < 1:
        raise BadRequestError(f"input {name} has shape {_shape(shape)}; at least one row is needed")
    if tensor.data is msgspec.UNSET:
        raise BadRequestError(f"input {name} has no `data`; {BINARY_REFUSED}")
    values = tensor.data
    if any(type(value) is list for value in values):
        if len(shape) == 1 or not all(type(value) is list and len(value) == 1 for value in values):
            raise BadRequestError(
                f"the `data` of input {name} is not flat and does not fit its shape {_shape(shape)}"
            )
        values = [value[0] for value in values]
    if len(values) != shape[0]:
        raise BadRequestError(f"input {name} has shape {_shape(shape)} but {len(values)} values")
    return Column(tensor.datatype, _check_values(name, tensor.datatype, values))


def _check_values(name: str, datatype: str, values: list[Any]) -> list[Any]:
    wrong = set(map(type, values)) - _JSON_TYPES[datatype]
    if wrong:
        found = ", ".join(sorted(_json_name(each) for each in wrong))
        raise BadRequestError(f"input {name} is {datatype}, but its `data` holds {found}")
    if datatype in _INTS:
        low, high = _INTS[datatype]
        if any(value is not None and not low <= value <= high for value in values):
            raise BadRequestError(f"input {name} holds a number outside of {datatype}")
    elif datatype in _FLOATS:
        try:
            return [None if value is None else float(value) for value in values]
        except OverflowError as err:
            raise BadRequestError(f"input {name} holds a number outside of FP64") from err
    return values


def _read_ids(column: Column) -> list[str]:
    if not column.is_text or not all(column.values):
        raise BadRequestError(f"input '{PREDICTION_ID}' is a BYTES tensor of non-empty ids, one per row")
    return column.values


def _read_instant(given: object) -> int | None:
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
    raise BadRequestError("parameter `at` is no instant: send ISO 8601 or whole microseconds since 1970")


def _read_outputs(wanted: list[_Output] | None) -> tuple[str, ...]:
    if not wanted:
        return tuple(OUTPUTS)
    for output in wanted:
        if output.name not in OUTPUTS:
            raise BadRequestError(f"there is no output {shown(output.name)}; there is {', '.join(OUTPUTS)}")
        if output.parameters.get("binary_data"):
            raise BadRequestError(BINARY_REFUSED)
    return tuple(dict.fromkeys(output.name for output in wanted))


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape[:4]))}{', …' if len(shape) > 4 else ''}]"


def _json_name(kind: type) -> str:
    return {bool: "booleans", int: "integers", float: "fractions", str: "strings", _NONE: "null"}.get(
        kind, "arrays or objects"
    )
