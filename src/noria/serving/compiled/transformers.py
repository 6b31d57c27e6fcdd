"""Fitted transformers of scikit-learn as steps of a plan. Only their attributes are read."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from noria.serving.compiled.frames import Absent, Column, Frame, Text, of_step
from noria.serving.compiled.plan import (
    UFUNCS,
    Elementwise,
    EncodedColumn,
    Expand,
    Impute,
    OneHot,
    Operation,
    Ordinal,
    Project,
    Refused,
    packed,
)
from noria.serving.compiled.refusals import NotCompiled

__all__ = ["is_of_sklearn", "is_transformer", "transformed"]


def is_of_sklearn(estimator: object) -> bool:
    """Tell whether the class is scikit-learn's own: what a class derived from one does is not known."""
    return type(estimator).__module__.partition(".")[0] == "sklearn"


def is_transformer(estimator: object) -> bool:
    """Tell whether it is a transformer that can be compiled."""
    return is_of_sklearn(estimator) and type(estimator).__name__ in _READERS


def transformed(transformer: Any, frame: Frame) -> Frame:
    """Give the columns that a fitted transformer makes of others.

    Raises
    ------
    NotCompiled
        If it is not known how it does so.
    """
    if isinstance(transformer, str):
        if transformer == "passthrough":
            return frame
        raise NotCompiled(f"the transformer {transformer!r} is not known")
    if transformer is None:
        return frame
    name = type(transformer).__name__
    if not is_transformer(transformer):
        raise NotCompiled(f"the transformer {name} has no compiled form")
    width = getattr(transformer, "n_features_in_", len(frame.columns))
    if width != len(frame.columns):
        raise NotCompiled(f"{name} was fitted on {width} columns and gets {len(frame.columns)}")
    return _READERS[name](transformer, frame)


def _names(frame: Frame) -> list[str]:
    return [each.name for each in frame.columns]


def _of_pipeline(pipeline: Any, frame: Frame) -> Frame:
    for _, step in pipeline.steps:
        frame = transformed(step, frame)
    return frame


def _side_by_side(frames: Sequence[Frame], like: Frame, *, is_sparse: bool) -> Frame:
    frames = [each for each in frames if each.columns]
    columns = tuple(column for each in frames for column in each.columns)
    is_single = bool(frames) and all(each.is_single for each in frames)
    if len({type(each) for each in columns}) > 1:
        raise NotCompiled("a transformer gives texts and numbers side by side")
    return Frame(columns, like.root_width, is_sparse, is_single)


def _of_column_transformer(transformer: Any, frame: Frame) -> Frame:
    places = transformer._transformer_to_input_indices
    made = []
    for name, each, _ in transformer.transformers_:
        taken = list(places[name])
        if not taken or (isinstance(each, str) and each == "drop"):
            continue
        weights = transformer.transformer_weights or {}
        part = transformed(each, frame.take(taken))
        if name in weights:
            raise NotCompiled("ColumnTransformer weighs its transformers")
        made.append(part)
    return _side_by_side(made, frame, is_sparse=bool(transformer.sparse_output_))


def _of_union(union: Any, frame: Frame) -> Frame:
    if union.transformer_weights:
        raise NotCompiled("FeatureUnion weighs its transformers")
    made = [transformed(each, frame) for _, each in union.transformer_list if each != "drop"]
    return _side_by_side(made, frame, is_sparse=any(each.is_sparse for each in made))


def _of_simple_imputer(imputer: Any, frame: Frame) -> Frame:
    if frame.is_sparse:
        raise NotCompiled("SimpleImputer reads a sparse matrix")
    statistics = np.asarray(imputer.statistics_)
    texts = [each for each in frame.columns if isinstance(each, Text)]
    missing = imputer.missing_values
    is_nan = isinstance(missing, float) and math.isnan(missing)
    if not is_nan and not (texts and (missing is None or type(missing).__name__ == "NAType")):
        raise NotCompiled("SimpleImputer replaces another value than NaN")
    kept = [
        place
        for place, each in enumerate(statistics.tolist())
        if imputer.keep_empty_features or not (isinstance(each, float) and math.isnan(each))
    ]
    if texts:
        if len(texts) < len(frame.columns) or imputer.indicator_ is not None:
            raise NotCompiled("SimpleImputer reads texts and numbers, or tells which were missing")
        if any(each.fill is not None for each in texts):
            raise NotCompiled("SimpleImputer follows another")
        fills = [statistics[place] for place in kept]
        if not all(isinstance(each, str) for each in fills):
            raise NotCompiled("SimpleImputer replaces texts by other than a text")
        filled = tuple(replace(texts[place], fill=str(fill)) for place, fill in zip(kept, fills, strict=True))
        return Frame(filled, frame.root_width)
    fill = statistics[kept].astype(np.float64)
    told = [] if imputer.indicator_ is None else np.asarray(imputer.indicator_.features_).tolist()
    step = Impute(
        source=frame.numbers("SimpleImputer", refuses="infinite"),
        kept=None if len(kept) == len(frame.columns) else tuple(kept),
        fill=packed(fill),
        indicated=tuple(told),
    )
    names = _names(frame)
    return of_step(step, [names[each] for each in (*kept, *told)], frame)


def _elementwise(frame: Frame, name: str, operations: Sequence[tuple[str, Any]]) -> Frame:
    refuses: Refused = "none" if name == "FunctionTransformer" else "infinite"
    if not operations:
        return frame.checked(name, refuses=refuses)
    step = Elementwise(
        frame.numbers(name, refuses=refuses),
        tuple(Operation(each, None if by is None else packed(by)) for each, by in operations),
    )
    return of_step(step, _names(frame), frame, is_sparse=frame.is_sparse)


def _of_standard_scaler(scaler: Any, frame: Frame) -> Frame:
    if frame.is_sparse:  # scikit-learn multiplies a sparse matrix by one over the scale
        by = None if scaler.scale_ is None or not scaler.with_std else 1 / scaler.scale_
        return _elementwise(frame, "StandardScaler", [] if by is None else [("multiply", by)])
    operations = [("subtract", scaler.mean_)] if scaler.with_mean else []
    if scaler.with_std:
        operations.append(("divide", scaler.scale_))
    return _elementwise(frame, "StandardScaler", operations)


def _of_min_max_scaler(scaler: Any, frame: Frame) -> Frame:
    operations: list[tuple[str, Any]] = [("multiply", scaler.scale_), ("add", scaler.min_)]
    if scaler.clip:
        operations.append(("clip", np.array(scaler.feature_range, dtype=np.float64)))
    return _elementwise(frame, "MinMaxScaler", operations)


def _of_max_abs_scaler(scaler: Any, frame: Frame) -> Frame:
    if frame.is_sparse:
        raise NotCompiled("MaxAbsScaler reads a sparse matrix")
    operations: list[tuple[str, Any]] = [("divide", scaler.scale_)]
    if getattr(scaler, "clip", False):
        operations.append(("clip", np.array([-1.0, 1.0])))
    return _elementwise(frame, "MaxAbsScaler", operations)


def _of_robust_scaler(scaler: Any, frame: Frame) -> Frame:
    if frame.is_sparse:
        raise NotCompiled("RobustScaler reads a sparse matrix")
    operations = [("subtract", scaler.center_)] if scaler.with_centering else []
    if scaler.with_scaling:
        operations.append(("divide", scaler.scale_))
    return _elementwise(frame, "RobustScaler", operations)


def _of_function(transformer: Any, frame: Frame) -> Frame:
    function = transformer.func
    if function is None:
        return frame
    name = getattr(function, "__name__", "")
    if transformer.kw_args or transformer.validate or frame.is_sparse:
        raise NotCompiled("FunctionTransformer has arguments, checks its input, or reads a sparse matrix")
    if function.__module__ == "sklearn.preprocessing._function_transformer" and name == "_identity":
        return frame
    if name not in UFUNCS or getattr(np, name) is not function:
        raise NotCompiled(f"FunctionTransformer calls {name or 'a function'}, which is no known one of numpy")
    return _elementwise(frame, "FunctionTransformer", [(name, None)])


def _categories(encoder: Any, frame: Frame) -> Iterator[tuple[int, Column, list[Any]]]:
    for place, (column, categories) in enumerate(zip(frame.columns, encoder.categories_, strict=True)):
        values = np.asarray(categories).tolist()
        if isinstance(column, Absent):
            raise NotCompiled(f"{type(encoder).__name__} reads {column.name!r}, which is no input")
        if isinstance(column, Text):
            wrong = any(not isinstance(each, str) and not _is_missing(each) for each in values)
            if wrong:
                raise NotCompiled(f"the text column {column.name!r} was fitted with categories that are none")
        elif any(isinstance(each, str) for each in values):
            raise NotCompiled(f"the column {column.name!r} was fitted as text and comes as a number")
        yield place, column, values


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _encoded(
    column: Column,
    categories: list[Any],
    frame: Frame,
    *,
    codes: Sequence[float],
    unknown: float | None,
) -> EncodedColumn:
    """Give the column of categories with a code each."""
    known = [(each, code) for each, code in zip(categories, codes, strict=True) if not _is_missing(each)]
    gone = [(each is None, code) for each, code in zip(categories, codes, strict=True) if _is_missing(each)]
    missing = min(gone)[1] if gone else unknown  # of NaN, where both it and None are categories
    if isinstance(column, Text):
        texts = {str(each): float(code) for each, code in known}
        if column.fill is not None:
            missing = texts.get(column.fill, unknown)
        return EncodedColumn(name=column.name, texts=texts, missing=missing, unknown=unknown)
    return EncodedColumn(
        name=column.name,
        texts=None,
        source=Frame((column,), frame.root_width).any_numbers,
        numbers=tuple((float(each), float(code)) for each, code in known),
        missing=missing,
        unknown=unknown,
    )


def _grouped(
    encoder: Any, place: int, categories: list[Any], *, left_out: int | None = None
) -> tuple[list[int], int | None]:
    """Give each category's number after rare ones became one, and the number of that one."""
    codes = list(range(len(categories)))
    if not getattr(encoder, "_infrequent_enabled", False):
        return codes, None
    mapping = encoder._default_to_infrequent_mappings[place]
    if mapping is None:
        return codes, None
    rare = int(mapping[encoder._infrequent_indices[place][0]])
    return [code if code == left_out else int(mapping[code]) for code in codes], rare


def _of_one_hot(encoder: Any, frame: Frame) -> Frame:
    columns: list[EncodedColumn] = []
    names: list[str] = []
    for place, column, categories in _categories(encoder, frame):
        codes, rare = _grouped(encoder, place, categories)
        drops = encoder._drop_idx_after_grouping
        dropped = None if drops is None else drops[place]
        start = len(names)

        def final(code: int, *, dropped: Any = dropped, start: int = start) -> float:
            if dropped is not None and code == dropped:
                return -1.0
            return float(start + code - (dropped is not None and code > dropped))

        match encoder.handle_unknown:
            case "error":
                unknown = None
            case "ignore":
                unknown = -1.0
            case _:  # "infrequent_if_exist", "warn"
                unknown = -1.0 if rare is None else final(rare)
        columns.append(
            _encoded(column, categories, frame, codes=[final(each) for each in codes], unknown=unknown)
        )
        names += [column.name] * int(encoder._n_features_outs[place])
    made = of_step(OneHot(tuple(columns), len(names)), names, frame, is_sparse=encoder.sparse_output)
    return replace(made, is_single=np.dtype(encoder.dtype) == np.float32)


def _of_ordinal(encoder: Any, frame: Frame) -> Frame:
    columns = []
    for place, column, categories in _categories(encoder, frame):
        gone = encoder._missing_indices.get(place)
        codes, rare = _grouped(encoder, place, categories, left_out=gone)
        coded = float(encoder.encoded_missing_value)
        final = [coded if gone is not None and each == gone else float(each) for each in codes]
        is_refused = encoder.handle_unknown == "error"
        if rare is not None and not is_refused:
            raise NotCompiled("OrdinalEncoder groups rare categories and takes unknown ones")
        unknown = None if is_refused else float(encoder.unknown_value)
        columns.append(_encoded(column, categories, frame, codes=final, unknown=unknown))
    made = of_step(Ordinal(tuple(columns)), _names(frame), frame)
    return replace(made, is_single=np.dtype(encoder.dtype) in (np.float32, np.float16))


def _of_polynomial(transformer: Any, frame: Frame) -> Frame:
    if frame.is_sparse:
        raise NotCompiled("PolynomialFeatures reads a sparse matrix")
    width, least, most = len(frame.columns), transformer._min_degree, transformer._max_degree
    ones = int(transformer.include_bias)
    blocks: list[tuple[int, int, int]] = []
    if least > 1 or most < 1:
        raise NotCompiled("PolynomialFeatures leaves out the columns themselves")
    reached = ones + width
    index = [*range(ones, ones + width), reached]
    for _ in range(2, most + 1):
        starts, end = [], index[-1]
        for column in range(width):
            starts.append(reached)
            start = index[column]
            if transformer.interaction_only:
                start += index[column + 1] - index[column]
            if end <= start:
                break
            blocks.append((start, end, column))
            reached += end - start
        index = [*starts, reached]
    step = Expand(
        source=frame.numbers("PolynomialFeatures", refuses="missing"),
        has_ones=bool(ones),
        blocks=tuple(blocks),
    )
    chosen = combinations if transformer.interaction_only else combinations_with_replacement
    wanted = ones + sum(sum(1 for _ in chosen(range(width), degree)) for degree in range(1, most + 1))
    if reached != wanted or reached != transformer.n_output_features_:
        raise NotCompiled("PolynomialFeatures has an order of columns that is not known")
    return of_step(step, [f"product {each}" for each in range(reached)], frame)


def _of_pca(pca: Any, frame: Frame) -> Frame:
    if frame.is_sparse:
        raise NotCompiled("PCA reads a sparse matrix")
    scale = None
    if pca.whiten:
        scale = np.sqrt(pca.explained_variance_)
        scale[scale < np.finfo(scale.dtype).eps] = np.finfo(scale.dtype).eps
    is_transposed = bool(pca.components_.flags.c_contiguous)
    step = Project(
        source=frame.numbers("PCA", refuses="missing"),
        components=packed(pca.components_ if is_transposed else pca.components_.T),
        is_transposed=is_transposed,
        offset=packed(np.reshape(pca.mean_, (1, -1)) @ pca.components_.T),
        scale=None if scale is None else packed(scale),
    )
    names = [f"component {each}" for each in range(len(pca.components_))]
    return of_step(step, names, frame)


def _of_selector(selector: Any, frame: Frame) -> Frame:
    places = np.flatnonzero(selector._get_support_mask()).tolist()
    if selector.__sklearn_tags__().input_tags.allow_nan:
        return frame.take(places)
    name = type(selector).__name__
    taken = frame if frame.is_single else frame.checked(name, refuses="missing")
    return taken.take(places)


_READERS: dict[str, Callable[[Any, Frame], Frame]] = {
    "ColumnTransformer": _of_column_transformer,
    "FeatureUnion": _of_union,
    "FunctionTransformer": _of_function,
    "MaxAbsScaler": _of_max_abs_scaler,
    "MinMaxScaler": _of_min_max_scaler,
    "OneHotEncoder": _of_one_hot,
    "OrdinalEncoder": _of_ordinal,
    "PCA": _of_pca,
    "Pipeline": _of_pipeline,
    "PolynomialFeatures": _of_polynomial,
    "RobustScaler": _of_robust_scaler,
    "SelectKBest": _of_selector,
    "SelectPercentile": _of_selector,
    "SimpleImputer": _of_simple_imputer,
    "StandardScaler": _of_standard_scaler,
    "VarianceThreshold": _of_selector,
}
