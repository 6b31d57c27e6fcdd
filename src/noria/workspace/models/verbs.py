"""The project's verbs of models in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from pathlib import Path

    from noria.registry.folders.loaded import LoadedEstimator
    from noria.workspace.project import Project

__all__ = ["ModelVerbs"]


class ModelVerbs(Opened):
    """Models in memory."""

    def load_model(self, reference: str | Path) -> LoadedEstimator:
        """Give a model ready to predict rows; MLflow need not be installed.

        Every file is verified against its digest on record. Of models that a client of MLflow logged those
        of LightGBM, XGBoost, ONNX and scikit-learn (stored by skops) are loaded, TorchScript modules and
        weights in safetensors. What runs code as it is loaded, as pickles do, is loaded only where
        `[registry] trust_pickle` of `noria.toml` says so, and each time a note tells of it.

        Parameters
        ----------
        reference
            `NAME` (its newest version), `NAME:3`, or `NAME@ENVIRONMENT` (what is deployed there); as MLflow
            has it `models:/NAME/3`, `models:/NAME@ALIAS`, `models:/NAME/latest`, `models:/m-ID` of a logged
            model, or `runs:/RUN/PATH`; or a `Path` of a local folder.

        Returns
        -------
        LoadedEstimator
            With `predict(frame)`, `estimator`, `flavor` and `signature`.

        Raises
        ------
        NotFound
            If there is no such model; says what exists.
        DigestMismatch
            If a file is not what was recorded; names it.
        ConfigError
            If it is none that can be loaded, is not trusted, or its library is not installed.
        SourceError
            If a file is missing.

        Examples
        --------
        ::

            model = project.load_model("late_arrival:3")
            scores = model.predict(rows)
        """
        from noria.workspace.models.loading import ModelLoading

        return ModelLoading(cast("Project", self)).load(reference)
