"""A pipeline: from a file to a report, in steps.

    noria pipeline run monthly                  the newest month
    noria pipeline run monthly month=2026-01    another one
    noria pipeline run monthly --plan           what would run now, and why
    noria up                                    runs it by its schedule

Each result is kept under everything that it depends on. Run it twice: the second time nothing runs. Change a
line here or an order in orders.csv: what depends on it runs again, the rest does not.
"""

from csv import DictReader
from pathlib import Path
from typing import NamedTuple

import noria

ORDERS = Path(__file__).parent / "orders.csv"


class Region(NamedTuple):
    """The orders of one region."""

    name: str
    amounts: list[float]


class Summary(NamedTuple):
    """What they come to."""

    name: str
    orders: int
    total: float
    largest: float


# A step is a function. It may read what it is given, and files that it names: then these count as well.
@noria.step(files=["orders.csv"])
def read_orders(month: str) -> list[Region]:
    """Read the orders of a month, by region."""
    with ORDERS.open(newline="", encoding="utf-8") as file:
        rows = list(DictReader(file))
    wanted = max(row["day"][:7] for row in rows) if month == "newest" else month
    amounts: dict[str, list[float]] = {}
    for row in rows:
        if row["day"].startswith(wanted):
            amounts.setdefault(row["region"], []).append(float(row["amount"]))
    if not amounts:
        raise ValueError(f"orders.csv holds no order of {wanted}; months look like 2026-01")
    print(f"{sum(map(len, amounts.values()))} orders of {wanted} in {len(amounts)} regions")
    return [Region(name, amounts[name]) for name in sorted(amounts)]


# Tried again where it fails, and ended if it takes too long.
@noria.step(retries=2, timeout="1m")
def summarize(region: Region, run: noria.StepRun = noria.given) -> Summary:
    """Add up one region."""
    total = round(sum(region.amounts), 2)
    run.log_metric("total", total)
    return Summary(region.name, len(region.amounts), total, max(region.amounts))


@noria.step
def write_report(summaries: list[Summary]) -> str:
    """Write what people read."""
    lines = [
        f"{each.name:8} {each.orders:3} orders {each.total:10,.2f}   largest {each.largest:8,.2f}"
        for each in sorted(summaries, key=lambda each: -each.total)
    ]
    report = "\n".join([*lines, f"in all {sum(each.total for each in summaries):21,.2f}"])
    print(report)
    return report


# A pipeline calls steps: the call makes the graph, what is handed on makes its edges.
@noria.pipeline(deadline="10m")
def monthly(month: str = "newest") -> str:
    """Report on a month."""
    regions = read_orders(month)
    summaries = summarize.map(region=regions)()  # once for each region, side by side
    return write_report(summaries)


# `noria up` acts on this: at six in the morning of each month's first day.
on_the_first = noria.Trigger(noria.schedule("0 6 1 * *", tz="Europe/Vienna"), run=monthly)
