"""A year of flights out of New York, replayed: will this flight arrive more than 15 minutes late?

The prediction is made two hours before the scheduled departure, rounded down to a quarter of an hour, and
uses nothing that was not known then. `sources.py` turns the raw files into datasets; this file says what is
checked, computed, learned, judged and watched. All of it is ordinary noria: copy it for your own table.
"""

from typing import Any

import sources

import noria
from noria import agg, check


def reference(name: str, key: str, *checks: Any) -> noria.Dataset:
    source = sources.reference(name)
    return noria.Dataset(
        name, key=key, event_at="known_at", known_at="known_at", source=source, checks=checks)


airlines = reference("airlines", "carrier", check.not_null("name"), check.matches("carrier", "[A-Z0-9]{2}"))
airports = reference("airports", "faa", check.between("lat", -90, 90), check.between("lon", -180, 180))
planes = reference("planes", "tailnum", check.between("engines", 1, 4), check.between("seats", 1, 600))
schedule = noria.Dataset(
    "schedule", key="flight_id", event_at="published_at", known_at="published_at", source=sources.schedule,
    checks=[check.not_null("carrier", "origin", "dest"), check.between("distance", 10, 6_000),
            check.expression("predict_at > published_at", name="published before it is used")],
)
landings = noria.Dataset(
    "landings", key="flight_id", event_at="landed_at", known_at="landed_at", source=sources.landings,
    checks=[check.between("arr_delay", -120, 1_500), check.between("dep_delay", -60, 1_500),
            check.matches("tailnum", "[A-Z0-9]{5,6}")],
)
weather = noria.Dataset(
    "weather", key=("origin", "hour_at"), event_at="hour_at", known_at="known_at", source=sources.weather,
    checks=[check.one_of("origin", ["EWR", "JFK", "LGA"]), check.between("temp", -30, 130),
            check.between("pressure", 900, 1_100)],
)
observations = noria.Stream("weather", into=weather, every="30s")  # each hour is an event, flights come daily


def p90(window: str) -> agg.Aggregation:
    return agg.quantile("arr_delay", 0.9, window, low=-60, high=260, width=5)


def punctuality(name: str, entity: str, **more: agg.Aggregation) -> noria.FeatureView:
    common = {
        "landings_3h": agg.count("3h"), "late_3h": agg.mean("late", "3h"),
        "delay_3h": agg.mean("arr_delay", "3h"), "late_24h": agg.mean("late", "24h"),
        "delay_24h": agg.mean("arr_delay", "24h"),
        "late_7d": agg.mean("late", "7d"), "late_30d": agg.mean("late", "30d"),
    }
    return noria.FeatureView(name, source=landings, entity=entity, features=common | more)


carrier = punctuality("carrier", "carrier", p90_24h=p90("24h"))
origin = punctuality("origin", "origin", departure_delay_3h=agg.mean("dep_delay", "3h"), p90_12h=p90("12h"))
dest = punctuality("dest", "dest", p90_7d=p90("7d"))
tail = noria.FeatureView("tail", source=landings, entity="tailnum", features={
    "landings_24h": agg.count("24h"), "late_24h": agg.mean("late", "24h"),
    "delay_24h": agg.mean("arr_delay", "24h"),
    "late_7d": agg.mean("late", "7d"), "late_30d": agg.mean("late", "30d"),
    "last_delay": agg.last("arr_delay", max_age="30d"), "age_minutes": agg.age(max_age="30d")})
sky = noria.FeatureView("sky", source=weather, entity="origin", features={
    column: agg.last(column, max_age="12h") for column in sources.WEATHER})

rebooking = noria.Objective(
    decision="offer a rebooking", owner="operations", unit="USD", baseline="never",
    payoff={"tp": 40, "fp": -9, "fn": 0, "tn": 0}, stop_if="value < 0 for 60d",
)


@noria.train(
    "late_arrival",
    spine=noria.Spine(schedule, id="flight_id", at="predict_at"),
    label=noria.Label("late", source=landings, column="late", on="flight_id"),
    fields=["departure_minute", "arrival_minute", "weekday", "distance",
            noria.category("carrier"), noria.category("origin"), noria.category("dest")],
    features=[carrier, origin, dest, tail, sky], objective=rebooking, seed=7,
)
def late_arrival(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
    import lightgbm  # here, because declarations load no engine

    params = run.lightgbm_params(
        objective="binary", learning_rate=0.08, num_leaves=31, min_child_samples=1_000, lambda_l2=20.0,
        feature_fraction=0.5, bagging_fraction=0.7, bagging_freq=1, max_bin=63,
    )
    rows = lightgbm.Dataset(
        data.X, data.y, feature_name=list(data.names), categorical_feature=list(data.category_columns)
    )
    return lightgbm.train(params, rows, num_boost_round=120)


staging_gate = noria.Gate(checks=[check.samples_reproduced(), check.no_leakage(), check.latency(p99_ms=500)])
# Fourteen days are few, and days differ: a challenger has to be better on average and surely not much worse
# (0.015); then the canary looks for a regression (0.03) of the refit, which has seen the newest days as well.
production_gate = noria.Gate(
    checks=[check.beats_production("log_loss", on="14d", min_effect=0.001, confidence=0.8, tolerance=0.015),
            check.at_least("auc", 0.6)],
    refit=True, canary=noria.Canary(share=0.2, days=3, metric="log_loss", max_worse=0.03, min_rows=1_500),
)
watch = noria.Monitor(late_arrival, every="1d", window="14d", checks=[
    check.volume(), check.data_quality(max_missing_rise=0.6), check.drift(), check.estimated_quality("auc"),
    check.quality("auc", window="14d", max_drop=0.01, min_rows=9_000),
    check.calibration(low=0.8, high=1.25, window="7d", min_rows=4_000)])
retrain = noria.Trigger(
    noria.decay(watch), run=late_arrival, warm_up="25d", cooldown="27d",
    budget=noria.Budget(runs=3, per="90d"),
)

year = noria.Replay(
    late_arrival, monitor=watch, trigger=retrain, start="2013-04-01", end="2014-01-01",
    streams=[observations],
    accidents=[
        noria.BadBatch(landings, on="2013-04-17", change=sources.delays_in_seconds,
                       note="a day's delays arrive in seconds"),
        noria.ShuffledLabels(on="2013-04-24", note="a candidate is trained on shuffled labels"),
        noria.RollbackDrill(on="2013-05-08", note="roll production back, and forward again"),
    ],
)
