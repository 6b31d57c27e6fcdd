"""Rows that a model reads: from a file, or made up of what the model itself says of its columns."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from noria.errors import ConfigError, SourceError
from noria.registry.folders.frames import as_rows
from noria.registry.rows import output_column
from noria.serving.compiled import NotCompiled, describe, made_up_rows
from noria.workspace.models.model_files import ModelFile

__all__ = ["ASK", "fitting", "made_up", "read_example"]

_ROWS = 100
_MADE_UP = (0.0, 1.0, 0.5)
ASK = "give a few rows that it reads by `--example rows.csv` (in Python `example=`)"


def read_example(given: Any) -> pa.Table:
    """Give the first rows of an example: of a file (CSV, Parquet, JSON, JSON lines), or what a program has.

    Raises
    ------
    SourceError
        If it cannot be read, or has no rows.
    """
    if not isinstance(given, str | Path):
        rows = as_rows(given)
        if isinstance(rows, np.ndarray):
            rows = _named(rows)
    else:
        rows = _read(Path(given))
    if not rows.num_rows:
        raise SourceError(f"the example {given if isinstance(given, str | Path) else ''} has no rows; {ASK}")
    few: pa.Table = rows.slice(0, _ROWS).combine_chunks()
    return few


def _named(matrix: Any) -> pa.Table:
    wide = matrix.reshape(len(matrix), -1)
    return pa.table({f"x{place}": pa.array(wide[:, place]) for place in range(wide.shape[1])})


def _read(path: Path) -> pa.Table:
    readers = {
        ".csv": _csv,
        ".parquet": _parquet,
        ".pq": _parquet,
        ".json": _json,
        ".jsonl": _json,
        ".ndjson": _json,
    }
    if path.suffix.lower() not in readers:
        raise SourceError(
            f"the example {path} is no .csv, .parquet, .json or .jsonl; write the rows as one of these"
        )
    if not path.is_file():
        raise SourceError(f"there is no example {path}; {ASK}")
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, ValueError, pa.ArrowException) as err:
        why = err.strerror if isinstance(err, OSError) and err.strerror else str(err).splitlines()[0][:300]
        raise SourceError(f"the example {path} cannot be read: {why}") from err


def _csv(path: Path) -> pa.Table:
    with pyarrow.csv.open_csv(path) as reader:
        return pa.Table.from_batches([reader.read_next_batch()])


def _parquet(path: Path) -> pa.Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        batches = list(_first(file.iter_batches(batch_size=_ROWS)))
        return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _first(batches: Iterator[Any]) -> Iterator[Any]:
    for each in batches:
        yield each
        return


def _json(path: Path) -> pa.Table:
    text = path.read_text(encoding="utf-8")
    try:
        said = json.loads(text)
    except ValueError:
        said = [json.loads(line) for line in text.splitlines()[:_ROWS] if line.strip()]
    if isinstance(said, dict) and isinstance(said.get("rows"), list):
        said = said["rows"]
    if isinstance(said, dict) and not any(isinstance(each, list) for each in said.values()):
        said = [said]
    if not isinstance(said, dict | list) or not said:
        raise ValueError("it is no list of rows, and no mapping of columns")
    return as_rows(said)


def fitting(found: ModelFile, rows: pa.Table) -> pa.Table:
    """Give rows with the columns and the types that the model reads: categories of LightGBM as such.

    Raises
    ------
    SourceError
        If a column is missing.
    """
    if (
        found.columns
        and not set(found.columns) & set(rows.column_names)
        and rows.num_columns == len(found.columns)
    ):
        rows = rows.rename_columns(list(found.columns))  # of an array, which has no names of its own
    if missing := [each for each in found.columns if each not in rows.column_names]:
        raise SourceError(
            f"the example lacks {', '.join(map(repr, missing[:5]))}, which the model reads; it has "
            f"{', '.join(rows.column_names[:20])}"
        )
    if found.columns:
        rows = rows.select(list(found.columns))
    booster = _lightgbm(found.model)
    for name, known in _categories(booster).items() if booster is not None else ():
        values = rows.column(name)
        if not pa.types.is_dictionary(values.type):
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, _coded(values.to_pylist(), known))
    return rows


def made_up(found: ModelFile, where: str) -> pa.Table:
    """Give a few rows of what a model says of its columns.

    Trees bring the values at which they split, pipelines of scikit-learn the categories that they know, ONNX
    its tensors.

    Raises
    ------
    ConfigError
        If the model does not say what it reads.
    """
    booster, package = _lightgbm(found.model), type(found.model).__module__.partition(".")[0]
    if booster is not None:
        return _of_lightgbm(booster)
    if package == "xgboost":
        return _of_xgboost(found.model)
    if package in ("sklearn", "lightgbm"):
        return _of_sklearn(found, where)
    if package in ("pathlib", "onnx"):
        return _of_onnx(found.model, where)
    raise ConfigError(f"{where} does not say what columns it reads; {ASK}")


def _lightgbm(model: Any) -> Any | None:
    if type(model).__module__.partition(".")[0] != "lightgbm":
        return None
    return model if callable(getattr(model, "feature_name", None)) else getattr(model, "booster_", None)


def _infos(booster: Any) -> dict[str, str]:
    """Give what the text says of each column in training: `[low:high]`, categories `0:2:5`, or `none`."""
    head = booster.model_to_string(num_iteration=1).partition("\n\n")[0]
    told = next((each for each in head.splitlines() if each.startswith("feature_infos=")), "feature_infos=")
    infos = told.removeprefix("feature_infos=").split(" ")
    names = booster.feature_name()
    return dict(zip(names, infos if len(infos) == len(names) else ["none"] * len(names), strict=True))


def _categories(booster: Any) -> dict[str, list[Any]]:
    """Give the categories of columns that were such of a frame, in their order."""
    vocabularies = list(booster.pandas_categorical or ())
    coded = [name for name, info in _infos(booster).items() if info != "none" and not info.startswith("[")]
    return dict(zip(coded, vocabularies, strict=True)) if len(coded) == len(vocabularies) else {}


def _coded(values: Sequence[Any], known: Sequence[Any]) -> pa.Array:
    codes = {each: code for code, each in enumerate(known)}
    indices = pa.array([codes.get(each) for each in values], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(known)))


def _of_lightgbm(booster: Any) -> pa.Table:
    categories = _categories(booster)
    columns: dict[str, Any] = {}
    for name, info in _infos(booster).items():
        if name in categories:
            known = categories[name]
            columns[name] = _coded([known[place % len(known)] for place in range(len(_MADE_UP))], known)
        elif info.startswith("["):
            low, _, high = info.strip("[]").partition(":")
            columns[name] = _spread([_rounded(float(low)), _rounded(float(high))])
        else:
            columns[name] = _spread([float(each) for each in info.split(":")] if info != "none" else [])
    return pa.table(columns)


def _spread(values: Sequence[float]) -> pa.Array:
    """Give three values from the low, the middle and the high of those that are known."""
    finite = sorted(each for each in values if np.isfinite(each))
    if not finite:
        return pa.array([0.0] * len(_MADE_UP))
    middle = finite[len(finite) // 2] if len(finite) > 2 else _rounded((finite[0] + finite[-1]) / 2)
    return pa.array([finite[0], middle, finite[-1]])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _of_xgboost(model: Any) -> pa.Table:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    names = booster.feature_names or [f"x{place}" for place in range(booster.num_features())]
    splits: dict[int, list[float]] = {}
    gradient = json.loads(bytes(booster.save_raw(raw_format="json")))["learner"]["gradient_booster"]
    for tree in gradient.get("model", gradient.get("gbtree", {}).get("model", {})).get("trees", ()):
        for column, left, at in zip(
            tree["split_indices"], tree["left_children"], tree["split_conditions"], strict=True
        ):
            if left >= 0:
                splits.setdefault(column, []).append(_rounded(at))
    return pa.table({name: _spread(splits.get(place, [])) for place, name in enumerate(names)})


def _of_sklearn(found: ModelFile, where: str) -> pa.Table:
    try:
        inputs, outputs = describe(found.model)
    except NotCompiled as err:
        raise ConfigError(f"{where} does not say what columns it reads ({err}); {ASK}") from err
    rows = made_up_rows(found.model, inputs, outputs)
    picked = list(range(len(_MADE_UP)))
    if rows is not None and rows.matrix.size:  # those of the least sizes look the most like somebody's
        picked = np.abs(rows.matrix).max(axis=1).argsort(kind="stable")[: len(_MADE_UP)].tolist()
    columns: dict[str, Any] = {}
    at = 0
    for each in inputs:
        if each.kind == "string":
            known = (["a"] if rows is None else rows.strings.get(each.name)) or ["a"]
            columns[each.name] = pa.array([known[place % len(known)] for place in picked])
        elif rows is None:
            columns[each.name] = pa.array(_MADE_UP)
        else:
            columns[each.name] = pa.array(np.round(rows.matrix[picked, at], 2) + 0.0)  # 0.0 for -0.0
        at += each.kind != "string"
    width = getattr(found.model, "n_features_in_", 0)
    names = found.columns or tuple(f"x{place}" for place in range(width))
    unread = pa.array([0.0] * len(_MADE_UP))  # a column that nothing in it reads
    return pa.table({name: columns.get(name, unread) for name in names})


def _of_onnx(model: Any, where: str) -> pa.Table:
    from noria.registry.onnx_format import load_onnx
    from noria.serving.formats.onnx_models import tensor_inputs

    session = load_onnx(model.read_bytes() if isinstance(model, Path) else model.SerializeToString())
    columns: dict[str, Any] = {}
    try:
        inputs = tensor_inputs(session)
    except ConfigError as err:
        raise ConfigError(f"{where} does not say what columns it reads: {err}; {ASK}") from err
    for each in inputs:
        if each.kind == "string":
            columns[each.name] = pa.array(["a"] * len(_MADE_UP))
        elif each.width > 1:
            columns[each.name] = output_column(np.outer(_MADE_UP, np.ones(each.width)))
        else:
            whole = each.datatype[:1] in ("I", "U", "B")
            columns[each.name] = pa.array(np.rint(_MADE_UP).astype(np.int64) if whole else np.array(_MADE_UP))
    return pa.table(columns)
