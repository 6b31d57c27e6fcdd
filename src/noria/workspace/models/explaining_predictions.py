"""A logged prediction explained, by the very version that answered it and the values that it saw."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from noria.audit.logs import find_prediction
from noria.audit.records import Prediction
from noria.deploy.releases import serve_release
from noria.errors import ConfigError, DeploymentError
from noria.explain.sampling import OutOfTime
from noria.registry.folders.trust import PickleTrust
from noria.serving.explaining.explainers import open_explainer
from noria.serving.explaining.explanations import explained_rows
from noria.serving.explaining.logged import LoggedRow, require_same, require_whole
from noria.serving.explaining.records import Explained
from noria.serving.models import LoadedModel, load_route
from noria.serving.records import Route, RouteEntry
from noria.workspace.endpoints import make_deployment

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["explain_prediction"]

_WITHIN_S = 60.0


def explain_prediction(project: "Project", prediction_id: str, *, deployment: str | None) -> Explained:
    """See `noria.workspace.models.verbs.ModelVerbs.explain`."""
    found = find_prediction(prediction_id, ledger=project.ledger, lake=project.lake, environment=deployment)
    prediction = found.prediction
    model = _loaded(project, prediction)
    score: Any = prediction.score
    logged = LoggedRow(
        prediction_id=prediction.id,
        release=prediction.release,
        score=float("nan") if score is None else score,
        inputs=prediction.inputs,
        features=found.features,
    )
    settings = project.settings.environments.get(prediction.environment)
    try:
        require_whole(logged, model.served, () if settings is None else settings.log.redact)
        rows = logged.rows(model)
        explainer = open_explainer(model, folder=project.root)
        require_same(logged, explainer.scorer, rows)
        attributed = explainer.attribute(rows, is_time=_within(_WITHIN_S))
    except DeploymentError as err:
        raise ConfigError(str(err)) from err
    except OutOfTime as err:
        raise ConfigError(
            f"{model.served.model}:{model.served.version} takes longer than {_WITHIN_S:g} s to explain a row"
        ) from err
    values = [logged.value_of(each) for each in model.served.inputs]
    (explained,) = explained_rows(model, explainer, attributed, [values], ids=[prediction.id])
    return explained


def _loaded(project: "Project", prediction: Prediction) -> LoadedModel:
    """Load the release that answered, as a worker does: verified by its stored rows."""
    name, _, number = prediction.release.rpartition(":")
    release = project.ledger.get_version("release", name, int(number))
    place = make_deployment(
        project.ledger,
        project.registry,
        project.storage,
        environment=prediction.environment,
        name=name,
        supervisor=None,
        trust=PickleTrust.of(project.settings.registry.trust_pickle),
        artifact=project.artifact_file,
    )
    served = serve_release(release, fetch=place.fetch, samples=place.samples, trusts=place.trusts)
    route = Route(
        environment=prediction.environment,
        deployment=prediction.deployment,
        number=prediction.route_number,
        id=prediction.route,
        entries=(RouteEntry(release=release.ref),),
        models=(served,),
    )
    return load_route(route, folder=project.root).models[release.ref]


def _within(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
