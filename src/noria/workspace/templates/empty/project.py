"""What this project declares: its data, features, models, gates, monitors and triggers.

Every object at module level that noria knows is found by `noria status`; there is nothing to register. Below
is the least that is of use: one table with a contract, features of it, and the gates of two environments.
Replace the names by yours. `noria init --template flights DIR` shows a whole loop.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import noria
from noria import agg, check

if TYPE_CHECKING:
    import pyarrow as pa


def read_orders(project: Path) -> "pa.Table":
    """Give the recorded history: any frame that Arrow can read will do."""
    from pyarrow import csv  # here, because declarations load no engine

    return csv.read_csv(project / "orders.csv")


# A row has a key, an instant at which it happened, and one from which it could be used.
orders = noria.Dataset(
    "orders", key="order_id", event_at="ordered_at", known_at="ordered_at", source=read_orders,
    checks=[check.not_null("customer"), check.between("amount", 0, 100_000)],
)  # fmt: skip

# Features look back from any instant, and see only what was known then.
customer = noria.FeatureView("customer", source=orders, entity="customer", features={
    "orders_7d": agg.count("7d"), "mean_30d": agg.mean("amount", "30d"), "last_amount": agg.last("amount")})

# What a model has to pass before it enters an environment.
staging_gate = noria.Gate(checks=[check.samples_reproduced(), check.latency(p99_ms=50)])
production_gate = noria.Gate(checks=[check.beats_production("log_loss", on="14d")])
