"""Whatever the graph and whatever changes: what is built piece by piece is what is built as a whole."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.warehouse.small_project import SmallProject, orders

_DAYS = 6
# All take and give the columns placed_at, shop, amount, so that any can read any.
_QUERIES = {
    "filter": "select placed_at, shop, amount + {salt} as amount from {x} where amount % 5 <> {salt}",
    "daily": (
        "select date_trunc('day', placed_at) as placed_at, shop, sum(amount) % 97 + {salt} as amount "
        "from {x} group by all"
    ),
    "joined": (
        "select x.placed_at, x.shop, x.amount + coalesce(max(y.amount), {salt}) as amount from {x} x "
        "left join {y} y on x.placed_at = y.placed_at and x.shop = y.shop "
        "group by x.placed_at, x.shop, x.amount"
    ),
    "both": "select * from {x} union select placed_at, shop, amount + {salt} from {y}",
    "ranked": (
        "select placed_at, shop, row_number() over (partition by placed_at::date order by placed_at, shop, "
        "amount) + {salt} as amount from {x}"
    ),
    "against_all": (
        "select placed_at, shop, amount + {salt} + (select coalesce(max(amount), 0) from {y}) % 7 as amount "
        "from {x}"
    ),
    "rolling": (
        "select placed_at, shop, (sum(amount) over (order by placed_at range between interval 2 day "
        "preceding and current row))::bigint % 89 + {salt} as amount from {x}"
    ),
    "anywhere": "select placed_at, shop, (rank() over (order by amount)) + {salt} as amount from {x}",
}
_HOPELESS = {"anywhere"}  # no promise makes it incremental


@dataclass(frozen=True)
class _Model:
    query: str
    x: int  # which of the tables before it; 0 is the dataset
    y: int
    salt: int
    materialize: str
    unit: str

    def text(self, number: int) -> str:
        def name(place: int) -> str:
            place = place % (number + 1)
            return "orders" if place == 0 else f"m{place - 1}"

        made = self.materialize
        if made == "incremental" and self.query in _HOPELESS:
            made = "table"
        header = f"-- materialize: {made}\n"
        if made == "incremental":
            header += f"-- partition: {self.unit}(placed_at)\n"
            header += "-- lookback: 2d\n" if self.query == "rolling" else ""
        return header + _QUERIES[self.query].format(x=name(self.x), y=name(self.y), salt=self.salt)


_MODELS = st.builds(
    _Model,
    query=st.sampled_from(sorted(_QUERIES)),
    x=st.integers(0, 4),
    y=st.integers(0, 4),
    salt=st.integers(0, 3),
    materialize=st.sampled_from(["incremental", "incremental", "table", "view"]),
    unit=st.sampled_from(["day", "day", "month"]),
)
_ROWS = st.lists(
    st.tuples(
        st.integers(0, _DAYS * 4 - 1).map(lambda quarter: quarter / 4),
        st.sampled_from("ab"),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=5,
)
_CHANGES = st.one_of(
    st.tuples(st.just("rows"), _ROWS),  # new days, and late ones
    st.tuples(st.just("edit"), st.tuples(st.integers(0, 3), _MODELS)),
    st.tuples(st.just("backfill"), st.integers(1, _DAYS)),
    st.tuples(st.just("one"), st.integers(0, 3)),
    st.tuples(st.just("compact"), st.just(None)),
)


_CASES = {
    "models": st.lists(_MODELS, min_size=1, max_size=4),
    "first": _ROWS,
    "changes": st.lists(_CHANGES, min_size=1, max_size=4),
}
_HOW = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # an example takes seconds: shrinking would take long
)


@_HOW
@given(**_CASES)
def test_piece_by_piece_equals_the_whole(
    models: list[_Model], first: list[tuple[float, str, int]], changes: list[tuple[str, object]]
) -> None:
    _compare(models, first, changes)


@pytest.mark.soak
@settings(_HOW, max_examples=300)
@given(**_CASES)
def test_piece_by_piece_equals_the_whole_many_times(
    models: list[_Model], first: list[tuple[float, str, int]], changes: list[tuple[str, object]]
) -> None:
    _compare(models, first, changes)


def _compare(
    models: list[_Model], first: list[tuple[float, str, int]], changes: list[tuple[str, object]]
) -> None:
    models = list(models)
    with tempfile.TemporaryDirectory() as folder:
        shop = SmallProject(Path(folder) / "shop")
        shop.models(**{f"m{number}": each.text(number) for number, each in enumerate(models)})
        shop.add(orders(*first))
        shop.transform()
        for what, given_ in changes:
            match what, given_:
                case "rows", list(rows):
                    shop.add(orders(*rows))
                case "edit", (int(number), _Model() as model):
                    number %= len(models)
                    models[number] = model
                    shop.models(**{f"m{number}": model.text(number)})
                case "backfill", int(day):
                    shop.transform(since=f"2026-01-0{day}", until=f"2026-01-0{day + 1}")
                    continue
                case "one", int(number):
                    shop.transform(f"m{number % len(models)}")
                    continue
                case _:
                    with shop.open() as project:
                        for name in project.lake.names():
                            project.lake.compact(name)
            if what != "compact":
                shop.transform(f"m{len(models) - 1}")
        _transformed(shop)
        good = _transformed(shop, {"unchanged"})
        before = {name: _sorted(shop.rows(name)) for name in good}
        shop.transform(full=True)
        assert {name: _sorted(shop.rows(name)) for name in good} == before


def _transformed(shop: SmallProject, states: Collection[str] = ("built", "unchanged")) -> list[str]:
    """Name the stored models that are up to date; others can only be those that cannot be incremental."""
    with shop.open() as project:
        found = project.transform().models
    for each in found:
        if each.state not in states:
            assert each.state == "view" or "in their own partition only" in each.reason
    return [each.model for each in found if each.state in states]


def _sorted(rows: list[dict[str, object]]) -> list[str]:
    return sorted(map(repr, rows))
