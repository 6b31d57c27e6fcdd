"""Recorded time lived through day by day, with the loop closed.

A day is a chain of steps, each done once whatever happens: a step that was done before a kill is found done
when the day is lived again. The day counts once its last event, `replay.day_done`, is in the ledger; a replay
that was killed goes on after the last such day, with the online store made anew from the lake.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import format_instant, to_micros
from noria.deploy.releases import find_standing, read_release, read_route, serve_route
from noria.deploy.shipping import ship_predictions
from noria.errors import BatchBlocked, GateRefused, NotFound
from noria.features.materialize import materialize
from noria.lake.declarations import Dataset
from noria.monitoring.evaluate import evaluate
from noria.monitoring.outcomes import OUTCOMES
from noria.monitoring.records import MonitorReport
from noria.monitoring.window import WindowData
from noria.records import Event, Version
from noria.replay.accidents import Accidents
from noria.replay.declarations import DAY, Replay
from noria.replay.feed import Feed, day_number, read_source
from noria.replay.records import DayDone, Stores
from noria.replay.serving_day import DayTraffic, serve_day
from noria.replay.traffic import Traffic
from noria.triggers.challenge import Challenge, Stage, TrainingRows, challenge, conclude_canary
from noria.triggers.reconcile import Choice, list_unfinished, reconcile, settle

__all__ = ["ReplayLoop", "feature_table", "last_day_done"]

_SOURCE = "replay"
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
        self.until = min(until or replay.ends_at, replay.ends_at)
        self._feed = Feed(replay.datasets, root=stores.root)
        self._views = [view.spec() for view in self.training.features]
        self._landed: frozenset[str] = frozenset()
        self._traffic = Traffic(
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
        began = self._begin()
        self._accidents = Accidents(self.replay, self.stores, self._challenge_shuffled, began)
        done = last_day_done(self.stores, self.replay)
        if done is None:
            self._live_history(began)
        day = self.replay.starts_at if done is None else done.day + DAY
        if day >= self.until:
            return
        self._stand_at(day)
        while day < self.until:
            yield self._live(day, began)
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

    def _live_history(self, began: Event) -> None:
        """Take in what was known before the first day, and put the first model to work."""
        replay, stores = self.replay, self.stores
        start = replay.starts_at
        for dataset in stores.references:
            if dataset.source is not None and stores.lake.last_batch(dataset.name) is None:
                rows = read_source(dataset, stores.root)
                stores.lake.ingest(dataset, rows, batch=1, source=_SOURCE, cause=began.id, at=start)
        for dataset in replay.datasets:
            for number, rows in self._feed.months(dataset, start):
                stores.lake.ingest(dataset, rows, batch=number, source=_SOURCE, cause=began.id, at=start)
        self._materialize(None, start)
        self._load_online(start)
        self._first_challenge(start, began)

    def _first_challenge(self, start: datetime, began: Event) -> None:
        """Put the first model to work. One that was refused is tried anew: the gate may be another now."""
        ledger, name = self.stores.ledger, self.replay.name
        tried = len(ledger.list_events(verb="replay.refused", subject=name))
        key = f"replay:{name}:first:{tried}"
        came = self._challenge(key=key, at=start, cause=began)
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
        self._traffic.reload(day)
        self._landed = self._outcomes_landed(day)
        self._serve_as_of(day)

    def _serve_as_of(self, day: datetime) -> None:
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
        if stores.server.is_running and stores.server.status().route == version.number:
            return
        route = serve_route(stores.ledger, version, fetch=place.fetch, samples=place.samples)
        stores.server.start(route)

    def _outcomes_landed(self, day: datetime) -> frozenset[str]:
        """Name the predictions whose outcomes an earlier attempt at `day` has brought into the lake."""
        if not self.stores.lake.exists(OUTCOMES):
            return frozenset()
        found = self.stores.lake.read(
            OUTCOMES, columns=["prediction_id"], where=ds.field("known_at") >= _scalar(day)
        )
        return frozenset(found["prediction_id"].to_pylist())

    def _load_online(self, before: datetime) -> None:
        rows: dict[str, pa.Table] = {}
        for view in self._views:
            if view.source not in rows:
                rows[view.source] = self._known(view.source, before)
            self.stores.online.load(view, rows[view.source], before=before, position=to_micros(before))

    # -- one day

    def _live(self, day: datetime, began: Event) -> DayDone:
        stores, name = self.stores, self.training.name
        end, key = day + DAY, f"replay:{self.replay.name}:{day_number(day)}"
        self._serve_as_of(day)
        arrived = {each.name: self._receive(each, day) for each in self.replay.datasets}
        spine = self._spine(day, end, arrived)
        # As of the day's beginning: a day that is lived again may find the pointer moved at its end.
        served = find_standing(stores.ledger, environment=self.replay.environment, deployment=name, at=day)
        assert served is not None  # `_stand_at` found a pointer
        trial = self._on_trial(served.release, day)
        with stores.server.client() as client:
            traffic = serve_day(self.training, spine, arrived, online=stores.online, client=client, end=end)
        ids = spine[self.training.spine.id].cast(pa.string()).to_pylist()
        self._traffic.await_outcomes(ids, to_micros(day))
        outcomes = self._record_outcomes(arrived[self.training.label.source.name])
        stores.clock.move_to(end)
        self._land(day, end, began)
        rows = self._ship(day, end)
        offline = self._materialize(day, end)
        compared, different = self._compare(rows, offline, served.model)
        if different:
            self._tell_difference(different, compared, key=key, at=end, cause=began)
        report = self._monitor(rows, served.model, end, key=key, cause=began, asked=traffic.predictions)
        self._decide(end, key)
        self._accidents.after(day, end)
        self._tidy(day)
        return self._finish(
            day, key, began, traffic, report,
            outcomes=outcomes, served=served.model, trial=trial, compared=compared, different=different,
        )  # fmt: skip

    def _receive(self, dataset: Dataset, day: datetime) -> pa.Table:
        """Give the day's rows that hold their contract: what may go into the online store."""
        lake, known_at = self.stores.lake, ds.field(dataset.known_at_column)
        last = lake.last_batch(dataset.name)
        if last is not None and last >= day_number(day):  # an earlier attempt at this day has landed it
            return lake.read(dataset.name, where=(known_at >= _scalar(day)) & (known_at < _scalar(day + DAY)))
        rows = self._feed.between(dataset, day, day + DAY)
        self._accidents.before(dataset, rows, day)
        verdict = lake.check(dataset, rows, batch=day_number(day), at=day)
        return verdict.accepted.slice(0, 0) if verdict.blocked else verdict.accepted

    def _spine(self, day: datetime, end: datetime, arrived: Mapping[str, pa.Table]) -> pa.Table:
        """Give the rows to predict today: those whose instant has come and that were known by then."""
        spine = self.training.spine
        within = (ds.field(spine.at) >= _scalar(day)) & (ds.field(spine.at) < _scalar(end))
        table = self.stores.lake.read(spine.source.name, where=within)
        fresh = arrived[spine.source.name]
        fresh = fresh.select(table.column_names).filter(within) if fresh.num_rows else table.slice(0, 0)
        known = spine.source.known_at_column
        # A day that is lived again after its batch has landed finds the batch in the lake as well.
        before = table.filter(pc.less(table[known], _scalar(day)))
        rows = pa.concat_tables([before, fresh.cast(table.schema)])
        return rows.filter(pc.less_equal(rows[known], rows[spine.at]))

    def _record_outcomes(self, rows: pa.Table) -> int:
        """Record what became of predictions; rows of things never predicted are none of ours."""
        label = self.training.label
        ids = rows[label.on].cast(pa.string()).to_pylist()
        outcomes = pc.cast(rows[label.column], pa.float64()).to_pylist()
        known = (
            rows[label.source.known_at_column].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
        )
        ours = [number for number, each in enumerate(ids) if self._traffic.awaited(each)]
        fresh = [number for number in ours if ids[number] not in self._landed]
        self.stores.outcomes.record(
            [ids[number] for number in fresh],
            [outcomes[number] for number in fresh],
            known_at=[known[number] for number in fresh],
        )
        self._traffic.learn([ids[number] for number in ours], [outcomes[number] for number in ours])
        return sum(outcomes[number] is not None for number in ours)

    def _land(self, day: datetime, end: datetime, began: Event) -> None:
        for dataset in self.replay.datasets:
            rows = self._feed.between(dataset, day, end)
            try:
                self.stores.lake.ingest(
                    dataset, rows, batch=day_number(day), source=_SOURCE, cause=began.id, at=end
                )
            except BatchBlocked:
                continue  # on record as `dataset.blocked`; the day goes on without it

    def _ship(self, day: datetime, end: datetime) -> pa.Table:
        """Bring the day's log into the lake and give the day's predictions from there."""
        stores = self.stores
        ship_predictions(
            stores.server.spool,
            stores.lake,
            app_id=f"predictions/{self.replay.environment}/{self.training.name}",
            rotate=stores.server.rotate,
        )
        stores.outcomes.ship(stores.lake)
        rows = self._traffic.day(day, end)
        self._traffic.add(rows, now=end)
        return rows

    def _compare(self, rows: pa.Table, offline: pa.Table, model: Version) -> tuple[int, int]:
        """Hold the features that were served against those computed offline: give rows and differences."""
        served = rows.filter(pc.equal(rows["version"], model.number))
        place = pc.index_in(
            served["prediction_id"], value_set=offline["id"].cast(pa.string()).combine_chunks()
        )
        offline = offline.take(place)
        features = served["features"].combine_chunks()
        different = 0
        for name in self.training.feature_names:
            online = features.field(name).to_numpy(zero_copy_only=False)
            again = offline[name].to_numpy()
            different += int(np.count_nonzero(~((online == again) | (np.isnan(online) & np.isnan(again)))))
        return served.num_rows, different

    def _tell_difference(self, different: int, rows: int, *, key: str, at: datetime, cause: Event) -> None:
        told = f"{different} values of {rows} served rows differ from the same computed offline"
        self.stores.ledger.append(
            "parity.broken",
            subject=self.replay.name,
            payload={"values": different, "rows": rows, "reason": told},
            cause=cause.id,
            key=f"{key}:parity",
            at=at,
        )

    def _monitor(
        self, rows: pa.Table, model: Version, end: datetime, *, key: str, cause: Event, asked: int
    ) -> MonitorReport:
        stores, monitor = self.stores, self.replay.monitor
        mine = rows.filter(pc.equal(rows["version"], model.number))
        loaded = stores.registry.load(model)
        inputs, features = mine["inputs"].combine_chunks(), mine["features"].combine_chunks()
        columns: dict[str, Any] = {}
        for each in loaded.signature.inputs:
            values = (features if each.kind == "feature" else inputs).field(each.name)
            if each.kind == "category":
                columns[each.name] = values.to_pylist()
            else:
                columns[each.name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        look_back = self._traffic.scored(version=model.number, since=end - monitor.lookback)
        window = WindowData(
            version=model,
            environment=self.replay.environment,
            deployment=self.training.name,
            columns=columns,
            scores=mine["score"].to_numpy(),
            y=look_back.y,
            y_scores=look_back.scores,
            y_at=look_back.at,
            rows=asked,
        )
        return evaluate(
            stores.ledger,
            monitor,
            window,
            profile=loaded.profile,
            reference=self._reference(model),
            key=f"{key}:monitor",
            at=end,
            cause=cause.id,
        )

    def _reference(self, model: Version) -> Mapping[str, float]:
        """Give the quality that the gate saw: a refit is expected to be as good as what was judged."""
        ledger = self.stores.ledger
        metrics: Mapping[str, float] = model.facts["metrics"]
        for parent in () if metrics else model.facts["parents"]:
            metrics = ledger.get_version_by_id(parent).facts["metrics"]
        return metrics

    # -- decisions

    def _decide(self, end: datetime, key: str) -> None:
        """End the trial if its time has come; then see what the triggers make of the news."""
        stores = self.stores
        verdict = conclude_canary(stores.bench, self._traffic.pairs, at=end, key=f"{key}:canary")
        if verdict is not None:
            if verdict.payload["decision"] != "continue":
                outcome = "promoted" if verdict.payload["decision"] == "promote" else "rolled back"
                for decision in list_unfinished(stores.ledger, trigger=self.replay.trigger.name):
                    settle(
                        stores.ledger, decision,
                        outcome=outcome, reason=verdict.payload["reason"], at=end, cause=verdict.id,
                    )  # fmt: skip
            return
        for decision in reconcile(stores.ledger, [self.replay.trigger], at=end):
            if decision.choice is Choice.RUN:
                came = self._challenge(
                    key=decision.key, at=end, cause=stores.ledger.get_event(decision.event)
                )
                if came.stage is not Stage.TRIED:
                    outcome = "refused by the gate" if came.stage is Stage.REFUSED else "deployed"
                    settle(
                        stores.ledger, decision,
                        outcome=outcome, reason=came.event.payload["reason"], at=end, cause=came.event.id,
                    )  # fmt: skip

    def _challenge(self, *, key: str, at: datetime, cause: Event, shuffle: int | None = None) -> Challenge:
        lake, training = self.stores.lake, self.training
        label = training.label
        rows = TrainingRows(
            features=lake.read(feature_table(training.name), where=ds.field("at") < _scalar(at)),
            labels=lake.read(
                label.source.name,
                columns=list(dict.fromkeys([label.on, label.column, label.source.known_at_column])),
                where=ds.field(label.source.known_at_column) < _scalar(at),
            ),
            versions=[self.stores.ledger.get_version("dataset", each.name) for each in self.replay.datasets],
        )
        return challenge(
            self.stores.bench, training, rows, at=at, key=key, cause=cause.id, shuffle_labels_seed=shuffle
        )

    def _challenge_shuffled(self, key: str, at: datetime, cause: Event) -> Challenge:
        return self._challenge(key=key, at=at, cause=cause, shuffle=self.training.seed)

    # -- the lake

    def _known(self, dataset: str, before: datetime) -> pa.Table:
        declared = next(each for each in self.replay.datasets if each.name == dataset)
        return self.stores.lake.read(dataset, where=ds.field(declared.known_at_column) < _scalar(before))

    def _materialize(self, start: datetime | None, end: datetime) -> pa.Table:
        """Add the offline features of the rows to predict before `end`; give those of them."""
        training, lake = self.training, self.stores.lake
        spine = training.spine
        within = ds.field(spine.at) < _scalar(end)
        if start is not None:
            within &= ds.field(spine.at) >= _scalar(start)
        rows = lake.read(spine.source.name, where=within)
        return materialize(lake, feature_table(training.name), rows, training, batch=day_number(end - DAY))

    def _tidy(self, day: datetime) -> None:
        """Put small files together now and then; rows and versions stay as they are."""
        if (day - self.replay.starts_at).days % _COMPACT_EVERY_DAYS == _COMPACT_EVERY_DAYS - 1:
            for name in self.stores.lake.names():
                self.stores.lake.compact(name, keep_newest=5, rows_per_file=_ROWS_PER_FILE)

    def _on_trial(self, standing: Version, day: datetime) -> str | None:
        ledger, place = self.stores.ledger, self.stores.bench.production
        pointer = ledger.find_pointer(place.environment, place.name, at=day)
        if pointer is None or pointer.stable:
            return None
        releases = read_route(ledger.get_version_by_id(pointer.version)).releases
        trial = next(each for ref, each in releases.items() if ref != standing.ref)
        return read_release(ledger.get_version_by_id(trial)).model_ref

    def _finish(
        self, day: datetime, key: str, began: Event, traffic: DayTraffic, report: MonitorReport,
        *, outcomes: int, served: Version, trial: str | None, compared: int, different: int,
    ) -> DayDone:  # fmt: skip
        done = DayDone(
            day=day, predictions=traffic.predictions, requests=traffic.requests, outcomes=outcomes,
            served=served.ref, on_trial=trial, parity_rows=compared, parity_differences=different,
            bad=report.bad, metrics=report.metrics,
        )  # fmt: skip
        payload = msgspec.to_builtins(done) | {"reason": f"{format_instant(day)[:10]} is lived through"}
        self.stores.ledger.append(
            "replay.day_done",
            subject=self.replay.name,
            payload=payload,
            cause=began.id,
            key=f"{key}:done",
            at=day + DAY,
        )
        return done


def _longest_trial(stores: Stores) -> timedelta:
    canary = stores.bench.production_gate.canary
    return timedelta(0) if canary is None else timedelta(days=canary.last_day)


def _scalar(instant: datetime) -> pa.Scalar:
    return pa.scalar(to_micros(instant), pa.int64()).cast(pa.timestamp("us", "UTC"))
