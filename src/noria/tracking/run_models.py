"""Models that a run leaves, as folders that MLflow's clients read as well."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from noria.errors import ConfigError, StoreError
from noria.records import RunId
from noria.tracking.beginning import ModelShelf
from noria.tracking.logged_values import plain_text, tag_values
from noria.tracking.models.logged_models import new_model_id
from noria.tracking.models.records import check_model_name
from noria.tracking.run_files import RunFiles

__all__ = ["MadeFolder", "RunModel", "RunModels"]

_PATIENCE_S = 30.0  # with the database, before a model can be registered


class RunModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a run has logged.

    Attributes
    ----------
    flavor
        How it is stored, such as "sklearn" or "lightgbm".
    number
        Of the version that was registered; None: it was not asked for.
    """

    id: str  # "m-" and 32 hex digits
    name: str
    run: RunId
    flavor: str
    number: int | None = None

    @property
    def uri(self) -> str:
        """What `noria.load_model` and MLflow's clients load it by."""
        return f"models:/{self.id}"


class MadeFolder(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a model that is to be logged."""

    id: str
    name: str
    tags: Mapping[str, str]
    files: Sequence[tuple[str, Path]]  # by their path in the folder


class RunModels(RunFiles):
    """The verb of a run's models."""

    def log_model(
        self,
        model: object,
        name: str = "model",
        *,
        example: object | None = None,
        registered: str | None = None,
        tags: Mapping[str, str] | None = None,
        serialization: Literal["skops", "pickle"] = "skops",
    ) -> RunModel:
        """Keep a fitted model, with the run's parameters and what was measured so far.

        It is in the run's outputs, in `noria.load_model("runs:/RUN/NAME")`, and for clients of MLflow in
        `mlflow.pyfunc.load_model` of the same. Its files are kept when the call returns.

        Parameters
        ----------
        model
            Of LightGBM, XGBoost, scikit-learn (also pipelines), or an ONNX graph.
        name
            Several models of a run may have the same; by `runs:/RUN/NAME` the newest is found.
        example
            A few rows of input: names and types of the columns, and of what is predicted, become the
            model's signature.
        registered
            A name in the catalogue: the model becomes its next version; the name is made if it is not there.
        tags
            Texts.
        serialization
            Of scikit-learn: "skops" executes nothing when it is loaded; "pickle" may.

        Raises
        ------
        ConfigError
            If the model cannot be stored so; names its type and what can be done.
        StoreError
            If it is to be registered and the database is away; the model itself is kept.

        Examples
        --------
        ::

            with noria.start_run() as run:
                made = run.log_model(forest, example=rows.head(), registered="late_arrival")
        """
        name = check_model_name(plain_text("the model's name", name))
        if registered is not None:
            self._shelf.check_registrable(plain_text("the name to register", registered))
        told = tag_values(tags or {})
        with tempfile.TemporaryDirectory(prefix="noria-") as made:
            folder = Path(made) / "model"
            folder.mkdir()
            flavor = self._shelf.write(model, folder, example=example, serialization=serialization)
            found = sorted(each for each in folder.rglob("*") if not each.is_dir())
            files = [(each.relative_to(folder).as_posix(), each) for each in found]
            id = new_model_id()
            run = self._put_model(MadeFolder(id=id, name=name, tags=told, files=files))
        number = None
        if registered is not None:
            if not self.flush(_PATIENCE_S):
                raise StoreError(
                    f"model {name!r} is kept as {id}, but the database is away, so it is not registered as "
                    f"{registered!r}; register models:/{id} once it is back"
                )
            number = self._shelf.register(registered, logged_model=id, run=run)
        return RunModel(id=id, name=name, run=run, flavor=flavor, number=number)

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until what was logged is in the database; tell whether it is."""
        raise NotImplementedError

    @property
    def _shelf(self) -> ModelShelf:
        shelf = self._find_shelf()
        if shelf is None:
            raise ConfigError(
                "this run cannot keep models: it was begun without a project; use noria.start_run, or log "
                "the model's files with log_artifacts"
            )
        return shelf

    def _find_shelf(self) -> ModelShelf | None:
        raise NotImplementedError

    def _put_model(self, made: MadeFolder) -> RunId:
        """Keep a model's files and then itself; give the run's id."""
        raise NotImplementedError
