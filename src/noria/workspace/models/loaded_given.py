"""Versions that were registered as they are, in memory: they predict as a server does."""

from typing import TYPE_CHECKING, Any

import numpy as np

from noria.deploy.model_releases import served_inputs, served_outputs
from noria.errors import ConfigError, DeploymentError
from noria.records import Version
from noria.registry.folders.frames import as_rows
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.trust import PickleTrust
from noria.registry.formats import load_estimator
from noria.registry.rows import encode_rows
from noria.registry.store import FILES
from noria.serving.formats.python_models import DESCRIPTION
from noria.serving.formats.scorers import Rows, open_scorer
from noria.serving.records import Samples, ServedFile, ServedModel

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["load_given"]


def load_given(project: "Project", version: Version, reference: str) -> LoadedEstimator:
    """Give a version that was registered as it is. Raises as `project.load_model` does.

    Its `predict` gives the one column that it gives, or columns by name; `estimator` is the model as its
    library has it, and of a model in Python what scores by it.
    """
    manifest = project.registry.read_manifest(version)
    signature, fetch = manifest.signature, project.storage.fetch
    data = project.storage.get(manifest.parts["model"].sha256)
    files = {
        path.removeprefix(FILES): part for path, part in manifest.parts.items() if path.startswith(FILES)
    }
    if manifest.format == "python":
        files[DESCRIPTION] = manifest.parts["model"]
    served = ServedModel(
        release="",
        model=version.name,
        version=version.number,
        digest=manifest.parts["model"].sha256,
        path="",
        inputs=served_inputs(signature),
        samples=Samples(matrix=b"", scores=b""),
        format=manifest.format,
        outputs=served_outputs(signature),
        files=tuple(
            ServedFile(name=path, digest=part.sha256, path=str(fetch(part.sha256)))
            for path, part in files.items()
        ),
        trust_pickle=PickleTrust.of(project.settings.registry.trust_pickle).covers(version.name),
    )
    try:
        scorer = open_scorer(served, data, folder=project.root)
    except DeploymentError as err:
        raise ConfigError(str(err)) from err

    def predict(frame: object) -> Any:
        rows = as_rows(frame)
        if isinstance(rows, np.ndarray):
            given = Rows(np.ascontiguousarray(rows, dtype=np.float64))
        else:
            given = Rows(*encode_rows(signature, rows))
        found = dict(zip((each.name for each in served.outputs), scorer.predict(given), strict=True))
        return found if len(found) > 1 else next(iter(found.values()))

    estimator = scorer if manifest.format == "python" else load_estimator(manifest.format, data)
    flavor = "sklearn" if manifest.format == "skops" else manifest.format
    return LoadedEstimator(reference, flavor, estimator, signature, predict)
