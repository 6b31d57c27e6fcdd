"""Rules about a batch as a whole, and rules that cannot be: what is refused, and how it is said."""

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from noria import check
from noria.checks.declarations import Rule
from noria.checks.engine import BatchChecker, BatchOutcome
from noria.errors import ConfigError

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


class Beside:
    """The surroundings of a batch that comes after some others."""

    at = AT
    event_at = "t"

    def __init__(self, before: Sequence[int] = ()) -> None:
        self.before = before
        self.since: datetime | None = None

    def earlier_rows(self, since: datetime) -> Sequence[int]:
        self.since = since
        return self.before

    def find_keys(self, dataset: str, columns: Sequence[str], wanted: pa.Table) -> pa.Table:
        return pa.table({columns[0]: ["a", "b"]})


@pytest.fixture(scope="module")
def checker() -> Iterator[BatchChecker]:
    made = BatchChecker()
    yield made
    made.close()


def outcome(
    checker: BatchChecker, pieces: Sequence[dict[str, Any]], *rules: Rule, beside: Beside | None = None
) -> BatchOutcome:
    with checker.begin(rules, max_rejected_share=1.0, surroundings=beside or Beside()) as checking:
        for piece in pieces:
            checking.piece(pa.table(piece))
        return checking.finish()


def times(*ages: timedelta) -> dict[str, Any]:
    return {"t": pa.array([AT - age for age in ages], INSTANT)}


def test_the_newest_row_tells_how_fresh_a_batch_is(checker: BatchChecker) -> None:
    hour = timedelta(hours=1)
    pieces = [times(30 * hour, 26 * hour), times(40 * hour)]
    assert not outcome(checker, pieces, check.fresh("26h")).blocked
    found = outcome(checker, pieces, check.fresh("25h"))
    assert found.reasons == (
        "fresh(25h) does not hold: the newest t is 1 day, 2:00:00 older than the batch, "
        "wanted at most 1 day, 1:00:00",
    )
    assert found.findings[0].failing == 3
    warned = outcome(checker, pieces, check.fresh(timedelta(hours=25), severity="warn"))
    assert (warned.blocked, len(warned.findings)) == (False, 1)


def test_rows_are_counted_over_all_pieces(checker: BatchChecker) -> None:
    pieces = [{"x": [1, 2]}, {"x": [3]}]
    assert not outcome(checker, pieces, check.row_count(3, 3)).blocked
    found = outcome(checker, pieces, check.row_count(4))
    assert found.reasons == ("row_count(4, …) does not hold: it has 3 rows, wanted at least 4",)
    assert found.findings[0].example == '{"rows":3}'


def test_rows_are_compared_with_the_median_of_earlier_batches(checker: BatchChecker) -> None:
    rule = check.row_count(0.5, 2, against="7d")
    few, many = Beside([10, 10, 10, 10]), Beside([1, 6, 8, 10, 1000])
    assert not outcome(checker, [{"x": [1]}], rule, beside=few).findings
    assert outcome(checker, [{"x": [1]}], rule, beside=many).reasons == (
        "row_count(0.5, 2, against=7d) does not hold: it has 1 row, wanted 0.5 to 2 times 8, "
        "the median of 5 batches",
    )
    assert many.since == AT - timedelta(days=7)
    assert not outcome(checker, [{"x": [1] * 16}], rule, beside=many).findings
    assert outcome(checker, [{"x": [1] * 17}], rule, beside=many).blocked


@pytest.mark.parametrize(
    ("kind", "fits"),
    [("int64", True), ("integer", True), ("number", True), ("int32", False), ("text", False)],
)
def test_a_column_is_of_a_type_or_of_a_family(checker: BatchChecker, kind: str, fits: bool) -> None:
    found = outcome(checker, [{"x": [1]}], check.has_type("x", kind))
    assert found.blocked is not fits
    if not fits:
        assert found.reasons == (f"has_type(x, {kind}) does not hold: it is int64, wanted {kind}",)


def test_aggregates_are_of_the_accepted_rows_of_all_pieces(checker: BatchChecker) -> None:
    rules = [
        check.between("x", 0, 10),
        check.aggregate("avg(x) between 2 and 3 and count(*) filter (where x = 1) = 2", name="usual"),
    ]
    pieces = [{"x": [1, 1, 99]}, {"x": pa.array([], pa.int64())}, {"x": [5, 3]}]
    assert not outcome(checker, pieces, *rules).reasons
    found = outcome(checker, [*pieces, {"x": [10]}], *rules)
    assert found.reasons == (
        "usual does not hold: avg(x) between 2 and 3 and count(*) filter (where x = 1) = 2 is false",
    )
    told = json.loads(found.findings[1].example)
    assert told == {"avg(x)": 4.0, "count(*) filter (where x = 1)": 2}
    unknown = outcome(checker, [{"x": pa.array([None], pa.int64())}], check.aggregate("avg(x) < 3", name="x"))
    assert not unknown.findings


def test_text_beside_ascii_in_an_aggregate_is_no_matter(checker: BatchChecker) -> None:
    rule = check.aggregate("""'é☃' = 'é☃' and max("ü x") < 3 and min(s) >= 'é'""", name="odd")
    assert not outcome(checker, [{"ü x": [1], "s": ["é"]}, {"ü x": [2], "s": ["ü"]}], rule).findings
    assert outcome(checker, [{"ü x": [1], "s": ["é"]}, {"ü x": [5], "s": ["ü"]}], rule).blocked


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (check.aggregate("x > 3", name="rows"), "holds no aggregate"),
        (check.aggregate("avg(x) > x", name="mixed"), "cannot be evaluated"),
        (check.aggregate("avg(y) > 1", name="other"), "cannot be evaluated"),
        (check.aggregate("avg(x", name="half"), "is no SQL"),
        (check.aggregate("count(distinct x) = 3", name="three"), "use approx_count_distinct"),
        (check.aggregate("(select count(*) from read_csv('/etc/passwd')) > 0", name="file"), "holds a query"),
        (check.aggregate("avg(x) > 1; select 2", name="two"), "must be one SQL condition"),
        (check.aggregate("avg(x) > 1; drop table kept_1", name="drop"), "is no SQL"),
        (check.aggregate("avg(x) > 1 from batch", name="from"), "must be a condition, not a query"),
        (check.expression("x > (select avg(x) from batch)", name="above"), "looks at more than one row"),
        (check.expression("row_number() over () > 1", name="second"), "looks at more than one row"),
        (check.expression("avg(x) > 1", name="mean"), "looks at more than one row"),
        (check.expression("x > 1) or (true", name="outside"), "is no SQL"),
        (check.expression("x >", name="half"), "is no SQL"),
        (check.expression("x > 1, x < 3", name="two"), "must be one SQL condition"),
        (check.expression("nothing > 1", name="other"), "cannot be evaluated"),
        (check.expression("x like 'a'", name="like"), "cannot be evaluated"),
        (check.between("s", 1, 5), "between(s, 1, 5) (s string) cannot be evaluated"),
        (check.between("l", 1, 5), "cannot be evaluated"),
        (check.length("x", 1, 5), "cannot be evaluated"),
        (check.finite("s"), "cannot be evaluated"),
        (check.increasing("s"), "only numbers, dates and instants"),
        (check.increasing("l"), "only numbers, dates and instants"),
        (check.matches("s", "(?=a)"), "cannot be evaluated"),
        (check.has_type("x", "whole"), "'whole' is no type; write one of integer"),
        (check.has_type("y", "int64"), "speaks of column 'y'"),
        (check.references("x", "other"), "cannot be evaluated"),
        (check.one_of("l", [1]), "cannot be evaluated"),
        (check.unique("y"), "speaks of column 'y'"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_with_what_is_wrong(
    checker: BatchChecker, rule: Rule, told: str
) -> None:
    piece = {"x": [1, 2], "s": ["word", "b"], "l": [[1], [2, 3]]}
    with pytest.raises(ConfigError) as caught:
        outcome(checker, [piece], rule)
    assert told in str(caught.value)
    assert outcome(checker, [piece], check.not_null("x", "s", "l")).rows == 2  # the connection lives on


@pytest.mark.parametrize(
    "rule", [check.fresh("1h"), check.row_count(0.5, against="7d"), check.references("x", "other")]
)
def test_where_nothing_tells_how_a_batch_stands_a_rule_says_so(checker: BatchChecker, rule: Rule) -> None:
    with pytest.raises(ConfigError, match="only an ingest"):
        checker.begin([rule], max_rejected_share=1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: check.fresh("soon"),
        lambda: check.fresh(timedelta(0)),
        lambda: check.fresh("1d", severity="reject"),
        lambda: check.row_count(),
        lambda: check.row_count(5, 1),
        lambda: check.row_count(-1),
        lambda: check.row_count(1, severity="reject"),
        lambda: check.aggregate("avg(x) > 1", name="x", severity="reject"),
        lambda: check.has_type("x", "int64", severity="reject"),
        lambda: check.length("x", None, None),
        lambda: check.length("x", 3, 1),
        lambda: check.length("x", -1, 1),
        lambda: check.references([], "other"),
        lambda: check.references(["a", "b"], "other", "c"),
        lambda: check.references(["a", "a"], "other"),
        lambda: check.finite(),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_an_empty_batch_breaks_no_rule(checker: BatchChecker) -> None:
    empty = {"x": pa.array([], pa.int64()), "t": pa.array([], INSTANT)}
    rules = [
        check.row_count(5),
        check.fresh("1h"),
        check.aggregate("count(*) > 3", name="some"),
        check.unique("x"),
        check.increasing("x"),
    ]
    found = outcome(checker, [empty], *rules)
    assert (found.rows, found.rejected, found.findings) == (0, 0, ())
    assert outcome(checker, [], *rules).reasons == ()


def test_many_values_and_long_patterns_take_their_time_and_no_more(checker: BatchChecker) -> None:
    many = [f"v{each}" for each in range(100_000)]
    rows = {"x": [*many[:5_000], "w"], "n": [*range(5_000), 7_000_000]}
    found = outcome(checker, [rows], check.one_of("x", many), check.one_of("n", list(range(100_000))))
    assert [each.failing for each in found.findings] == [1, 1]
    long = {"x": ["a" * 50_000 + "b"]}
    assert outcome(checker, [long], check.matches("x", "(a+)+c")).rejected == 1


def test_numbers_that_are_none_fail_what_asks_for_numbers(checker: BatchChecker) -> None:
    rows = {"f": [1.0, math.nan, math.inf, -math.inf, None]}
    assert outcome(checker, [rows], check.finite("f")).rejected == 3
    assert outcome(checker, [rows], check.increasing("f")).rejected == 1
    assert outcome(checker, [{"f": [1, 2, 3]}], check.finite("f")).rejected == 0


def test_an_aggregate_that_cannot_be_evaluated_in_the_end_is_told(checker: BatchChecker) -> None:
    rule = check.aggregate("sum(v)::tinyint > 0", name="few")
    with pytest.raises(ConfigError, match=r"the check few \(sum\(v\)::tinyint > 0\) cannot be evaluated"):
        outcome(checker, [{"v": [1]}, {"v": [1_000]}], rule)
