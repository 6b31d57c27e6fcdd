"""From requests to their answers: ids, what is known, features, scores, the log.

Requests that arrived together are answered together: their answers are found in one transaction, their frames
reach the log by one write and the index by another. Each is logged before any of them leaves.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal

from noria.errors import DiskFull, NoriaError
from noria.serving.asking import Asking
from noria.serving.binding import bind, digests_of_request
from noria.serving.counts import RouteCounts
from noria.serving.features.lookups import Asked, Lookups
from noria.serving.features.online import OnlineFeatures
from noria.serving.formats.scorers import Rows, Values
from noria.serving.jobs import Job, resolve_ids
from noria.serving.logs.answers import answers_of, fits, output_columns
from noria.serving.logs.framing import Framer
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import PredictionFrame, ReleaseScores
from noria.serving.logs.log_writing import LogWriter
from noria.serving.models import LoadedModel, LoadedRoute, Target
from noria.serving.records import SCORE, LogRules
from noria.serving.requests import (
    BadRequestError,
    InferRequest,
    OutputColumn,
    Prediction,
    RequestError,
    shown,
)
from noria.serving.scoring import Part, alike, joined, kept, missing
from noria.streams.spool import Spool

__all__ = ["Predictor"]

_LOG = logging.getLogger(__name__)
_ALL = LogRules()
_NONE: Mapping[str, int] = {}


class Predictor:
    """Answers requests to one deployment; `switch` replaces its route between two of them.

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
    log
        What is kept of each prediction.
    asking
        What asks the models.

    Attributes
    ----------
    counts
        What each release of the route did since it answers here.
    log
        What writes it.
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
        log: LogRules = _ALL,
        asking: Asking | None = None,
    ) -> None:
        self.log = LogWriter(spool, log)
        self.counts = RouteCounts(route=0)
        self._clock, self._index = clock, index
        self._lookups, self._asking = Lookups(features), asking or Asking()
        self._framer = Framer(environment=environment, deployment=deployment, log=self.log)
        self.loaded: LoadedRoute | None = None

    def switch(self, loaded: LoadedRoute) -> None:
        """Answer by `loaded` from the next request on."""
        if self.loaded is None or self.loaded.route.number != loaded.route.number:
            self.counts = RouteCounts(route=loaded.route.number)
        self._lookups.forget()
        self._asking.hold(loaded)
        self.loaded = loaded

    @property
    def waits_for_disk(self) -> bool:
        """Whether answers wait until their log is on the disk."""
        return self.log.is_synchronous

    def may_wait(self, target: Target) -> bool:
        """Say whether answers of a target wait for something that others need not wait for."""
        return self.waits_for_disk or self._lookups.may_wait(target)

    def close(self) -> None:
        """Let go of the models."""
        self.loaded = None

    def job(self, request: InferRequest, name: str, version: str | None, *, arrived_ns: int) -> Job:
        """Take a request for a model, or for a version of it.

        Raises
        ------
        RequestError
            404 if the route has no such model or version, 503 if there is no route yet.
        """
        target = self.find_target(name, version)
        assert self.loaded is not None  # a target was found in it
        return Job(request, self.loaded, target, arrived_ns)

    def find_target(self, name: str, version: str | None) -> Target:
        """Give what a model's name, or name and version, means in the route. Raises as `job` does."""
        if self.loaded is None:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "no route is loaded yet; try again soon", retry_after_s=1
            )
        return self.loaded.find(name, version)

    def predict(self, request: InferRequest, *, target: Target, arrived_ns: int) -> Prediction:
        """Answer one request; what the server does for many by `answer`. Raises what it is refused by."""
        assert self.loaded is not None  # a target was found in it
        job = Job(request, self.loaded, target, arrived_ns)
        waiting = [job]
        while waiting:
            waiting = self.answer(waiting)
        self.score_shadows([job])
        if job.error is not None:
            raise job.error
        assert job.prediction is not None
        return job.prediction

    def part(self, job: Job) -> Part:
        """Bind a request and look its features up, for one who explains it. Raises what it is refused by."""
        request = job.request
        job.ids, job.new = resolve_ids(request), list(range(request.rows))
        job.bound = bind(request, job.target.plan, name=job.target.name)
        at = self._instant(request, time.time_ns() // 1_000)
        (found,) = self._lookups.find([Asked(job.target, job.bound, at)])
        if isinstance(found, RequestError):
            raise found
        return Part(job, job.bound, found.numbers, found.texts, at=at)

    def answer(self, jobs: Sequence[Job]) -> list[Job]:
        """Answer requests, and give back those that have to be asked again.

        New rows are in the log when this returns. A request that names an id which another one, here or in
        another process, is just being answered for waits for that answer.
        """
        ready: list[Job] = []
        again: list[Job] = []
        claimed = set[str]()
        for job in jobs:
            try:
                self._prepare(job)
            except RequestError as err:
                job.error = err
                continue
            if job.names_ids:
                if not claimed.isdisjoint(job.ids):
                    again.append(job)
                    continue
                claimed.update(job.ids)
            ready.append(job)
        named = [job for job in ready if job.names_ids]
        if named:
            self._find_known(named)
        scoring = [job for job in ready if job.new and job.error is None]
        parts = self._score(scoring) if scoring else []
        try:
            scored = [part for part in parts if part.job.error is None]
            if scored:
                again += self._log(scored)
            for job in ready:
                if job.error is None and (not job.new or job.scores):
                    job.prediction = self._prediction(job)
        finally:  # those that are not done are asked again, each alone where the program had a fault
            self._observe(part for part in parts if part.job.is_done)
        return again

    def score_shadows(self, jobs: Iterable[Job]) -> None:
        """Score what was newly answered by the releases that are tried in the shadow, and log it.

        Their failures are theirs: they are told in the server's log.
        """
        frames: list[PredictionFrame] = []
        for job in jobs:
            if job.frame is None or not job.target.shadows or job.error is not None:
                continue
            try:
                assert job.bound is not None and job.looked_up is not None  # it was answered
                found = job.looked_up
                self.log.require_room()
                part = Part(job, job.bound.take(job.new), found.numbers, found.texts, at=job.frame.at)
                try:
                    self._score_part(part, job.target.shadows, answered=False)
                finally:
                    self._observe([part])
            except RequestError as err:
                _LOG.warning("a shadow did not score %d rows: %s", len(job.new), err)
                continue
            frames.append(self._framer.frame([part], stamp=job.frame.stamp))
        if frames:
            try:
                self.log.write(frames)
            except NoriaError as err:
                _LOG.warning("what shadows scored is not logged: %s", err)

    def _prepare(self, job: Job) -> None:
        request = job.request
        job.ids = resolve_ids(request)
        job.frame, job.scores, job.new = None, [], list(range(request.rows))
        job.known = [None] * request.rows
        try:
            job.bound = bind(request, job.target.plan, name=job.target.name)
        except BadRequestError as err:
            digests = digests_of_request(request) if job.names_ids else None
            if digests is None:
                raise
            job.misfit, job.digests = err, digests  # a retry of what an earlier version answered
            return
        job.digests = job.target.plan.digests(job.bound)

    def _find_known(self, jobs: Sequence[Job]) -> None:
        found = iter(self._index.find([each for job in jobs for each in job.ids]))
        for job in jobs:
            job.known = [next(found) for _ in job.ids]
            digests = job.digests
            if conflicting := [
                job.ids[row] for row, each in enumerate(job.known) if each and each.digest != digests[row]
            ]:
                job.error = (job.request.misfit and job.misfit) or RequestError(
                    HTTPStatus.CONFLICT,
                    f"{len(conflicting)} prediction ids were answered before for other input: "
                    f"{', '.join(map(shown, conflicting[:5]))}; send new ids for new input",
                )
                continue
            outputs = job.target.outputs
            if not all(each is None or fits(outputs, each) for each in job.known):
                job.error = RequestError(
                    HTTPStatus.CONFLICT,
                    "some of the prediction ids were answered by a version that gave other outputs; send "
                    "new ids to be answered by this one",
                )
                continue
            job.new = [row for row, each in enumerate(job.known) if each is None]
            if job.new and job.misfit is not None:
                job.error = job.misfit

    def _score(self, jobs: Sequence[Job]) -> list[Part]:
        """Give each its scores, or its error, and give what was to be scored."""
        now_us = time.time_ns() // 1_000
        asked: list[tuple[Job, Asked]] = []
        for job in jobs:
            assert job.bound is not None  # else it does not fit, and has an error
            try:
                self.log.require_room()
                at = self._instant(job.request, now_us)
                asked.append((job, Asked(job.target, job.bound.take(job.new), at)))
            except RequestError as err:
                job.error = err
        parts: list[Part] = []
        looked_up = self._lookups.find([each for _, each in asked])
        for (job, each), found in zip(asked, looked_up, strict=True):
            if isinstance(found, RequestError):
                job.error = found
                continue
            job.looked_up = found
            parts.append(Part(job, each.bound, found.numbers, found.texts, at=each.at))
        together: dict[int, list[Part]] = {}
        for part in parts:
            together.setdefault(id(part.job.target), []).append(part)
        for group in together.values():
            target = group[0].job.target
            if target.gains and len(group) > 1:
                self._score_together(group, target.scoring)
            for part in group:
                try:
                    self._score_part(part, target.scoring, answered=True)
                except RequestError as err:
                    part.job.error = err
                    continue
                part.job.failed, part.job.scores = part.failed, part.scores
        return parts

    def _score_together(self, parts: Sequence[Part], models: Sequence[LoadedModel]) -> None:
        """Score the rows of several requests by one call for each model; where it fails, each goes alone."""
        for model in models:
            try:
                rows = [self._asking.rows(part, model) for part in parts]
            except RequestError:
                continue
            for places in alike(model, rows):
                try:
                    started = time.perf_counter_ns()
                    found = self._asking.score(model, joined([rows[each] for each in places]))
                except RequestError:  # counted where each goes alone
                    continue
                took_us = (time.perf_counter_ns() - started) // 1_000
                at, release = 0, model.served.release
                for each in places:
                    end = at + rows[each].count
                    parts[each].scored[release] = [values[at:end] for values in found]
                    parts[each].took_us[release] = took_us // len(places)
                    at = end

    def _predict(self, model: LoadedModel, rows: Rows, *, shadow: bool) -> tuple[Sequence[Values], int]:
        """Score rows, and give how long that took, in microseconds."""
        started = time.perf_counter_ns()
        try:
            found = self._asking.score(model, rows, shadow=shadow)
        except RequestError:
            took_us = (time.perf_counter_ns() - started) // 1_000
            self.counts.of(model.served.release).observe(rows.count, took_us, failed=True)
            raise
        return found, (time.perf_counter_ns() - started) // 1_000

    def _observe(self, parts: Iterable[Part]) -> None:
        """Count what releases gave; for requests that were scored together each took the same time."""
        route, alike = self.counts, dict[tuple[str, int], list[bytes]]()
        for part in parts:
            if part.job.loaded.route.number == route.route:  # else it was replaced meanwhile, and its counts
                for each in part.scores:
                    alike.setdefault((each.release, part.took_us[each.release]), []).append(each.scores)
        for (release, took_us), scores in alike.items():
            counts = route.of(release)
            together = b"".join(scores)
            if missing(together):
                for one in scores:
                    counts.observe(len(one) // 8, took_us, missing(one))
            else:
                counts.observe(len(together) // 8, took_us, requests=len(scores))

    def _score_part(self, part: Part, models: Sequence[LoadedModel], *, answered: bool) -> None:
        """Give it what models give for it, those that are asked before one fails."""
        for model in models:
            served = model.served
            release = served.release
            found = part.scored.get(release)
            mask = [each == release for each in part.chosen] if answered else [False] * part.bound.rows
            if found is None:
                try:
                    rows = self._asking.rows(part, model, shadow=not answered)
                    found, part.took_us[release] = self._predict(model, rows, shadow=not answered)
                except RequestError:
                    if not answered or True in mask:
                        raise
                    part.lacks_release = True  # none of the rows is its to answer: the others answer
                    continue
            on_demand, computed = model.on_demand, part.computed_of(model)
            if on_demand is not None:
                on_demand.refuse(computed, mask)
                for name, count in on_demand.failed(computed).items():
                    part.failed[name] = max(count, part.failed.get(name, 0))  # versions may fail elsewhere
            number, others = kept(model.scorer.outputs, found)
            part.scores.append(
                ReleaseScores(
                    release=release,
                    model=served.model,
                    version=served.version,
                    scores=number,
                    answered=bytes(mask),
                    computed_names=() if on_demand is None else on_demand.columns,
                    computed=b"" if on_demand is None else on_demand.matrix(computed).tobytes(),
                    outputs=others,
                )
            )

    def _log(self, parts: Sequence[Part]) -> list[Job]:
        """Log and enter what was scored; give the jobs one of whose ids was answered meanwhile."""
        framed = self._framer.frames(parts)
        named = [group[0].job.names_ids for _, group in framed]
        try:
            late = self._index.enter([frame for frame, _ in framed], named=named, write=self.log.write)
        except NoriaError as err:
            what = "the disk of the prediction log is full" if isinstance(err, DiskFull) else None
            message = f"{what or 'the prediction log cannot be written'}; nothing was answered"
            for part in parts:
                part.job.scores = []
                part.job.error = RequestError(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after_s=1)
            return []
        for frame, group in framed:
            for part in group:
                part.job.frame = frame
        again = [framed[place][1][0].job for place in late]
        for job in again:
            job.frame, job.scores = None, []
        return again

    def _prediction(self, job: Job) -> Prediction:
        known, releases, rows = job.known, job.scores, len(job.ids)
        if len(job.new) == rows and len(releases) == 1 and not releases[0].outputs:  # as most are
            release = releases[0]
            outputs: tuple[OutputColumn, ...] = (
                OutputColumn(SCORE.name, SCORE.datatype, release.score_array().tolist()),
            )
            names, versions = [release.release] * rows, [release.version] * rows
            scored = answered = {release.release: rows}
        else:
            scored, answered = {}, {}
            for release in releases:
                scored[release.release] = len(job.new)
                answered[release.release] = sum(release.answered)
                for row, answer in answers_of(release, job):
                    known[row] = answer
            answers = [each for each in known if each is not None]
            outputs = output_columns(job.target.outputs, answers)
            names, versions = [each.release for each in answers], [each.version for each in answers]
        defaulted, stale = _NONE, _NONE
        if releases and job.looked_up is not None and job.target.views:
            defaulted, stale = dict.fromkeys(job.looked_up.defaulted, len(job.new)), job.looked_up.stale
        return Prediction(
            route_number=job.loaded.route.number,
            outputs=outputs,
            ids=job.ids,
            releases=names,
            versions=versions,
            logged=rows - len(job.new),
            scored=scored,
            answered=answered,
            failed=job.failed,
            columns=job.request.outputs,
            defaulted=defaulted,
            stale=stale,
        )

    def _instant(self, request: InferRequest, now_us: int) -> int:
        if self._clock == "wall":
            if request.at is not None:
                raise BadRequestError(
                    "parameter `at` is taken only where the environment's clock is 'replay'"
                )
            return now_us
        if request.at is not None:
            return request.at
        position = self.now()
        if position is None:
            raise BadRequestError("this environment's clock is 'replay': send the instant as parameter `at`")
        return position

    def now(self) -> int | None:
        """Give the instant on the environment's clock; None where a replay's is not told."""
        if self._clock == "wall":
            return time.time_ns() // 1_000
        return self._lookups.position()
