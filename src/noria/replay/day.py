"""One day of a replay: what its steps do, one after the other, and what they share in memory."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import format_instant, to_micros
from noria.deploy.collecting import collect_predictions
from noria.deploy.releases import Standing, find_standing
from noria.errors import BatchBlocked
from noria.features.agreeing import differing, on_demand_tolerances, tolerances
from noria.features.code_bundle import load_functions
from noria.features.on_demand_tables import add_on_demand
from noria.lake.declarations import Dataset
from noria.monitoring.evaluate import evaluate
from noria.monitoring.records import MonitorReport
from noria.monitoring.window import WindowData
from noria.records import Event, Version
from noria.replay.declarations import DAY
from noria.replay.feed import day_number, instant_scalar
from noria.replay.records import DayDone
from noria.replay.serving_day import DayTraffic, serve_day
from noria.triggers.challenge import Stage, conclude_canary
from noria.triggers.reconcile import Choice, list_unfinished, reconcile, settle

if TYPE_CHECKING:
    from noria.replay.loop import ReplayLoop

__all__ = ["SOURCE", "Day"]

SOURCE = "replay"


class Day:
    """A day at work. Its public methods are the steps of `noria.replay.steps`, in their order.

    Parameters
    ----------
    began
        The event that began the replay.
    """

    def __init__(self, loop: "ReplayLoop", day: datetime, began: Event) -> None:
        self._loop = loop
        self.day, self.end, self.began = day, day + DAY, began
        self.key = f"replay:{loop.replay.name}:{day_number(day)}"
        self._arrived: dict[str, pa.Table] = {}
        self._served: Standing | None = None
        self._trial: str | None = None
        self._traffic = DayTraffic(predictions=0, requests=0)
        self._outcomes = self._compared = self._different = 0
        self._rows = self._offline = pa.table({})
        self._report: MonitorReport | None = None

    # -- the steps

    def receive(self) -> dict[str, int]:
        """Hold what has come against its contracts; give how many rows of each dataset hold."""
        self._loop.serve_as_of(self.day)
        self._arrived = {each.name: self._receive(each, self.day) for each in self._loop.replay.datasets}
        return {name: rows.num_rows for name, rows in self._arrived.items()}

    def serve(self) -> int:
        """Ask for the day's predictions as rows become known; give how many were answered."""
        loop = self._loop
        spine = self._spine(self.day, self.end, self._arrived)
        # As of the day's beginning: a day that is lived again may find the pointer moved at its end.
        environment, name = loop.replay.environment, loop.training.name
        served = find_standing(loop.stores.ledger, environment=environment, deployment=name, at=self.day)
        assert served is not None  # `stand_at` found a pointer
        self._served, self._trial = served, loop.on_trial(served.release, self.day)
        with loop.stores.server.client() as client:
            self._traffic = serve_day(
                loop.training, spine, self._arrived, online=loop.stores.online, client=client, end=self.end
            )
        ids = spine[loop.training.spine.id].cast(pa.string()).to_pylist()
        loop.traffic.await_outcomes(ids, to_micros(self.day))
        return self._traffic.predictions

    def learn(self) -> int:
        """Record what became of predictions; give how many outcomes came."""
        self._outcomes = self._record_outcomes(self._arrived[self._loop.training.label.source.name])
        self._loop.stores.clock.move_to(self.end)
        return self._outcomes

    def land(self) -> list[Version]:
        """Bring the day's batches into the lake; give the versions that hold them."""
        return self._land(self.day, self.end, self.began)

    def ship(self) -> int:
        """Bring the day's log of predictions into the lake; give its rows."""
        self._rows = self._ship(self.day, self.end)
        return int(self._rows.num_rows)

    def materialize(self) -> int:
        """Add the day's offline features; give their rows."""
        self._offline = self._loop.materialize(self.day, self.end)
        return int(self._offline.num_rows)

    def compare(self) -> int:
        """Hold the features that were served against those computed offline; give how many values differ."""
        assert self._served is not None
        self._compared, self._different = self._compare(self._rows, self._offline, self._served.model)
        if self._different:
            self._tell_difference(
                self._different, self._compared, key=self.key, at=self.end, cause=self.began
            )
        return self._different

    def monitor(self) -> bool:
        """Judge the day; give whether its data are bad."""
        assert self._served is not None
        self._report = self._monitor(
            self._rows,
            self._served.model,
            self.end,
            key=self.key,
            cause=self.began,
            asked=self._traffic.predictions,
        )
        return self._report.bad

    def decide(self) -> None:
        """End a trial whose time has come, or see what triggers make of the news, and act on it."""
        self._decide(self.end, self.key)

    def finish(self) -> DayDone:
        """Let happen what is planted for the day's end, tidy up, and count the day."""
        loop = self._loop
        assert self._served is not None
        assert self._report is not None
        loop.accidents.after(self.day, self.end)
        loop.tidy(self.day)
        return self._finish(
            self.day, self.key, self.began, self._traffic, self._report,
            outcomes=self._outcomes, served=self._served.model, trial=self._trial,
            compared=self._compared, different=self._different,
        )  # fmt: skip

    # -- what they do

    def _receive(self, dataset: Dataset, day: datetime) -> pa.Table:
        """Give the day's rows that hold their contract: what may go into the online store."""
        lake, known_at = self._loop.stores.lake, ds.field(dataset.known_at_column)
        of_day = (known_at >= instant_scalar(day)) & (known_at < instant_scalar(day + DAY))
        if dataset in self._loop.events:
            return self._loop.events.receive(dataset, day, day + DAY, of_day)
        last = lake.last_batch(dataset.name)
        if last is not None and last >= day_number(day):  # an earlier attempt at this day has landed it
            return lake.read(dataset.name, where=of_day)
        rows = self._loop.feed.between(dataset, day, day + DAY)
        self._loop.accidents.before(dataset, rows, day)
        verdict = lake.check(dataset, rows, batch=day_number(day), at=day)
        return verdict.accepted.slice(0, 0) if verdict.blocked else verdict.accepted

    def _spine(self, day: datetime, end: datetime, arrived: Mapping[str, pa.Table]) -> pa.Table:
        """Give the rows to predict today: those whose instant has come and that were known by then."""
        spine = self._loop.training.spine
        within = (ds.field(spine.at) >= instant_scalar(day)) & (ds.field(spine.at) < instant_scalar(end))
        table = self._loop.stores.lake.read(spine.source.name, where=within)
        fresh = arrived[spine.source.name]
        fresh = fresh.select(table.column_names).filter(within) if fresh.num_rows else table.slice(0, 0)
        known = spine.source.known_at_column
        # A day that is lived again after its batch has landed finds the batch in the lake as well.
        before = table.filter(pc.less(table[known], instant_scalar(day)))
        rows = pa.concat_tables([before, fresh.cast(table.schema)])
        return rows.filter(pc.less_equal(rows[known], rows[spine.at]))

    def _record_outcomes(self, rows: pa.Table) -> int:
        """Record what became of predictions; rows of things never predicted are none of ours."""
        label = self._loop.training.label
        ids = rows[label.on].cast(pa.string()).to_pylist()
        outcomes = pc.cast(rows[label.column], pa.float64()).to_pylist()
        known = (
            rows[label.source.known_at_column].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
        )
        ours = [number for number, each in enumerate(ids) if self._loop.traffic.awaited(each)]
        fresh = [number for number in ours if ids[number] not in self._loop.landed]
        self._loop.stores.outcomes.record(
            [ids[number] for number in fresh],
            [outcomes[number] for number in fresh],
            known_at=[known[number] for number in fresh],
        )
        self._loop.traffic.learn([ids[number] for number in ours], [outcomes[number] for number in ours])
        return sum(outcomes[number] is not None for number in ours)

    def _land(self, day: datetime, end: datetime, began: Event) -> list[Version]:
        landed = []
        for dataset in self._loop.replay.datasets:
            if dataset in self._loop.events:
                version = self._loop.events.land(dataset, day, end)
                landed += [] if version is None else [version]
                continue
            rows = self._loop.feed.between(dataset, day, end)
            try:
                came = self._loop.stores.lake.ingest(
                    dataset, rows, batch=day_number(day), source=SOURCE, cause=began.id, at=end
                )
            except BatchBlocked:
                continue  # on record as `dataset.blocked`; the day goes on without it
            if came.version is not None:
                landed.append(came.version)
        return landed

    def _ship(self, day: datetime, end: datetime) -> pa.Table:
        """Bring the day's log into the lake and give the day's predictions from there."""
        stores = self._loop.stores
        collect_predictions(stores.server, self._loop.training.name, stores.lake)
        stores.outcomes.ship(stores.lake)
        rows = self._loop.traffic.day(day, end)
        self._loop.traffic.add(rows, now=end)
        return rows

    def _compare(self, rows: pa.Table, offline: pa.Table, model: Version) -> tuple[int, int]:
        """Hold the features that were served against those computed offline: give rows and differences."""
        served = rows.filter(pc.equal(rows["version"], model.number))
        place = pc.index_in(
            served["prediction_id"], value_set=offline["id"].cast(pa.string()).combine_chunks()
        )
        bundle = self._loop.stores.registry.read_code(model)
        functions = () if bundle is None else load_functions(bundle)
        offline, _ = add_on_demand(offline.take(place), functions, as_served=True)
        features = served["features"].combine_chunks()
        different = 0
        allowed = tolerances(view.spec() for view in self._loop.training.views)
        allowed = on_demand_tolerances([each.spec for each in functions], allowed)
        for name, tolerance in allowed.items():
            online = features.field(name).to_numpy(zero_copy_only=False)
            different += differing(online, offline[name].to_numpy(), tolerance)
        for name in (name for view in self._loop.training.views for name in view.spec().text_columns):
            both = zip(features.field(name).to_pylist(), offline[name].to_pylist(), strict=True)
            different += sum(one != other for one, other in both)
        return served.num_rows, different

    def _tell_difference(self, different: int, rows: int, *, key: str, at: datetime, cause: Event) -> None:
        told = f"{different} values of {rows} served rows differ from the same computed offline"
        self._loop.stores.ledger.append(
            "parity.broken",
            subject=self._loop.replay.name,
            payload={"values": different, "rows": rows, "reason": told},
            cause=cause.id,
            key=f"{key}:parity",
            at=at,
        )

    def _monitor(
        self, rows: pa.Table, model: Version, end: datetime, *, key: str, cause: Event, asked: int
    ) -> MonitorReport:
        stores, monitor = self._loop.stores, self._loop.replay.monitor
        mine = rows.filter(pc.equal(rows["version"], model.number))
        loaded = stores.registry.load(model)
        inputs, features = mine["inputs"].combine_chunks(), mine["features"].combine_chunks()
        columns: dict[str, Any] = {}
        for each in loaded.signature.inputs:
            values = (features if each.kind in ("feature", "text") else inputs).field(each.name)
            if each.is_text:
                columns[each.name] = values.to_pylist()
            else:
                columns[each.name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        look_back = self._loop.traffic.scored(version=model.number, since=end - monitor.lookback)
        window = WindowData(
            version=model,
            environment=self._loop.replay.environment,
            deployment=self._loop.training.name,
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
        ledger = self._loop.stores.ledger
        metrics: Mapping[str, float] = model.facts["metrics"]
        for parent in () if metrics else model.facts["parents"]:
            metrics = ledger.get_version_by_id(parent).facts["metrics"]
        return metrics

    def _decide(self, end: datetime, key: str) -> None:
        """End the trial if its time has come; then see what the triggers make of the news."""
        stores = self._loop.stores
        verdict = conclude_canary(stores.bench, self._loop.traffic.pairs, at=end, key=f"{key}:canary")
        if verdict is not None:
            if verdict.payload["decision"] != "continue":
                outcome = "promoted" if verdict.payload["decision"] == "promote" else "rolled back"
                for decision in list_unfinished(stores.ledger, trigger=self._loop.replay.trigger.name):
                    settle(
                        stores.ledger, decision,
                        outcome=outcome, reason=verdict.payload["reason"], at=end, cause=verdict.id,
                    )  # fmt: skip
            return
        for decision in reconcile(stores.ledger, [self._loop.replay.trigger], at=end):
            if decision.choice is Choice.RUN:
                came = self._loop.challenge(
                    key=decision.key, at=end, cause=stores.ledger.get_event(decision.event)
                )
                if came.stage is not Stage.TRIED:
                    outcome = "refused by the gate" if came.stage is Stage.REFUSED else "deployed"
                    settle(
                        stores.ledger, decision,
                        outcome=outcome, reason=came.event.payload["reason"], at=end, cause=came.event.id,
                    )  # fmt: skip

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
        self._loop.stores.ledger.append(
            "replay.day_done",
            subject=self._loop.replay.name,
            payload=payload,
            cause=began.id,
            key=f"{key}:done",
            at=day + DAY,
        )
        return done
