import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import ConfigError
from noria.value import Objective
from noria.value.money import act, money, money_table, payoffs

PAYOFF: dict[str, int | float] = {"tp": 40, "fp": -9, "fn": 0, "tn": 0}


def objective(payoff: dict[str, int | float] | None = None, **changes: object) -> Objective:
    base = Objective(decision="offer rebooking", owner="ops", unit="USD", payoff=payoff or PAYOFF)
    return msgspec.structs.replace(base, **changes)


CELL = st.integers(-50, 50)


@given(CELL, CELL, CELL, CELL, st.floats(0, 1))
def test_the_cut_is_where_acting_begins_to_pay(tp: int, fp: int, fn: int, tn: int, p: float) -> None:
    if tp <= fn or fp >= tn:
        with pytest.raises(ConfigError, match="does not depend"):
            objective({"tp": tp, "fp": fp, "fn": fn, "tn": tn})
        return
    declared = objective({"tp": tp, "fp": fp, "fn": fn, "tn": tn})
    acting, waiting = p * tp + (1 - p) * fp, p * fn + (1 - p) * tn
    if abs(acting - waiting) > 1e-9:
        assert bool(act(declared, [p])[0]) == (acting > waiting)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1), st.sampled_from([0.0, 1.0, float("nan")]), st.integers(1, 3), st.integers(1, 9)
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(["never", "always"]),
)
def test_months_add_up_to_the_rows_payoffs_in_whole_units(
    rows: list[tuple[float, float, int, int]], baseline: str
) -> None:
    declared = objective(baseline=baseline)
    scores, outcomes, months, days = (np.array(each) for each in zip(*rows, strict=True))
    table = money_table(declared, scores, outcomes, months.astype(str), days=days)
    assert sum(each.value for each in table) == payoffs(declared, scores, outcomes).sum()
    assert all(isinstance(each.value, int) and isinstance(each.gain, int) for each in table)
    assert sum(each.rows for each in table) == len(rows)
    whole = money(declared, scores, outcomes, days=days)
    assert whole.gain == sum(each.gain for each in table) == whole.value - whole.baseline_value
    assert whole.tp + whole.fp + whole.fn + whole.tn + whole.unlabelled == whole.rows
    always = np.ones(len(rows))
    wanted = 0 if baseline == "never" else payoffs(declared, always, outcomes).sum()
    assert whole.baseline_value == wanted


def test_an_unlabelled_row_pays_nothing_and_is_counted() -> None:
    found = money(objective(), [0.9, 0.9, 0.01], [1, np.nan, np.nan])
    assert (found.acted, found.tp, found.unlabelled, found.value) == (2, 1, 2, 40)


def test_fractions_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    declared = objective({"tp": 0.1, "fp": -0.3, "fn": 0.0, "tn": 0.7})
    scores, outcomes = rng.random(5_000), rng.integers(0, 2, 5_000)
    order = rng.permutation(5_000)
    assert money(declared, scores, outcomes) == money(declared, scores[order], outcomes[order])


def test_the_interval_holds_the_gain_and_is_wider_by_days_that_hang_together() -> None:
    rng = np.random.default_rng(1)
    days = np.repeat(np.arange(30), 100)
    risk = np.clip(np.repeat(rng.normal(0.3, 0.2, 30), 100), 0, 1)
    outcomes = rng.random(3_000) < risk
    scores = np.full(3_000, 0.3)
    by_row = money(objective(), scores, outcomes)
    by_day = money(objective(), scores, outcomes, days=days)
    assert by_row.low < by_row.gain < by_row.high
    assert by_day.high - by_day.low > 3 * (by_row.high - by_row.low)
    assert by_day == money(objective(), scores, outcomes, days=days)


def test_a_declared_threshold_is_taken_as_it_is() -> None:
    assert act(objective(threshold=0.5), [0.5, 0.51]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"payoff": {"tp": 1}}, "tp, fp, fn, tn"),
        ({"payoff": {"tp": float("inf"), "fp": 0, "fn": 0, "tn": 0}}, "not finite"),
        ({"baseline": "sometimes"}, "baseline"),
        ({"threshold": 2.0}, "threshold"),
        ({"stop_if": "it hurts"}, "60d"),
        ({"stop_if": "value < 0 for ever"}, "ever"),
        ({"owner": " "}, "owner"),
    ],
)
def test_a_senseless_objective_says_what_is_wrong(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Objective(**{"decision": "x", "owner": "ops", "unit": "USD", "payoff": PAYOFF} | change)  # type: ignore[arg-type]


def test_an_objective_survives_the_wire() -> None:
    declared = objective(stop_if="value < 0 for 60d")
    assert msgspec.json.decode(msgspec.json.encode(declared), type=Objective) == declared


def test_a_score_or_outcome_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="without a score"):
        act(objective(), [float("nan")])
    with pytest.raises(ValueError, match="other than"):
        money(objective(), [0.5], [0.5])
    with pytest.raises(ValueError, match="shape"):
        money(objective(), [0.5], [1, 0])
