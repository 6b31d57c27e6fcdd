"""Prometheus metrics of a server, their children resolved once.

Where a server has several workers each counts in files that all can read, so that whichever is asked gives
the sum, and a worker that is started anew goes on where its predecessor was. What is counted of requests is
entered there once for all that are answered together, before their answers leave.
"""

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE", "DeploymentMetrics", "Metrics", "Standing"]

_LOG = logging.getLogger(__name__)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_KEPT = 1_000  # requests that a worker alone counts before it enters them
_PLACE = ("environment", "deployment")
_NONE: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a deployment has counted itself so far, by the route that answers."""

    route: int
    shed: int
    shadow_rows: Mapping[str, int]  # by release
    logged_bytes: int = 0
    spool_bytes: int = 0


class _Histogram(Histogram):
    """Observes many at once."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Take in values."""
        ordered = sorted(values)
        self._sum.inc(sum(ordered))
        before = 0
        for bucket, end in zip(self._buckets, self._upper_bounds, strict=True):
            through = bisect_right(ordered, end)
            if through > before:
                bucket.inc(through - before)
            before = through


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


class Metrics:
    """Counts what one worker does, and tells what all do.

    Parameters
    ----------
    environment
        Of the server.
    worker
        The number of this worker.
    shared
        The folder in which all workers count; None where there is one.
    """

    def __init__(
        self,
        *,
        environment: str,
        worker: int = 0,
        shared: Path | None = None,
    ) -> None:
        self._environment, self._worker, self._shared = environment, worker, shared
        if shared is not None:  # by number, not by process id: the files do not become more with restarts
            values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        if shared is None:
            ProcessCollector(registry=registry)
        self.requests = Counter(
            "noria_requests",
            "Requests for predictions, by the name that was asked and by status",
            (*_PLACE, "model", "status"),
            registry=registry,
        )
        self.seconds = _Histogram(
            "noria_request_seconds",
            "From the arrival of a request for predictions to its answer",
            _PLACE,
            buckets=_SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "noria_shed_requests", "Requests refused as there were too many", _PLACE, registry=registry
        )
        self.scored = Counter("noria_scored_rows", "Rows scored", (*_PLACE, "release"), registry=registry)
        self.answered = Counter(
            "noria_answered_rows", "Rows answered", (*_PLACE, "release"), registry=registry
        )
        self.repeated = Counter(
            "noria_repeated_rows", "Rows that got the answer they had before", _PLACE, registry=registry
        )
        self.failed = Counter(
            "noria_on_demand_failed_rows",
            "Rows for which the function of an on-demand feature failed",
            (*_PLACE, "feature"),
            registry=registry,
        )
        self.defaulted = Counter(
            "noria_defaulted_rows",
            "Rows answered with the defaults of a view that could not be looked up",
            (*_PLACE, "view"),
            registry=registry,
        )
        self._ages = Gauge(
            "noria_features_age_seconds",
            "How long before a request everything was last counted in a view that it needs",
            ("environment", "view"),
            registry=registry,
            multiprocess_mode="max",
        )
        self.explained = Counter(
            "noria_explanation_requests",
            "Requests for explanations, by the name that was asked and by status",
            (*_PLACE, "model", "status"),
            registry=registry,
        )
        self.explained_rows = Counter(
            "noria_explained_rows", "Rows explained", (*_PLACE, "release"), registry=registry
        )
        self.log_bytes = Counter(
            "noria_log_bytes", "Bytes written to the prediction log", _PLACE, registry=registry
        )
        self.outcomes = Counter(
            "noria_outcomes", "Outcomes recorded, repeated ones not", _PLACE, registry=registry
        )
        self.unknown = Counter(
            "noria_unknown_outcomes",
            "Outcomes told of predictions that were not answered here",
            _PLACE,
            registry=registry,
        )
        self.spool = Gauge(
            "noria_spool_bytes",
            "What waits to be moved into the lake, of all workers",
            _PLACE,
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.pending = Gauge(
            "noria_pending_requests",
            "Requests for predictions that are not answered yet",
            _PLACE,
            registry=registry,
            multiprocess_mode="sum",
        )
        self.route = Gauge(
            "noria_route",
            "Number of the route that answers",
            _PLACE,
            registry=registry,
            multiprocess_mode="max",
        )
        self.refused = Gauge(
            "noria_route_refused",
            "1 while the newest route could not be loaded",
            _PLACE,
            registry=registry,
            multiprocess_mode="max",
        )
        self.models = Gauge(
            "noria_loaded_models",
            "Models in memory, of all workers",
            _PLACE,
            registry=registry,
            multiprocess_mode="sum",
        )
        self._connections = Gauge(
            "noria_connections",
            "Open connections",
            ("environment",),
            registry=registry,
            multiprocess_mode="sum",
        ).labels(environment)
        self._deployments: dict[str, DeploymentMetrics] = {}

    @property
    def is_shared(self) -> bool:
        """Whether other workers tell what this one counts."""
        return self._shared is not None

    def of(self, deployment: str) -> "DeploymentMetrics":
        """Give what counts for a deployment; the empty name is for requests that meet none."""
        found = self._deployments.get(deployment)
        if found is None:
            found = self._deployments[deployment] = DeploymentMetrics(self, self._environment, deployment)
            self._take_room()
        return found

    def _take_room(self) -> None:
        """Have the files that this worker counts in on the disk, else one that is full later would end it."""
        if self._shared is None:
            return
        for each in self._shared.glob(f"*_{self._worker}.db"):
            try:
                with each.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as err:  # it answers all the same
                _LOG.warning("there is no room to count in %s: %s", each, err)

    def note(self, *, connections: int, ages_s: Mapping[str, float] = _NONE) -> None:
        """Tell the other workers of what is not counted but stands, every now and then."""
        self._connections.set(connections)
        for view, age_s in ages_s.items():
            self._ages.labels(self._environment, view).set(age_s)
        self._note_deployments()

    def expose(self) -> bytes:
        """Write all in Prometheus' text format."""
        self._note_deployments()
        if self._shared is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _note_deployments(self) -> None:
        for each in self._deployments.values():
            each.note()


class DeploymentMetrics:
    """Counts for one deployment in one worker.

    Attributes
    ----------
    pending
        Requests that are being answered: whoever answers adds and takes away.
    """

    def __init__(self, metrics: Metrics, environment: str, deployment: str) -> None:
        self._metrics, self._place = metrics, (environment, deployment)
        self._told_answers: dict[str, Counter] = {}
        self._scored: dict[str, Counter] = {}
        self._answered: dict[str, Counter] = {}
        self._answers: list[tuple[str, float, Mapping[str, int], Mapping[str, int]]] = []  # to be entered
        self._refusals: list[tuple[str, float, HTTPStatus]] = []
        self._seconds = metrics.seconds.labels(*self._place)
        self._shed = metrics.shed.labels(*self._place)
        self._repeated = metrics.repeated.labels(*self._place)
        self._log_bytes = metrics.log_bytes.labels(*self._place)
        self._pending = metrics.pending.labels(*self._place)
        self._spool = metrics.spool.labels(*self._place)
        self._route = metrics.route.labels(*self._place)
        self._refused = metrics.refused.labels(*self._place)
        self._models = metrics.models.labels(*self._place)
        self._standing: Callable[[], Standing] | None = None
        self._told = Standing(0, 0, {})
        self.pending = 0
        self.note()

    def count_answer(
        self,
        model: str,
        seconds: float,
        *,
        scored: Mapping[str, int],
        answered: Mapping[str, int],
        repeated: int,
    ) -> None:
        """Count an answered request for predictions and its rows by release, for `enter` to enter them."""
        if repeated:
            self._repeated.inc(repeated)
        self._answers.append((model, seconds, scored, answered))

    def count_refusal(self, model: str, seconds: float, status: HTTPStatus) -> None:
        """Count a request for predictions that was refused or failed, for `enter` to enter it.

        `model` is empty where the route does not know the name: it may be any.
        """
        self._refusals.append((model, seconds, status))

    def settle(self) -> None:
        """Enter what was counted where other workers tell it too; a worker alone does so when it is asked."""
        if self._metrics.is_shared or len(self._answers) + len(self._refusals) >= _KEPT:
            self.enter()

    def enter(self) -> None:
        """Enter requests and rows that were counted since the last time."""
        answers, self._answers = self._answers, []
        refusals, self._refusals = self._refusals, []
        if not answers and not refusals:
            return
        times = [seconds for _, seconds, _, _ in answers]
        times += [seconds for _, seconds, _ in refusals]
        self._seconds.observe_all(times)
        requests: dict[str, int] = {}
        rows_scored: dict[str, int] = {}
        rows_answered: dict[str, int] = {}
        both: dict[str, int] = {}  # of answers by one release, as most are
        for model, _, scored, answered in answers:
            requests[model] = requests.get(model, 0) + 1
            if scored is answered:
                for release, rows in scored.items():
                    both[release] = both.get(release, 0) + rows
            else:
                _add(rows_scored, scored)
                _add(rows_answered, answered)
        _add(rows_scored, both)
        _add(rows_answered, both)
        for model, count in requests.items():
            (self._told_answers.get(model) or self._answers_of(model)).inc(count)
        for model, _, status in refusals:
            self._metrics.requests.labels(*self._place, model, str(status.value)).inc()
        for release, rows in rows_scored.items():
            (self._scored.get(release) or self._scored_of(release)).inc(rows)
        for release, rows in rows_answered.items():
            (self._answered.get(release) or self._answered_of(release)).inc(rows)

    def _answers_of(self, model: str) -> Counter:
        counter = self._metrics.requests.labels(*self._place, model, str(HTTPStatus.OK.value))
        self._told_answers[model] = counter
        return counter

    def _scored_of(self, release: str) -> Counter:
        counter = self._scored[release] = self._metrics.scored.labels(*self._place, release)
        return counter

    def _answered_of(self, release: str) -> Counter:
        counter = self._answered[release] = self._metrics.answered.labels(*self._place, release)
        return counter

    def count_explained(self, status: HTTPStatus, *, model: str, rows: Mapping[str, int]) -> None:
        """Count a request for explanations, and the rows explained by release."""
        self._metrics.explained.labels(*self._place, model, str(status.value)).inc()
        for release, count in rows.items():
            self._metrics.explained_rows.labels(*self._place, release).inc(count)

    def count_failed(self, failed: Mapping[str, int]) -> None:
        """Count rows whose on-demand features could not be computed, by feature."""
        for feature, rows in failed.items():
            self._metrics.failed.labels(*self._place, feature).inc(rows)

    def count_outcomes(self, recorded: int, *, unknown: int) -> None:
        """Count outcomes that were told, and those of predictions that are not known here."""
        self._metrics.outcomes.labels(*self._place).inc(recorded)
        self._metrics.unknown.labels(*self._place).inc(unknown)

    def count_defaulted(self, defaulted: Mapping[str, int]) -> None:
        """Count rows that got the defaults of a view, by view."""
        for view, rows in defaulted.items():
            self._metrics.defaulted.labels(*self._place, view).inc(rows)

    def follow(self, standing: Callable[[], Standing]) -> None:
        """Ask for what is counted elsewhere, whenever it is noted."""
        self._standing, self._told = standing, Standing(0, 0, {})

    def set_route(self, number: int, *, refused: bool, models: int = 0) -> None:
        """Note which route answers by how many models, and whether a newer one was refused."""
        self._route.set(number)
        self._refused.set(refused)
        self._models.set(models)

    def note(self) -> None:
        """Tell what is not counted here but stands, and enter what was counted."""
        self._pending.set(self.pending)
        if self._standing is not None:
            self._follow(self._standing)
        self.enter()

    def _follow(self, standing: Callable[[], Standing]) -> None:
        now, before = standing(), self._told
        self._spool.set(now.spool_bytes)
        if now.route != before.route:  # its counts begin anew
            before = Standing(now.route, before.shed, {}, before.logged_bytes)
        if now.logged_bytes > before.logged_bytes:
            self._log_bytes.inc(now.logged_bytes - before.logged_bytes)
        if now.shed > before.shed:
            self._shed.inc(now.shed - before.shed)
        for release, rows in now.shadow_rows.items():
            if more := rows - before.shadow_rows.get(release, 0):
                self._scored_of(release).inc(more)
        self._told = now
