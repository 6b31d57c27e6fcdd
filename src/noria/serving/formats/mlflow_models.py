"""Folders of MLflow as a worker scores by them, without MLflow: they give what a client of it gets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noria.errors import ConfigError, DeploymentError
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.loading import load_folder
from noria.registry.folders.served import folder_inputs, folder_rows
from noria.registry.folders.signatures import FolderSignature
from noria.registry.folders.trust import PickleTrust
from noria.serving.formats.given import as_columns
from noria.serving.formats.loaded_files import contents_of
from noria.serving.formats.scorers import Rows, Scorer
from noria.serving.formats.user_code import called
from noria.serving.records import ServedModel

__all__ = ["folder_prediction", "open_mlflow"]


def open_mlflow(served: ServedModel, folder: Path) -> Scorer:
    """Give what scores by a folder of MLflow.

    Raises
    ------
    DeploymentError
        If it is none that is loaded, its library is not installed, it holds a pickle that the project does
        not trust, or it reads other columns than its release tells.
    DigestMismatch
        If a file is not what was recorded.
    """
    where = f"{served.model}:{served.version}"
    try:
        loaded = load_folder(
            contents_of(served, folder=folder),
            trust=PickleTrust(everything=served.trust_pickle),
            model=served.model,
            reference=where,
        )
        signature = _signature(loaded, where)
        read = [(each.name, each.kind, each.columns) for each in folder_inputs(signature, where)]
    except ConfigError as err:
        raise DeploymentError(str(err)) from err
    told = [(each.name, each.kind, 0 if each.kind == "string" else each.width) for each in served.inputs]
    if read != told:
        raise DeploymentError(
            f"the MLmodel of {where} reads {', '.join(name for name, _, _ in read)}; its release tells "
            f"{', '.join(name for name, _, _ in told)}"
        )
    return _Folder(served, loaded, signature)


class _Folder:
    is_native = False
    tolerance = 1e-9
    fallback: str | None = None

    def __init__(self, served: ServedModel, loaded: LoadedEstimator, signature: FolderSignature) -> None:
        self.columns: int | None = sum(each.width for each in served.inputs if each.kind != "string")
        self.outputs = served.outputs
        self.path = f"mlflow {loaded.flavor}"
        self._loaded, self._signature = loaded, signature
        self._what = f"{served.model}:{served.version}"

    def predict(self, rows: Rows) -> Sequence[Any]:
        """Give the columns of `outputs` for the rows."""
        given = folder_prediction(self._loaded, self._signature, rows, what=self._what)
        return as_columns(given, self.outputs, rows.count, what=self._what)


def folder_prediction(loaded: LoadedEstimator, signature: FolderSignature, rows: Rows, *, what: str) -> Any:
    """Give what a loaded folder gives for rows. Raises `NoriaError` without data if it raises."""
    frame = folder_rows(signature, rows.matrix, rows.strings)
    return called(
        lambda: loaded.predict(frame),
        lambda err: DeploymentError(f"{what} raised {type(err).__name__} in predict"),
    )


def _signature(loaded: LoadedEstimator, where: str) -> FolderSignature:
    if not isinstance(loaded.signature, FolderSignature):
        raise ConfigError(f"{where} does not say what columns it reads; log the model with a signature")
    return loaded.signature
