"""Models of every kind as people have them: what they read and give, and the bytes that are kept of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from noria.errors import ConfigError, DeploymentError, SourceError
from noria.features.code_bundling import bundle_modules
from noria.records import canonical_json
from noria.registry.folders.frames import data_frame
from noria.registry.folders.prediction import predictor_of
from noria.registry.folders.trust import PickleTrust
from noria.registry.records import Input, ModelFormat, Signature
from noria.registry.rows import encode_rows, input_of
from noria.serving.formats.given import as_columns, describe
from noria.serving.formats.python_models import (
    ARTIFACTS,
    PROGRAM,
    STATE,
    PythonModel,
    RowsAs,
    rows_as,
)
from noria.serving.formats.scorers import Rows
from noria.serving.records import SCORE, Output
from noria.serving.records import Input as ServedInput

__all__ = ["GivenModel", "read_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenModel:
    """A model that somebody hands in.

    Attributes
    ----------
    format, data
        How it is kept, and the bytes that a worker reads first.
    files
        Others, by their path.
    inputs
        What it reads of the example.
    outputs
        What it gives; None: what its scorer says it gives.
    given
        What it gives for the example, by the names of outputs.
    kind
        What it is, for people.
    """

    format: ModelFormat
    data: bytes
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...] | None
    given: Mapping[str, Any]
    kind: str
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


def read_model(
    model: Any,
    example: pa.Table,
    *,
    name: str,
    artifacts: Mapping[str, Path],
    rows: RowsAs,
    trust: PickleTrust,
) -> GivenModel:
    """Read what somebody hands in as a model.

    Raises
    ------
    ConfigError
        If it is none that can be kept, or it fails on the example.
    SourceError
        If the example does not fit it.
    """
    packages = {each.__module__.partition(".")[0] for each in type(model).__mro__}
    is_own = type(model).__module__.partition(".")[0] in ("lightgbm", "xgboost", "sklearn", "onnx")
    if artifacts and is_own:
        raise ConfigError("artifacts are files of a model in Python, which its `load(folder)` reads")
    if is_own and "lightgbm" in packages:
        return _lightgbm(model, example)
    if is_own and "xgboost" in packages:
        return _xgboost(model, example)
    if is_own and type(model).__name__ == "ModelProto":
        return _onnx(model.SerializeToString(deterministic=True), example)
    if isinstance(model, Path) and model.suffix == ".onnx":
        return _onnx(model.read_bytes(), example)
    if is_own:
        return _sklearn(model, example)
    return _python(model, example, name=name, artifacts=artifacts, rows=rows, trust=trust)


def _lightgbm(model: Any, example: pa.Table) -> GivenModel:
    from noria.registry.lightgbm_format import dump_lightgbm

    classes = _classes(model)
    if classes is not None and classes != list(range(len(classes))):
        return _sklearn(model, example)  # the library's own text knows classes by number only
    data = dump_lightgbm(model, of_any_objective=True)
    booster = model if hasattr(model, "feature_name") and callable(model.feature_name) else model.booster_
    names = booster.feature_name()
    vocabularies = iter(booster.pandas_categorical or ())
    table = _selected(example, names)
    inputs = []
    for each in table.column_names:
        column = table.column(each)
        if not pa.types.is_dictionary(column.type):
            inputs.append(_number(each, column))
            continue
        known = next(vocabularies, None) or column.chunk(0).dictionary.to_pylist()
        inputs.append(Input(each, "category", tuple(map(str, known))))
    has_categories = any(each.kind == "category" for each in inputs)
    frame = data_frame(table) if has_categories else _matrix(inputs, table)
    return GivenModel(
        format="lightgbm",
        data=data,
        inputs=tuple(inputs),
        outputs=None,
        given=_scored(_own("the model of LightGBM", lambda: booster.predict(frame))),
        kind=_kind(model),
    )


def _xgboost(model: Any, example: pa.Table) -> GivenModel:
    from noria.registry.xgboost_format import dump_xgboost

    classes = _classes(model)
    if classes is not None and classes != list(range(len(classes))):
        return _sklearn(model, example)
    data = dump_xgboost(model, of_any_objective=True)
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    table = _selected(example, booster.feature_names or ())
    inputs = [_number(each, table.column(each)) for each in table.column_names]
    matrix = _matrix(inputs, table)
    if booster is model:
        predict: Callable[[Any], Any] = lambda rows: model.inplace_predict(rows, validate_features=False)  # noqa: E731
    else:
        predict = getattr(model, "predict_proba", model.predict)
    given = _own("the model of XGBoost", lambda: predict(matrix))
    return GivenModel(
        format="xgboost",
        data=data,
        inputs=tuple(inputs),
        outputs=None,
        given=_scored(given),
        kind=_kind(model),
    )


def _sklearn(model: Any, example: pa.Table) -> GivenModel:
    from noria.registry.skops_archives import dump_archive

    if not callable(getattr(model, "predict", None)):
        raise ConfigError(f"{_kind(model)} has no method `predict`; register the estimator at the end of it")
    data, _ = dump_archive(model)
    table = _selected(example, list(getattr(model, "feature_names_in_", ())))
    inputs = tuple(input_of(each, table.column(each)) for each in table.column_names)
    rows = table if hasattr(model, "feature_names_in_") else _matrix(inputs, table)
    classes = _classes(model)
    what = f"the {type(model).__name__}"
    if classes is None or not callable(getattr(model, "predict_proba", None)):
        found = _own(what, lambda: predictor_of("sklearn", model)(rows))
        outputs = _described(found, table.num_rows, what)
        return GivenModel(
            format="skops", data=data, inputs=inputs, outputs=outputs, kind=_kind(model),
            given=_columns(found, outputs, table.num_rows, what),
        )  # fmt: skip
    shares = np.asarray(_own(what, lambda: predictor_of("sklearn", model, method="predict_proba")(rows)))
    if classes == [0, 1]:
        return GivenModel(
            format="skops", data=data, inputs=inputs, outputs=(SCORE,), kind=_kind(model),
            given={"score": np.asarray(shares[:, 1], dtype=np.float64)},
        )  # fmt: skip
    labels = _own(what, lambda: predictor_of("sklearn", model)(rows))
    (label,) = _described(labels, table.num_rows, what)
    probability = Output(name="probability", width=len(classes), labels=tuple(map(str, classes)))
    return GivenModel(
        format="skops", data=data, inputs=inputs, outputs=(label, probability), kind=_kind(model),
        given={**_columns(labels, (label,), table.num_rows, what), "probability": shares.astype(np.float64)},
    )  # fmt: skip


def _onnx(data: bytes, example: pa.Table) -> GivenModel:
    from noria.registry.onnx_format import load_onnx, onnx_scorer
    from noria.serving.formats.onnx_models import OnnxModel, describe_outputs, tensor_inputs

    session = load_onnx(data)
    read = tensor_inputs(session, like=example.column_names)
    inputs = tuple(Input(each.name, each.kind, **_unless_plain(each.width, each.datatype)) for each in read)
    matrix, strings = encode_rows(Signature(inputs, " "), _selected(example, [each.name for each in inputs]))
    rows = Rows(matrix, strings)
    if all(each.kind == "number" for each in read) and _gives_one_probability(session):
        given: Mapping[str, Any] = {"score": _own("the ONNX model", lambda: onnx_scorer(session)(matrix))}
        outputs: tuple[Output, ...] = (SCORE,)
    else:
        outputs = describe_outputs(session, read, rows)
        found = OnnxModel(session, read, outputs).predict(rows)
        given = dict(zip((each.name for each in outputs), found, strict=True))
    return GivenModel(
        format="onnx", data=data, inputs=inputs, outputs=outputs, given=given, kind="ONNX model"
    )


def _gives_one_probability(session: Any) -> bool:
    """Tell whether it reads one matrix and gives a number, or the probabilities of classes 0 and 1."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    floats = ("tensor(float)", "tensor(double)")
    is_matrix = len(inputs) == 1 and inputs[0].type in floats and len(inputs[0].shape) == 2
    if not is_matrix:
        return False
    if len(outputs) == 1:
        return outputs[0].type in floats and outputs[0].shape[1:] in ([], [1], [2])
    labels = [each for each in outputs if each.type == "tensor(int64)"]
    two = [each for each in outputs if each.type in floats and each.shape[1:] == [2]]
    return len(outputs) == 2 and len(labels) == len(two) == 1


def _python(
    model: Any,
    example: pa.Table,
    *,
    name: str,
    artifacts: Mapping[str, Path],
    rows: RowsAs,
    trust: PickleTrust,
) -> GivenModel:
    kind = model if inspect.isclass(model) else type(model)
    if not callable(getattr(kind, "predict", None)):
        raise ConfigError(
            f"{kind.__qualname__} cannot be registered; give a model of LightGBM, XGBoost or scikit-learn, "
            "an ONNX ModelProto, a Path of an .onnx file, or an object or a class with a method `predict`"
        )
    if "<locals>" in kind.__qualname__:
        raise ConfigError(
            f"class {kind.__qualname__} stands in a function, from which no server can import it; write it "
            "into a module of the project"
        )
    if artifacts and not callable(getattr(kind, "load", None)):
        raise ConfigError(f"{kind.__qualname__} has no method `load(folder)` to read its artifacts by")
    code = bundle_modules([kind.__module__], what=f"the model {kind.__qualname__}")
    attributes = {} if inspect.isclass(model) else dict(vars(model))
    state, data = _state(attributes, kind, name, trust) if attributes and not artifacts else ("none", b"")
    said = PythonModel(module=kind.__module__, name=kind.__qualname__, rows=rows, state=state)  # type: ignore[arg-type]
    table = example
    inputs = tuple(input_of(each, table.column(each)) for each in table.column_names)
    if rows == "matrix" and (texts := [each.name for each in inputs if each.kind == "string"]):
        raise ConfigError(
            f"the example has texts ({', '.join(texts)}), which are in no matrix; choose "
            "rows='columns' or 'pandas'"
        )
    what = f"model {name!r}"
    matrix, strings = encode_rows(Signature(inputs, " "), table)
    served = [
        ServedInput(name=each.name, kind=each.kind, width=each.width or 1, datatype=each.datatype or "")
        for each in inputs
    ]
    instance = _instance(model, artifacts, name)
    frame = rows_as(rows, Rows(matrix, strings), served)
    found = _own(what, lambda: instance.predict(frame))
    outputs = _described(found, table.num_rows, what)
    return GivenModel(
        format="python",
        data=canonical_json(said),
        inputs=inputs,
        outputs=outputs,
        given=_columns(found, outputs, table.num_rows, what),
        kind=f"{kind.__module__}.{kind.__qualname__}",
        files={
            PROGRAM: code,
            **({} if state == "none" else {f"{STATE}.{state}": data}),
            **{f"{ARTIFACTS}{path}": file for path, file in artifacts.items()},
        },
    )


def _instance(model: Any, artifacts: Mapping[str, Path], name: str) -> Any:
    """Give the object that predicts the example: made anew, and of the artifacts, as a worker makes it."""
    if not inspect.isclass(model) and not artifacts:
        return model
    kind = model if inspect.isclass(model) else type(model)
    made = _own(f"model {name!r}", kind)
    if artifacts:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="noria-") as folder:
            for path, file in artifacts.items():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(file.read_bytes())
            _own(f"model {name!r}", lambda: made.load(Path(folder)))
    return made


def _state(attributes: dict[str, Any], kind: type, name: str, trust: PickleTrust) -> tuple[str, bytes]:
    from noria.registry.skops_archives import dump_archive

    try:
        return "skops", dump_archive(attributes)[0]
    except ConfigError as err:
        if not trust.covers(name):
            raise ConfigError(
                f"the attributes of the {kind.__qualname__} cannot be kept without pickle ({err}); register "
                "the class and let its `load(folder)` read them of artifacts, or, if the project is to run "
                f'what is in such files, set `trust_pickle = ["{name}"]` under [registry] in noria.toml'
            ) from err
    import pickle

    try:
        return "pickle", pickle.dumps(attributes, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as err:
        raise ConfigError(f"the attributes of the {kind.__qualname__} cannot be pickled: {err}") from err


def _own(what: str, call: Callable[[], Any]) -> Any:
    """Give what a model gives on its example; the example is its owner's, so the error may tell of it."""
    from noria.serving.formats.user_code import called

    return called(
        call, lambda err: ConfigError(f"{what} fails on the example: {type(err).__name__}: {str(err)[:300]}")
    )


def _described(found: Any, rows: int, what: str) -> tuple[Output, ...]:
    try:
        return describe(found, rows, what=what)
    except DeploymentError as err:
        raise ConfigError(str(err)) from err


def _columns(found: Any, outputs: Sequence[Output], rows: int, what: str) -> dict[str, Any]:
    columns = as_columns(found, outputs, rows, what=what)
    return dict(zip((each.name for each in outputs), columns, strict=True))


def _scored(given: Any) -> dict[str, Any]:
    """Give what trees give by the names that their scorer has for it."""
    values = np.asarray(given, dtype=np.float64)
    if values.ndim == 1:
        return {"score": values, "label": values}
    found = {"probability": values, "label": values.argmax(axis=1).astype(np.int64)}
    return {**found, "score": np.ascontiguousarray(values[:, 1])} if values.shape[1] == 2 else found


def _classes(model: Any) -> list[Any] | None:
    """Give the classes of a classifier; None of what is none, or has several sets of them."""
    found = getattr(model, "classes_", None)
    if found is None or isinstance(found, list):
        return None
    classes = np.asarray(found)
    return (
        None
        if classes.ndim != 1
        else [int(each) if isinstance(each, bool) else each for each in classes.tolist()]
    )


def _selected(example: pa.Table, names: Sequence[str]) -> pa.Table:
    """Give the columns that a model was trained with, in its order; by place where it knows no names."""
    if not names or names == [f"Column_{each}" for each in range(len(names))]:
        return example
    if missing := [each for each in names if each not in example.column_names]:
        raise SourceError(
            f"the example lacks {', '.join(missing)}, which the model reads; it has "
            f"{', '.join(example.column_names)}"
        )
    return example.select(list(names))


def _number(name: str, column: pa.ChunkedArray) -> Input:
    found = input_of(name, column)
    if found.kind != "number" or found.columns != 1:
        raise SourceError(
            f"column {name!r} of the example is {column.type}, and the model reads numbers; give the rows as "
            "it was trained on, categories as a categorical column"
        )
    return found


def _matrix(inputs: Sequence[Input], table: pa.Table) -> Any:
    matrix, strings = encode_rows(Signature(tuple(inputs), " "), table)
    return data_frame(table) if strings else matrix


def _unless_plain(width: int, datatype: str) -> dict[str, Any]:
    return {
        **({} if width == 1 else {"width": width}),
        **({} if datatype in ("", "FP64", "BYTES") else {"datatype": datatype}),
    }


def _kind(model: Any) -> str:
    return f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
