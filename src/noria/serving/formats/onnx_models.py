"""ONNX models as a worker scores by them: a matrix, or named tensors of numbers and texts in and out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, DeploymentError, SourceError
from noria.registry.whole_numbers import are_whole
from noria.serving.formats.scorers import Rows, Scorer
from noria.serving.records import SCORE, Input, Output, ServedModel

__all__ = ["OnnxModel", "describe_outputs", "open_onnx", "tensor_inputs"]

_DTYPES: Mapping[str, str] = {
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(float16)": "f2",
    "tensor(int8)": "i1",
    "tensor(int16)": "i2",
    "tensor(int32)": "i4",
    "tensor(int64)": "i8",
    "tensor(uint8)": "u1",
    "tensor(uint16)": "u2",
    "tensor(uint32)": "u4",
    "tensor(uint64)": "u8",
    "tensor(bool)": "?",
}
_DATATYPES: Mapping[str, str] = {
    "f4": "FP32",
    "f8": "FP64",
    "f2": "FP16",
    "i1": "INT8",
    "i2": "INT16",
    "i4": "INT32",
    "i8": "INT64",
    "u1": "UINT8",
    "u2": "UINT16",
    "u4": "UINT32",
    "u8": "UINT64",
    "?": "BOOL",
}
_TEXT = "tensor(string)"
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_LABELS = ("tensor(int64)", "tensor(int32)", _TEXT)
_TOLERANCE = 1e-5  # kernels of float32 round otherwise for other numbers of rows


def open_onnx(served: ServedModel, data: bytes) -> Scorer:
    """Give what scores by an ONNX model.

    One that reads a matrix and gives a probability or a number for each row gives the same bits whatever rows
    are beside one; any other is within 1e-5.

    Raises
    ------
    DeploymentError
        If onnxruntime does not take it or is not installed, or it is no model of these inputs and outputs.
    """
    from noria.registry.onnx_format import input_width, load_onnx, onnx_scorer

    try:
        session = load_onnx(data)
        if served.outputs == (SCORE,) and all(each.kind != "string" for each in served.inputs):
            try:
                return _Matrix(onnx_scorer(session), input_width(session))
            except ConfigError:
                pass  # it reads or gives something else: by names then
    except ConfigError as err:
        raise DeploymentError(str(err)) from err
    return OnnxModel(session, served.inputs, served.outputs)


def tensor_inputs(session: Any, *, like: Sequence[str] = ()) -> tuple[Input, ...]:
    """Give what the session reads as inputs: one for each tensor, or for each column of its only matrix.

    Parameters
    ----------
    like
        Names of columns that somebody has for it: its only matrix is read as these where there are as many.

    Raises
    ------
    ConfigError
        If it reads what is neither numbers nor texts, or more than vectors.
    """
    tensors = session.get_inputs()
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and tensors[0].name not in like and like:
        each, width = tensors[0], tensors[0].shape[1]
        if isinstance(width, int) and width != len(like):
            raise ConfigError(f"the ONNX model reads {width} columns; the rows have {len(like)}")
        return tuple(_input(name, each.type, 1) for name in like)
    found = []
    for each in tensors:
        width = each.shape[1] if len(each.shape) == 2 else 1
        if len(each.shape) not in (1, 2) or not isinstance(width, int):
            raise ConfigError(
                f"input {each.name!r} of the ONNX model has the shape {each.shape}; wanted is [n] or "
                "[n, width]"
            )
        if each.type == _TEXT and width != 1:
            raise ConfigError(
                f"input {each.name!r} of the ONNX model reads {width} texts for each row; name each by "
                "an example"
            )
        found.append(_input(each.name, each.type, width))
    return tuple(found)


def describe_outputs(session: Any, inputs: Sequence[Input], rows: Rows) -> tuple[Output, ...]:
    """Give what a session gives, by what it gives for some rows. Raises `DeploymentError`, `SourceError`."""
    found = []
    for name, (values, labels) in OnnxModel(session, inputs, ()).run(rows).items():
        width = values.shape[1] if isinstance(values, np.ndarray) and values.ndim == 2 else 0
        datatype = _datatype(values)
        found.append(Output(name=name, datatype=datatype, width=width, labels=labels))  # type: ignore[arg-type]
    return tuple(found)


class OnnxModel:
    """A session of onnxruntime that reads and gives tensors by name."""

    is_native = True
    tolerance = _TOLERANCE
    path = "onnxruntime"
    fallback: str | None = None

    def __init__(self, session: Any, inputs: Sequence[Input], outputs: Sequence[Output]) -> None:
        self.outputs = tuple(outputs)
        self._session, self._inputs = session, tuple(inputs)
        numbers = [each for each in inputs if each.kind != "string"]
        self.columns: int | None = sum(each.width for each in numbers)
        self._places: dict[str, slice] = {}
        at = 0
        for each in numbers:
            self._places[each.name] = slice(at, at + each.width)
            at += each.width
        self._tensors = session.get_inputs()
        self._is_whole = len(self._tensors) == 1 and self._tensors[0].name not in {
            each.name for each in inputs
        }
        if not self._is_whole:
            _check_names({each.name for each in self._tensors}, {each.name for each in inputs})
        self._names = _output_names(session.get_outputs())
        batch = self._tensors[0].shape[0] if self._tensors[0].shape else None
        self._batch = batch if isinstance(batch, int) else None

    def predict(self, rows: Rows) -> Sequence[Any]:
        """Give the columns of `outputs` for the rows."""
        given = self.run(rows)
        columns = []
        for each in self.outputs:
            if each.name not in given:
                raise DeploymentError(f"the ONNX model gave no {each.name!r}; register it again")
            values, labels = given[each.name]
            width = values.shape[1] if isinstance(values, np.ndarray) and values.ndim == 2 else 0
            if (_datatype(values), width) != (each.datatype, each.width) or (
                labels and labels != each.labels
            ):
                raise DeploymentError(
                    f"the ONNX model gave {_datatype(values)} of width {width} as {each.name!r}; it was "
                    f"registered with {each.datatype} of width {each.width}"
                )
            columns.append(values)
        return columns

    def run(self, rows: Rows) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """Give what the session gives by names of outputs: values, and what a vector's elements are of."""
        from noria.registry.onnx_format import ONNX_ERRORS

        feeds = dict(self._feeds(rows))
        try:
            given = self._run(feeds, rows.count)
        except ONNX_ERRORS as err:
            raise DeploymentError(f"onnxruntime failed on the rows ({type(err).__name__})") from None
        return {
            name: _values(value, rows.count, name) for name, value in zip(self._names, given, strict=True)
        }

    def _run(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> list[Any]:
        size = self._batch
        if size is None or size == rows:
            return list(self._session.run(None, feeds))
        parts = []
        for start in range(0, rows, size):
            some = {name: _filled(values[start : start + size], size) for name, values in feeds.items()}
            parts.append([each[: rows - start] for each in self._session.run(None, some)])
        return [
            [row for part in column for row in part]
            if isinstance(column[0], list)
            else np.concatenate(column)
            for column in zip(*parts, strict=True)
        ]

    def _feeds(self, rows: Rows) -> Iterator[tuple[str, NDArray[Any]]]:
        if self._is_whole:
            tensor = self._tensors[0]
            if tensor.type == _TEXT:
                texts = [_texts(rows, each.name) for each in self._inputs]
                yield tensor.name, np.column_stack(texts).reshape(rows.count, len(texts))
            else:
                yield tensor.name, self._numbers(rows.matrix, tensor, self._inputs)
            return
        by_name = {each.name: each for each in self._inputs}
        for tensor in self._tensors:
            if tensor.type == _TEXT:
                values = _texts(rows, tensor.name)
            else:
                place = self._places[tensor.name]
                values = self._numbers(rows.matrix[:, place], tensor, [by_name[tensor.name]])
            yield (
                tensor.name,
                values.reshape(-1, 1) if len(tensor.shape) == 2 and values.ndim == 1 else values,
            )

    def _numbers(self, matrix: NDArray[Any], tensor: Any, inputs: Sequence[Input]) -> NDArray[Any]:
        dtype = np.dtype(_DTYPES[tensor.type])
        if dtype.kind != "f":
            wrong = ~are_whole(matrix, dtype)
            if wrong.any():
                name = (
                    inputs[int(np.flatnonzero(wrong.any(axis=0))[0])].name
                    if len(inputs) > 1
                    else inputs[0].name
                )
                raise SourceError(
                    f"input {name!r} lacks a value, or has one that is no {dtype.name}, as the model reads"
                )
        values = np.ascontiguousarray(matrix, dtype=dtype)
        return values[:, 0] if len(tensor.shape) == 1 else values


class _Matrix:
    """A model that reads a matrix of floats and gives one number for a row."""

    outputs: tuple[Output, ...] = (SCORE,)
    is_native = True
    tolerance = 0.0
    path = "onnxruntime"
    fallback: str | None = None

    def __init__(self, score: Any, columns: int | None) -> None:
        self._score, self.columns = score, columns

    def predict(self, rows: Rows) -> Sequence[Any]:
        """Give the score of each row."""
        return (self._score(rows.matrix),)


def _input(name: str, kind: str, width: int) -> Input:
    if kind == _TEXT:
        return Input(name=name, kind="string", datatype="BYTES")
    if kind not in _DTYPES:
        raise ConfigError(f"input {name!r} of the ONNX model is a {kind}; wanted are numbers or texts")
    return Input(name=name, kind="number", width=width, datatype=_DATATYPES[_DTYPES[kind]])


def _check_names(read: set[str], told: set[str]) -> None:
    if read != told:
        raise DeploymentError(
            f"the ONNX model reads {', '.join(sorted(read))}; its release tells {', '.join(sorted(told))}"
        )


def _output_names(outputs: Sequence[Any]) -> list[str]:
    """Name outputs: a classifier's are `label` and `probability`, one number for a row is the `score`."""
    labels = [each for each in outputs if each.type in _LABELS]
    vectors = [
        each
        for each in outputs
        if each.type.startswith("seq(map(") or (each.type in _FLOATS and len(each.shape) == 2)
    ]
    if len(outputs) == 2 and len(labels) == len(vectors) == 1:
        return ["label" if each is labels[0] else "probability" for each in outputs]
    if len(outputs) == 1 and outputs[0].type in _FLOATS and outputs[0].shape[1:] in ([], [1]):
        return ["score"]
    return [each.name for each in outputs]


def _texts(rows: Rows, name: str) -> NDArray[Any]:
    values = rows.strings[name]
    if any(each is None for each in values):
        raise SourceError(f"input {name!r} lacks a text, which the ONNX model reads")
    return np.array(values, dtype=object)


def _values(given: Any, rows: int, name: str) -> tuple[Any, tuple[str, ...]]:
    labels: tuple[str, ...] = ()
    if isinstance(given, list):  # of mappings from a class to its probability
        keys = sorted(given[0]) if given else []
        labels = tuple(str(key) for key in keys)
        given = np.array([[each.get(key, np.nan) for key in keys] for each in given], dtype=np.float64)
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] == 1 and not labels:
        array = array[:, 0]
    if array.ndim not in (1, 2) or len(array) != rows or (array.ndim == 2 and array.dtype.kind not in "fiu"):
        shape = "x".join(map(str, array.shape))
        raise DeploymentError(
            f"the ONNX model gave {name!r} of the shape {shape} for {rows} rows; wanted is a value or a "
            "vector of numbers for each"
        )
    if array.dtype.kind == "f":
        return array.astype(np.float64), labels
    if array.dtype.kind in "iu":
        return array.astype(np.int64), labels
    if array.dtype.kind == "b":
        return array, labels
    return [str(each) for each in array.tolist()], labels


def _datatype(values: Any) -> str:
    if isinstance(values, list):
        return "BYTES"
    return {"f": "FP64", "i": "INT64", "b": "BOOL"}[values.dtype.kind]


def _filled(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Give so many rows: the last one again where there are fewer."""
    return (
        values if len(values) == size else np.concatenate([values, values[-1:].repeat(size - len(values), 0)])
    )
