"""Eighteen months of a shop's purchases: will a customer buy again within 90 days?

    noria ingest purchases          69,659 purchases of 23,570 customers, from the package `lifetimes`
    python buys_again.py            learn from what 1997 told, predict 1998, and print how good that is
    noria feature materialize       load the views for serving
    noria feature get customer 00003 --at 1998-07-01

The shop asks on the first of each month, about every customer it has. Nothing here joins anything: views are
asked for as of an instant, and noria finds the rows that were known at it. The label is a view too, asked for
90 days later.
"""

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import noria
from noria import agg, check
from noria.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa


def read_purchases(project: Path) -> "pa.Table":
    """Give the purchases: customer, day, number of CDs, and dollars, a line each."""
    import pyarrow as pa  # here, because declarations load no engine

    package = importlib.util.find_spec("lifetimes")  # only its file is read: nothing else of it is needed
    if package is None or not package.submodule_search_locations:
        raise SourceError(
            "the purchases come in the package lifetimes, which is not installed; run "
            "`pip install --no-deps lifetimes==0.11.3` (or `make install`) and try again")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "CDNOW_master.txt"
    customers, days, cds, dollars = zip(*map(str.split, file.read_text().splitlines()[1:]), strict=True)
    bought = [datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) for day in days]
    instant = pa.timestamp("us", "UTC")
    return pa.table({
        "purchase_id": [f"{line:05d}" for line in range(len(days))], "customer": customers,
        "bought_at": pa.array(bought, instant),
        "known_at": pa.array([day + timedelta(days=1) for day in bought], instant),  # when the day has passed
        "cds": pa.array(map(int, cds)), "dollars": pa.array(map(float, dollars))})


purchases = noria.Dataset(
    "purchases", key="purchase_id", event_at="bought_at", known_at="known_at", source=read_purchases,
    checks=[check.not_null("customer"), check.between("cds", 1, 99), check.between("dollars", 0, 2_000)],
)

customer = noria.FeatureView("customer", source=purchases, entity="customer", features={
    "since_minutes": agg.age(),
    "purchases": agg.count("600d"), "purchases_30d": agg.count("30d"), "purchases_90d": agg.count("90d"),
    "spent": agg.sum("dollars", "600d", scale=100), "spent_90d": agg.sum("dollars", "90d", scale=100),
    "cds": agg.sum("cds", "600d"), "last_dollars": agg.last("dollars"),
    "purchases_lately": agg.decayed_count("60d"), "spent_lately": agg.decayed_sum("dollars", "60d")})

# From 90 days before an instant up to it: asked for 90 days late, it is what came after.
outcome = noria.FeatureView("outcome", source=purchases, entity="customer", features={
    "purchases_90d": agg.count("90d")})

# Every customer on the first of each month from the first purchase on, and when it is known what came of it.
ASKED = """
    select *, asked_at + interval 90 day as outcome_at
    from (
      select customer, unnest(generate_series(
          date_trunc('month', min(known_at)) + interval 1 month,
          timestamptz '1998-04-01 00:00:00+00', interval 1 month)) as asked_at
      from purchases group by customer)
    order by asked_at, customer"""


def examples(project: noria.Project) -> "pa.Table":
    """Give a row per question: what was known when it was asked, and whether the customer bought `again`."""
    import pyarrow.compute as pc

    asked = project.features.training_set(ASKED, [outcome], name="outcomes", at="outcome_at")
    asked = asked.append_column("again", pc.greater(asked["outcome__purchases_90d"], 0))
    return project.features.training_set(
        asked.drop_columns(list(outcome.columns)), [customer], name="will_buy_again", at="asked_at")
