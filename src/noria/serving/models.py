"""A route in memory: its models loaded and verified, and what a request to each name needs.

Nothing of a route serves before everything of it is verified: the digest of every model file, the columns,
and that the stored sample rows get the stored scores, bit for bit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError, DigestMismatch, NoriaError
from noria.features.declarations import ViewSpec
from noria.records import sha256_hex
from noria.serving.looked_up import LookedUp, looked_up_columns
from noria.serving.on_demand import OnDemandFeatures, load_on_demand
from noria.serving.records import ModelState, Route, ServedModel, split
from noria.serving.scorers import SERVED_FORMATS, FileScorer, open_scorer

__all__ = ["LoadedModel", "LoadedRoute", "RouteRefusedError", "Target", "load_route"]

Numbers = Mapping[str, NDArray[np.float64]]
Texts = Mapping[str, Sequence[str | None]]


class RouteRefusedError(DeploymentError):
    """A route cannot be served; `models` says which of its releases could be loaded."""

    def __init__(self, message: str, models: Iterable[ModelState] = ()) -> None:
        super().__init__(message)
        self.models = tuple(models)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model with the plan by which request columns and features become its matrix."""

    served: ServedModel
    scorer: FileScorer
    codes: Mapping[str, Mapping[str | None, float]]  # category or text column -> value -> code
    unseen: Mapping[str, float]  # category or text column -> code of a value that is not in the list
    on_demand: OnDemandFeatures | None = None

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Request columns that are numbers: of the model, and of its on-demand features."""
        own = [each.name for each in self.served.inputs if each.kind == "number"]
        read = [name for spec in self.served.on_demand for name in spec.numbers]
        return tuple(dict.fromkeys((*own, *read)))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Request columns that are strings: categories, entities of views, texts of on-demand features."""
        categories = [each.name for each in self.served.inputs if each.kind == "category"]
        entities = [column for view in self.served.views for column in view.entity]
        read = [name for spec in self.served.on_demand for name in spec.texts]
        return tuple(dict.fromkeys((*categories, *entities, *read)))

    def encode(
        self,
        rows: int,
        numbers: Numbers,
        texts: Texts,
        features: Mapping[str, NDArray[np.float64]],
        feature_texts: Texts,
    ) -> NDArray[np.float64]:
        """Build the model's matrix, float64 of shape (rows, inputs)."""
        matrix = np.empty((rows, len(self.served.inputs)))
        for position, column in enumerate(self.served.inputs):
            name = column.name
            match column.kind:
                case "feature":
                    matrix[:, position] = features[name]
                case "number":
                    matrix[:, position] = numbers[name]
                case "category" | "text":
                    given = texts if column.kind == "category" else feature_texts
                    codes, unseen = self.codes[name], self.unseen[name]
                    matrix[:, position] = [codes.get(value, unseen) for value in given[name]]
        return matrix


@dataclass(frozen=True, slots=True)
class Target:
    """What a name in a request's path means: who scores, who answers, and the columns that it takes."""

    name: str
    scoring: tuple[LoadedModel, ...]
    shares: tuple[tuple[str, float], ...]  # answering release, upper end of its part of [0, 1)
    views: tuple[ViewSpec, ...]  # releases may need different definitions of one
    columns: LookedUp
    texts: LookedUp
    reads_numbers_only: bool  # of the views
    number_columns: tuple[str, ...]
    text_columns: tuple[str, ...]

    @property
    def versions(self) -> tuple[int, ...]:
        """Versions that score, in the route's order."""
        return tuple(dict.fromkeys(model.served.version for model in self.scoring))

    def find_model(self, release: str) -> LoadedModel | None:
        """Give the model of a release that scores here."""
        return next((model for model in self.scoring if model.served.release == release), None)


@dataclass(frozen=True, slots=True)
class LoadedRoute:
    """A route that can answer."""

    route: Route
    models: Mapping[str, LoadedModel]  # by release
    targets: Mapping[str, Target]  # by model name, and by the deployment's name for the whole route
    pinned: Mapping[tuple[str, int], Target]  # by model name and version


def load_route(route: Route, *, folder: Path, known: LoadedRoute | None = None) -> LoadedRoute:
    """Load and verify every model of a route. Takes long; call it beside the loop that answers.

    Parameters
    ----------
    route
        What to load.
    folder
        Where relative model paths start.
    known
        The route that answers now: models that are in both are not loaded again.

    Raises
    ------
    RouteRefusedError
        If anything of it cannot be served.
    """
    _check_entries(route)
    wanted = {entry.release for entry in route.entries}
    models: dict[str, LoadedModel] = {}
    states: list[ModelState] = []
    for served in route.models:
        if served.release not in wanted:
            continue
        error = None
        try:
            old = known.models.get(served.release) if known else None
            models[served.release] = old if old and old.served == served else _load_model(served, folder)
        except NoriaError as err:
            error = str(err)
        states.append(
            ModelState(
                release=served.release,
                model=served.model,
                version=served.version,
                ready=error is None,
                error=error,
            )
        )
    refused = [f"{state.model}:{state.version}: {state.error}" for state in states if state.error]
    if refused:
        raise RouteRefusedError("; ".join(refused), states)
    try:
        return _bind(route, models)
    except DeploymentError as err:
        raise RouteRefusedError(str(err), states) from err


def _check_entries(route: Route) -> None:
    given = {served.release for served in route.models}
    releases = [entry.release for entry in route.entries]
    weights = [entry.weight for entry in route.entries]
    if missing := [release for release in releases if release not in given]:
        raise RouteRefusedError(
            f"the route names releases whose model it does not hold: {', '.join(missing)}"
        )
    if len(set(releases)) < len(releases) or len(given) < len(route.models):
        raise RouteRefusedError("the route names a release twice")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise RouteRefusedError("a weight of the route is negative or no number")
    if not any(entry.mode == "answer" and entry.weight > 0 for entry in route.entries):
        raise RouteRefusedError("no release of the route answers; give one a weight above 0")


def _load_model(served: ServedModel, folder: Path) -> LoadedModel:
    if served.format not in SERVED_FORMATS:  # told before a file is looked for
        raise DeploymentError(
            f"models of format {served.format!r} are not served; there is {', '.join(SERVED_FORMATS)}"
        )
    path = folder / served.path
    try:
        text = path.read_bytes()
    except OSError as err:
        raise DeploymentError(f"the model file {path} cannot be read: {err.strerror}") from err
    if (found := sha256_hex(text)) != served.digest:
        raise DigestMismatch(f"the model file {path}", served.digest, found)
    looked_up = {column for view in served.views for column in view.matrix_columns}
    columns = looked_up.union(*(spec.columns for spec in served.on_demand))
    looked_up_texts = {column for view in served.views for column in view.text_columns}
    unknown = [
        each.name
        for each in served.inputs
        if (each.kind == "feature" and each.name not in columns)
        or (each.kind == "text" and each.name not in looked_up_texts)
    ]
    if unknown:
        raise DeploymentError(f"no view of the model gives its features {', '.join(unknown)}")
    for spec in served.on_demand:
        if lacking := [name for name in spec.features if name not in looked_up]:
            raise DeploymentError(
                f"nothing gives {', '.join(lacking)}, which the on-demand feature {spec.name!r} reads"
            )
        looked_up.update(spec.columns)
    scorer = open_scorer(served.format, text)
    if scorer.columns is not None and scorer.columns != len(served.inputs):
        raise DeploymentError(
            f"the model takes {scorer.columns} columns, its signature has {len(served.inputs)}"
        )
    categories = [each for each in served.inputs if each.kind in ("category", "text")]
    model = LoadedModel(
        served=served,
        scorer=scorer,
        codes={
            each.name: {None: math.nan, **{value: float(code) for code, value in enumerate(each.categories)}}
            for each in categories
        },
        unseen={each.name: math.nan if each.unseen == "nan" else -1.0 for each in categories},
        on_demand=load_on_demand(served, folder),
    )
    _verify_samples(model)
    return model


def _verify_samples(model: LoadedModel) -> None:
    samples, width = model.served.samples, len(model.served.inputs)
    rows = len(samples.scores) // 8
    if not rows or len(samples.scores) != 8 * rows or len(samples.matrix) != 8 * rows * width:
        raise DeploymentError(
            f"its sample rows do not fit: {len(samples.scores)} bytes of scores and "
            f"{len(samples.matrix)} of a matrix with {width} columns"
        )
    wanted = np.frombuffer(samples.scores, dtype="<f8")
    found = model.scorer.predict(np.frombuffer(samples.matrix, dtype="<f8").reshape(rows, width))
    differing = np.flatnonzero(found.view(np.int64) != wanted.view(np.int64))
    if len(differing):
        raise DeploymentError(
            f"{len(differing)} of {rows} sample rows get another score than was stored with the version "
            f"(row {differing[0]}: {found[differing[0]]!r} instead of {wanted[differing[0]]!r}); "
            "train and register it again with the library that is installed"
        )


def _bind(route: Route, models: Mapping[str, LoadedModel]) -> LoadedRoute:
    targets: dict[str, Target] = {}
    pinned: dict[tuple[str, int], Target] = {}
    in_order = [models[entry.release] for entry in route.entries]
    for name in dict.fromkeys(model.served.model for model in in_order):
        own = [model for model in in_order if model.served.model == name]
        targets[name] = _target(name, own, route)
        for model in own:
            key = (name, model.served.version)
            if key in pinned:
                raise DeploymentError(f"the route holds {name}:{model.served.version} twice")
            pinned[key] = _target(name, [model], route)
    targets[route.deployment] = _target(route.deployment, in_order, route)
    if len({model.served.model for model in in_order}) == 1:
        pinned.update({(route.deployment, version): each for (_, version), each in list(pinned.items())})
    return LoadedRoute(route=route, models=models, targets=targets, pinned=pinned)


def _target(name: str, models: Sequence[LoadedModel], route: Route) -> Target:
    numbers = tuple(dict.fromkeys(column for model in models for column in model.number_columns))
    texts = tuple(dict.fromkeys(column for model in models for column in model.text_columns))
    if both := sorted(set(numbers) & set(texts)):
        raise DeploymentError(
            f"{', '.join(both)} would have to be both number and text; an entity or a category is text"
        )
    views = tuple(dict.fromkeys(view for model in models for view in model.served.views))
    needed = [(each.served.release, each.served.views) for each in models]
    return Target(
        name=name,
        scoring=tuple(models),
        shares=_shares(models, route),
        views=views,
        columns=looked_up_columns(views, needed),
        texts=looked_up_columns(views, needed, named=lambda view: view.text_columns),
        reads_numbers_only=all(view.model_columns == view.number_columns for view in views),
        number_columns=numbers,
        text_columns=texts,
    )


def _shares(models: Sequence[LoadedModel], route: Route) -> tuple[tuple[str, float], ...]:
    """Give the parts of those that answer; where none does (a pinned shadow), the first."""
    own = {model.served.release for model in models}
    part = [entry for entry in route.entries if entry.release in own]
    shares = tuple(split(part))
    return shares or ((models[0].served.release, 1.0),)
