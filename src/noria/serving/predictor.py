"""From a request to its answer: ids, what is known, features, scores, the log.

Runs on one thread from the body's last byte to the answer, so two requests never see half of each other.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import DiskFull, NoriaError
from noria.features.on_demand_values import Computed
from noria.records import new_id
from noria.serving.index import MAX_ID_BYTES, Answer, PredictionIndex
from noria.serving.log import PredictionFrame, ReleaseScores, encode_frame
from noria.serving.looked_up import Places, TextMatrix, matrices_of
from noria.serving.models import LoadedModel, LoadedRoute, Target
from noria.serving.online import OnlineFeatures
from noria.serving.records import Input, assignment_point, pick
from noria.serving.requests import PREDICTION_ID, BadRequestError, Column, InferRequest, RequestError, shown
from noria.streams.spool import Spool

__all__ = ["Prediction", "Predictor"]

_LOG = logging.getLogger(__name__)
_ROW = msgspec.msgpack.Encoder()
_EXACT = 2**53  # whole numbers up to here are the same as int and as float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to a request, one entry per row, in its order."""

    route_number: int
    ids: list[str]
    scores: list[float]
    releases: list[str]
    versions: list[int]
    logged: int  # rows that were answered before and got that answer again
    scored: Mapping[str, int]  # newly scored rows by release
    answered: Mapping[str, int]  # newly answered rows by release
    failed: Mapping[str, int]  # rows whose on-demand features are missing because their function failed

    @property
    def outputs(self) -> Mapping[str, Sequence[object]]:
        """Give the columns of the answer by output name."""
        return {
            "score": self.scores,
            PREDICTION_ID: self.ids,
            "release": self.releases,
            "version": self.versions,
        }


class Predictor:
    """Answers requests by the route it holds; `switch` replaces that between two requests.

    Parameters
    ----------
    environment, deployment
        Whose predictions these are.
    clock
        With "replay" a request may carry its instant, with "wall" none may.
    spool, index
        Where predictions are logged and found again.
    features
        The online features, None where no model may need any.
    """

    def __init__(
        self,
        *,
        environment: str,
        deployment: str,
        clock: Literal["wall", "replay"],
        spool: Spool,
        index: PredictionIndex,
        features: OnlineFeatures | None,
    ) -> None:
        self._environment, self._deployment, self._clock = environment, deployment, clock
        self._spool, self._index, self._features = spool, index, features
        self.loaded: LoadedRoute | None = None

    def switch(self, loaded: LoadedRoute) -> None:
        """Answer by `loaded` from the next request on."""
        self.loaded = loaded

    def find_target(self, name: str, version: str | None) -> Target:
        """Give what a model's name, or name and version, means in the route.

        Raises
        ------
        RequestError
            404 if the route has no such model or version, 503 if there is no route yet.
        """
        if self.loaded is None:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "no route is loaded yet; try again soon")
        target = self.loaded.targets.get(name)
        if target is None:
            there = ", ".join(self.loaded.targets)
            raise RequestError(
                HTTPStatus.NOT_FOUND, f"there is no model {shown(name)} here; there is {there}"
            )
        if version is None:
            return target
        pinned = self.loaded.pinned.get((name, int(version))) if version.isdecimal() else None
        if pinned is None:
            there = ", ".join(str(number) for each, number in self.loaded.pinned if each == name) or "none"
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                f"the route has no version {shown(version)} of {shown(name)}; it has {there}",
            )
        return pinned

    def predict(self, request: InferRequest, *, target: Target, arrived_ns: int) -> Prediction:
        """Answer a request: log its new rows, then give all answers.

        Parameters
        ----------
        request
            What was asked.
        target
            Of `find_target`.
        arrived_ns
            `time.perf_counter_ns()` when the request arrived.

        Raises
        ------
        RequestError
            400 if it does not fit the model, 409 if an id was answered for other input, 503 if features or
            the log are away. Nothing of it is logged then.
        """
        loaded = self.loaded
        assert loaded is not None  # a target was found in it
        at = self._instant(request)
        ids, digests = _resolve_ids(request), _digests(request)
        known = self._index.find(ids)
        if conflicting := [
            ids[row] for row, each in enumerate(known) if each and each.digest != digests[row]
        ]:
            raise RequestError(
                HTTPStatus.CONFLICT,
                f"{len(conflicting)} prediction ids were answered before for other input: "
                f"{', '.join(map(shown, conflicting[:5]))}; send new ids for new input",
            )
        new = [row for row, each in enumerate(known) if each is None]
        scored: dict[str, int] = {}
        answered: dict[str, int] = {}
        failed: Mapping[str, int] = {}
        if new:
            frame, failed = self._score(
                loaded,
                target,
                at=at,
                ids=[ids[row] for row in new],
                digests=[digests[row] for row in new],
                columns=_take(request.columns, new, request.rows),
                arrived_ns=arrived_ns,
            )
            self._log(frame)
            for release in frame.releases:
                scored[release.release] = len(new)
                answered[release.release] = sum(release.answered)
                scores = release.score_array().tolist()
                for position, row in enumerate(new):
                    if release.answered[position]:
                        known[row] = Answer(digests[row], scores[position], release.version, release.release)
        answers = [each for each in known if each is not None]
        return Prediction(
            route_number=loaded.route.number,
            ids=ids,
            scores=[each.score for each in answers],
            releases=[each.release for each in answers],
            versions=[each.version for each in answers],
            logged=len(ids) - len(new),
            scored=scored,
            answered=answered,
            failed=failed,
        )

    def _instant(self, request: InferRequest) -> int:
        if self._clock == "wall":
            if request.at is not None:
                raise BadRequestError(
                    "parameter `at` is taken only where the environment's clock is 'replay'"
                )
            return time.time_ns() // 1_000
        if request.at is not None:
            return request.at
        position = self._position()
        if position is None:
            raise BadRequestError("this environment's clock is 'replay': send the instant as parameter `at`")
        return position

    def _position(self) -> int | None:
        try:
            return self._features.position() if self._features else None
        except (NoriaError, OSError) as err:
            raise _away(err) from err

    def _score(
        self,
        loaded: LoadedRoute,
        target: Target,
        *,
        at: int,
        ids: list[str],
        digests: list[bytes],
        columns: Mapping[str, Column],
        arrived_ns: int,
    ) -> tuple[PredictionFrame, Mapping[str, int]]:
        rows = len(ids)
        _check_columns(columns, target)
        numbers = {
            name: np.array(columns[name].values, dtype=np.float64) for name in target.number_columns
        }  # None becomes NaN
        texts = {name: columns[name].values for name in target.text_columns}
        features, feature_texts = self._read_features(target, rows, texts, at)
        shares = target.shares
        chosen = (
            [shares[0][0]] * rows
            if len(shares) == 1
            else [pick(shares, assignment_point(loaded.route.id, each)) for each in ids]
        )
        releases: list[ReleaseScores] = []
        failed: dict[str, int] = {}
        shared: tuple[tuple[Input, ...], Places, Places, str | None] | None = None
        for model in target.scoring:
            served, on_demand = model.served, model.on_demand
            places = target.columns.releases[served.release]
            text_places = target.texts.releases[served.release]
            needs = served.inputs, places, text_places, served.code_digest
            if shared != needs:  # versions of a model mostly share them, and so the matrix
                shared = needs
                by_name = {name: features[:, column] for name, column in places}
                computed: list[Computed] = []
                if on_demand is not None:
                    computed = on_demand.compute(rows, numbers, texts, by_name)
                    by_name |= on_demand.by_name(computed)
                texts_by_name = {name: feature_texts[:, column].tolist() for name, column in text_places}
                matrix = model.encode(rows, numbers, texts, by_name, texts_by_name)
            if on_demand is not None:
                on_demand.refuse(computed, [each == served.release for each in chosen])
                for name, count in on_demand.failed(computed).items():
                    failed[name] = max(count, failed.get(name, 0))  # versions may fail for other rows
            releases.append(
                ReleaseScores(
                    release=served.release,
                    model=served.model,
                    version=served.version,
                    scores=_predict(model, matrix).tobytes(),
                    answered=bytes(each == served.release for each in chosen),
                    computed_names=() if on_demand is None else on_demand.columns,
                    computed=b"" if on_demand is None else on_demand.matrix(computed).tobytes(),
                )
            )
        frame = PredictionFrame(
            at=at,
            recorded_at=time.time_ns() // 1_000,
            environment=self._environment,
            deployment=self._deployment,
            route=loaded.route.id,
            route_number=loaded.route.number,
            latency_us=(time.perf_counter_ns() - arrived_ns) // 1_000,
            ids=ids,
            digests=b"".join(digests),
            texts=texts,
            numbers={name: values.tobytes() for name, values in numbers.items()},
            feature_names=target.columns.names,
            features=target.columns.logged(features, chosen).tobytes(),
            releases=releases,
            feature_texts=dict(
                zip(target.texts.names, target.texts.logged(feature_texts, chosen).T.tolist(), strict=True)
            ),
        )
        return frame, failed

    def _read_features(
        self, target: Target, rows: int, texts: Mapping[str, Sequence[str | None]], at: int
    ) -> tuple[NDArray[np.float64], TextMatrix]:
        no_texts = np.empty((rows, 0), dtype=np.object_)
        if not target.views:
            return np.empty((rows, 0)), no_texts
        if self._features is None:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the model needs features, but no online store is set"
            )
        try:
            if target.reads_numbers_only:
                return self._features.read(target.views, texts, at), no_texts
            return matrices_of(target.views, self._features.read_values(target.views, texts, at), rows)
        except (NoriaError, OSError) as err:
            raise _away(err) from err

    def _log(self, frame: PredictionFrame) -> None:
        try:
            self._spool.append(encode_frame(frame))
        except DiskFull as err:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the disk of the prediction log is full; nothing was answered"
            ) from err
        except NoriaError as err:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the prediction log cannot be written; nothing was answered"
            ) from err
        self._index.add(frame)


def _away(error: Exception) -> RequestError:
    _LOG.warning("features cannot be looked up: %s", error)
    return RequestError(
        HTTPStatus.SERVICE_UNAVAILABLE, "features cannot be looked up now; the server's log says why"
    )


def _predict(model: LoadedModel, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return model.scorer.predict(matrix)
    except NoriaError as err:
        served = model.served
        raise RequestError(
            HTTPStatus.INTERNAL_SERVER_ERROR, f"{served.model}:{served.version} could not score the rows"
        ) from err


def _resolve_ids(request: InferRequest) -> list[str]:
    ids = request.prediction_ids
    if ids is None:
        if request.id is None:
            return [new_id() for _ in range(request.rows)]
        ids = [f"{request.id}-{row}" for row in range(request.rows)]
    elif len(ids) != request.rows:
        raise BadRequestError(f"there are {len(ids)} prediction ids for {request.rows} rows")
    elif len(set(ids)) < len(ids):
        twice = [each for each, count in Counter(ids).items() if count > 1]
        raise BadRequestError(
            f"{len(twice)} prediction ids are there twice: {', '.join(map(shown, twice[:5]))}"
        )
    try:
        if max(len(each.encode()) for each in ids) > MAX_ID_BYTES:
            raise BadRequestError(f"a prediction id is longer than {MAX_ID_BYTES} bytes")
    except UnicodeEncodeError as err:
        raise BadRequestError("a prediction id is no valid text") from err
    return ids


def _digests(request: InferRequest) -> list[bytes]:
    """Digest each row's request columns, the same whether a whole number came as INT64 or as FP64."""
    names = sorted(request.columns)
    values = [_comparable(request.columns[name]) for name in names]
    prefix = _digest_prefix(tuple(names))
    try:
        return [
            hashlib.blake2b(prefix + _ROW.encode(row), digest_size=16).digest()
            for row in (zip(*values, strict=True) if values else [()] * request.rows)
        ]
    except (UnicodeEncodeError, OverflowError) as err:
        raise BadRequestError("a value of the request cannot be kept: it is no valid text or number") from err


@lru_cache(maxsize=256)
def _digest_prefix(names: tuple[str, ...]) -> bytes:
    return _ROW.encode(names)


def _comparable(column: Column) -> list[object]:
    if column.is_text or column.datatype.startswith("FP"):
        return column.values
    return [
        float(value) if value is not None and -_EXACT <= value <= _EXACT else value for value in column.values
    ]


def _take(columns: Mapping[str, Column], rows: Sequence[int], total: int) -> Mapping[str, Column]:
    if len(rows) == total:
        return columns
    return {
        name: Column(column.datatype, [column.values[row] for row in rows])
        for name, column in columns.items()
    }


def _check_columns(columns: Mapping[str, Column], target: Target) -> None:
    wanted = (*target.text_columns, *target.number_columns)
    if missing := [name for name in wanted if name not in columns]:
        raise BadRequestError(f"inputs are missing: {', '.join(missing)}; {_expected(target)}")
    for name, column in columns.items():
        if name not in wanted:
            raise BadRequestError(f"there is no input {shown(name)}; {_expected(target)}")
        if column.is_text != (name in target.text_columns) and any(
            each is not None for each in column.values
        ):
            kind = "text (BYTES)" if name in target.text_columns else "a number (such as FP64)"
            raise BadRequestError(f"input {shown(name)} came as {column.datatype}, wanted is {kind}")


def _expected(target: Target) -> str:
    columns = [f"{name} (BYTES)" for name in target.text_columns]
    columns += [f"{name} (number)" for name in target.number_columns]
    return f"{shown(target.name)} takes {', '.join(columns) or 'no columns'}"
