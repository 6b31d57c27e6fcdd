import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.checks.declarations import Rule, between, expression, matches, not_null, one_of, unique
from noria.checks.engine import BatchChecker, BatchVerdict, check_batch
from noria.errors import ConfigError


@pytest.fixture(scope="module")
def checker() -> Iterator[BatchChecker]:
    made = BatchChecker()
    yield made
    made.close()


def judged(checker: BatchChecker, columns: dict[str, Any], *rules: Rule, share: float = 1.0) -> BatchVerdict:
    return checker.check(pa.table(columns), rules, max_rejected_share=share)


def kept(checker: BatchChecker, values: Any, *rules: Rule) -> list[Any]:
    kept: list[Any] = judged(checker, {"x": values}, *rules).accepted["x"].to_pylist()
    return kept


def test_bounds_hold_on_both_sides_and_let_nulls_pass(checker: BatchChecker) -> None:
    values = pa.array([0, 1, 5, 6, None])
    assert kept(checker, values, between("x", 1, 5)) == [1, 5, None]
    assert kept(checker, values, between("x", None, 1)) == [0, 1, None]
    assert kept(checker, pa.array(["a", "m", "z"]), between("x", "b", "n")) == ["m"]


def test_nan_and_infinity_are_out_of_bounds(checker: BatchChecker) -> None:
    values = pa.array([1.0, math.nan, math.inf, -math.inf, None])
    assert kept(checker, values, between("x", 0, None)) == [1.0, math.inf, None]
    assert kept(checker, values, between("x", None, 5)) == [1.0, -math.inf, None]


def test_instants_have_bounds(checker: BatchChecker) -> None:
    instants = pa.array([datetime(2013, 1, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC"))
    rule = between("x", datetime(2013, 1, 2, tzinfo=UTC), None)
    assert [each.day for each in kept(checker, instants, rule)] == [2, 3]


def test_nulls_and_nan_are_missing(checker: BatchChecker) -> None:
    assert kept(checker, pa.array([1.0, math.nan, None]), not_null("x")) == [1.0]
    assert kept(checker, pa.array(["a", None, ""]), not_null("x")) == ["a", ""]


def test_values_and_patterns(checker: BatchChecker) -> None:
    values = pa.array(["AA", "O'Hare", "naïve ☃", None, "aa"])
    assert kept(checker, values, one_of("x", ["AA", "O'Hare", "naïve ☃"])) == [
        "AA",
        "O'Hare",
        "naïve ☃",
        None,
    ]
    assert kept(checker, values, matches("x", "[A-Z]+")) == ["AA", None]
    assert kept(checker, pa.array([1, 2, 30]), matches("x", "[0-9]")) == [1, 2]
    assert kept(checker, pa.array([True, False]), one_of("x", [True])) == [True]
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    assert kept(checker, pa.array(days), one_of("x", days[:1])) == days[:1]
    at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2)]
    found = kept(checker, pa.array(at, pa.timestamp("us", "UTC")), one_of("x", at[1:]))
    assert [each.day for each in found] == [2]
    prices = pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal128(8, 2))
    assert kept(checker, prices, one_of("x", [Decimal("1.5")])) == [Decimal("1.50")]


def test_an_expression_lets_the_unknown_pass(checker: BatchChecker) -> None:
    verdict = judged(checker, {"a": [1, 5, None], "b": [2, 2, 2]}, expression("a < b", name="a before b"))
    assert verdict.accepted["a"].to_pylist() == [1, None]
    assert verdict.rejected.to_pylist() == [{"reason": "a before b", "payload": '{"a":5,"b":2}', "row": 1}]


def test_of_twins_the_first_that_is_otherwise_good_stays(checker: BatchChecker) -> None:
    columns = {"k": ["a", "b", "a", "b", None, None], "x": [99, 1, 2, 3, 4, 5]}
    verdict = judged(checker, columns, between("x", 0, 10), unique("k"))
    assert verdict.accepted.to_pylist() == [
        {"k": "b", "x": 1},
        {"k": "a", "x": 2},
        {"k": None, "x": 4},
        {"k": None, "x": 5},
    ]
    assert [each.failing for each in verdict.findings] == [1, 1]  # a row that is bad takes no key


def test_a_composite_key_is_compared_as_a_whole(checker: BatchChecker) -> None:
    columns = {"a": ["x", "x", "xy"], "b": ["yz", "z", "z"], "n": [1, 2, 3]}
    assert judged(checker, columns, unique("a", "b")).accepted.num_rows == 3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_row_is_either_kept_or_set_aside_with_a_reason(rows: list[tuple[int, int]]) -> None:
    checker = HYPOTHESIS_CHECKER
    table = pa.table(
        {"k": pa.array([k for k, _ in rows], pa.int64()), "x": pa.array([x for _, x in rows], pa.int64())}
    )
    verdict = checker.check(table, [between("x", 0, 9), unique("k")], max_rejected_share=1.0)
    assert verdict.accepted.num_rows + verdict.rejected.num_rows == len(rows)
    assert verdict.accepted["k"].to_pylist() == sorted(
        set(verdict.accepted["k"].to_pylist()), key=verdict.accepted["k"].to_pylist().index
    )
    assert set(verdict.accepted["k"].to_pylist()) == {k for k, x in rows if x <= 9}
    assert all(verdict.rejected["reason"].to_pylist())


HYPOTHESIS_CHECKER = BatchChecker()


def test_a_warning_counts_and_rejects_nothing(checker: BatchChecker) -> None:
    verdict = judged(checker, {"x": [1, 99]}, between("x", 0, 9, severity="warn"), share=0.0)
    assert (verdict.accepted.num_rows, verdict.blocked) == (2, False)
    assert (verdict.findings[0].failing, verdict.findings[0].example) == (1, '{"x":99}')


def test_one_failing_row_of_a_blocking_rule_blocks(checker: BatchChecker) -> None:
    verdict = judged(checker, {"x": [1] * 99 + [99]}, between("x", 0, 9, severity="block"))
    assert verdict.reasons == ("between(x, 0, 9) fails for 1 of 100 rows, it allows none",)


def test_a_rejected_share_above_the_limit_blocks_and_one_at_it_does_not(checker: BatchChecker) -> None:
    columns = {"x": [1] * 98 + [99, 99]}
    assert not judged(checker, columns, between("x", 0, 9), share=0.02).blocked
    verdict = judged(checker, columns, between("x", 0, 9), share=0.01)
    assert verdict.reasons == (
        "2 of 100 rows (2.0%) break the contract, at most 1.0% may: between(x, 0, 9) fails for 2",
    )


def test_a_rule_that_does_not_fit_says_so(checker: BatchChecker) -> None:
    with pytest.raises(ConfigError, match="column 'y', which the data lacks; there is x"):
        judged(checker, {"x": [1]}, between("y", 0, 1))
    with pytest.raises(ConfigError, match=r"between\(x, 0, 1\) \(x string\) cannot be evaluated"):
        judged(checker, {"x": ["text"]}, not_null("x"), between("x", 0, 1))
    with pytest.raises(ConfigError, match="nonsense"):
        judged(checker, {"x": [1]}, expression("x <", name="nonsense"))
    assert judged(checker, {"x": [1]}, not_null("x")).accepted.num_rows == 1  # the connection lives on


def test_rejected_rows_keep_what_json_has_no_word_for(checker: BatchChecker) -> None:
    columns = {
        "x": [99],
        "f": [math.nan],
        "t": pa.array([datetime(2013, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        "d": [Decimal("1.50")],
        "b": [b"\x00"],
        "l": [[1.0, math.inf]],
        "s": ["ünïcode ☃"],
    }
    payload = json.loads(judged(checker, columns, between("x", 0, 9)).rejected["payload"][0].as_py())
    assert payload == {
        "x": 99,
        "f": "nan",
        "t": "2013-01-01T00:00:00Z",
        "d": "1.50",
        "b": "AA==",
        "l": [1.0, "inf"],
        "s": "ünïcode ☃",
    }


def test_odd_names_are_columns_like_others(checker: BatchChecker) -> None:
    columns = {'a "b"': [1, 99], "select": ["x", "x"], "ü b": [1.0, 2.0]}
    rules = [between('a "b"', 0, 9), one_of("select", ["x"]), not_null("ü b")]
    assert judged(checker, columns, *rules).accepted.num_rows == 1


def test_no_rules_and_no_rows_are_fine(checker: BatchChecker) -> None:
    assert judged(checker, {"x": [1]}).accepted.num_rows == 1
    verdict = judged(checker, {"x": pa.array([], pa.int64())}, between("x", 0, 1), unique("x"))
    assert (verdict.accepted.num_rows, verdict.blocked) == (0, False)
    assert check_batch(pa.table({"x": [1]}), [], max_rejected_share=0.0).accepted.num_rows == 1
