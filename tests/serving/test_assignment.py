"""Who answers a row: the same way every time, as the weights say, and without moving more than it must."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import ConfigError
from noria.serving.assignment import Assignment
from noria.serving.records import Route, RouteEntry, RouteRule, assignment_point, pick, split
from noria.serving.requests import BadRequestError, Column

UNITS = [f"customer-{number}" for number in range(4_000)]


def route(*weights: float, route_id: str = "a" * 64, **others: Any) -> Route:
    entries = tuple(
        RouteEntry(release=f"m:{number}", weight=weight) for number, weight in enumerate(weights, 1)
    )
    return Route(
        environment="production",
        deployment="m",
        number=1,
        id=route_id,
        entries=entries,
        models=(),
        **others,
    )


def sticky(*weights: float, route_id: str = "a" * 64, units: int = len(UNITS)) -> list[str]:
    assignment = Assignment(route(*weights, route_id=route_id, unit="customer_id", salt="spring"))
    return assignment.choose(UNITS[:units])


def test_without_a_salt_a_route_assigns_as_it_always_did() -> None:
    assignment, shares = Assignment(route(0.7, 0.3)), tuple(split(route(0.7, 0.3).entries))
    expected = [pick(shares, assignment_point("a" * 64, each)) for each in UNITS]
    assert assignment.choose(UNITS) == expected
    assert [assignment.choose_one(each) for each in UNITS[:50]] == expected[:50]


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20),
    salt=st.sampled_from(["", "spring"]),
    unit=st.text(max_size=12),
)
def test_one_row_and_many_are_assigned_alike(weights: list[float], salt: str, unit: str) -> None:
    assignment = Assignment(route(*weights, unit="customer_id", salt=salt))
    assert assignment.choose([unit, unit]) == [assignment.choose_one(unit)] * 2


@pytest.mark.parametrize("weights", [(0.9, 0.1), (0.5, 0.3, 0.2), (1, 1, 1, 1, 1, 1, 1, 1, 1, 1)])
def test_releases_get_their_shares(weights: tuple[float, ...]) -> None:
    found = Counter(sticky(*weights))
    for number, weight in enumerate(weights, 1):
        share = weight / sum(weights)
        assert found[f"m:{number}"] / len(UNITS) == pytest.approx(
            share, abs=4 * (share * (1 - share) / len(UNITS)) ** 0.5
        )


@given(
    before=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=10),
    grown=st.integers(0, 9),
    factor=st.floats(1.0, 20.0),
)
def test_a_release_that_gains_weight_only_wins_units(before: list[float], grown: int, factor: float) -> None:
    grown %= len(before)
    after = [weight * (factor if place == grown else 1) for place, weight in enumerate(before)]
    for was, now in zip(
        sticky(*before, units=100), sticky(*after, route_id="b" * 64, units=100), strict=True
    ):
        assert now in (was, f"m:{grown + 1}")


def test_a_canary_keeps_its_units_while_it_grows_to_all_traffic() -> None:
    held: set[str] = set()
    for number, share in enumerate((0.05, 0.2, 0.5, 0.9)):
        chosen = sticky(1 - share, share, route_id=str(number) * 64)
        mine = {unit for unit, release in zip(UNITS, chosen, strict=True) if release == "m:2"}
        assert held <= mine
        held = mine


def test_a_release_that_is_added_takes_units_from_all_and_moves_no_others() -> None:
    for was, now in zip(sticky(1, 1), sticky(1, 1, 1), strict=True):
        assert now in (was, "m:3")


def test_rules_by_header_come_before_the_weights_in_their_order() -> None:
    rules = (
        RouteRule(header="X-Tester", values=("1", "yes"), release="m:2"),
        RouteRule(header="x-region", prefix="eu-", release="m:3"),
    )
    assignment = Assignment(route(1.0, 0.0, 0.0, rules=rules))
    assert assignment.headers == ("x-tester", "x-region")
    assert assignment.choose(["a", "b"], {"x-tester": "yes", "x-region": "eu-1"}) == ["m:2", "m:2"]
    assert assignment.choose_one("a", {"x-region": "eu-1"}) == "m:3"
    assert assignment.choose_one("a", {"x-tester": "no", "x-region": "us-1"}) == "m:1"
    assert Assignment(route(1.0, 0.0, 0.0, rules=rules), releases={"m:1"}).choose_one(
        "a", {"x-tester": "1"}
    ) == ("m:1")


def test_a_rule_that_says_nothing_is_refused() -> None:
    cases: list[dict[str, Any]] = [
        {"values": ()},
        {"values": ("1",), "prefix": "2"},
        {"header": " ", "values": ("1",)},
    ]
    for wrong in cases:
        with pytest.raises(ConfigError, match="either values or a prefix"):
            RouteRule(**{"header": "x-tester", "release": "m:2"} | wrong)


def test_units_come_from_the_column_the_header_or_the_prediction_id() -> None:
    ids = ["p1", "p2", "p3", "p4"]
    columns = {"customer_id": Column("FP64", [17.0, None, float("nan"), 3.5])}
    by_column = Assignment(route(0.5, 0.5, unit="customer_id", salt="s"))
    assert by_column.units_of(ids, columns) == ["17", "p2", "p3", "3.5"]
    texts = {"customer_id": Column("BYTES", ["17", "", None, "k"])}
    assert by_column.units_of(ids, texts) == ["17", "p2", "p3", "k"]
    whole = {"customer_id": Column("INT64", np.array([17, 1, 2, 3]))}
    assert by_column.units_of(ids, whole) == ["17", "1", "2", "3"]
    assert by_column.units_of(ids, {}) == ids
    by_header = Assignment(route(0.5, 0.5, unit="header:X-User", salt="s"))
    assert by_header.headers == ("x-user",)
    assert by_header.units_of(ids, columns, {"x-user": "ann"}) == ["ann"] * 4
    assert by_header.units_of(ids, columns, {}) == ids
    with pytest.raises(BadRequestError, match="send one value a row"):
        by_column.units_of(ids, {"customer_id": Column("FP64", np.zeros((4, 2)), width=2)})


def test_a_shadow_answers_only_where_it_is_asked_for_by_name() -> None:
    entries = (RouteEntry(release="m:1"), RouteEntry(release="m:2", mode="shadow"))
    shadowed = Route(
        environment="production", deployment="m", number=1, id="a" * 64, entries=entries, models=(), salt="s"
    )
    assert set(Assignment(shadowed).choose(UNITS[:100])) == {"m:1"}
    assert set(Assignment(shadowed, releases={"m:2"}).choose(UNITS[:10])) == {"m:2"}
