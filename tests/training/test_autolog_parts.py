"""What autolog is made of: metrics held against scikit-learn's, descriptions of data, values, pictures."""

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
import scipy.sparse
from hypothesis import given, settings
from sklearn import metrics
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeRegressor

from noria.training.autologging.described_data import described, example_of
from noria.training.autologging.import_hook import ImportHook
from noria.training.autologging.importances import bars
from noria.training.autologging.plain_values import metric_name, plain
from noria.training.autologging.training_metrics import MOST_ROWS, training_metrics


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1_000), classes=st.integers(2, 4), weighted=st.booleans(), texts=st.booleans())
def test_metrics_of_a_classifier_are_those_of_scikit_learn(
    seed: int, classes: int, weighted: bool, texts: bool
) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(80, 2)).round(1)
    true: Any = np.arange(80) % classes
    draw.shuffle(true)
    if texts:
        true = np.array(["a", "b", "c", "d"])[true]
    weights = draw.random(80) if weighted else None
    model = GaussianNB().fit(rows, true)
    found = training_metrics(model, rows, true, weights)
    predicted, shares = model.predict(rows), model.predict_proba(rows)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        true, predicted, average="weighted", zero_division=0, sample_weight=weights
    )
    wanted = {
        "training_score": model.score(rows, true, weights),
        "training_accuracy_score": metrics.accuracy_score(true, predicted, sample_weight=weights),
        "training_precision_score": precision,
        "training_recall_score": recall,
        "training_f1_score": f1,
        "training_log_loss": metrics.log_loss(true, shares, sample_weight=weights),
    }
    if not weighted:
        area = {"average": "weighted", "multi_class": "ovr"}
        wanted["training_roc_auc"] = (
            metrics.roc_auc_score(true, shares[:, 1])
            if classes == 2
            else metrics.roc_auc_score(true, shares, **area)
        )
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 1, 90)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_metrics_of_a_regressor_are_those_of_scikit_learn(weights: Any, level: float) -> None:
    draw = np.random.default_rng(3)
    rows, true = draw.normal(size=(90, 2)), level * draw.normal(size=90)
    model = DecisionTreeRegressor(max_depth=2).fit(rows, true)
    found = training_metrics(model, rows, true, weights)
    predicted = model.predict(rows)
    for name in ("mean_squared_error", "mean_absolute_error", "r2_score"):
        wanted = getattr(metrics, name)(true, predicted, sample_weight=weights)
        assert found[f"training_{name}"] == pytest.approx(wanted, abs=1e-12)
    assert found["training_score"] == found["training_r2_score"]


def test_metrics_of_many_rows_are_those_of_some() -> None:
    rows = np.arange(10_000.0).reshape(-1, 1)
    model = DecisionTreeRegressor(max_depth=3).fit(rows, rows[:, 0])
    some = rows[np.linspace(0, 9_999, MOST_ROWS).astype(int)]
    found = training_metrics(model, rows, rows[:, 0])
    assert found["training_score"] == pytest.approx(model.score(some, some[:, 0]))


FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3], "c": ["x", "y", "z"]})


@pytest.mark.parametrize(
    ("data", "schema"),
    [
        (FRAME, {"mlflow_colspec": ["double", "long", "string"]}),
        (pl.from_pandas(FRAME.drop(columns="b")), {"mlflow_colspec": ["double", "string"]}),
        (np.zeros((4, 2), dtype=np.float32), '"dtype":"float32","shape":[-1,2]'),
        (scipy.sparse.csr_matrix(np.eye(3)), '"dtype":"float64","shape":[-1,3]'),
        ([[1, 2], [3, 4]], '"dtype":"int64","shape":[-1,2]'),
        (["some", "texts"], '"shape":[-1]'),
        ([[1], [2, 3]], '"dtype":"object"'),
    ],
)
def test_data_is_described_as_mlflow_does(data: Any, schema: Any) -> None:
    told = described(data)
    found = json.loads(told.schema or "")
    if isinstance(schema, str):
        assert schema in found["mlflow_tensorspec"]["features"]
    else:
        assert [each["type"] for each in found["mlflow_colspec"]] == schema["mlflow_colspec"]
    assert told == described(data)
    assert len(told.digest) == 16


def test_another_value_name_order_or_target_is_another_digest() -> None:
    changed = FRAME.copy()
    changed.loc[2, "a"] = 3.5
    others = [changed, FRAME.rename(columns={"a": "d"}), FRAME[["b", "a", "c"]], FRAME[::-1], FRAME.head(2)]
    digests = [described(each).digest for each in (FRAME, *others)]
    digests += [described(FRAME, targets).digest for targets in ([0, 1, 1], [0, 1, 0])]
    assert len(set(digests)) == len(digests)


def test_of_much_data_the_digest_takes_in_rows_that_are_spread() -> None:
    data = np.zeros((100_000, 10))
    told = json.loads(described(data).profile or "")
    assert told == {"num_rows": 100_000, "num_columns": 10, "num_rows_digested": 50_000}
    data[-1] = 1  # the last row is among them
    assert described(data).digest != described(np.zeros((100_000, 10))).digest


def test_an_example_is_a_copy_of_the_first_rows() -> None:
    data = FRAME.copy()
    few = example_of(data)
    data.loc[0, "a"] = 9.0
    assert few.a.tolist() == [1.0, 2.0, 3.0]
    assert example_of(scipy.sparse.csr_matrix(np.eye(8))).shape == (5, 8)
    assert example_of(["text"]) is None
    assert example_of(np.zeros((0, 2))) is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "nan"),
        (2**70, str(2**70)),
        ("x" * 900, "x" * 499 + "…"),
        ("a\0b\ud800", "ab\\ud800"),
        ({1: {2, 3}}, {"1": ["2", "3"]}),
        (GaussianNB(), "GaussianNB"),
        (GaussianNB, "GaussianNB"),
        (list(range(500)), "list of 500"),
        (np.bool_(True), True),
    ],
)
def test_any_value_becomes_one_that_a_run_keeps(value: Any, told: Any) -> None:
    found = plain(value)
    assert (str(found) if isinstance(found, float) else found) == told


def test_any_name_becomes_one_that_a_metric_may_have() -> None:
    names = ["ndcg@5", "a//b", "../x", "ümlaut <b>", "", "x" * 400]
    assert [metric_name(each)[:20] for each in names] == [
        "ndcg_at_5", "a/b", "x", "ümlaut _b_", "_", "x" * 20,
    ]  # fmt: skip


def test_a_picture_holds_names_as_text() -> None:
    drawn = bars("Feature importance", [("<script>", 3.0), ("b", 0.0)])
    assert "<script>" not in drawn
    assert drawn == bars("Feature importance", [("<script>", 3.0), ("b", 0.0)])


def test_hooks_that_ask_each_other_are_both_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "followed_by_two.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    told: list[ModuleType] = []
    hooks = [ImportHook({"followed_by_two": told.append}) for _ in range(2)]
    try:
        for each in hooks:
            each.install()
        module = import_module("followed_by_two")
    finally:
        for each in hooks:
            each.remove()
        sys.modules.pop("followed_by_two", None)
    assert told == [module, module]
    assert module.value == 1
