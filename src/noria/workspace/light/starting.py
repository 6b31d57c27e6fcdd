"""`noria.light`: a saved model answers over HTTP."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.workspace.light.service import LightService, Tell

__all__ = ["light"]


def light(
    model: str | os.PathLike[str],
    *,
    name: str | None = None,
    example: Any | None = None,
    folder: str | os.PathLike[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    watch: bool = False,
    trust_pickle: bool = False,
    project: str | os.PathLike[str] | None = None,
    tell: "Tell | None" = None,
) -> "LightService":
    """Let a saved model answer over HTTP on this machine; no project and no configuration is needed.

    Parameters
    ----------
    model
        The file of a model of LightGBM (.txt), XGBoost (.json, .ubj), ONNX, or scikit-learn (.skops; .joblib
        and .pkl where `trust_pickle` says so), a folder of MLflow, or a version of the project here: `NAME`,
        `NAME:3`, `NAME@ENVIRONMENT`.
    name
        What the model is called. Default: as the file.
    example
        Rows that it reads: a frame, columns by name, an array, or a .csv, .parquet, .json file of some.
        Default: those of the version before, else some made up of what the model says of its columns.
    folder
        Where versions and log are kept. Default: `.noria-light` beside the model, which git leaves out.
    host
        Where to listen. Default: this machine only.
    port
        Default: 8080, or a free one where that is taken; 0: a free one.
    workers
        Processes that answer; 0: one for each core.
    watch
        Look at the file, and answer by what it becomes.
    trust_pickle
        Load pickles, which run code of their writer.
    project
        The folder of the project of which `model` is a version.
    tell
        Called with a line about what happens later.

    Returns
    -------
    LightService
        It answers. Stop it, or use it in a `with` block.

    Raises
    ------
    SourceError
        If there is no such file, or the model or example cannot be read.
    ConfigError
        If it holds no model that is known, or does not say what it reads.
    PortInUse
        If somebody listens on the port that was chosen.
    LeaseHeld
        If another process serves the same model from the same folder.
    StoreError
        If the folder cannot be written.

    Examples
    --------
    ::

        with noria.light("model.txt", port=0) as service:
            print(service.address, service.predict({"distance": 719.0, "hour": 17}))
    """
    from noria.workspace.light.folders import checked_name, remove_folder
    from noria.workspace.light.service import LightService
    from noria.workspace.light.sources import find_source
    from noria.workspace.models.model_files import kind_of_file

    source = find_source(model, project=None if project is None else Path(project))
    if source.kind == "file":
        kind_of_file(source.path)  # before anything is written
    service = LightService(
        source,
        name=source.name if name is None else checked_name(name),
        base=source.base if folder is None else Path(folder).expanduser().absolute(),
        example=example,
        watch=watch,
        trust_pickle=trust_pickle,
        tell=tell or _quiet,
    )
    try:
        service.start(host=host, port=port, workers=workers)
    except BaseException:
        service.stop()
        if service.is_new and not service.has_model:
            remove_folder(service.folder)
        raise
    return service


def _quiet(_: str) -> None:
    pass
