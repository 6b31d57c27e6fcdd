"""However a batch is cut, the same rows are accepted as by plain Python over one row after the other."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.checks.plain import judge

from noria.checks import seen
from noria.checks.declarations import (
    Rule,
    aggregate,
    between,
    expression,
    finite,
    increasing,
    length,
    matches,
    not_null,
    one_of,
    references,
    unique,
)
from noria.checks.engine import BatchChecker, BatchOutcome
from noria.checks.hashes import sorted_hashes
from noria.checks.proofs import Columns

AT = datetime(2024, 3, 1, tzinfo=UTC)
SCHEMA = pa.schema(
    [("k", pa.string()), ("i", pa.int64()), ("n", pa.int64()), ("m", pa.int64()), ("f", pa.float64())]
)
CHECKER = BatchChecker()
THERE = {("a",), ("ab",), ("",)}

_texts = st.sampled_from([None, "", "a", "ab", "b", "é☃", "a\nb"])
_numbers = st.one_of(st.none(), st.integers(-3, 9), st.sampled_from([-(2**63), 2**63 - 1]))
_floats = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 1.5, 7.0]))
_rows = st.lists(
    st.fixed_dictionaries({"k": _texts, "i": _numbers, "n": _numbers, "m": _numbers, "f": _floats}),
    max_size=30,
)
_severity = st.sampled_from(["reject", "warn", "block"])


def _rule(severity: str) -> st.SearchStrategy[Rule]:
    return st.one_of(
        st.builds(lambda low: between("n", low, 5, severity=severity), st.sampled_from([None, 0, -2.5])),
        st.builds(lambda high: between("f", 0, high, severity=severity), st.sampled_from([None, 3.5])),
        st.just(between("k", "a", "b", severity=severity)),
        st.sampled_from(["k", "i", "f"]).map(lambda name: not_null(name, severity=severity)),
        st.just(not_null("k", "f", severity=severity)),
        st.just(one_of("k", ["a", "ab"], severity=severity)),
        st.just(one_of("i", [1, 2, 3], severity=severity)),
        st.sampled_from(["a.?b?", "[a-z]*", "é.", "(?i)A"]).map(
            lambda regex: matches("k", regex, severity=severity)
        ),
        st.sampled_from([(0, 1), (1, None), (None, 2)]).map(
            lambda bounds: length("k", *bounds, severity=severity)
        ),
        st.just(finite("f", severity=severity)),
        st.just(expression("n < m", name="n below m", severity=severity)),
        st.builds(
            lambda column, strictly: increasing(column, strictly=strictly, severity=severity),
            st.sampled_from(["i", "f"]),
            st.booleans(),
        ),
        st.sampled_from([("i",), ("k",), ("f",), ("k", "i")]).map(
            lambda columns: unique(*columns, severity=severity)
        ),
        st.just(references("k", "other", "name", severity=severity)),
    )


_rules = st.lists(_severity.flatmap(_rule), max_size=5, unique_by=lambda rule: rule.name)


class Beside:
    """The surroundings of a batch: another dataset with three names."""

    at = AT
    event_at = "t"

    def __init__(self, names: Sequence[str] = ("a", "ab", "")) -> None:
        self.names = names
        self.asked: list[list[Any]] = []

    def earlier_rows(self, since: datetime) -> Sequence[int]:
        return []

    def find_keys(self, dataset: str, columns: Sequence[str], wanted: pa.Table) -> pa.Table:
        assert (dataset, list(columns)) == ("other", ["name"])
        self.asked.append(wanted["name"].to_pylist())
        return pa.table({"name": pa.array(self.names, pa.string())})


def pieces(table: pa.Table, cuts: Sequence[int]) -> Iterator[pa.Table]:
    places = sorted({0, table.num_rows, *(cut % (table.num_rows + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        yield table.slice(begin, end - begin)


def checked(
    table: pa.Table, rules: Sequence[Rule], cuts: Sequence[int] = (), share: float = 1.0
) -> tuple[pa.Table, pa.Table, BatchOutcome]:
    with CHECKER.begin(rules, max_rejected_share=share, surroundings=Beside()) as checking:
        verdicts = [checking.piece(table.slice(0, 0)), *map(checking.piece, pieces(table, cuts))]
        outcome = checking.finish()
    return (
        pa.concat_tables([each.accepted for each in verdicts]),
        pa.concat_tables([each.rejected for each in verdicts]),
        outcome,
    )


@given(_rows, _rules, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=250, deadline=None)
def test_pieces_agree_with_plain_python(
    rows: list[dict[str, Any]], rules: list[Rule], cuts: list[int]
) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    accepted, rejected, outcome = checked(table, rules, cuts)
    wanted = judge(rows, rules, THERE)
    assert repr(accepted.to_pylist()) == repr(table.take(pa.array(wanted.kept, pa.int64())).to_pylist())
    assert dict(zip(rejected["row"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == (
        wanted.reasons
    )
    assert {each.rule: each.failing for each in outcome.findings} == wanted.failing
    assert (outcome.rows, outcome.rejected) == (len(rows), len(wanted.reasons))


@given(_rows, _rules, st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_the_cuts_change_nothing(rows: list[dict[str, Any]], rules: list[Rule], cuts: list[int]) -> None:
    rules = [*rules, aggregate("count(*) < 4 and max(i) < 9", name="few", severity="warn")]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    whole, pieced = checked(table, rules), checked(table, rules, cuts)
    assert repr(whole[0].to_pylist()) == repr(pieced[0].to_pylist())
    assert whole[1].equals(pieced[1])
    assert whole[2] == pieced[2]


@given(_rows, _rules)
@settings(max_examples=80, deadline=None)
def test_kernels_and_sql_find_the_same(rows: list[dict[str, Any]], rules: list[Rule]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    by_kernels = checked(table, rules)
    with patch.object(Columns, "failing", return_value=None):
        by_sql = checked(table, rules)
    assert by_kernels[1].equals(by_sql[1])
    assert by_kernels[2] == by_sql[2]


def test_hashes_that_collide_reject_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"k": [f"k{each % 7}" for each in range(40)]})
    rules = [unique("k")]
    right = checked(table, rules, [5, 11, 23])[0]["k"].to_pylist()
    assert right == [f"k{each}" for each in range(7)]
    evaluator = CHECKER._evaluator
    monkeypatch.setattr(
        type(evaluator), "hasher", lambda self, columns: lambda keys: np.zeros(len(keys), np.uint64)
    )
    monkeypatch.setattr(
        "noria.checks.checking.hash_sql", lambda columns: "0::ubigint"
    )  # all keys share one hash
    assert checked(table, rules, [5, 11, 23])[0]["k"].to_pylist() == right


def test_a_key_of_many_pieces_is_found_among_all_of_them() -> None:
    table = pa.table({"k": [f"k{each}" for each in range(100)] + ["k3", "k55", "k99", "new"]})
    accepted, rejected, _ = checked(table, [unique("k")], list(range(0, 100, 9)))
    assert rejected["row"].to_pylist() == [100, 101, 102]
    assert accepted.num_rows == 101


def test_nested_and_composite_keys_are_compared_by_value() -> None:
    keys = [{"a": [1, 2]}, {"a": [1]}, {"a": [1, 2]}, {"a": None}]
    table = pa.table({"s": pa.array(keys), "n": [1, 1, 1, 1]})
    assert checked(table, [unique("s", "n")], [2])[1]["row"].to_pylist() == [2]


def test_known_references_are_not_looked_up_again() -> None:
    beside = Beside()
    with CHECKER.begin(
        [references("k", "other", "name")], max_rejected_share=1.0, surroundings=beside
    ) as checking:
        for keys in (["a", "zz", None], ["a", "ab"], ["ab", "zz"]):
            checking.piece(pa.table({"k": pa.array(keys, pa.string())}))
        outcome = checking.finish()
    assert [sorted(each) for each in beside.asked] == [["a", "zz"], ["ab"], ["zz"]]
    assert outcome.findings[0].failing == 2


def test_rows_are_numbered_over_the_batch_or_as_told() -> None:
    with CHECKER.begin([between("x", 0, 1)], max_rejected_share=1.0) as checking:
        checking.piece(pa.table({"x": [0, 1]}))
        assert checking.piece(pa.table({"x": [0, 9]})).rejected["row"].to_pylist() == [3]
        assert checking.piece(pa.table({"x": [9]}), first_row=70).rejected["row"].to_pylist() == [70]


def test_rows_that_could_not_be_read_count_among_the_rejected() -> None:
    with CHECKER.begin([between("x", 0, 1)], max_rejected_share=0.5) as checking:
        checking.piece(pa.table({"x": [0, 9]}))
        outcome = checking.finish(unreadable=2)
    assert (outcome.rows, outcome.rejected) == (4, 3)
    assert outcome.reasons == (
        "3 of 4 rows (75.0%) break the contract, at most 50.0% may: "
        "between(x, 0, 1) fails for 1, 2 could not be read",
    )


@given(st.lists(st.integers(0, 2**64 - 1), max_size=200), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_seen_keys_find_what_came_before(hashes: list[int], size: int) -> None:
    kept: set[int] = set()
    keys = seen.SeenKeys(["k"], None)
    for begin in range(0, len(hashes), size):
        piece = np.array(hashes[begin : begin + size], dtype=np.uint64)
        ordered = sorted_hashes(piece)
        twice = {each for each in piece.tolist() if piece.tolist().count(each) > 1}
        assert set(keys.come_again(ordered).tolist()) == (set(piece.tolist()) & kept) | twice
        assert keys.was_kept(piece).tolist() == [each in kept for each in piece.tolist()]
        keys.add(pa.table({"k": piece}), ordered)
        kept |= set(piece.tolist())


def test_many_pieces_of_many_keys_are_all_remembered() -> None:
    hashes = np.random.default_rng(6).integers(0, 2**63, 200_000, dtype=np.uint64) * np.uint64(2)
    keys = seen.SeenKeys(["k"], None)
    for begin in range(0, len(hashes), 5_000):
        piece = hashes[begin : begin + 5_000]
        assert not len(keys.come_again(sorted_hashes(piece)))
        keys.add(pa.table({"k": piece}), sorted_hashes(piece))
    again = np.sort(np.concatenate([hashes[::997], hashes[::997] + np.uint64(1)]))
    assert np.array_equal(keys.come_again(again), np.sort(hashes[::997]))
