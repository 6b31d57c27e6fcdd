"""The project's verbs of models in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from noria.errors import NotFound
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from noria.deploy.environments import Move
    from noria.deploy.supervisor import Supervisor
    from noria.registry.folders.loaded import LoadedEstimator
    from noria.serving.explaining.records import Explained
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

    def deploy(
        self,
        reference: str,
        *,
        to: str,
        canary: float | None = None,
        shadow: bool = False,
        reason: str = "",
        example: object | None = None,
    ) -> Move:
        """Let a version of a model answer in an environment, at the deployment of the model's name.

        A release is made of it (or found), loaded as a server loads it, and has to give for its stored rows
        what it gave. Where the environment has a gate, that has to have let this very digest in; a model that
        was registered as it is, which no training judged, is judged now by its metrics and stored rows. An
        environment without a gate lets all in, and the record says so. A running `noria serve` or `noria up`
        follows within a second.

        Parameters
        ----------
        reference
            `NAME` (its newest version), `NAME:3`, or `NAME@ENVIRONMENT` (what is deployed there).
        to
            Which environment.
        canary
            Answer a share of the traffic beside the stable release, such as 0.1, on trial.
        shadow
            Score every row behind the stable release, and answer none, on trial.
        reason
            Why, for the record.
        example
            Rows that a folder of MLflow reads. Default: the example that was logged with it, else some
            that are made up.

        Raises
        ------
        NotFound
            If there is no such version or environment; says what exists.
        GateRefused
            If the gate does not let it in; says which check failed.
        Conflict
            If it is there already, or there is nothing beside which it could be tried.
        ConfigError
            If it is none that is served.
        RouteRefusedError
            If it cannot be loaded, or gives otherwise for its stored rows.

        Examples
        --------
        ::

            project.deploy("late:3", to="production", canary=0.1, reason="tried on a tenth")
            project.promote("late@production")
        """
        from noria.workspace.models.deploying import deploy_model
        from noria.workspace.models.names import find_version

        project = cast("Project", self)
        return deploy_model(
            project,
            find_version(project, reference),
            environment=to,
            canary=canary,
            shadow=shadow,
            reason=reason,
            example=example,
        )

    @contextmanager
    def serve(self, reference: str, *, port: int | None = None) -> Iterator[Supervisor]:
        """Answer over HTTP by what is deployed, for as long as a block runs.

        At its end what was predicted is moved into the table `predictions`. Moves of the pointer are not
        followed meanwhile: `noria serve` and `noria up` do that.

        Parameters
        ----------
        reference
            Such as `late_arrival@production`.
        port
            Where to listen; 0 takes a free one. Default: what `noria.toml` says.

        Raises
        ------
        NotFound
            If nothing is deployed there.
        LeaseHeld
            If another process serves the environment.
        PortInUse
            If somebody else listens on the port.
        DeploymentError
            If what is deployed cannot be served.

        Examples
        --------
        ::

            with project.serve("late_arrival@production") as server, server.client() as client:
                answers = client.infer("late_arrival", {"distance": [719.0]}, ids=["UA-1"])
        """
        from noria.deploy.collecting import collect_predictions

        project = cast("Project", self)
        environment, name = project.place(reference)
        place = project.deployment(environment, name)
        pointer = project.ledger.find_pointer(environment, name)
        if pointer is None:
            known = {f"{each.name}@{each.environment}" for each in project.ledger.list_pointers()}
            advice = f"nothing is deployed yet; `noria deploy {name}@{environment}` does it"
            raise NotFound("deployment", f"{name}@{environment}", known, advice=advice)
        supervisor = project.supervisor(environment, port=port)
        with supervisor:
            supervisor.start(place.route(project.ledger.get_version_by_id(pointer.version)))
            yield supervisor
            collect_predictions(supervisor, name, project.lake)

    def promote(self, reference: str, *, reason: str = "") -> Move:
        """Let what is on trial at `NAME@ENVIRONMENT` answer everything there.

        Raises
        ------
        NotFound
            If there is no such deployment; says what exists.
        Conflict
            If nothing, or more than one release, is on trial there.
        """
        from noria.workspace.models.deploying import promote_model

        return promote_model(cast("Project", self), reference, reason=reason)

    def explain(self, prediction_id: str, *, deployment: str | None = None) -> Explained:
        """Tell what each input added to the score of a prediction that was answered.

        By the very version that answered, and by the values of the request and of the features that it saw,
        as the table `predictions` has them.

        Parameters
        ----------
        prediction_id
            As it was sent, or given back with the answer.
        deployment
            `production` or `production/late_arrival`, where several logged the same id.

        Returns
        -------
        Explained
            Its `numbers` have `base`, `total` and `contributions`, the largest first: base and contributions
            add up to the total, in its `unit`.

        Raises
        ------
        NotFound
            If no such prediction is in the table.
        ConfigError
            If its values were redacted or forgotten since, or its model gives no number.

        Examples
        --------
        ::

            (why,) = project.explain("req-7-0").numbers
            why.base, [(each.name, each.value, each.contribution) for each in why.contributions[:3]]
        """
        from noria.workspace.models.explaining_predictions import explain_prediction

        return explain_prediction(cast("Project", self), prediction_id, deployment=deployment)
