"""On-demand features of rows: the declared function called on all of them, and alone where it raises.

Offline and online call this one function with arrays of one kind, so a row's values are the same in both.
"""

import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from noria.errors import ConfigError
from noria.features.on_demand import Bound, OnDemandSpec

__all__ = ["Computed", "Failure", "check_rows_alone", "compute", "differing_values", "frozen"]

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

_ALONE, _TURNED = 16, 256  # rows that are computed again by themselves, and in another order
_INFINITE = "inf"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the function gave nothing for a row.

    Attributes
    ----------
    row
        Its position among those computed.
    kind
        The error's class, or `inf`.
    place
        File and line, where known.
    message
        What the error says; it may hold values of the row.
    """

    row: int
    kind: str
    place: str
    message: str

    @property
    def reason(self) -> str:
        """What and where, without any value of the row."""
        return f"{self.kind} in {self.place}" if self.place else self.kind

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Computed:
    """Values of on-demand features.

    Attributes
    ----------
    values : ndarray of shape (rows, outputs), float64, column-major
        NaN in the rows that failed.
    failed : tuple of int
        Rows for which the function raised, or gave an infinite value; ascending.
    reasons : tuple of str
        Of each of them what and where, without any value of the row.
    first : Failure or None
        Of the first of them.
    """

    values: Floats
    failed: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    first: Failure | None = None


class _Failures:
    """Rows that failed; of most only the reason is kept, which many share."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        self.first: Failure | None = None

    def add(self, failure: Failure) -> None:
        self.reasons[failure.row] = sys.intern(failure.reason)
        if self.first is None or failure.row < self.first.row:
            self.first = failure


class _MalformedError(ConfigError):
    """What the function gave is not what it declares."""


def frozen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give an array as the function sees it: in one piece, and not to be written to."""
    made = np.ascontiguousarray(values)
    if made is values or made.base is not None:
        made = made.view()
    made.flags.writeable = False
    return made


def compute(bound: Bound, columns: Columns, rows: int, *, strict: bool = False) -> Computed:
    """Compute the features of all rows with one call; where it raises, of halves, down to the culprits.

    Parameters
    ----------
    columns : mapping
        Holds every input, each made by `frozen`; others are left out.
    rows : int
        Their length.
    strict : bool
        Refuse what is a mistake of the function whatever the row, such as a malformed result or a name that
        is not there; else it is a failure of those rows.

    Raises
    ------
    ConfigError
        If the function is mistaken, under `strict`: says what was given and what was wanted.
    """
    inputs = {name: columns[name] for name in bound.spec.inputs}
    values = np.empty((rows, len(bound.spec.outputs)), order="F")
    failures = _Failures()
    if rows:
        _fill(bound, inputs, values, 0, failures, strict=strict)
    if not np.isfinite(values).all():
        _drop_infinite(bound.spec, values, failures)
    in_order = sorted(failures.reasons)
    return Computed(values, tuple(in_order), tuple(failures.reasons[row] for row in in_order), failures.first)


def check_rows_alone(bound: Bound, columns: Columns, computed: Computed) -> None:
    """Refuse a function whose value for a row depends on the rows beside it, or on chance.

    Some rows are computed by themselves, and some in another order, and have to give the same bits.

    Raises
    ------
    ConfigError
        If one does not: names the row and the output.
    """
    rows = len(computed.values)
    well = np.setdiff1d(np.arange(rows), np.array(computed.failed, dtype=np.int64), assume_unique=True)
    if not len(well):
        return
    inputs = {name: columns[name] for name in bound.spec.inputs}
    alone = _spread(well, _ALONE).reshape(-1, 1)
    for group in (*alone, _spread(well, _TURNED)[::-1]):
        again = compute(bound, {name: frozen(each[group]) for name, each in inputs.items()}, len(group))
        differing = np.argwhere(~_same(again.values, computed.values[group]))
        if len(differing):
            row, output = differing[0]
            spec, beside = bound.spec, "alone" if len(group) == 1 else "in another order of rows"
            raise ConfigError(
                f"on-demand feature {spec.name!r}: row {group[row]} has another {spec.outputs[output]!r} "
                f"{beside} than among others; a row's values may depend on that row alone, not on the rows "
                "beside it nor on chance"
            )


def _fill(
    bound: Bound, inputs: Columns, into: Floats, start: int, failures: _Failures, *, strict: bool
) -> None:
    """Compute rows into their place; those that begin at `start` where halves are tried."""
    try:
        _call(bound, inputs, into)
    except (_MalformedError, ImportError, NameError) as error:
        if strict and not isinstance(error, UnboundLocalError):
            raise _mistake(bound.spec, error) from error
        caught: Exception = error
    except SystemExit as error:  # `sys.exit()` of a user's function ends no worker
        caught = RuntimeError(f"it exits with {error.code!r}").with_traceback(error.__traceback__)
    except Exception as error:  # noqa: BLE001 - a user's function: its rows are missing, the others go on
        caught = error
    else:
        return
    rows = len(into)
    if rows == 1:
        into[:] = np.nan
        failures.add(_failure(caught, start))
        return
    for low, high in ((0, rows // 2), (rows // 2, rows)):
        part = {name: each[low:high] for name, each in inputs.items()}
        _fill(bound, part, into[low:high], start + low, failures, strict=strict)


def _call(bound: Bound, inputs: Columns, into: Floats) -> None:
    spec, rows = bound.spec, len(into)
    with np.errstate(all="ignore"):
        given = bound.function(dict(inputs))
    if not isinstance(given, Mapping):
        raise _malformed(spec, f"gave {_told(given)}", "a mapping with an array for each output")
    if len(given) != len(spec.outputs) or not all(name in given for name in spec.outputs):
        lacking = [each for each in spec.outputs if each not in given]
        more = [str(each) for each in given if each not in spec.outputs]
        found = [f"does not give {', '.join(lacking)}"] if lacking else []
        found += [f"gives {', '.join(more)}, which it does not declare"] if more else []
        raise _malformed(spec, " and ".join(found), f"exactly its outputs: {', '.join(spec.outputs)}")
    for place, name in enumerate(spec.outputs):
        values = given[name]
        if not isinstance(values, np.ndarray) or values.shape != (rows,):
            raise _malformed(spec, f"gave {_told(values)} for {name!r}", f"an array of shape ({rows},)")
        if values.dtype.kind not in "fiub":
            raise _malformed(spec, f"gave {values.dtype} for {name!r}", "numbers; NaN where one is missing")
        if isinstance(values, np.ma.MaskedArray):  # it would lose its mask
            raise _malformed(
                spec, f"gave a masked array for {name!r}", "a plain one; NaN where one is missing"
            )
        with np.errstate(over="ignore"):  # of a wider float; what is too large is infinite, and told so
            into[:, place] = values


def _mistake(spec: OnDemandSpec, error: Exception) -> ConfigError:
    """Give the error for what is wrong with the function, whatever the row."""
    if isinstance(error, ConfigError):
        return error
    failure = _failure(error, 0)
    return ConfigError(
        f"on-demand feature {spec.name!r} fails for any row: {failure.reason}: {error}; correct its function"
    )


def _malformed(spec: OnDemandSpec, found: str, wanted: str) -> _MalformedError:
    return _MalformedError(f"on-demand feature {spec.name!r} {found}; wanted is {wanted}")


def _told(given: object) -> str:
    if isinstance(given, np.ndarray):
        return f"an array of shape {given.shape}"
    return f"a value of type {type(given).__name__}"


def _failure(error: Exception, row: int) -> Failure:
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    place = ""
    if not isinstance(error, _MalformedError) and len(frames) > 2:  # below `_fill` and `_call`
        place = f"{PurePath(frames[2].filename).name} line {frames[2].lineno}"
    return Failure(row, type(error).__name__.removeprefix("_"), place, str(error))


def _drop_infinite(spec: OnDemandSpec, values: Floats, failures: _Failures) -> None:
    infinite = np.isinf(values)
    for row in np.flatnonzero(infinite.any(axis=1)).tolist():
        output = spec.outputs[int(infinite[row].argmax())]
        failures.add(Failure(row, _INFINITE, "", f"{output!r} is infinite"))
        values[row] = np.nan


def _spread(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]


def _same(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    """Tell which values have the same bits; any two NaN are the same."""
    bits = np.ascontiguousarray(one).view(np.int64) == np.ascontiguousarray(other).view(np.int64)
    return np.asarray(bits | (np.isnan(one) & np.isnan(other)), dtype=np.bool_)


def differing_values(one: Floats, other: Floats) -> list[int]:
    """Give the rows in which two results have not the same bits."""
    return [int(row) for row in np.flatnonzero(~_same(one, other).all(axis=1))]
