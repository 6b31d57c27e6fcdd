"""A route in memory: its models loaded and verified, and what a request to each name needs.

Nothing of a route serves before everything of it is verified: the digest of every model file, the columns,
and that the stored sample rows get the stored scores, bit for bit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from noria.errors import DeploymentError, DigestMismatch, NoriaError
from noria.features.declarations import ViewSpec
from noria.records import sha256_hex
from noria.serving.assignment import Assignment
from noria.serving.binding import RequestColumn, RequestPlan
from noria.serving.encoding import Codes, Encoding
from noria.serving.features.looked_up import LookedUp, looked_up_columns
from noria.serving.features.on_demand import OnDemandFeatures, load_on_demand
from noria.serving.formats.samples import measure, verify_samples
from noria.serving.formats.scorers import SERVED_FORMATS, Scorer, open_scorer
from noria.serving.records import Input, ModelState, Output, Route, ServedModel
from noria.serving.requests import RequestError, shown

__all__ = ["LoadedModel", "LoadedRoute", "RouteRefusedError", "Target", "load_route", "read_verified"]

_SAVES = 2.0


class RouteRefusedError(DeploymentError):
    """A route cannot be served; `models` says which of its releases could be loaded."""

    def __init__(self, message: str, models: Iterable[ModelState] = ()) -> None:
        super().__init__(message)
        self.models = tuple(models)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model, and what scoring with it costs.

    Attributes
    ----------
    scorer
        What scores.
    codes
        Of its categories and texts by name.
    on_demand
        Its on-demand features, None where it has none.
    row_us
        Wall time of scoring one row, in microseconds, measured on its sample rows.
    more_us
        Of each more row of the same request.
    made
        What others make of it when first asked, such as what explains by it; it goes when the model goes.
    """

    served: ServedModel
    scorer: Scorer
    codes: Mapping[str, Codes]
    on_demand: OnDemandFeatures | None = None
    row_us: float = 0.0
    more_us: float = 0.0
    made: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def request_columns(self) -> tuple[RequestColumn, ...]:
        """What a request brings: for the model, for its on-demand features, and the entities of its views."""
        columns: dict[str, RequestColumn] = {}

        def add(name: str, *, is_text: bool, column: Input | None = None) -> None:
            datatype = (column.datatype if column else "") or ("BYTES" if is_text else "FP64")
            columns.setdefault(
                name,
                RequestColumn(
                    name,
                    is_text=is_text,
                    width=column.width if column else 1,
                    datatype=datatype,
                    optional=column.optional if column else False,
                ),
            )

        for each in self.served.inputs:
            if each.kind in ("number", "category", "string"):
                add(each.name, is_text=each.kind != "number", column=each)
        for view in self.served.views:
            for entity in view.entity:
                add(entity, is_text=True)
        for spec in self.served.on_demand:
            for name in spec.numbers:
                add(name, is_text=False)
            for name in spec.texts:
                add(name, is_text=True)
        return tuple(columns.values())

    def cost_us(self, rows: int) -> float:
        """Give how long scoring so many rows at once is expected to take."""
        return self.row_us + self.more_us * (rows - 1)


@dataclass(frozen=True, slots=True)
class Target:
    """What a name in a request's path means: who scores, who answers, and the columns that it takes."""

    name: str
    scoring: tuple[LoadedModel, ...]  # before the answer leaves
    shadows: tuple[LoadedModel, ...]  # after it
    assignment: Assignment  # which release answers a row
    views: tuple[ViewSpec, ...]  # releases may need different definitions of one
    columns: LookedUp
    texts: LookedUp
    reads_numbers_only: bool  # of the views
    plan: RequestPlan
    encodings: Mapping[str, Encoding]  # by release
    outputs: tuple[Output, ...]
    is_native: bool  # nothing that scores before the answer can hang or wait
    row_us: float  # scoring one row before the answer takes about so long, and each more so much more
    more_us: float
    gains: bool  # requests are scored together: a row of another's costs less than one alone

    @property
    def versions(self) -> tuple[int, ...]:
        """Versions that are there, in the route's order."""
        return tuple(dict.fromkeys(model.served.version for model in (*self.scoring, *self.shadows)))

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """All that score, before the answer or after."""
        return (*self.scoring, *self.shadows)

    def cost_us(self, rows: int) -> float:
        """Give how long scoring so many rows is expected to take before the answer."""
        return self.row_us + self.more_us * (rows - 1)

    def find_model(self, release: str) -> LoadedModel | None:
        """Give the model of a release that scores here."""
        return next((model for model in self.models if model.served.release == release), None)


@dataclass(frozen=True, slots=True)
class LoadedRoute:
    """A route that can answer, unless it rests: then its models are not in memory."""

    route: Route
    models: Mapping[str, LoadedModel]  # by release
    targets: Mapping[str, Target]  # by model name, and by the deployment's name for the whole route
    pinned: Mapping[tuple[str, int], Target]  # by model name and version
    is_resting: bool = False

    def find(self, name: str, version: str | None) -> Target:
        """Give what a model's name, or name and version, means. Raises `RequestError` (404) for neither."""
        target = self.targets.get(name)
        if target is None:
            there = ", ".join(self.targets)
            raise RequestError(
                HTTPStatus.NOT_FOUND, f"there is no model {shown(name)} here; there is {there}"
            )
        if version is None:
            return target
        pinned = self.pinned.get((name, int(version))) if _is_number(version) else None
        if pinned is None:
            there = ", ".join(str(number) for each, number in self.pinned if each == name) or "none"
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                f"the route has no version {shown(version)} of {shown(name)}; it has {there}",
            )
        return pinned


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


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
        return bind_route(route, models)
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
    data = read_verified(folder / served.path, served.digest, "the model file") if served.path else b""
    for file in served.files:
        read_verified(folder / file.path, file.digest, "the model's file")
    _check_features(served)
    scorer = open_scorer(served, data, folder=folder)
    width = sum(each.width for each in served.inputs if each.kind != "string")
    if scorer.columns is not None and scorer.columns != width:
        raise DeploymentError(f"the model takes {scorer.columns} columns, its signature has {width}")
    if scorer.outputs != served.outputs:
        raise DeploymentError(
            f"the model gives {_told(scorer.outputs)}, its signature says {_told(served.outputs)}"
        )
    model = LoadedModel(
        served=served,
        scorer=scorer,
        codes={each.name: Codes(each) for each in served.inputs if each.kind in ("category", "text")},
        on_demand=load_on_demand(served, folder),
    )
    rows = verify_samples(served, scorer, width=width)
    row_us, more_us = measure(scorer, rows)
    return replace(model, row_us=row_us, more_us=more_us)


def read_verified(path: Path, digest: str, what: str) -> bytes:
    """Give the bytes of a file that has to have this digest; raises `DeploymentError`, `DigestMismatch`."""
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DeploymentError(f"{what} {path} cannot be read: {err.strerror}") from err
    if (found := sha256_hex(data)) != digest:
        raise DigestMismatch(f"{what} {path}", digest, found)
    return data


def _check_features(served: ServedModel) -> None:
    """Refuse a model whose features nothing gives."""
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


def _told(outputs: Sequence[Output]) -> str:
    return ", ".join(
        f"{each.name} ({each.datatype}{f' of {each.width}' if each.width else ''})" for each in outputs
    )


def bind_route(route: Route, models: Mapping[str, LoadedModel]) -> LoadedRoute:
    """Give what the names in requests' paths mean, by the models of a route.

    Raises
    ------
    DeploymentError
        If the models cannot answer together.
    """
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
    own = {model.served.release for model in models}
    assignment = Assignment(route, releases=own)
    plan = _plan(models, [*([assignment.column] if assignment.column else []), *route.brought])
    answering = {
        entry.release for entry in route.entries if entry.release in own and entry.mode == "answer"
    } or {models[0].served.release}  # a shadow that is asked for by its version
    shadows = own - answering
    outputs = next(model.scorer.outputs for model in models if model.served.release in answering)
    for model in models:
        if model.served.release in answering and model.scorer.outputs != outputs:
            raise DeploymentError(
                f"{model.served.model}:{model.served.version} gives {_told(model.scorer.outputs)}, another "
                f"release that answers gives {_told(outputs)}; releases of one route have to give the same"
            )
    views = tuple(dict.fromkeys(view for model in models for view in model.served.views))
    needed = [(each.served.release, each.served.views) for each in models]
    columns = looked_up_columns(views, needed)
    texts = looked_up_columns(views, needed, named=lambda view: view.text_columns)
    made: dict[object, Encoding] = {}  # versions of a model mostly read the same, and share the rows then
    encodings: dict[str, Encoding] = {}
    for model in models:
        served = model.served
        places, text_places = columns.releases[served.release], texts.releases[served.release]
        reads = served.inputs, places, text_places, served.code_digest
        if reads not in made:
            made[reads] = Encoding(
                served.inputs, model.codes, plan=plan, places=places, text_places=text_places
            )
        encodings[served.release] = made[reads]
    scoring = tuple(each for each in models if each.served.release not in shadows)
    return Target(
        name=name,
        scoring=scoring,
        shadows=tuple(each for each in models if each.served.release in shadows),
        assignment=assignment,
        views=views,
        columns=columns,
        texts=texts,
        reads_numbers_only=all(view.model_columns == view.number_columns for view in views),
        plan=plan,
        encodings=encodings,
        outputs=outputs,
        is_native=all(each.scorer.is_native for each in scoring),
        row_us=sum(each.row_us for each in scoring),
        more_us=sum(each.more_us for each in scoring),
        gains=any(_SAVES * each.more_us < each.row_us for each in scoring),
    )


def _plan(models: Sequence[LoadedModel], units: Sequence[str]) -> RequestPlan:
    """Give the columns that some model reads, and those by which rows are, or were, assigned to releases."""
    columns: dict[str, RequestColumn] = {}
    for column in (each for model in models for each in model.request_columns):
        known = columns.setdefault(column.name, column)
        if known.is_text != column.is_text:
            raise DeploymentError(
                f"{column.name} would have to be both number and text; an entity or a category is text"
            )
        if known.width != column.width:
            raise DeploymentError(f"{column.name} would have to be {known.width} and {column.width} numbers")
        if known.optional and not column.optional:
            columns[column.name] = column
    for unit in units:
        if unit not in columns:
            columns[unit] = RequestColumn(unit, is_text=True, datatype="BYTES", optional=True, is_any=True)
    return RequestPlan(columns.values())
