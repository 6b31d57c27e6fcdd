"""A small real world: parcels that arrive late or not, through one whole turn of the loop.

A month of history, a first model; decay is found, a challenger is trained, tried and promoted. Predictions
are logged as the worker and the shipping log them.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from noria.audit.trace import Trace, trace
from noria.clock import ReplayClock, to_micros
from noria.database.store import Database
from noria.deploy.declarations import Canary, Gate, at_least, beats_production, samples_reproduced
from noria.deploy.environments import Deployment
from noria.deploy.releases import find_standing, read_release, read_route
from noria.deploy.shipping import PREDICTIONS, prediction_table
from noria.features import agg
from noria.features.declarations import FeatureView
from noria.features.materialize import materialize
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.monitoring.declarations import Monitor, calibration
from noria.monitoring.evaluate import evaluate
from noria.monitoring.outcomes import OUTCOMES, OutcomeLog
from noria.monitoring.window import WindowData
from noria.records import Event
from noria.registry.store import Registry
from noria.serving.logs.log import PredictionFrame, ReleaseScores
from noria.serving.records import assignment_point, pick, split
from noria.storage.local import LocalStorage
from noria.training import Label, Spine, Training, TrainingRun, TrainingSet, category, train
from noria.triggers.challenge import Bench, ScoredPairs, Stage, TrainingRows, challenge, conclude_canary
from noria.triggers.declarations import Trigger, decay
from noria.triggers.reconcile import reconcile
from noria.value.declarations import Objective
from noria.workspace.endpoints import make_deployment

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PER_DAY, DAYS, FIRST, DECAYED, DECIDED, LAST = 80, 38, 30, 32, 34, 37
INSTANT = pa.timestamp("us", "UTC")

parcels = Dataset("parcels", key="parcel_id", event_at="promised_at", known_at="promised_at")
deliveries = Dataset("deliveries", key="delivery_id", event_at="delivered_at", known_at="scanned_at")
depot = FeatureView(
    "depot",
    source=deliveries,
    entity="depot",
    features={
        "late_7d": agg.mean("late", "7d"),
        "scans_24h": agg.count("24h"),
        "p90_3d": agg.quantile("minutes", 0.9, "3d", low=-60, high=600, width=10),
    },
)
courier = FeatureView(
    "courier",
    source=deliveries,
    entity="courier",
    features={"last_minutes": agg.last("minutes"), "age": agg.age()},
)


@train(
    "late_parcel",
    spine=Spine(parcels, id="parcel_id", at="predict_at"),
    label=Label("late", source=deliveries, column="late", on="parcel"),
    fields=["weight", category("depot"), category("courier")],
    features=[depot, courier],
    objective=Objective(
        decision="warn the customer", owner="desk", unit="EUR", payoff={"tp": 5, "fp": -1, "fn": 0, "tn": 0}
    ),
    seed=7,
)
def late_parcel(data: TrainingSet, run: TrainingRun) -> Any:
    params = run.lightgbm_params(num_leaves=7, learning_rate=0.2)
    rows = lightgbm.Dataset(
        data.X, data.y, feature_name=list(data.names), categorical_feature=list(data.category_columns)
    )
    return lightgbm.train(params, rows, num_boost_round=10)


WATCH = Monitor(late_parcel, checks=[calibration(min_rows=100)])
RETRAIN = Trigger(decay(WATCH), run=late_parcel, name="retrain")
STAGING = Gate("staging_gate", checks=[samples_reproduced(), at_least("auc", 0.55)])
PRODUCTION = Gate(
    "production_gate",
    checks=[beats_production("log_loss", on="7d", min_effect=-0.5, tolerance=1.0, min_rows=50)],
    refit=True,
    canary=Canary(share=0.5, days=1, max_worse=0.5, min_rows=20),
)


@dataclass(frozen=True, slots=True)
class World:
    """Opened stores, and what they hold."""

    root: Path
    ledger: Ledger
    lake: Lake
    registry: Registry
    production: Deployment

    def trace(self, id: str, *, environment: str | None = None) -> Trace:
        return trace(
            id,
            ledger=self.ledger,
            lake=self.lake,
            registry=self.registry,
            trainings={"late_parcel": late_parcel},
            environment=environment,
        )

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lake.read(table).to_pylist()
        return found

    def prediction(self, *, day: int, known: bool = True) -> dict[str, Any]:
        """Give an answered prediction of a day, with or without an outcome."""
        outcomes = {each["prediction_id"] for each in self.rows(OUTCOMES) if each["outcome"] is not None}
        start = START + day * DAY
        return next(
            each
            for each in self.rows(PREDICTIONS)
            if start <= each["at"] < start + DAY
            and each["answered"]
            and (each["prediction_id"] in outcomes) is known
            and each["features"]["courier__age"] is not None
        )


def open_world(root: Path) -> World:
    storage = LocalStorage(root / "storage")
    ledger = Ledger(
        Database.open(f"sqlite:///{root}/noria.db"), storage=storage, clock=ReplayClock(START), code_root=root
    )
    lake = Lake(str(root / "tables"), ledger=ledger)
    registry = Registry(ledger, storage)
    production = make_deployment(
        ledger, registry, storage, environment="production", name="late_parcel", supervisor=None
    )
    return World(root, ledger, lake, registry, production)


def make_tables() -> tuple[pa.Table, pa.Table]:
    """Give all parcels and their deliveries; heavy ones are late, and one in twenty never arrives."""
    rng = np.random.default_rng(3)
    size = PER_DAY * DAYS
    at = [START + number * DAY / PER_DAY for number in range(size)]
    weight = rng.exponential(5, size)
    minutes = np.rint(weight * 10 + rng.normal(0, 20, size) - 40).astype(np.int64)
    where, who = rng.choice(["north", "south", "west"], size), rng.choice(["ann", "bob", "cem", "dua"], size)
    ids = [f"p{number:06}" for number in range(size)]
    known = pa.table(
        {
            "parcel_id": ids,
            "promised_at": pa.array([each - timedelta(hours=9) for each in at], INSTANT),
            "predict_at": pa.array(at, INSTANT),
            "weight": weight,
            "depot": where,
            "courier": who,
        }
    )
    arrived = pa.table(
        {
            "delivery_id": [f"d{each}" for each in ids],
            "parcel": ids,
            "delivered_at": pa.array([each + timedelta(hours=5) for each in at], INSTANT),
            "scanned_at": pa.array([each + timedelta(hours=6) for each in at], INSTANT),
            "depot": where,
            "courier": who,
            "minutes": minutes,
            "late": (minutes > 15).astype(np.int64),
            "note": [None if number % 3 else f"door {number}" for number in range(size)],
        }
    )
    return known, arrived.filter(pa.array(rng.random(size) > 0.05))


class Loop:
    """Lives through the days."""

    def __init__(self, world: World) -> None:
        self.world, self.ledger, self.lake = world, world.ledger, world.lake
        self.tables = dict(zip((parcels, deliveries), make_tables(), strict=True))
        staging = make_deployment(
            world.ledger,
            world.registry,
            world.ledger.storage,  # type: ignore[arg-type]
            environment="staging",
            name="late_parcel",
            supervisor=None,
        )
        self.bench = Bench(
            ledger=world.ledger,
            registry=world.registry,
            threads=1,
            staging=staging,
            staging_gate=STAGING,
            production=world.production,
            production_gate=PRODUCTION,
            probe=lambda *_: [1.0],
        )
        self.outcomes = OutcomeLog(world.root / "spool", deployment="production/late_parcel")

    def run(self) -> None:
        start = START + FIRST * DAY
        began = self.ledger.append(
            "replay.began", subject="late_parcel", payload={"reason": "parcels are replayed"}, at=start
        )
        self.land(None, start, began)
        self.materialize(START, start, batch=1)
        self.challenge(start, key="first", cause=began)
        reconcile(self.ledger, [RETRAIN], at=start)  # arms the trigger
        for number in range(FIRST, LAST + 1):
            day = START + number * DAY
            self.land(day, day + DAY, began)
            self.log_predictions(day, self.materialize(day, day + DAY, batch=number))
            self.log_outcomes(day)
            if number == DECAYED:
                self.decide(day + DAY, began)
            if number == DECIDED:
                conclude_canary(self.bench, self.pairs, at=day + DAY, key=f"day{number}:canary")
                for name in self.lake.names():
                    self.lake.compact(name, keep_newest=2)
        self.outcomes.close()

    def land(self, start: datetime | None, end: datetime, began: Event) -> None:
        for dataset, rows in self.tables.items():
            known = rows[dataset.known_at_column]
            mine = pc.less(known, pa.scalar(end, INSTANT))
            if start is not None:
                mine = pc.and_(mine, pc.greater_equal(known, pa.scalar(start, INSTANT)))
            batch = 1 if start is None else (start - START).days
            self.lake.ingest(dataset, rows.filter(mine), batch=batch, cause=began.id, at=end)

    def materialize(self, start: datetime, end: datetime, *, batch: int) -> pa.Table:
        within = (ds.field("predict_at") >= pa.scalar(start, INSTANT)) & (
            ds.field("predict_at") < pa.scalar(end, INSTANT)
        )
        rows = self.lake.read("parcels", where=within)
        return materialize(self.lake, "late_parcel__features", rows, late_parcel, batch=batch)

    def challenge(self, at: datetime, *, key: str, cause: Event) -> Stage:
        rows = TrainingRows(
            features=self.lake.read("late_parcel__features"),
            labels=self.lake.read("deliveries", columns=["parcel", "late", "scanned_at"]),
            versions=[self.ledger.get_version("dataset", each.name) for each in (parcels, deliveries)],
        )
        return challenge(self.bench, late_parcel, rows, at=at, key=key, cause=cause.id).stage

    def decide(self, at: datetime, began: Event) -> None:
        standing = find_standing(self.ledger, environment="production", deployment="late_parcel")
        assert standing is not None
        scores = np.full(2_000, 0.2)
        window = WindowData(
            version=standing.model,
            environment="production",
            deployment="late_parcel",
            columns={},
            scores=scores,
            y=np.arange(2_000) % 2,
            y_scores=scores,
            y_at=to_micros(at) - np.arange(2_000) * 60_000_000,
        )
        evaluate(
            self.ledger, WATCH, window, profile=None, reference={}, key="day:monitor", at=at, cause=began.id
        )
        (decision,) = reconcile(self.ledger, [RETRAIN], at=at)
        cause = self.ledger.get_event(decision.event)
        assert self.challenge(at, key=decision.key, cause=cause) is Stage.TRIED

    def log_predictions(self, day: datetime, rows: pa.Table) -> None:
        pointer = self.ledger.find_pointer("production", "late_parcel")
        assert pointer is not None
        route = self.ledger.get_version_by_id(pointer.version)
        content = read_route(route)
        ids: list[str] = rows["id"].to_pylist()
        chosen = [pick(tuple(split(content.entries)), assignment_point(route.sha256, each)) for each in ids]
        scored = []
        for ref, release in content.releases.items():
            model = self.ledger.get_version_by_id(read_release(self.ledger.get_version_by_id(release)).model)
            scores = self.world.registry.load(model).score_rows(rows)
            scored.append((ref, model, scores, [each == ref for each in chosen]))
        frames = []
        names = list(late_parcel.feature_names)
        features = np.column_stack([rows[name].to_numpy() for name in names])
        for number, each in enumerate(ids):
            at = rows["at"][number].value
            frames.append(
                PredictionFrame(
                    at=at,
                    recorded_at=at + 5,
                    environment="production",
                    deployment="late_parcel",
                    route=route.sha256,
                    route_number=route.number,
                    latency_us=900,
                    ids=[each],
                    digests=bytes(16),
                    texts={name: [rows[name][number].as_py()] for name in ("depot", "courier")},
                    numbers={"weight": rows["weight"].to_numpy()[number : number + 1].tobytes()},
                    feature_names=names,
                    features=features[number].tobytes(),
                    releases=[
                        ReleaseScores(
                            release=ref,
                            model=model.name,
                            version=model.number,
                            scores=scores[number : number + 1].tobytes(),
                            answered=bytes([answers[number]]),
                        )
                        for ref, model, scores, answers in scored
                    ],
                )
            )
        batch = (day - START).days
        self.lake.append(PREDICTIONS, prediction_table(frames), batch=batch, app_id="predictions/production")

    def log_outcomes(self, day: datetime) -> None:
        rows = self.tables[deliveries]
        known = rows["scanned_at"]
        mine = rows.filter(
            pc.and_(
                pc.greater_equal(known, pa.scalar(max(day, START + FIRST * DAY), INSTANT)),
                pc.less(known, pa.scalar(day + DAY, INSTANT)),
            )
        )
        instants = mine["scanned_at"].cast(pa.int64()).to_pylist()
        self.outcomes.record(
            mine["parcel"].to_pylist(), [float(each) for each in mine["late"].to_pylist()], known_at=instants
        )
        self.outcomes.ship(self.lake)

    def pairs(self, champion: str, challenger: str, since: datetime) -> ScoredPairs:
        outcomes = {each["prediction_id"]: each["outcome"] for each in self.world.rows(OUTCOMES)}
        by_release: dict[str, dict[str, dict[str, Any]]] = {champion: {}, challenger: {}}
        for each in self.world.rows(PREDICTIONS):
            if each["release"] in by_release:
                by_release[each["release"]][each["prediction_id"]] = each
        ids: Sequence[str] = list(by_release[challenger])
        new = [by_release[challenger][each] for each in ids]
        return ScoredPairs(
            y=np.array([outcomes.get(each, np.nan) for each in ids]),
            champion=np.array([by_release[champion][each]["score"] for each in ids]),
            challenger=np.array([each["score"] for each in new]),
            at=np.array([to_micros(each["at"]) for each in new]),
        )


@pytest.fixture(scope="session")
def trainings() -> dict[str, Training]:
    return {"late_parcel": late_parcel}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which the world was lived through once; nobody changes it."""
    root = tmp_path_factory.mktemp("parcels")
    world = open_world(root)
    Loop(world).run()
    world.lake.close()
    world.ledger.database.close()
    return root


@pytest.fixture(scope="session")
def shared(made: Path) -> Iterator[World]:
    """Give the world, to be read only."""
    world = open_world(made)
    yield world
    world.lake.close()
    world.ledger.database.close()


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Iterator[World]:
    """Give a copy of the world that a test may change."""
    shutil.copytree(made, tmp_path / "world")
    world = open_world(tmp_path / "world")
    yield world
    world.lake.close()
    world.ledger.database.close()
