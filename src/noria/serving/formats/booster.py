"""LightGBM's native library by ctypes: scores without the Python package, which would cost 118 MB.

The scores are bit-equal to those of `lightgbm.Booster.predict` on float64 rows: it is the same function.
"""

import ctypes
import importlib.util
import re
import weakref
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError

__all__ = ["Booster"]

_FLOAT64 = ctypes.c_int(1)
_ROW_MAJOR = ctypes.c_int(1)
_VALUE = ctypes.c_int(0)
_RAW = ctypes.c_int(1)
_CONTRIBUTIONS = ctypes.c_int(3)
_FIRST_TREE = ctypes.c_int(0)
_ALL_TREES = ctypes.c_int(-1)
_SETTINGS = b"num_threads=1 verbosity=-1"  # threads of one row cost more than they save
_SLOPE = re.compile(r" sigmoid:(\S+)")
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


def _free(handle: int, settings: list[int]) -> None:
    for each in settings:  # before the model that they score by
        _library().LGBM_FastConfigFree(ctypes.c_void_p(each))
    _library().LGBM_BoosterFree(ctypes.c_void_p(handle))


def _objective(header: bytes) -> tuple[str, float]:
    """Give the objective that the head of a model's text names, and its slope."""
    told = _told(header, b"objective=").decode(errors="replace")
    slope = _SLOPE.search(told)
    return told.partition(" ")[0], 1.0 if slope is None else float(slope[1])


def _told(header: bytes, name: bytes) -> bytes:
    return next((each for each in header.splitlines() if each.startswith(name)), name).removeprefix(name)


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
    is_raw
        Whether it gives the sums of its leaves, whatever its objective makes of them.

    Attributes
    ----------
    width
        How many numbers it gives for a row: of one class each where it tells several apart.
    objective
        What it was trained for, such as `binary` or `multiclass`; empty where the text does not say.
    slope
        What a sum is multiplied by before the logistic function, where the objective has such a number.
    averaged
        Over how many trees a sum is averaged; 1 where it is not.
    is_linear
        Whether leaves are linear models.

    Raises
    ------
    DeploymentError
        If it is none.
    """

    def __init__(self, text: bytes, *, is_raw: bool = False) -> None:
        handle, trees, columns, width = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int64()
        _check_text(text)
        library = _library()
        _check(library.LGBM_BoosterLoadModelFromString(text, ctypes.byref(trees), ctypes.byref(handle)))
        self._handle = handle
        self._settings: list[int] = []
        weakref.finalize(self, _free, handle.value or 0, self._settings)
        self._kind = _RAW if is_raw else _VALUE
        _check(library.LGBM_BoosterGetNumFeature(handle, ctypes.byref(columns)))
        _check(
            library.LGBM_BoosterCalcNumPredict(
                handle, ctypes.c_int(1), self._kind, _FIRST_TREE, _ALL_TREES, ctypes.byref(width)
            )
        )
        self.trees: int = trees.value
        self.columns: int = columns.value
        self.width: int = width.value
        header = text[: text.find(b"\n\nTree=0\n")]
        self.objective, self.slope = _objective(header)
        self.averaged = trees.value if b"\naverage_output" in header else 1  # told are iterations
        self.is_linear = b"\nis_linear=1\n" in text
        self._open_single_row(library)

    def _open_single_row(self, library: ctypes.CDLL) -> None:
        """Prepare the scoring of one row, in buffers of its own: what is to be found for it is found once."""
        settings = ctypes.c_void_p()
        _check(
            library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle,
                self._kind,
                _FIRST_TREE,
                _ALL_TREES,
                _FLOAT64,
                ctypes.c_int32(self.columns),
                _SETTINGS,
                ctypes.byref(settings),
            )
        )
        self._settings.append(settings.value or 0)
        self._row = np.empty((1, self.columns), dtype=np.float64)
        self._found = np.empty(self.width, dtype=np.float64)
        written = ctypes.c_int64()
        self._score_row = partial(
            library.LGBM_BoosterPredictForMatSingleRowFast,
            settings,
            ctypes.c_void_p(self._row.ctypes.data),
            ctypes.byref(written),
            ctypes.c_void_p(self._found.ctypes.data),
        )

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
            _check(self._score_row())
            found = self._found.copy()
            return found if self.width == 1 else found.reshape(1, self.width)
        scores = np.empty(rows if self.width == 1 else (rows, self.width), dtype=np.float64)
        self._predict_rows(matrix, self._kind, scores)
        return scores

    def contributions(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give what each column adds to the sums of leaves, and in the last column what they start from.

        The same bits as `lightgbm.Booster.predict(pred_contrib=True)`, whatever `is_raw` says: of a forest
        whose trees are averaged, the sum over its trees.

        Returns
        -------
        ndarray of shape (n, width, columns + 1)

        Raises
        ------
        DeploymentError
            If its leaves are linear models, of which the library computes none.
        """
        if self.is_linear:
            raise DeploymentError("LightGBM computes no contributions where leaves are linear models")
        found = np.empty((len(matrix), self.width, self.columns + 1), dtype=np.float64)
        self._predict_rows(matrix, _CONTRIBUTIONS, found)
        return found

    def _predict_rows(
        self, matrix: NDArray[np.float64], kind: ctypes.c_int, found: NDArray[np.float64]
    ) -> None:
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        rows, columns = matrix.shape
        written = ctypes.c_int64()
        _check(
            _library().LGBM_BoosterPredictForMat(
                self._handle,
                ctypes.c_void_p(matrix.ctypes.data),
                _FLOAT64,
                ctypes.c_int32(rows),
                ctypes.c_int32(columns),
                _ROW_MAJOR,
                kind,
                _FIRST_TREE,
                _ALL_TREES,
                _SETTINGS,
                ctypes.byref(written),
                ctypes.c_void_p(found.ctypes.data),
            )
        )
