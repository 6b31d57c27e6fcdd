"""ONNX models, scored by onnxruntime on the CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from noria.errors import ConfigError
from noria.registry.extras import import_extra
from noria.registry.scorers import Matrix, Scorer

onnxruntime = import_extra("onnxruntime", extra="onnx", what="models in ONNX")

__all__ = ["ONNX_ERRORS", "dump_onnx", "input_width", "load_onnx", "onnx_scorer"]

_STATE = import_extra("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnx", what="models in ONNX")
ONNX_ERRORS: tuple[type[Exception], ...] = (  # each is an Exception by itself
    RuntimeError,
    ValueError,
    *(each for each in vars(_STATE).values() if isinstance(each, type) and issubclass(each, Exception)),
)
_BLOCK = 64  # rows at once: kernels round otherwise for other numbers of rows
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(int64,tensor(double)))")


def dump_onnx(model: Any) -> bytes:
    """Give the bytes of a `ModelProto` that gives one probability per row.

    Raises
    ------
    ConfigError
        If onnxruntime does not load it, or it reads or gives something else.
    """
    data: bytes = model.SerializeToString(deterministic=True)
    onnx_scorer(load_onnx(data))
    return data


def load_onnx(data: bytes, *, weights: Mapping[str, bytes] | None = None) -> Any:
    """Give the session of a model: one thread, and no file is opened, whatever the model names.

    Parameters
    ----------
    data
        The model.
    weights
        Of the files that lie beside it, by name: large models keep their weights there.

    Raises
    ------
    ConfigError
        If onnxruntime does not take the bytes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    beside = weights or {"none": b" "}  # where some are given, no other file is looked for
    options.add_external_initializers_from_files_in_memory(
        list(beside), list(beside.values()), [len(each) for each in beside.values()]
    )
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except ONNX_ERRORS as err:
        raise ConfigError(f"onnxruntime does not load the model: {' '.join(str(err).split())[:300]}") from err


def input_width(session: Any) -> int | None:
    """Give how many columns a model with one matrix reads; None if it does not say."""
    shape = session.get_inputs()[0].shape
    return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None


def onnx_scorer(session: Any) -> Scorer:
    """Give the scoring function of a classifier of two classes, or of a regressor.

    Raises
    ------
    ConfigError
        If it reads other than one matrix of floats, or its outputs hold no probability of one class.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _FLOATS or len(inputs[0].shape) != 2:
        found = ", ".join(f"{each.name}: {each.type}{each.shape}" for each in inputs)
        raise ConfigError(f"the ONNX model reads {found}; wanted is one matrix of float or double")
    name, kind, width = inputs[0].name, _FLOATS[inputs[0].type], input_width(session)
    output = _probability(outputs)

    def score(matrix: Matrix) -> Matrix:
        if width is not None and matrix.shape[1] != width:
            raise ConfigError(f"the ONNX model reads {width} columns; the rows have {matrix.shape[1]}")
        rows, scores = np.ascontiguousarray(matrix, dtype=kind), np.empty(len(matrix))
        block = np.zeros((_BLOCK, matrix.shape[1]), dtype=kind)
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            block[: len(some)] = some
            found = session.run([output.name], {name: block})[0]
            scores[start : start + len(some)] = _of_class_1(found)[: len(some)]
        return scores

    return score


def _probability(outputs: Any) -> Any:
    """Give the output that holds probabilities: two for each row, or one."""
    floats = [each for each in outputs if each.type in _FLOATS or each.type in _MAPS]
    two = [each for each in floats if each.type in _MAPS or each.shape[-1:] == [2]]
    one = [each for each in floats if each not in two and (len(each.shape) < 2 or each.shape[1] == 1)]
    named = [each for each in floats if each not in two and "probabilit" in each.name.lower()]
    for found in (two, named, one):
        if len(found) == 1:
            return found[0]
    told = ", ".join(f"{each.name}: {each.type}{each.shape}" for each in outputs)
    raise ConfigError(
        f"the ONNX model gives {told}; wanted is a probability for each row, or one of each of two classes"
    )


def _of_class_1(found: Any) -> Matrix:
    if isinstance(found, list):
        return np.array([each.get(1, np.nan) for each in found], dtype=np.float64)
    values = np.asarray(found, dtype=np.float64).reshape(len(found), -1)
    if values.shape[1] > 2:
        raise ConfigError(
            f"the ONNX model gives {values.shape[1]} scores per row; wanted is a model of two classes"
        )
    return values[:, -1]
