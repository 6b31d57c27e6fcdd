"""Explains requests to one deployment, and predictions that it answered, behind its answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np

from noria.errors import DeploymentError, DigestMismatch, NoriaError
from noria.explain.sampling import OutOfTime
from noria.serving.explaining.explainers import open_explainer
from noria.serving.explaining.logged import find_frame, require_same, require_whole, row_of_frame
from noria.serving.explaining.records import Adds, Attributed, Explained, Explainer, OfNumber
from noria.serving.explaining.sampled import seed_of
from noria.serving.models import LoadedModel
from noria.serving.process.hosting import Hosted
from noria.serving.records import Input, Limits
from noria.serving.requests import InferRequest, RequestError, shown
from noria.serving.rows import Rows
from noria.serving.scoring import Part, score

__all__ = ["Explanations", "explained_rows"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_WAITING = 16  # explanations; one more is refused
_SAVED_S = 5.0  # of the time that explanations may take: so much at once, where none was asked for before
_EXPLAINER = "explainer"  # what a loaded model keeps it by


class Explanations:
    """Explains for one deployment, in the thread of its batcher. Belongs to one event loop.

    Explanations take a share of one core at most: who asks for more is refused, and told when to ask again.

    Parameters
    ----------
    hosted
        The deployment.
    limits
        What the server is set to.
    """

    def __init__(self, hosted: Hosted, limits: Limits) -> None:
        self._hosted, self._limits = hosted, limits
        self._waiting = 0
        self._left_s, self._at = _SAVED_S, time.monotonic()

    async def of_request(self, request: InferRequest, *, name: str, version: str | None) -> list[Explained]:
        """Explain what the rows of a request are answered, each by the release that answers it.

        Nothing is logged: these are no predictions. A prediction id only says which release answers.

        Raises
        ------
        RequestError
            As a prediction does; 413 if there are more rows than are explained at once, 503 if explanations
            take more time than they may, 504 if this one does.
        """
        if request.rows > self._limits.max_explained_rows:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {request.rows} rows, at most {self._limits.max_explained_rows} are "
                "explained at once; send several",
            )
        predictor, batcher = self._hosted.predictor, self._hosted.batcher
        await batcher.awaken()
        job = predictor.job(request, name, version, arrived_ns=time.perf_counter_ns())
        if batcher.is_inline(job.target, job.target.cost_us(request.rows)):
            part = predictor.part(job)  # as quick as of a prediction
            return await self._beside(lambda: self._of_part(part))
        return await self._beside(lambda: self._of_part(predictor.part(job)))

    async def of_prediction(self, prediction_id: str, *, name: str, version: str | None) -> Explained:
        """Explain a prediction that was answered, by its values in the log that is not shipped yet.

        Raises
        ------
        RequestError
            404 if it was not answered here, by no release of the route, or is not in that log; else as
            `of_request`.
        """
        await self._hosted.batcher.awaken()
        target = self._hosted.predictor.find_target(name, version)
        (answer,) = self._hosted.index.find([prediction_id])
        if answer is None:
            raise RequestError(
                HTTPStatus.NOT_FOUND, f"no prediction {shown(prediction_id)} was answered here; send its id"
            )
        model = target.find_model(answer.release)
        if model is None:
            raise _elsewhere(prediction_id, f"it was answered by {answer.release}, which is not loaded here")
        (stamp,) = self._hosted.index.stamps([prediction_id])
        return await self._beside(lambda: self._of_logged(prediction_id, model, stamp))

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do work in the thread that scores, if there is time for it."""
        self._require_time()
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            return await self._hosted.batcher.beside(
                lambda: self._timed(work, lambda took_s: loop.call_soon_threadsafe(self._spend, took_s))
            )
        finally:
            self._waiting -= 1

    def _require_time(self) -> None:
        share, now = self._limits.explain_share, time.monotonic()
        if not share:
            raise RequestError(HTTPStatus.FORBIDDEN, "explanations are switched off on this server")
        self._left_s, self._at = min(_SAVED_S, self._left_s + share * (now - self._at)), now
        if self._left_s <= 0 or self._waiting >= _WAITING:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"explanations may take {share:.0%} of a core here, which is used up; ask again later",
                retry_after_s=max(1, round(-self._left_s / share)),
            )

    def _spend(self, took_s: float) -> None:
        self._left_s -= took_s

    def _timed(self, work: Callable[[], T], tell: Callable[[float], object]) -> T:
        started = time.perf_counter()
        try:
            return work()
        except OutOfTime as err:
            raise RequestError(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"explaining took longer than {self._limits.explain_timeout_s:g} s; send fewer rows",
            ) from err
        finally:
            tell(time.perf_counter() - started)

    def _deadline(self) -> Callable[[], bool]:
        end = time.perf_counter() + self._limits.explain_timeout_s
        return lambda: time.perf_counter() < end

    def _of_part(self, part: Part) -> list[Explained]:
        found: list[Explained | None] = [None] * part.bound.rows
        for release in dict.fromkeys(part.chosen):
            model = part.job.target.find_model(release)
            assert model is not None  # an assignment names releases of its target
            mine = [place for place, each in enumerate(part.chosen) if each == release]
            if model.on_demand is not None:
                model.on_demand.refuse(part.computed_of(model), [each == release for each in part.chosen])
            values = _values_of(part, model)
            explained = self._explain(
                model,
                _taken(part.rows_of(model), mine),
                [[column[row] for column in values] for row in mine],
                ids=[part.job.ids[row] for row in mine] if part.job.names_ids else None,
            )
            for row, each in zip(mine, explained, strict=True):
                found[row] = each
        return [each for each in found if each is not None]

    def _of_logged(self, prediction_id: str, model: LoadedModel, stamp: int) -> Explained:
        frame = find_frame(self._hosted.folder, prediction_id, stamp=stamp, is_time=self._deadline())
        if frame is None:
            raise _elsewhere(prediction_id, "its values are not in the log of this server any more")
        logged = row_of_frame(*frame)
        try:
            require_whole(logged, model.served, self._hosted.redacted)
            rows = logged.rows(model)
            require_same(logged, self._explainer(model).scorer, rows)
            values = [logged.value_of(each) for each in model.served.inputs]
        except DeploymentError as err:
            raise RequestError(HTTPStatus.NOT_FOUND, str(err)) from err
        (found,) = self._explain(model, rows, [values], ids=[prediction_id])
        return found

    def _explain(
        self, model: LoadedModel, rows: Rows, values: Sequence[Sequence[Any]], *, ids: Sequence[str] | None
    ) -> list[Explained]:
        explainer = self._explainer(model)
        score(replace(model, scorer=explainer.scorer), rows)  # refuses what a prediction is refused for
        try:
            found = explainer.attribute(rows, is_time=self._deadline())
        except NoriaError as err:
            raise _failure(model) from err
        return explained_rows(model, explainer, found, values, ids=ids)

    def _explainer(self, model: LoadedModel) -> Explainer:
        """Give what explains by a model: kept with it, so that it goes when the model does."""
        made: Explainer | None = model.made.get(_EXPLAINER)
        if made is None:
            try:
                made = open_explainer(model, folder=self._hosted.folder)
            except DigestMismatch as err:
                _LOG.error("nothing is explained: %s", err)
                raise _failure(model) from err
            except DeploymentError as err:
                raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(err)) from err
            model.made[_EXPLAINER] = made
        return made


def explained_rows(
    model: LoadedModel,
    explainer: Explainer,
    found: Attributed,
    values: Sequence[Sequence[Any]],
    *,
    ids: Sequence[str] | None = None,
) -> list[Explained]:
    """Tell what inputs add, row by row.

    Parameters
    ----------
    values
        Of each row, what its inputs are, in the model's order.
    ids
        Of the predictions, where they have any.
    """
    served, is_sampled = model.served, found.errors is not None
    return [
        Explained(
            model=served.model,
            version=served.version,
            release=served.release,
            method=found.method,
            unit=found.unit,
            numbers=tuple(
                _of_number(served.inputs, values[row], found, (row, number), label=label)
                for number, label in enumerate(explainer.labels or ("",))
            ),
            orders=found.orders,
            seed=seed_of(served) if is_sampled else 0,
            prediction_id=None if ids is None else ids[row],
        )
        for row in range(len(found.values))
    ]


def _of_number(
    inputs: Sequence[Input], values: Sequence[Any], found: Attributed, at: tuple[int, int], *, label: str
) -> OfNumber:
    adds, base = found.values[at], float(found.base[at])
    errors = None if found.errors is None else found.errors[at]
    order = np.argsort(-np.abs(adds), kind="stable").tolist()
    return OfNumber(
        label=label,
        score=float(found.scores[at]),
        base=base,
        total=base + float(adds.sum()),
        contributions=tuple(
            Adds(
                name=inputs[place].name,
                kind=inputs[place].kind,
                value=values[place],
                contribution=float(adds[place]),
                error=None if errors is None else float(errors[place]),
            )
            for place in order
        ),
    )


def _values_of(part: Part, model: LoadedModel) -> list[Sequence[Any]]:
    """Give what the inputs of a model are, row by row, as they were sent, looked up, or computed."""
    target, bound, release = part.job.target, part.bound, model.served.release
    looked_up = dict(target.columns.releases[release])
    texts = dict(target.texts.releases[release])
    computed = {} if model.on_demand is None else model.on_demand.by_name(part.computed_of(model))
    found: list[Sequence[Any]] = []
    for each in model.served.inputs:
        match each.kind:
            case "number":
                values = bound.numbers[:, target.plan.places[each.name]]
                found.append((values[:, 0] if each.width == 1 else values).tolist())
            case "category" | "string":
                found.append(bound.texts[each.name])
            case "text":
                found.append(part.feature_texts[:, texts[each.name]].tolist())
            case "feature" if each.name in looked_up:
                found.append(part.features[:, looked_up[each.name]].tolist())
            case "feature":
                found.append(computed[each.name].tolist())
    return found


def _taken(rows: Rows, places: Sequence[int]) -> Rows:
    if len(places) == rows.count:
        return rows
    strings = {name: [values[each] for each in places] for name, values in rows.strings.items()}
    return Rows(np.ascontiguousarray(rows.matrix[list(places)]), strings)


def _failure(model: LoadedModel) -> RequestError:
    served = model.served
    return RequestError(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"{served.model}:{served.version} could not be explained"
    )


def _elsewhere(prediction_id: str, why: str) -> RequestError:
    return RequestError(
        HTTPStatus.NOT_FOUND,
        f"prediction {shown(prediction_id)} cannot be explained here: {why}; in its project "
        "`noria explain PREDICTION_ID`, or `project.explain(prediction_id)`, explains it from the lake",
    )
