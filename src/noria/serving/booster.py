"""LightGBM's native library by ctypes: scores without the Python package, which would cost 118 MB.

The scores are bit-equal to those of `lightgbm.Booster.predict` on float64 rows: it is the same function.
"""

import ctypes
import importlib.util
import weakref
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError

__all__ = ["Booster"]

_FLOAT64 = ctypes.c_int(1)
_ROW_MAJOR = ctypes.c_int(1)
_NORMAL = ctypes.c_int(0)
_FIRST_TREE = ctypes.c_int(0)
_ALL_TREES = ctypes.c_int(-1)
_SETTINGS = b"num_threads=1 verbosity=-1"  # threads of one row cost more than they save
_NAMES = ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll")


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")  # finds it, does not import it
    if spec is None or spec.origin is None:
        raise DeploymentError("LightGBM is not installed; `pip install noria` brings it")
    package = Path(spec.origin).parent
    folders = (package / "lib", package / "bin", package.parent)
    path = next((each / name for each in folders for name in _NAMES if (each / name).is_file()), None)
    if path is None:
        raise DeploymentError(f"LightGBM in {package} has no native library; install its wheel again")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as err:
        raise DeploymentError(
            f"LightGBM's native library does not load ({err}); it needs the OpenMP runtime "
            "(Debian: `apt install libgomp1`)"
        ) from err
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _check(status: int) -> None:
    if status != 0:
        raise DeploymentError(f"LightGBM refused: {_library().LGBM_GetLastError().decode(errors='replace')}")


def _free(handle: int) -> None:
    _library().LGBM_BoosterFree(ctypes.c_void_p(handle))


def _check_text(text: bytes) -> None:
    """Refuse what the library would read past its end, ending the process: it checks no lengths itself."""
    header, gap, trees = text.partition(b"\n\nTree=0\n")
    sizes = next((line[11:] for line in header.splitlines() if line.startswith(b"tree_sizes=")), b"")
    if not text.startswith(b"tree\n") or not gap or not sizes:
        raise DeploymentError("the file does not hold a LightGBM text model of at least one tree")
    wanted = sum(int(size) for size in sizes.split() if size.isdigit())
    if len(trees) + len(b"Tree=0\n") < wanted or b"\nend of trees" not in trees:
        raise DeploymentError("the LightGBM text model is cut short; copy the file again")


class Booster:
    """One model in memory. Freed with the last reference; one thread scores at a time.

    Parameters
    ----------
    text
        A model in LightGBM's text format.

    Raises
    ------
    DeploymentError
        If it is none, or gives more than one score per row.
    """

    def __init__(self, text: bytes) -> None:
        handle, trees, columns, width = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int64()
        _check_text(text)
        library = _library()
        _check(library.LGBM_BoosterLoadModelFromString(text, ctypes.byref(trees), ctypes.byref(handle)))
        self._handle = handle
        weakref.finalize(self, _free, handle.value or 0)
        _check(library.LGBM_BoosterGetNumFeature(handle, ctypes.byref(columns)))
        _check(
            library.LGBM_BoosterCalcNumPredict(
                handle, ctypes.c_int(1), _NORMAL, _FIRST_TREE, _ALL_TREES, ctypes.byref(width)
            )
        )
        if width.value != 1:
            raise DeploymentError(
                f"the model gives {width.value} scores per row; one is served, so train it binary"
            )
        self.trees: int = trees.value
        self.columns: int = columns.value

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score the rows of `matrix`, float64 of shape (n, columns); NaN is missing.

        Raises
        ------
        ValueError
            If the matrix has another number of columns.
        """
        rows, columns = matrix.shape
        if columns != self.columns:
            raise ValueError(f"the matrix has {columns} columns, the model has {self.columns}")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        scores = np.empty(rows, dtype=np.float64)
        written = ctypes.c_int64()
        _check(
            _library().LGBM_BoosterPredictForMat(
                self._handle,
                ctypes.c_void_p(matrix.ctypes.data),
                _FLOAT64,
                ctypes.c_int32(rows),
                ctypes.c_int32(columns),
                _ROW_MAJOR,
                _NORMAL,
                _FIRST_TREE,
                _ALL_TREES,
                _SETTINGS,
                ctypes.byref(written),
                ctypes.c_void_p(scores.ctypes.data),
            )
        )
        return scores
