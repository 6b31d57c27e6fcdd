"""XGBoost's native library by ctypes: scores without the Python package, which brings pandas and Arrow.

The scores are bit-equal to those of `xgboost.Booster.inplace_predict` on float64 rows: the same function.
"""

import ctypes
import importlib.util
import json
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

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score the rows of `matrix`, float64 of shape (n, columns); NaN is missing.

        Raises
        ------
        ValueError
            If the matrix has another number of columns.
        DeploymentError
            If the model gives more than one score per row.
        """
        rows, columns = matrix.shape
        if columns != self.columns:
            raise ValueError(f"the matrix has {columns} columns, the model has {self.columns}")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        scores = ctypes.POINTER(ctypes.c_float)()
        told = json.dumps(
            {"data": [matrix.ctypes.data, True], "shape": [rows, columns], "typestr": "<f8", "version": 3}
        )
        _check(
            _library().XGBoosterPredictFromDense(
                self._handle,
                told.encode(),
                _SETTINGS,
                None,
                ctypes.byref(shape),
                ctypes.byref(dimensions),
                ctypes.byref(scores),
            )
        )
        width = int(np.prod([shape[each] for each in range(1, dimensions.value)], dtype=np.int64))
        if width != 1:
            raise DeploymentError(
                f"the model gives {width} scores per row; one is served, so train it binary"
            )
        return np.ctypeslib.as_array(scores, (rows,)).astype(np.float64)  # the library keeps its own
