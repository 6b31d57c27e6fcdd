"""Which columns a table of runs has, and the links that sort by them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noria.tracking.figures import RunFigures
from noria.tracking.searches.filters import Entity, Order, parse_order

__all__ = ["Column", "columns_of", "find_order"]

_METRICS, _PARAMS = 6, 6
_MACHINE = "system/"  # what a run's machine did, which is on its own page


@dataclass(frozen=True, slots=True)
class Column:
    """A column of metrics or parameters.

    Attributes
    ----------
    order
        What the link in its head sorts by.
    sorted_by
        `ascending` or `descending` where the table is sorted by it, else empty.
    """

    entity: str
    name: str
    order: str
    sorted_by: str

    @property
    def is_metric(self) -> bool:
        """Whether its values are figures."""
        return self.entity == Entity.METRIC


def find_order(text: str) -> Order | None:
    """Read what a table is sorted by; None: by when runs started. Raises `BadFilter`."""
    found = parse_order([text]) if text.strip() else ()
    return found[0] if found else None


def columns_of(runs: Sequence[RunFigures], order: Order | None) -> tuple[list[Column], list[Column], int]:
    """Give the attributes to sort by, the figures that most runs have, and how many have no column."""
    metrics = _most(
        (name for run in runs for name in run.metrics if not name.startswith(_MACHINE)), _METRICS, set()
    )
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.params.items():
            values.setdefault(name, set()).add(value)
    alike = {name for name, seen in values.items() if len(seen) == 1 and len(runs) > 1}
    params = _most((name for run in runs for name in run.params), _PARAMS, alike)
    left = len({name for run in runs for name in run.metrics}) + len(values) - len(metrics) - len(params)
    if order is not None and order.entity is Entity.METRIC and order.key not in metrics:
        metrics.insert(0, order.key)
    if order is not None and order.entity is Entity.PARAM and order.key not in params:
        params.insert(0, order.key)
    keys = [(Entity.METRIC, each) for each in metrics] + [(Entity.PARAM, each) for each in params]
    figures = [_column(entity, name, order, is_first_down=entity is Entity.METRIC) for entity, name in keys]
    attributes = [
        _column(Entity.ATTRIBUTE, name, order, is_first_down=name == "start_time")
        for name in ("run_name", "status", "start_time")
    ]
    return attributes, figures, left


def _most(names: Iterable[str], most: int, last: set[str]) -> list[str]:
    """Give the names that come most often; of equals those that are not `last`, by name."""
    counts = Counter(names)
    ordered = sorted(counts, key=lambda each: (-counts[each], each in last, each))
    return sorted(ordered[:most])


def _column(entity: Entity, name: str, order: Order | None, *, is_first_down: bool) -> Column:
    sorted_by = ""
    if order is None:
        if (entity, name) == (Entity.ATTRIBUTE, "start_time"):
            sorted_by = "descending"
    elif (order.entity, order.key) == (entity, name):
        sorted_by = "descending" if order.is_descending else "ascending"
    goes_down = sorted_by == "ascending" if sorted_by else is_first_down
    key = name if entity is Entity.ATTRIBUTE else "`" + name.replace("`", "``") + "`"
    return Column(entity.value, name, f"{entity.value}.{key} {'DESC' if goes_down else 'ASC'}", sorted_by)
