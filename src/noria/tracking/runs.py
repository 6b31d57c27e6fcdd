"""A run that is tracked: a run of the ledger whose parameters, metrics and tags are kept as it goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from noria.clock import to_micros
from noria.errors import Conflict
from noria.ledger.book import user
from noria.ledger.running import Running
from noria.ledger.store import Ledger
from noria.records import Run, RunId, RunState, Version, VersionId
from noria.tracking.experiments import ExperimentBook
from noria.tracking.names import check_name
from noria.tracking.records import DEFAULT_EXPERIMENT, MetricPoint
from noria.tracking.run_desk import enroll
from noria.tracking.store import TrackingStore

__all__ = ["TrackedRun", "tracked_run"]


class TrackedRun:
    """A run at work, made by `tracked_run`.

    Metric points and tags are on record when a call returns. Parameters and the last value of each metric
    are in the run's record, covered by its closing event.
    """

    def __init__(self, running: Running, store: TrackingStore) -> None:
        self._running, self._store = running, store
        self._steps: dict[str, int] = {}  # of each metric the greatest so far

    @property
    def run(self) -> Run:
        """The ledger's record: as it was started; after the block, as it was closed."""
        return self._running.run

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self._running.id

    @property
    def is_done(self) -> bool:
        """Whether a run of this key was finished before, so that nothing is left to do."""
        return self._running.is_done

    def log_param(self, name: str, value: Any) -> None:
        """Keep a parameter; any value that JSON can hold.

        Raises
        ------
        Conflict
            If it has another value already.
        """
        self.log_params({name: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep several parameters, all or none. Raises like `log_param`."""
        self._check_open()
        named = {check_name("param", name): value for name, value in params.items()}
        self._store.log(self.id, params=named)
        self._running.params.update(named)

    def log_metric(self, name: str, value: float, *, step: int = 0) -> None:
        """Keep one value of a metric."""
        self.log_metrics({name: value}, step=step)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Keep one value of each of several metrics, all or none."""
        self._check_open()
        now_us = to_micros(datetime.now(UTC))
        points = [
            MetricPoint(name=check_name("metric", name), value=float(value), step=step, at_us=now_us)
            for name, value in metrics.items()
        ]
        self._store.log(self.id, points=points)
        for point in points:
            if step >= self._steps.get(point.name, step):
                self._running.metrics[point.name], self._steps[point.name] = point.value, step

    def put_tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self._store.put_tag(self.id, check_name("tag", name), value)

    def add_input(self, version: Version | VersionId) -> None:
        """Record that the run reads a version."""
        self._running.add_input(version)

    def _check_open(self) -> None:
        if self.is_done:
            raise Conflict(f"run {self.id} is finished; nothing is added to it. Start a new run")


@contextmanager
def tracked_run(
    ledger: Ledger,
    kind: str,
    name: str,
    *,
    experiment: str = DEFAULT_EXPERIMENT,
    cause: str | None = None,
    parent: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int | None = None,
    key: str | None = None,
    at: datetime | None = None,
) -> Iterator[TrackedRun]:
    """Track what the block does as a run of an experiment.

    Parameters
    ----------
    ledger
        Where the run is recorded.
    kind, name, cause, parent, params, seed, key, at
        As for `Ledger.start_run`. A key that names a finished run gives that run: ask `is_done`.
    experiment
        Its name; it is made if it is not there.

    Raises
    ------
    LeaseHeld
        If a living process is at work on a run of this key.
    """
    store = TrackingStore(ledger.database)
    folder = ExperimentBook(ledger).open(experiment)

    def start() -> Run:
        with ledger.database.write() as connection:
            run = ledger.start_run(
                kind,
                name,
                cause=cause,
                parent=parent,
                experiment=folder.id,
                params=params,
                seed=seed,
                key=key,
                at=at,
            )
            if run.state is RunState.RUNNING:
                enroll(
                    connection,
                    run.id,
                    experiment=int(folder.id),
                    name=name,
                    owner=user(),
                    started_at=run.started_at,
                )
                store.log(run.id, params=params)
            return run

    with Running(ledger, start) as running:
        yield TrackedRun(running, store)
