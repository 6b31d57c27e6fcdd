"""Recorded time lived through day by day, with the loop closed.

A day is a run of a pipeline (`noria.replay.steps`), and each of its steps is done once whatever happens: what
was done before a kill is found done, by its keys, when the day is lived again. The day counts once its last
event, `replay.day_done`, is in the ledger; a replay that was killed goes on after the last such day, with the
online store made anew from the lake.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from noria.clock import to_micros
from noria.deploy.releases import read_release, read_route
from noria.errors import GateRefused, NotFound, StepFailed
from noria.features.materialize import materialize
from noria.lake.declarations import Dataset
from noria.monitoring.outcomes import OUTCOMES
from noria.pipelines.graph import Graph
from noria.pipelines.records import PipelineResult
from noria.pipelines.tracing import draw
from noria.records import Event, Version, new_id
from noria.replay.accidents import Accidents
from noria.replay.day import SOURCE, Day
from noria.replay.declarations import DAY, Replay
from noria.replay.events import Events
from noria.replay.feed import Feed, day_number, instant_scalar, read_source
from noria.replay.records import DayDone, Stores
from noria.replay.steps import PROVIDERS, at_work, live_day, live_history
from noria.replay.traffic import Traffic
from noria.triggers.challenge import Challenge, Stage, TrainingRows, challenge

__all__ = ["ReplayLoop", "feature_table", "last_day_done"]

_TRAFFIC_KEPT = timedelta(days=21)
_COMPACT_EVERY_DAYS = 30
_ROWS_PER_FILE = 40_000  # about a month of predictions: what was put together once is left alone


def feature_table(training_name: str) -> str:
    """Name the lake's table of a training's offline feature rows."""
    return f"{training_name}__features"


def last_day_done(stores: Stores, replay: Replay) -> DayDone | None:
    """Give the last day that counts, or None."""
    found = stores.ledger.list_events(verb="replay.day_done", subject=replay.name, newest_first=True, limit=1)
    return msgspec.convert(found[0].payload, DayDone) if found else None


class ReplayLoop:
    """One replay over opened stores.

    Parameters
    ----------
    replay
        The declaration.
    stores
        Opened, with the server not necessarily running.
    until
        Stop before this day, by default at the replay's end.
    """

    def __init__(self, replay: Replay, stores: Stores, *, until: datetime | None = None) -> None:
        self.replay, self.stores = replay, stores
        self.training = replay.training
        self.failed: Exception | None = None
        self._day: Day | None = None
        self.until = min(until or replay.ends_at, replay.ends_at)
        self.feed = Feed(replay.datasets, root=stores.root)
        self.events = Events(
            {each.into.name: each for each in replay.streams}, stores.streams,
            feed=self.feed, lake=stores.lake, ledger=stores.ledger, start=replay.starts_at,
        )  # fmt: skip
        self._views = [view.spec() for view in self.training.views]
        self.landed: frozenset[str] = frozenset()
        self.traffic = Traffic(
            stores.lake,
            environment=replay.environment,
            deployment=self.training.name,
            keep=max(_TRAFFIC_KEPT, replay.monitor.lookback + DAY, _longest_trial(stores) + DAY),
        )

    def run(self) -> Iterator[DayDone]:
        """Live through what is left, one day after the other.

        Raises
        ------
        NoriaError
            What went wrong; run it again, it goes on.
        """
        ledger = self.stores.ledger
        ledger.mark_killed()
        self._began = self._begin()
        self.accidents = Accidents(self.replay, self.stores, self._challenge_shuffled, self._began)
        done = last_day_done(self.stores, self.replay)
        if done is None:
            self._live_history()
        day = self.replay.starts_at if done is None else done.day + DAY
        if day >= self.until:
            return
        self._stand_at(day)
        while day < self.until:
            yield self._live(day)
            day += DAY

    # -- before the first day

    def _begin(self) -> Event:
        replay = self.replay
        return self.stores.ledger.append(
            "replay.began",
            subject=replay.name,
            payload={
                "start": replay.start,
                "end": replay.end,
                "reason": f"{replay.name} is replayed from {replay.start} to {replay.end}",
            },
            key=f"replay:{replay.name}:began",
            at=replay.starts_at,
        )

    def take_in(self) -> list[Version]:
        """Ingest what was known before the first day; give the versions that hold it."""
        replay, stores, landed = self.replay, self.stores, dict[str, Version]()
        start = replay.starts_at

        def ingest(dataset: Dataset, rows: pa.Table, batch: int) -> None:
            came = stores.lake.ingest(
                dataset, rows, batch=batch, source=SOURCE, cause=self._began.id, at=start
            )
            if came.version is not None:
                landed[dataset.name] = came.version

        for dataset in stores.references:
            if dataset.source is not None and stores.lake.last_batch(dataset.name) is None:
                ingest(dataset, read_source(dataset, stores.root), 1)
        for dataset in replay.datasets:
            for number, rows in self.feed.months(dataset, start):
                ingest(dataset, rows, number)
        return list(landed.values())

    def compute_features(self) -> int:
        """Compute the features of all rows before the first day; give their number."""
        made = self.materialize(None, self.replay.starts_at)
        self._load_online(self.replay.starts_at)
        return int(made.num_rows)

    def put_first_model_to_work(self) -> None:
        """Train, judge and deploy the first model."""
        self._first_challenge(self.replay.starts_at, self._began)

    def day_at_work(self, day: datetime) -> Day:
        """Give the day that is lived through."""
        assert self._day is not None
        assert self._day.day == day
        return self._day

    def _live_history(self) -> None:
        """Take in what was known before the first day, and put the first model to work."""
        self._run(draw(live_history, {"start": self.replay.starts_at}, provided=PROVIDERS), self._began.key)

    def _live(self, day: datetime) -> DayDone:
        """Live through a day."""
        self._day = Day(self, day, self._began)
        done: DayDone = self._run(draw(live_day, {"day": day}, provided=PROVIDERS), self._day.key).value
        return done

    def _run(self, graph: Graph, key: str | None) -> PipelineResult:
        """Run a graph anew: what is in memory has to be made again, whatever is on record."""
        self.failed = None
        try:
            with at_work(self):
                return self.stores.engine.run(graph, key=f"{key}:{new_id()}", cause=self._began.id)
        except StepFailed as failed:
            if self.failed is None:
                raise
            raise self.failed from failed

    def _first_challenge(self, start: datetime, began: Event) -> None:
        """Put the first model to work. One that was refused is tried anew: the gate may be another now."""
        ledger, name = self.stores.ledger, self.replay.name
        tried = len(ledger.list_events(verb="replay.refused", subject=name))
        key = f"replay:{name}:first:{tried}"
        came = self.challenge(key=key, at=start, cause=began)
        if came.stage is not Stage.REFUSED:
            return
        payload = came.event.payload
        ledger.append(
            "replay.refused",
            subject=name,
            payload={"version": came.version.id, "reason": payload["reason"]},
            cause=came.event.id,
            key=f"{key}:refused",
            at=start,
        )
        advice = "correct the model, the data or the gate, and run the same command again"
        raise GateRefused(came.version.ref, payload["environment"], [payload["reason"], advice])

    def _stand_at(self, day: datetime) -> None:
        """Make everything as it was when `day` began: clock, online store, traffic, server."""
        stores = self.stores
        stores.clock.move_to(day)
        self._load_online(day)
        self.traffic.reload(day)
        self.landed = self._outcomes_landed(day)
        self.serve_as_of(day)

    def serve_as_of(self, day: datetime) -> None:
        """Let the server answer by the route that stood when `day` began.

        It does already, unless a day is lived again that was killed after its moves, or somebody else moved
        the pointer meanwhile.
        """
        stores = self.stores
        place = stores.bench.production
        pointer = stores.ledger.find_pointer(place.environment, place.name, at=day)
        if pointer is None:
            raise NotFound("deployment", f"{place.name}@{place.environment}")
        version = stores.ledger.get_version_by_id(pointer.version)
        if place.name in stores.server.deployments:
            state = stores.server.status().deployments[place.name]
            if state.route == version.number:
                return
        stores.server.start(place.route(version))

    def _outcomes_landed(self, day: datetime) -> frozenset[str]:
        """Name the predictions whose outcomes an earlier attempt at `day` has brought into the lake."""
        if not self.stores.lake.exists(OUTCOMES):
            return frozenset()
        found = self.stores.lake.read(
            OUTCOMES, columns=["prediction_id"], where=ds.field("known_at") >= instant_scalar(day)
        )
        return frozenset(found["prediction_id"].to_pylist())

    def _load_online(self, before: datetime) -> None:
        rows: dict[str, pa.Table] = {}
        for view in self._views:
            if view.source not in rows:
                rows[view.source] = self._known(view.source, before)
            self.stores.online.load(view, rows[view.source], before=before, position=to_micros(before))

    # -- what a day needs

    def challenge(self, *, key: str, at: datetime, cause: Event, shuffle: int | None = None) -> Challenge:
        """Train a challenger on what has landed, and take it as far as it comes."""
        lake, training = self.stores.lake, self.training
        label, table = training.label, feature_table(training.name)
        rows = TrainingRows(
            features=lake.read(table, where=ds.field("at") < instant_scalar(at)),
            labels=lake.read(
                label.source.name,
                columns=list(dict.fromkeys([label.on, label.column, label.source.known_at_column])),
                where=ds.field(label.source.known_at_column) < instant_scalar(at),
            ),
            versions=[self.stores.ledger.get_version("dataset", each.name) for each in self.replay.datasets],
            feature_version=lake.record_version(table, kind="features", cause=cause.id, at=at),
            label_version=self.stores.ledger.get_version("dataset", label.source.name),
        )
        return challenge(
            self.stores.bench, training, rows, at=at, key=key, cause=cause.id, shuffle_labels_seed=shuffle
        )

    def _challenge_shuffled(self, key: str, at: datetime, cause: Event) -> Challenge:
        return self.challenge(key=key, at=at, cause=cause, shuffle=self.training.seed)

    # -- the lake

    def _known(self, dataset: str, before: datetime) -> pa.Table:
        declared = next(each for each in self.replay.datasets if each.name == dataset)
        return self.stores.lake.read(
            dataset, where=ds.field(declared.known_at_column) < instant_scalar(before)
        )

    def materialize(self, start: datetime | None, end: datetime) -> pa.Table:
        """Add the offline features of the rows to predict before `end`; give those of them."""
        training, lake = self.training, self.stores.lake
        spine = training.spine
        within = ds.field(spine.at) < instant_scalar(end)
        if start is not None:
            within &= ds.field(spine.at) >= instant_scalar(start)
        rows = lake.read(spine.source.name, where=within)
        return materialize(lake, feature_table(training.name), rows, training, batch=day_number(end - DAY))

    def tidy(self, day: datetime) -> None:
        """Put small files together now and then; rows and versions stay as they are."""
        if (day - self.replay.starts_at).days % _COMPACT_EVERY_DAYS == _COMPACT_EVERY_DAYS - 1:
            for name in self.stores.lake.names():
                self.stores.lake.compact(name, keep_newest=5, rows_per_file=_ROWS_PER_FILE)

    def on_trial(self, standing: Version, day: datetime) -> str | None:
        """Give the model that is on trial beside the standing release on a day, if one is."""
        ledger, place = self.stores.ledger, self.stores.bench.production
        pointer = ledger.find_pointer(place.environment, place.name, at=day)
        if pointer is None or pointer.stable:
            return None
        releases = read_route(ledger.get_version_by_id(pointer.version)).releases
        trial = next(each for ref, each in releases.items() if ref != standing.ref)
        return read_release(ledger.get_version_by_id(trial)).model_ref


def _longest_trial(stores: Stores) -> timedelta:
    canary = stores.bench.production_gate.canary
    return timedelta(0) if canary is None else timedelta(days=canary.last_day)
