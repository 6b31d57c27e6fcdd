"""What raw columns a fitted estimator of scikit-learn reads, and what it gives."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from noria.serving.compiled.estimators import classes_of
from noria.serving.compiled.refusals import NotCompiled
from noria.serving.compiled.transformers import is_of_sklearn
from noria.serving.records import SCORE, Input, Output

__all__ = ["describe", "none_columns"]


def describe(estimator: Any) -> tuple[tuple[Input, ...], tuple[Output, ...]]:
    """Give the inputs and the outputs of a fitted estimator or pipeline.

    Columns have the names that it was fitted with, else `x0`, `x1` and so on. A column whose first reader
    was fitted on strings is a `string`, any other a `number`; one that nothing reads is no input.

    Raises
    ------
    NotCompiled
        If it is no fitted estimator, or gives several labels for a row.
    """
    names, readers = _names(estimator), _readers(estimator)
    inputs = tuple(
        Input(name=names[place], kind="number" if readers[place] is None else "string")
        for place in sorted(readers)
    )
    return inputs, _outputs(estimator)


def none_columns(estimator: Any) -> tuple[str, ...]:
    """Give the text columns of which None, and not NaN, was the missing value."""
    names = _names(estimator)
    return tuple(names[place] for place, is_none in _readers(estimator).items() if is_none)


def _names(estimator: Any) -> list[str]:
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is not None:
        return [str(each) for each in fitted]
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise NotCompiled(f"{type(estimator).__name__} does not say how many columns it reads")
    return [f"x{each}" for each in range(int(width))]


def _outputs(estimator: Any) -> tuple[Output, ...]:
    classes = classes_of(estimator)
    if classes is None:
        width = _targets(estimator)
        return (SCORE,) if width == 1 else (Output(name="score", width=width),)
    has_probabilities = hasattr(estimator, "predict_proba")
    if classes == [0, 1] and has_probabilities:
        return (SCORE,)
    label = Output(name="label", datatype=_datatype(classes))
    if not has_probabilities:
        return (label,)
    return label, Output(name="probability", width=len(classes), labels=tuple(map(str, classes)))


def _targets(estimator: Any) -> int:
    last = estimator
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    if hasattr(last, "n_outputs_"):
        return int(last.n_outputs_)
    coefficients = np.asarray(getattr(last, "coef_", ()))
    return len(coefficients) if coefficients.ndim == 2 else 1


def _datatype(classes: Sequence[Any]) -> Any:
    if all(isinstance(each, bool) for each in classes):
        return "BOOL"
    if all(isinstance(each, int) for each in classes):
        return "INT64"
    if all(isinstance(each, int | float) for each in classes):
        return "FP64"
    return "BYTES"


Origins = list[int | None]  # of each column, the column of the request that it still is


Found = dict[int, bool | None]


def _readers(estimator: Any) -> Found:
    """Give, by column that is read, None of numbers, else whether None was the missing value of texts."""
    found: Found = {}
    _mark(_walk(estimator, list(range(len(_names(estimator)))), found), found)
    return found


def _walk(reader: Any, origins: Origins, found: Found) -> Origins:  # noqa: PLR0911 - a kind of reader each
    """Follow the columns through a transformer; give what is still a column of the request after it."""
    if reader is None or isinstance(reader, str):
        return origins
    name = type(reader).__name__ if is_of_sklearn(reader) else ""
    if hasattr(reader, "steps"):
        for _, step in reader.steps:
            origins = _walk(step, origins, found)
        return origins
    if name == "ColumnTransformer":
        places = reader._transformer_to_input_indices
        parts = [
            _walk(each, [origins[place] for place in places[key]], found)
            for key, each, _ in reader.transformers_
            if len(places[key]) and not (isinstance(each, str) and each == "drop")
        ]
        return [each for part in parts for each in part]
    if name == "FeatureUnion":
        return [each for _, one in reader.transformer_list for each in _walk(one, origins, found)]
    if name == "FunctionTransformer" and reader.func is None:
        return origins
    if name == "SimpleImputer":
        return _imputed(reader, origins, found)
    if name.startswith("HistGradientBoosting") and reader._preprocessor is not None:
        _walk(reader._preprocessor, origins, found)
    categories = getattr(reader, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(origins):
        for origin, each in zip(origins, categories, strict=True):
            values = np.asarray(each).tolist()
            if origin is not None and any(isinstance(value, str) for value in values):
                has_nan = any(isinstance(value, float) and math.isnan(value) for value in values)
                found.setdefault(origin, None in values and not has_nan)
    _mark(origins, found)
    return [None] * len(origins)


def _mark(origins: Origins, found: Found) -> None:
    """Take what has no reader yet for numbers."""
    for each in origins:
        if each is not None:
            found.setdefault(each, None)


def _imputed(imputer: Any, origins: Origins, found: Found) -> Origins:
    statistics = np.asarray(imputer.statistics_).tolist()
    kept: Origins = []
    for origin, each in zip(origins, statistics, strict=True):
        if isinstance(each, str) and origin is not None:
            found.setdefault(origin, imputer.missing_values is None)
        if imputer.keep_empty_features or not (isinstance(each, float) and math.isnan(each)):
            kept.append(origin)
    _mark([each for each in origins if each not in kept], found)
    told = 0 if imputer.indicator_ is None else len(imputer.indicator_.features_)
    return [*kept, *[None] * told]
