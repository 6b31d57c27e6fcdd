"""A loop small enough to be lived through in a test: will this parcel arrive late?

Two weeks of made-up history and three weeks of replay, 48 parcels a day. From 13 February on, the districts
that were quick are slow and the other way round: the first model decays, and another one has to take over.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import noria
from noria import agg, check

if TYPE_CHECKING:
    import pyarrow as pa

DISTRICTS = ["docks", "hill", "market", "meadow"]
COURIERS = ["ada", "ben", "cleo", "dan", "eve", "finn"]
FIRST_DAY = datetime(2024, 1, 20, tzinfo=UTC)
DAYS, PARCELS_A_DAY, TURN_DAY = 36, 48, 24


def _parcels() -> dict[str, list[object]]:
    import numpy as np

    random = np.random.default_rng(11)
    rows: dict[str, list[object]] = {name: [] for name in _COLUMNS}
    for number in range(DAYS * PARCELS_A_DAY):
        day, slot = divmod(number, PARCELS_A_DAY)
        predict_at = FIRST_DAY + timedelta(days=day, hours=6 + slot // 4)  # four parcels an hour
        courier, district = COURIERS[number % 6], DISTRICTS[int(random.integers(4))]
        weight = int(random.integers(1, 40))
        slow = (district in ("docks", "hill")) == (day < TURN_DAY)
        delay = int(20 * slow + 3 * (number % 6) + weight / 4 - 22 + random.normal(0, 8))
        promised_at = predict_at + timedelta(hours=3)
        values = (f"p{number:05d}", predict_at - timedelta(days=1), predict_at, courier, district, weight,
                  promised_at + timedelta(minutes=delay, seconds=number % 60), delay, delay > 0)  # fmt: skip
        for name, value in zip(_COLUMNS, values, strict=True):
            rows[name].append(value)
    return rows


_COLUMNS = (
    "parcel_id",
    "posted_at",
    "predict_at",
    "courier",
    "district",
    "weight",
    "delivered_at",
    "delay",
    "late",
)


def _table(*names: str) -> "pa.Table":
    import pyarrow as pa

    rows = _parcels()
    instant = pa.timestamp("us", "UTC")
    return pa.table({name: pa.array(rows[name], instant if name.endswith("_at") else None) for name in names})


def posted(project: Path) -> "pa.Table":
    return _table("parcel_id", "posted_at", "predict_at", "courier", "district", "weight")


def delivered(project: Path) -> "pa.Table":
    return _table("parcel_id", "courier", "district", "delivered_at", "delay", "late")


def staff(project: Path) -> "pa.Table":
    import pyarrow as pa

    return pa.table({"courier": COURIERS, "since": pa.array([FIRST_DAY] * 6, pa.timestamp("us", "UTC"))})


def in_seconds(rows: "pa.Table") -> "pa.Table":
    import pyarrow.compute as pc

    return rows.set_column(rows.schema.get_field_index("delay"), "delay", pc.multiply(rows["delay"], 60))


couriers = noria.Dataset("couriers", key="courier", event_at="since", known_at="since", source=staff)
parcels = noria.Dataset("parcels", key="parcel_id", event_at="posted_at", known_at="posted_at", source=posted,
                        checks=[check.not_null("courier"), check.one_of("district", DISTRICTS)])  # fmt: skip
deliveries = noria.Dataset("deliveries", key="parcel_id", event_at="delivered_at", known_at="delivered_at",
                           source=delivered, checks=[check.between("delay", -120, 240)])  # fmt: skip

courier = noria.FeatureView(
    "courier",
    source=deliveries,
    entity="courier",
    features={
        "parcels_24h": agg.count("24h"),
        "late_3d": agg.mean("late", "3d"),
        "last_delay": agg.last("delay"),
    },
)
district = noria.FeatureView(
    "district",
    source=deliveries,
    entity="district",
    features={"late_12h": agg.mean("late", "12h"), "delay_3d": agg.mean("delay", "3d")},
)

voucher = noria.Objective(decision="send a voucher", owner="service", unit="EUR",
                          payoff={"tp": 5, "fp": -2, "fn": 0, "tn": 0})  # fmt: skip


@noria.train(
    "late_parcel", spine=noria.Spine(parcels, id="parcel_id", at="predict_at"),
    label=noria.Label("late", source=deliveries, column="late", on="parcel_id"),
    fields=["weight", noria.category("district")], features=[courier, district], objective=voucher, seed=3,
)  # fmt: skip
def late_parcel(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
    import lightgbm

    params = run.lightgbm_params(num_leaves=4, learning_rate=0.15, min_child_samples=15)
    rows = lightgbm.Dataset(
        data.X, data.y, feature_name=list(data.names), categorical_feature=list(data.category_columns)
    )
    return lightgbm.train(params, rows, num_boost_round=30)


staging_gate = noria.Gate(
    checks=[check.samples_reproduced(), check.no_leakage(), check.latency(p99_ms=5_000)]
)
production_gate = noria.Gate(
    checks=[check.beats_production("log_loss", on="3d", tolerance=0.02, min_rows=50)], refit=True,
    canary=noria.Canary(share=0.3, days=2, max_worse=0.2, min_rows=30),
)  # fmt: skip
watch = noria.Monitor(late_parcel, window="4d", checks=[
    check.volume(), check.data_quality(), check.drift(min_rows=40),
    check.quality("log_loss", window="4d", max_drop=0.15, min_rows=80)])  # fmt: skip
retrain = noria.Trigger(
    noria.decay(watch), run=late_parcel, cooldown="4d", budget=noria.Budget(runs=3, per="21d")
)

weeks = noria.Replay(
    late_parcel, monitor=watch, trigger=retrain, start="2024-02-03", end="2024-02-24",
    accidents=[
        noria.BadBatch(deliveries, on="2024-02-06", change=in_seconds, note="delays came in seconds"),
        noria.ShuffledLabels(on="2024-02-08", note="a candidate is trained on shuffled labels"),
        noria.RollbackDrill(on="2024-02-10", note="roll production back, and forward again"),
    ],
)  # fmt: skip
