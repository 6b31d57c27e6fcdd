"""Prometheus metrics of a worker, their children resolved once."""

from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Counts what one worker does."""

    def __init__(self, *, environment: str, deployment: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        names = ("environment", "deployment")
        values = (environment, deployment)
        requests = Counter(
            "noria_requests", "Infer requests by status", (*names, "status"), registry=self._registry
        )
        self._requests = {status: requests.labels(*values, str(status.value)) for status in _STATUSES}
        self._seconds = Histogram(
            "noria_request_seconds",
            "From the arrival of an infer request to its answer",
            names,
            buckets=_SECONDS,
            registry=self._registry,
        ).labels(*values)
        self._values = values
        self._scored = Counter(
            "noria_scored_rows", "Rows scored", (*names, "release"), registry=self._registry
        )
        self._answered = Counter(
            "noria_answered_rows", "Rows answered", (*names, "release"), registry=self._registry
        )
        self._repeated = Counter(
            "noria_repeated_rows", "Rows that got the answer they had before", names, registry=self._registry
        ).labels(*values)
        self._failed = Counter(
            "noria_on_demand_failed_rows",
            "Rows for which the function of an on-demand feature failed",
            (*names, "feature"),
            registry=self._registry,
        )
        self._route = Gauge("noria_route", "Number of the route that answers", names, registry=self._registry)
        self._refused = Gauge(
            "noria_route_refused",
            "1 while the newest route could not be loaded",
            names,
            registry=self._registry,
        )

    def count_request(self, status: HTTPStatus, *, seconds: float) -> None:
        """Count an infer request."""
        self._requests[status].inc()
        self._seconds.observe(seconds)

    def count_rows(self, *, scored: Mapping[str, int], answered: Mapping[str, int], repeated: int) -> None:
        """Count the rows of an answered request."""
        for release, rows in scored.items():
            self._scored.labels(*self._values, release).inc(rows)
        for release, rows in answered.items():
            self._answered.labels(*self._values, release).inc(rows)
        if repeated:
            self._repeated.inc(repeated)

    def count_failed(self, failed: Mapping[str, int]) -> None:
        """Count rows whose on-demand features could not be computed, by feature."""
        for feature, rows in failed.items():
            self._failed.labels(*self._values, feature).inc(rows)

    def set_route(self, number: int, *, refused: bool) -> None:
        """Note which route answers, and whether a newer one was refused."""
        self._route.labels(*self._values).set(number)
        self._refused.labels(*self._values).set(refused)

    def expose(self) -> bytes:
        """Write all in Prometheus' text format."""
        return generate_latest(self._registry)


_STATUSES = (
    HTTPStatus.OK,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
