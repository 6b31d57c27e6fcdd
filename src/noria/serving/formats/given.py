"""What a model gave for rows, whatever shape that has, as the columns of an answer; imports no frames."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.serving.records import Output

__all__ = ["Values", "as_columns", "describe"]

Values = NDArray[Any] | list[str | None]  # of one output: (n,), or (n, width) of a vector
Datatype = Literal["FP64", "INT64", "BOOL", "BYTES"]

_KINDS: Mapping[str, Datatype] = {"f": "FP64", "i": "INT64", "u": "INT64", "b": "BOOL"}
_FITS: Mapping[str, str] = {"FP64": "fiub", "INT64": "iu", "BOOL": "b"}
_DTYPES: Mapping[str, str] = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}
_UNNAMED = ""


def describe(given: Any, rows: int, *, what: str) -> tuple[Output, ...]:
    """Tell what a model gives, by what it gave.

    One number for a row is the output `score`, a whole number, a truth or a text is `label`, a vector of
    numbers is `output`. Mappings, lists of mappings and frames give columns by their names.

    Parameters
    ----------
    given
        Numbers, texts or truths, one for each row; arrays of shape (n, width); mappings of such by name, a
        frame, or a list of mappings.
    rows
        How many rows it was given for.
    what
        Who gave it, in errors.

    Raises
    ------
    DeploymentError
        If it cannot be an answer. The message holds none of it.
    """
    found = []
    for name, value in _by_name(given, what).items():
        values = _flat(value, rows, _told(what, name))
        if isinstance(values, list):
            found.append(Output(name=name or "label", datatype="BYTES"))
            continue
        width = values.shape[1] if values.ndim == 2 else 0
        datatype = _KINDS[values.dtype.kind]
        default = "output" if width else "score" if datatype == "FP64" else "label"
        found.append(Output(name=name or default, datatype=datatype, width=width))
    return tuple(found)


def as_columns(given: Any, outputs: Sequence[Output], rows: int, *, what: str) -> tuple[Values, ...]:
    """Give the columns of `outputs`, checked: lengths, widths and types are those that were registered.

    Raises
    ------
    DeploymentError
        If they are not. The message holds no value.
    """
    named = _by_name(given, what)
    if len(outputs) == 1 and list(named) == [_UNNAMED]:
        named = {outputs[0].name: named[_UNNAMED]}
    if lacking := [each.name for each in outputs if each.name not in named]:
        there = ", ".join(map(repr, filter(None, named))) or "values without a name"
        raise DeploymentError(
            f"{what} gave {there}; wanted is {', '.join(map(repr, lacking))}, as registered"
        )
    return tuple(_fitted(named[each.name], each, rows, _told(what, each.name)) for each in outputs)


def _by_name(given: Any, what: str) -> dict[str, Any]:
    if isinstance(given, Mapping):
        if not given:
            raise DeploymentError(f"{what} gave an empty mapping; wanted are values by name")
        return {str(name): value for name, value in given.items()}
    if (names := getattr(given, "column_names", None)) is not None:
        return {str(name): given.column(name).to_numpy() for name in names}  # a table of Arrow
    if (columns := getattr(given, "columns", None)) is not None and hasattr(given, "to_numpy"):
        return {str(name): given[name] for name in columns}  # a frame of pandas or Polars
    if isinstance(given, list | tuple) and given and all(isinstance(each, Mapping) for each in given):
        keys = list(given[0])
        if any(len(each) != len(keys) or any(key not in each for key in keys) for each in given):
            raise DeploymentError(f"{what} gave mappings that have not all the same keys")
        return {str(key): [each[key] for each in given] for key in keys}
    return {_UNNAMED: given}


def _flat(value: Any, rows: int, what: str) -> Values:
    """Give a value as numbers of shape (n,) or (n, width), or as texts."""
    array = _array(value, what)
    if array.ndim == 0 or len(array) != rows:
        size = "one value" if array.ndim == 0 else f"{len(array)} values"
        raise DeploymentError(f"{what} gave {size} for {rows} rows; wanted is one for each row")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2 or 0 in array.shape[1:]:
        shape = "x".join(["n", *map(str, array.shape[1:])])
        raise DeploymentError(f"{what} gave an array of the shape {shape}; wanted are values, or vectors")
    if array.dtype.kind in _KINDS:
        return array
    if array.ndim == 2:
        raise DeploymentError(
            f"{what} gave {array.shape[1]} values for each row that are no numbers; give each under a name"
        )
    return _texts_or_numbers(array.tolist(), what)


def _array(value: Any, what: str) -> NDArray[Any]:
    if isinstance(value, str | bytes):
        raise DeploymentError(f"{what} gave one text; wanted is a list with one value for each row")
    if isinstance(value, list | tuple) and any(isinstance(each, str) for each in value):
        return np.array(value, dtype=object)  # else numbers beside texts would become texts
    try:
        return np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    except (ValueError, TypeError) as err:  # rows of other lengths; the message may show values
        raise DeploymentError(
            f"{what} gave a {type(value).__qualname__} that is no array ({type(err).__name__}); wanted is "
            "one value for each row"
        ) from None


def _texts_or_numbers(values: list[Any], what: str) -> Values:
    there = [each for each in values if not (each is None or (isinstance(each, float) and isnan(each)))]
    if all(isinstance(each, str) for each in there):
        return [each if isinstance(each, str) else None for each in values]
    if all(isinstance(each, bool | np.bool_) for each in values):
        return np.array(values, dtype=bool)
    if all(isinstance(each, int | float | np.number) and not isinstance(each, bool) for each in there):
        return np.array([np.nan if each is None else each for each in values], dtype=np.float64)
    kinds = ", ".join(sorted({type(each).__name__ for each in values})[:4])
    raise DeploymentError(f"{what} gave values of the types {kinds}; wanted are numbers, texts or truths")


def _fitted(value: Any, output: Output, rows: int, what: str) -> Values:
    values = _flat(value, rows, what)
    found = "BYTES" if isinstance(values, list) else _KINDS[values.dtype.kind]
    if isinstance(values, list):
        if output.datatype == "BYTES":
            return values
    elif (width := values.shape[1] if values.ndim == 2 else 0) != output.width:
        raise DeploymentError(
            f"{what} gave {_width(width)} for each row; wanted is {_width(output.width)}, as registered"
        )
    elif values.dtype.kind in _FITS.get(output.datatype, ""):
        return np.ascontiguousarray(values, dtype=_DTYPES[output.datatype])
    raise DeploymentError(f"{what} gave {found}; wanted is {output.datatype}, as registered")


def _width(width: int) -> str:
    return f"a vector of {width}" if width else "one value"


def _told(what: str, name: str) -> str:
    return f"{what}, output {name!r}," if name else what
