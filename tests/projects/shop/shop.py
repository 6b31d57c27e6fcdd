"""A shop whose orders go everywhere: through a stream, into tables, features, a model and its predictions."""

import pyarrow as pa

import noria
from noria import agg, check

orders = noria.Dataset(
    "orders", key="order_id", event_at="ordered_at", known_at="ordered_at", max_rejected_share=1.0,
    schema={"order_id": "string", "customer": "string", "eur": "double", "big": "int64",
            "ordered_at": "timestamp[us, tz=UTC]"},
    checks=[check.between("eur", 0, 1_000)],
)  # fmt: skip
tills = noria.Stream("tills", into=orders, every="1s")
scans = noria.Files("scans", folder="scans/*.txt")

spending = noria.FeatureView(
    "spending",
    source=orders,
    entity="customer",
    features={"orders_3d": agg.count("3d"), "eur_3d": agg.mean("eur", "3d"), "last_eur": agg.last("eur")},
)


@noria.train(
    "big_order", spine=noria.Spine(orders, id="order_id", at="ordered_at"),
    label=noria.Label("big", source=orders, column="big", on="order_id"),
    fields=["eur"], features=[spending], seed=1,
)  # fmt: skip
def big_order(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
    import lightgbm

    params = run.lightgbm_params(num_leaves=3, min_child_samples=2)
    return lightgbm.train(params, lightgbm.Dataset(data.X, data.y, feature_name=list(data.names)), 3)


@noria.step
def best_customers(rows: pa.Table) -> list[str]:
    names = sorted(set(rows["customer"].to_pylist()))
    print("the customers are", ", ".join(names))
    return names


@noria.pipeline
def review() -> None:
    best_customers(orders)
