"""What inputs add: sums that hold exactly, shares that are right where known, effects that add up."""

from itertools import pairwise
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from noria.explain.contributions import contributions_of, sampled_contributions
from noria.explain.effects import effects_of
from noria.explain.explaining import explain_model
from noria.explain.permutation import permutation_importance
from noria.records import canonical_json
from noria.registry.formats import dump_estimator, load_estimator, load_scorer
from noria.registry.records import Input, Signature

SIGNATURE = Signature(
    (Input("strong", "number"), Input("weak", "number"), Input("place", "category", ("a", "b", "c"))), "late"
)


@pytest.fixture(scope="module")
def rows() -> Any:
    rng = np.random.default_rng(3)
    matrix = np.column_stack([rng.normal(size=600), rng.normal(size=600), rng.integers(0, 3, 600)])
    matrix[rng.random(600) < 0.1, 0] = np.nan
    return matrix


@pytest.fixture(scope="module")
def y(rows: Any) -> Any:
    noise = np.random.default_rng(4).normal(size=len(rows))
    return (np.nan_to_num(rows[:, 0]) * 3 + 0.3 * rows[:, 1] + (rows[:, 2] == 1) + noise > 0.3).astype(float)


@pytest.fixture(scope="module")
def booster(rows: Any, y: Any) -> Any:
    params = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    data = lightgbm.Dataset(rows, y, categorical_feature=[2])
    return lightgbm.train(params, data, num_boost_round=30)


def test_contributions_of_lightgbm_add_up_to_the_log_odds_of_the_score(booster: Any, rows: Any) -> None:
    found = contributions_of("lightgbm", booster, rows, background=rows)
    assert (found.unit, found.method) == ("log_odds", "tree_shap")
    assert np.abs(1 / (1 + np.exp(-found.totals)) - booster.predict(rows)).max() < 1e-9
    assert np.array_equal(found.scores, load_scorer(*dump_estimator(booster))(rows))


@pytest.mark.parametrize(
    "params",
    [
        {"sigmoid": 2.0},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},  # its trees are averaged
        {"boosting": "dart"},
    ],
)
def test_contributions_of_every_kind_of_lightgbm_are_of_the_log_odds(
    params: dict[str, Any], rows: Any, y: Any
) -> None:
    quiet = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    format, data = dump_estimator(lightgbm.train(quiet | params, lightgbm.Dataset(rows, y), 10))
    found = contributions_of(format, load_estimator(format, data), rows, background=rows)
    assert (found.unit, found.method) == ("log_odds", "tree_shap")
    assert np.abs(1 / (1 + np.exp(-found.totals)) - found.scores).max() < 1e-9


def test_trees_with_linear_leaves_are_explained_by_sampled_orders(rows: Any, y: Any) -> None:
    quiet = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1, "linear_tree": True}
    format, data = dump_estimator(lightgbm.train(quiet, lightgbm.Dataset(rows, y), 10))
    found = contributions_of(format, load_estimator(format, data), rows[:5], background=rows)
    assert (found.unit, found.method) == ("score", "sampled_shapley")
    assert np.abs(found.totals - found.scores).max() < 1e-12
    assert contributions_of(format, load_estimator(format, data), rows[:0], background=rows).method == (
        "sampled_shapley"
    )
    told = explain_model(format, data, SIGNATURE, rows, model="m", y=y, rows=400, permuted_rows=100, seed=1)
    assert (told.method, told.rows, told.inputs[0].name) == ("sampled_shapley", 20, "strong")


def test_many_inputs_are_walked_in_parts_and_come_out_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from noria.explain import contributions

    weights = np.linspace(-1, 1, 8)
    rows = np.random.default_rng(5).normal(size=(4, 8))
    sizes: list[int] = []

    def scorer(asked: Any) -> Any:
        sizes.append(len(asked))
        return np.tanh(asked @ weights)

    whole = sampled_contributions(scorer, rows[:2], rows, seed=2)
    most = max(sizes)
    sizes.clear()
    monkeypatch.setattr(contributions, "_CELLS_AT_ONCE", 8 * 8 * 4 * 5)
    parts = sampled_contributions(scorer, rows[:2], rows, seed=2)
    assert np.array_equal(whole.values, parts.values)
    assert (max(sizes), most) == (8 * 4 * 5, 8 * 4 * 24)


def test_contributions_of_xgboost_add_up_to_the_log_odds_in_single_precision(rows: Any, y: Any) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
                          xgboost.DMatrix(rows, y), 20)  # fmt: skip
    format, data = dump_estimator(model)
    found = contributions_of(format, load_estimator(format, data), rows, background=rows)
    assert (found.unit, found.method) == ("log_odds", "tree_shap")
    assert np.abs(1 / (1 + np.exp(-found.totals)) - found.scores).max() < 1e-5
    endless = np.array([[np.inf, -np.inf, 1.0], [1e300, np.nan, 2.0]])
    found = contributions_of(format, load_estimator(format, data), endless, background=rows)
    assert np.abs(1 / (1 + np.exp(-found.totals)) - found.scores).max() < 1e-5


def test_contributions_of_other_models_add_up_to_the_score(rows: Any, y: Any) -> None:
    known = np.nan_to_num(rows)
    format, data = dump_estimator(LogisticRegression().fit(known, y.astype(int)))
    found = contributions_of(format, load_estimator(format, data), known[:5], background=known)
    assert (found.unit, found.method) == ("score", "sampled_shapley")
    assert np.abs(found.totals - found.scores).max() < 1e-12
    again = contributions_of(format, load_estimator(format, data), known[:5], background=known)
    assert np.array_equal(found.values, again.values)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3), st.integers(0, 99))
def test_what_only_adds_up_is_shared_exactly(weights: list[float], seed: int) -> None:
    usual = np.random.default_rng(seed).random((7, 3))
    asked = np.random.default_rng(seed + 1).random((2, 3))
    found = sampled_contributions(
        lambda matrix: 0.5 + matrix @ np.array(weights), asked, usual, seed=seed, orders=2
    )
    assert np.allclose(found.values, (asked - usual.mean(axis=0)) * weights, atol=1e-12)


def test_no_rows_have_no_contributions_and_no_background_is_refused(booster: Any, rows: Any) -> None:
    assert contributions_of("lightgbm", booster, rows[:0], background=rows).values.shape == (0, 3)
    with pytest.raises(ValueError, match="background"):
        sampled_contributions(lambda matrix: matrix[:, 0], rows[:1], rows[:0], seed=1)


def test_shuffling_costs_most_where_the_model_looks_most(booster: Any, rows: Any, y: Any) -> None:
    def scorer(matrix: Any) -> Any:
        return booster.predict(matrix)

    before = rows.copy()
    strong, weak, place = permutation_importance(scorer, rows, y, seed=1)
    assert strong.mean > 5 * max(weak.mean, place.mean)
    assert strong.low < strong.mean < strong.high
    assert permutation_importance(scorer, rows, y, seed=1) == (strong, weak, place)
    assert np.array_equal(rows, before, equal_nan=True)
    with pytest.raises(ValueError, match="two or more"):
        permutation_importance(scorer, rows, y, seed=1, repeats=1)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 30)), st.floats(-5, 5)), min_size=1, max_size=60)
)
def test_effects_hold_every_row_once(pairs: list[tuple[int | None, float]]) -> None:
    values = np.array([np.nan if value is None else float(value) for value, _ in pairs])
    added = np.array([each for _, each in pairs])
    found = effects_of(Input("x", "number"), values, added)
    assert sum(each.rows for each in found) == len(pairs)
    assert np.isclose(sum(each.rows * each.mean for each in found), added.sum(), atol=1e-9)
    spans = [each for each in found if each.low is not None]
    assert all(one.high < other.low for one, other in pairwise(spans))  # type: ignore[operator]


def test_an_explanation_is_the_same_each_time_and_holds_no_row(booster: Any, rows: Any, y: Any) -> None:
    format, data = dump_estimator(booster)

    def explained() -> Any:
        return explain_model(
            format, data, SIGNATURE, rows, model="0" * 64, y=y, rows=100, permuted_rows=200, seed=7
        )

    found = explained()
    assert canonical_json(found) == canonical_json(explained())
    assert found.inputs[0].name == "strong"
    assert (found.rows, found.permuted_rows, found.rows_from) == (100, 200, "held_back")
    place = next(each for each in found.inputs if each.name == "place")
    assert {each.category for each in place.effects} == {"a", "b", "c"}
    with pytest.raises(ValueError, match="no rows"):
        explain_model(format, data, SIGNATURE, rows[:0], model="", y=None, rows=1, permuted_rows=1, seed=1)
