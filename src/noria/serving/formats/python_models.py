"""Models in Python: an object of a class with `predict`, made of code that was kept, its state and its files.

Code of a user runs here: what it raises, and what it gives that is no answer, becomes an error without data.
"""

import io
import pickle
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, DeploymentError
from noria.features.code_bundle import Bundle, differing_distributions, find_kept, import_kept, read_bundle
from noria.registry.folders.trust import PickleTrust
from noria.registry.whole_numbers import are_whole
from noria.serving.formats.given import as_columns
from noria.serving.formats.loaded_files import laid_out, read_file
from noria.serving.formats.scorers import Rows, Scorer
from noria.serving.formats.user_code import called, place_of
from noria.serving.records import Input, ServedModel

__all__ = [
    "ARTIFACTS",
    "DESCRIPTION",
    "PROGRAM",
    "STATE",
    "PythonModel",
    "RowsAs",
    "open_python",
    "predicted",
    "rows_as",
]

DESCRIPTION = "model.json"
PROGRAM = "program.zip"
STATE = "state"
ARTIFACTS = "artifacts/"

RowsAs = Literal["columns", "matrix", "pandas"]


class PythonModel(msgspec.Struct, frozen=True, kw_only=True):
    """How a model in Python is made.

    Parameters
    ----------
    module, name
        Of its class.
    rows
        What `predict` is given: arrays by name, a matrix of float64, or a frame of pandas.
    state
        How the object's attributes are kept; "none": it is constructed.
    """

    module: str
    name: str
    rows: RowsAs = "columns"
    state: Literal["none", "skops", "pickle"] = "none"


def open_python(served: ServedModel, folder: Path) -> Scorer:
    """Give what scores by a model in Python.

    Raises
    ------
    DeploymentError
        If it cannot be made: its code, state or files are gone or fail, or it holds a pickle that the project
        does not trust.
    DigestMismatch
        If a file is not what was recorded.
    """
    try:
        said = msgspec.json.decode(read_file(served, DESCRIPTION, folder=folder), type=PythonModel)
        bundle = read_bundle(read_file(served, PROGRAM, folder=folder))
        kind = find_kept(bundle, said.module, said.name)
        state = None if said.state == "none" else _state(served, said, bundle, folder)
    except (ConfigError, msgspec.MsgspecError) as err:
        raise DeploymentError(str(err)) from err
    model = _made(served, kind, state, bundle)
    if any(each.name.startswith(ARTIFACTS) for each in served.files):
        home, remove = laid_out(served.files, folder=folder, prefix=ARTIFACTS)
        try:
            _called(served, bundle, "load", lambda: model.load(home))
        except BaseException:
            remove()
            raise
        scorer = _Python(served, said, model)
        weakref.finalize(scorer, remove)  # it may read its files later
        return scorer
    return _Python(served, said, model)


class _Python:
    is_native = False
    tolerance = 1e-9
    path = "python"
    fallback: str | None = None

    def __init__(self, served: ServedModel, said: PythonModel, model: Any) -> None:
        if not callable(getattr(model, "predict", None)):
            raise DeploymentError(f"{said.name} of module {said.module!r} has no method `predict`")
        self.columns: int | None = sum(each.width for each in served.inputs if each.kind != "string")
        self.outputs = served.outputs
        self._inputs, self._rows, self._model = served.inputs, said.rows, model
        self._what = f"{served.model}:{served.version}"

    def predict(self, rows: Rows) -> Sequence[Any]:
        """Give the columns of `outputs` for the rows."""
        given = predicted(self._model, rows_as(self._rows, rows, self._inputs), what=self._what)
        return as_columns(given, self.outputs, rows.count, what=self._what)


def predicted(model: Any, rows: Any, *, what: str) -> Any:
    """Give what a model's `predict` gives. Raises `DeploymentError` without data if it raises."""
    return called(
        lambda: model.predict(rows),
        lambda err: DeploymentError(f"{what} raised {type(err).__name__} in predict{place_of(err)}"),
    )


def rows_as(kind: RowsAs, rows: Rows, inputs: Sequence[Input]) -> Any:
    """Give rows as `predict` reads them.

    Arrays by name are of the types that the example had: whole numbers and truths are such again where no
    value is missing, and texts are objects, None where one is missing. A vector is a column of shape
    (n, width), and in a frame of pandas a column for each element.
    """
    if kind == "matrix":
        return rows.matrix.copy()
    columns = _columns(rows, inputs)
    if kind == "columns":
        return columns
    import pandas  # type: ignore[import-untyped]

    flat: dict[str, Any] = {}
    for name, values in columns.items():
        if values.ndim == 2:
            flat |= {f"{name}_{place}": values[:, place] for place in range(values.shape[1])}
        else:
            flat[name] = values
    return pandas.DataFrame(flat)


def _columns(rows: Rows, inputs: Sequence[Input]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for each in inputs:
        if each.kind == "string":
            found[each.name] = np.array(rows.strings[each.name], dtype=object)
            continue
        values = rows.matrix[:, at : at + each.width]
        at += each.width
        found[each.name] = _typed(values[:, 0] if each.width == 1 else values, each.datatype)
    return found


def _typed(values: NDArray[np.float64], datatype: str) -> NDArray[Any]:
    kind = {"I": np.int64, "U": np.int64, "B": np.bool_}.get(datatype[:1])
    if kind is None or not are_whole(values, kind).all():
        return values.copy()
    return values.astype(kind)


def _state(served: ServedModel, said: PythonModel, bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    data = read_file(served, f"{STATE}.{said.state}", folder=folder)
    where = f"the state of {served.model}:{served.version}"
    if said.state == "skops":
        from noria.registry.skops_archives import load_archive

        state = load_archive(data)
    else:
        PickleTrust(everything=served.trust_pickle).check(
            where, "a pickle of Python objects", model=served.model
        )
        state = called(
            _Unpickler(io.BytesIO(data), bundle).load,
            lambda err: ConfigError(f"{where} cannot be read here ({type(err).__name__}: {err})"),
        )
    if not isinstance(state, dict):
        raise ConfigError(
            f"{where} holds a {type(state).__qualname__}; wanted are the attributes of an object"
        )
    return state


class _Unpickler(pickle.Unpickler):
    """Reads classes of the project from the code that was kept."""

    def __init__(self, data: io.BytesIO, bundle: Bundle) -> None:
        super().__init__(data)
        self._bundle = bundle

    def find_class(self, module: str, name: str) -> Any:
        if module in self._bundle.sources:
            return getattr(import_kept(self._bundle, module), name)
        return super().find_class(module, name)


def _made(served: ServedModel, kind: Any, state: Mapping[str, Any] | None, bundle: Bundle) -> Any:
    if not isinstance(kind, type):
        return kind  # a module's own object
    if state is None:
        return _called(served, bundle, kind.__name__, kind)
    model: Any = object.__new__(kind)
    model.__dict__.update(state)
    return model


def _called(served: ServedModel, bundle: Bundle, what: str, call: Callable[[], Any]) -> Any:
    def failed(err: BaseException) -> DeploymentError:  # no request is there yet, so the error may be told
        others = differing_distributions(bundle)
        beside = f"; it was registered with {', '.join(others)}" if others else ""
        return DeploymentError(
            f"{served.model}:{served.version} raised {type(err).__name__} in {what}{place_of(err)}: "
            f"{err}{beside}"
        )

    return called(call, failed)
