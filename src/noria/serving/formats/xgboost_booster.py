"""XGBoost's native library by ctypes: scores without the Python package, which brings pandas and Arrow.

The scores are bit-equal to those of `xgboost.Booster.inplace_predict` on float64 rows: the same function.
"""

import ctypes
import importlib.util
import json
import math
import weakref
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError

__all__ = ["XgboostBooster"]

_NAMES = ("libxgboost.so", "libxgboost.dylib", "xgboost.dll")
_SETTINGS = json.dumps(
    {
        "type": 0,  # the value, not the margin
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,  # all
        "missing": float("nan"),
        "strict_shape": False,
        "cache_id": 0,
    }
).encode()
_CONTRIBUTIONS = json.dumps(
    {
        "type": 2,
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,
        "strict_shape": True,
    }
).encode()
_AS_ROWS = json.dumps({"missing": float("nan"), "nthread": 1}).encode()
_LARGEST = float(np.finfo(np.float32).max)


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xgboost")  # finds it, does not import it
    if spec is None or spec.origin is None:
        raise DeploymentError("XGBoost is not installed; `pip install 'noria[xgboost]'` brings it")
    package = Path(spec.origin).parent
    path = next((package / "lib" / name for name in _NAMES if (package / "lib" / name).is_file()), None)
    if path is None:
        raise DeploymentError(f"XGBoost in {package} has no native library; install its wheel again")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as err:
        raise DeploymentError(
            f"XGBoost's native library does not load ({err}); it needs the OpenMP runtime "
            "(Debian: `apt install libgomp1`)"
        ) from err
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library


def _check(status: int) -> None:
    if status != 0:
        told = _library().XGBGetLastError().decode(errors="replace")
        reason = next((each for each in told.splitlines() if each.strip()), "")
        raise DeploymentError(f"XGBoost refused: {reason[:300]}")


def _free(handle: int) -> None:
    _library().XGBoosterFree(ctypes.c_void_p(handle))


class XgboostBooster:
    """One model in memory. Freed with the last reference; one thread scores at a time.

    Parameters
    ----------
    data
        A model in UBJSON.

    Attributes
    ----------
    width
        How many numbers it gives for a row: of one class, or one target, each where it has several.
    objective
        What it was trained for, such as `binary:logistic` or `multi:softprob`.
    groups
        How many sums of trees it has for a row: `width`, but where it gives the number of a class alone.

    Raises
    ------
    DeploymentError
        If it is none.
    """

    def __init__(self, data: bytes) -> None:
        library, handle, columns = _library(), ctypes.c_void_p(), ctypes.c_uint64()
        if not data.startswith(b"{"):
            raise DeploymentError("the file does not hold a model of XGBoost in UBJSON")
        _check(library.XGBoosterCreate(None, ctypes.c_uint64(0), ctypes.byref(handle)))
        self._handle = handle
        weakref.finalize(self, _free, handle.value or 0)
        _check(library.XGBoosterSetParam(handle, b"nthread", b"1"))
        _check(library.XGBoosterLoadModelFromBuffer(handle, data, ctypes.c_uint64(len(data))))
        _check(library.XGBoosterGetNumFeature(handle, ctypes.byref(columns)))
        self.columns = int(columns.value)
        self.objective, self.width, self.groups = _objective(handle)
        self._row = np.empty((1, self.columns), dtype=np.float64)
        self._row_told = _interface(self._row)  # the same every time: text that is not made again

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score the rows of `matrix`, float64 of shape (n, columns); NaN is missing.

        Returns
        -------
        ndarray of shape (n,), or (n, width) where a row gets several numbers

        Raises
        ------
        ValueError
            If the matrix has another number of columns.
        """
        rows, columns = matrix.shape
        if columns != self.columns:
            raise ValueError(f"the matrix has {columns} columns, the model has {self.columns}")
        if rows == 1:
            self._row[:] = matrix
            told = self._row_told
        else:
            matrix = np.ascontiguousarray(matrix, dtype=np.float64)
            told = _interface(matrix)
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        scores = ctypes.POINTER(ctypes.c_float)()
        _check(
            _library().XGBoosterPredictFromDense(
                self._handle,
                told,
                _SETTINGS,
                None,
                ctypes.byref(shape),
                ctypes.byref(dimensions),
                ctypes.byref(scores),
            )
        )
        if rows == 1 and self.width == 1:
            return np.array([scores[0]])
        size = rows * self.width
        if math.prod(shape[: dimensions.value]) != size:
            raise DeploymentError(
                f"XGBoost gave {math.prod(shape[: dimensions.value])} numbers for {rows} rows"
            )
        found = np.ctypeslib.as_array(scores, (size,)).astype(np.float64)  # the library keeps its own
        return found if self.width == 1 else found.reshape(rows, self.width)

    def contributions(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give what each column adds to the sums of trees, and in the last column what they start from.

        As `xgboost.Booster.predict(pred_contribs=True)`, in single precision.

        Returns
        -------
        ndarray of shape (n, groups, columns + 1)

        Raises
        ------
        DeploymentError
            If the library computes none of this model.
        """
        matrix = np.clip(matrix, -_LARGEST, _LARGEST)  # what is infinite, which it scores, goes the same ways
        library, rows = _library(), ctypes.c_void_p()
        _check(library.XGDMatrixCreateFromDense(_interface(matrix), _AS_ROWS, ctypes.byref(rows)))
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        found = ctypes.POINTER(ctypes.c_float)()
        try:
            _check(
                library.XGBoosterPredictFromDMatrix(
                    self._handle,
                    rows,
                    _CONTRIBUTIONS,
                    ctypes.byref(shape),
                    ctypes.byref(dimensions),
                    ctypes.byref(found),
                )
            )
            wanted = len(matrix), self.groups, self.columns + 1
            if tuple(shape[: dimensions.value]) != wanted:
                told = list(shape[: dimensions.value])
                raise DeploymentError(f"XGBoost gave contributions of shape {told}, wanted is {list(wanted)}")
            return np.ctypeslib.as_array(found, wanted).astype(np.float64)
        finally:
            library.XGDMatrixFree(rows)


def _interface(matrix: NDArray[np.float64]) -> bytes:
    told = {"data": [matrix.ctypes.data, True], "shape": list(matrix.shape), "typestr": "<f8", "version": 3}
    return json.dumps(told).encode()


def _objective(handle: ctypes.c_void_p) -> tuple[str, int, int]:
    """Give a model's objective, how many numbers it gives for a row, and of how many sums of trees."""
    length, text = ctypes.c_uint64(), ctypes.c_char_p()
    _check(_library().XGBoosterSaveJsonConfig(handle, ctypes.byref(length), ctypes.byref(text)))
    learner = json.loads(text.value or b"{}")["learner"]
    parameters, name = learner["learner_model_param"], str(learner["objective"]["name"])
    classes, targets = int(parameters.get("num_class", 0)), int(parameters.get("num_target", 1))
    groups = max(1, classes, targets)
    return name, max(1, targets) if name == "multi:softmax" else groups, groups
