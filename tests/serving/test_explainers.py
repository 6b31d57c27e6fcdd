"""What explains by a model: the bits of the libraries, Shapley values by their definition, sums that hold."""

import hashlib
from functools import partial
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from noria.errors import DeploymentError, DigestMismatch
from noria.explain.sampling import OutOfTime
from noria.registry.skops_archives import dump_archive
from noria.serving.compiled import compile_to_bytes, describe
from noria.serving.explaining.explainers import linked, open_explainer
from noria.serving.explaining.records import Attributed
from noria.serving.formats.scorers import open_scorer
from noria.serving.models import LoadedModel
from noria.serving.records import SCORE, Input, Output, Samples, ServedModel
from noria.serving.rows import Rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4))
X[:, 3] = RNG.integers(0, 5, 400)
BINARY = (X[:, 0] + X[:, 1] * X[:, 3] > 1).astype(int)
CLASSES = np.digitize(X[:, 0] + X[:, 3], [1, 3])
ROWS = X[:6].copy()
ROWS[1, 0] = np.nan
GAPS = Rows(ROWS)


def model_of(
    data: bytes,
    format: str,
    folder: Path,
    *,
    inputs: tuple[Input, ...] | None = None,
    outputs: tuple[Output, ...] | None = None,
    rows: Rows | None = None,
) -> LoadedModel:
    """Load a model whose stored rows are the first of `X`."""
    path = folder / "model"
    path.write_bytes(data)
    usual = rows or Rows(X[:12])
    served = ServedModel(
        release="m:1",
        model="m",
        version=1,
        digest=hashlib.sha256(data).hexdigest(),
        path=path.name,
        format=format,
        inputs=inputs or tuple(Input(name=f"x{each}", kind="number") for each in range(4)),
        outputs=outputs or (SCORE,),
        samples=Samples(
            matrix=usual.matrix.tobytes(),
            scores=np.zeros(usual.count).tobytes(),
            strings={name: list(values) for name, values in usual.strings.items()},
        ),
    )
    return LoadedModel(served=served, scorer=open_scorer(served, data, folder=folder), codes={})


def of_sklearn(fitted: Any, folder: Path, *, rows: Rows | None = None) -> LoadedModel:
    inputs, outputs = describe(fitted)
    data = compile_to_bytes(fitted, inputs, outputs)
    assert isinstance(data, bytes), data
    return model_of(data, "compiled", folder, inputs=inputs, outputs=outputs, rows=rows)


def explained(model: LoadedModel, folder: Path, rows: Rows = GAPS) -> Attributed:
    """Explain rows; see that sums hold, and that they make the scores."""
    found = open_explainer(model, folder=folder).attribute(rows, is_time=lambda: True)
    close = 1e-5 if model.served.format == "xgboost" else 1e-9
    if found.unit != "raw":
        np.testing.assert_allclose(linked(found), found.scores, atol=close, rtol=close)
    assert found.values.shape == (rows.count, found.base.shape[1], len(model.served.inputs))
    return found


@pytest.mark.parametrize(
    ("params", "target", "unit"),
    [
        ({"objective": "binary"}, BINARY, "log_odds"),
        ({"objective": "binary", "sigmoid": 2.0, "boosting": "dart"}, BINARY, "log_odds"),
        ({"objective": "binary", "boosting": "rf"}, BINARY, "log_odds"),
        ({"objective": "cross_entropy"}, BINARY, "log_odds"),
        ({"objective": "multiclass", "num_class": 3}, CLASSES, "logits"),
        ({"objective": "multiclassova", "num_class": 3, "boosting": "rf"}, CLASSES, "log_odds"),
        ({"objective": "regression"}, X[:, 0], "score"),
        ({"objective": "regression", "reg_sqrt": True}, X[:, 0], "raw"),
        ({"objective": "tweedie"}, np.abs(X[:, 0]), "log"),
    ],
    ids=lambda each: "-".join(map(str, each.values())) if isinstance(each, dict) else "",
)
def test_lightgbm_adds_what_its_library_tells(
    params: dict[str, Any], target: Any, unit: str, tmp_path: Path
) -> None:
    forest = {"bagging_freq": 1, "bagging_fraction": 0.6} if params.get("boosting") == "rf" else {}
    data = lightgbm.Dataset(X, target, categorical_feature=[3])
    booster = lightgbm.train({**params, **forest, "verbosity": -1, "num_threads": 1}, data, 9)
    width = params.get("num_class", 1)
    probability = Output(name="probability", width=3, labels=("low", "mid", "high"))
    label = Output(name="label", datatype="INT64")
    model = model_of(
        booster.model_to_string().encode(), "lightgbm", tmp_path,
        outputs=(label, probability) if width > 1 else None,
    )  # fmt: skip
    found = explained(model, tmp_path)
    assert (found.unit, found.method, found.errors) == (unit, "tree_shap", None)
    wanted = np.asarray(booster.predict(ROWS, pred_contrib=True)).reshape(len(ROWS), width, 5)
    if not forest and "sigmoid" not in params:
        np.testing.assert_array_equal(found.values, wanted[:, :, :-1])
        np.testing.assert_array_equal(found.base, wanted[:, :, -1])
        raw = np.asarray(booster.predict(ROWS, raw_score=True)).reshape(len(ROWS), width)
        np.testing.assert_allclose(found.base + found.values.sum(axis=2), raw, atol=1e-9)
    np.testing.assert_array_equal(found.scores, np.asarray(booster.predict(ROWS)).reshape(len(ROWS), width))
    labels = open_explainer(model, folder=tmp_path).labels
    assert labels == (("low", "mid", "high") if width > 1 else ())


@pytest.mark.parametrize(
    ("objective", "target", "unit"),
    [
        ("binary:logistic", BINARY, "log_odds"),
        ("multi:softprob", CLASSES, "logits"),
        ("multi:softmax", CLASSES, "logits"),
        ("count:poisson", np.abs(X[:, 0]), "log"),
        ("reg:squarederror", X[:, 0], "score"),
    ],
)
def test_xgboost_adds_what_its_library_tells(objective: str, target: Any, unit: str, tmp_path: Path) -> None:
    params = {"objective": objective, "nthread": 1, **({"num_class": 3} if "multi" in objective else {})}
    booster = xgboost.train(params, xgboost.DMatrix(X, target), 6)
    found = explained(model_of(bytes(booster.save_raw("ubj")), "xgboost", tmp_path), tmp_path)
    assert (found.unit, found.method) == (unit, "tree_shap")
    wanted = booster.predict(xgboost.DMatrix(ROWS), pred_contribs=True, strict_shape=True)
    np.testing.assert_array_equal(found.values, wanted[:, :, :-1])


def numbers(last: Any) -> Any:
    return make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), last)


@pytest.mark.parametrize(
    ("estimator", "target", "method", "unit"),
    [
        (HistGradientBoostingClassifier(max_iter=8), BINARY, "tree_shap", "log_odds"),
        (HistGradientBoostingClassifier(max_iter=5), CLASSES, "tree_shap", "logits"),
        (HistGradientBoostingRegressor(max_iter=8, loss="poisson"), CLASSES, "tree_shap", "log"),
        (RandomForestClassifier(6, random_state=0), CLASSES, "tree_shap", "score"),
        (RandomForestRegressor(6, random_state=0), X[:, 0], "tree_shap", "score"),
        (numbers(GradientBoostingClassifier(n_estimators=6)), BINARY, "tree_shap", "log_odds"),
        (GradientBoostingClassifier(n_estimators=6, loss="exponential"), BINARY, "tree_shap", "log_odds"),
        (numbers(LogisticRegression()), BINARY, "linear_shap", "log_odds"),
        (numbers(LogisticRegression()), CLASSES, "linear_shap", "logits"),
        (numbers(PoissonRegressor()), CLASSES, "linear_shap", "log"),
        (numbers(RidgeClassifier()), CLASSES, "linear_shap", "raw"),
        (
            numbers(make_pipeline(PolynomialFeatures(2), LinearRegression())),
            X[:, 0],
            "sampled_shapley",
            "score",
        ),
        (numbers(make_pipeline(PCA(2), LogisticRegression())), BINARY, "sampled_shapley", "score"),
    ],
    ids=lambda each: (
        type(getattr(each, "steps", [("", each)])[-1][1]).__name__ if hasattr(each, "fit") else ""
    ),
)
def test_compiled_estimators_add_up_to_their_scores(
    estimator: Any, target: Any, method: str, unit: str, tmp_path: Path
) -> None:
    fitted = estimator.fit(X, target)
    plain = X[:6] if method == "tree_shap" and not hasattr(fitted, "steps") else ROWS
    rows = Rows(X[:6] if "Gradient" in type(fitted).__name__ else plain)
    found = explained(of_sklearn(fitted, tmp_path), tmp_path, rows)
    assert (found.method, found.unit) == (method, unit)
    assert (found.errors is not None) == (method == "sampled_shapley")
    if hasattr(fitted, "predict_proba"):
        wanted = fitted.predict_proba(rows.matrix)
        wanted = wanted[:, 1:] if wanted.shape[1] == 2 else wanted
        np.testing.assert_allclose(found.scores, wanted, atol=1e-9)
    elif unit == "raw":
        np.testing.assert_allclose(found.scores, fitted.decision_function(rows.matrix), atol=1e-9)


def by_definition(tree: Any, row: Any) -> Any:
    """Give the Shapley values of a tree, where an unknown input goes both ways by the weight of rows."""

    def worth(node: int, known: frozenset[int]) -> float:
        left, right = tree.children_left[node], tree.children_right[node]
        if left == -1:
            return float(tree.value[node, 0, 1])
        if tree.feature[node] in known:
            goes_left = np.float32(row[tree.feature[node]]) <= tree.threshold[node]
            return worth(left if goes_left else right, known)
        weights = tree.weighted_n_node_samples
        return float(
            (weights[left] * worth(left, known) + weights[right] * worth(right, known)) / weights[node]
        )

    inputs = len(row)
    values = np.zeros(inputs)
    for place in range(inputs):
        others = [each for each in range(inputs) if each != place]
        for size in range(inputs):
            weight = factorial(size) * factorial(inputs - size - 1) / factorial(inputs)
            for some in map(frozenset, combinations(others, size)):
                values[place] += weight * (worth(0, some | {place}) - worth(0, some))
    return values


@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 0.37}])
def test_trees_of_scikit_learn_get_the_values_of_the_definition(class_weight: Any, tmp_path: Path) -> None:
    single = DecisionTreeClassifier(max_depth=5, random_state=0, class_weight=class_weight).fit(X, BINARY)
    forest = RandomForestClassifier(3, max_depth=4, random_state=0, class_weight=class_weight).fit(X, BINARY)
    for fitted, trees in ((single, [single]), (forest, forest.estimators_)):
        found = explained(of_sklearn(fitted, tmp_path), tmp_path, Rows(X[:4]))
        wanted = [np.mean([by_definition(each.tree_, row) for each in trees], axis=0) for row in X[:4]]
        np.testing.assert_allclose(found.values[:, 0], wanted, atol=1e-8)


def test_the_columns_of_a_text_are_one_input(tmp_path: Path) -> None:
    import pandas as pd  # type: ignore[import-untyped]

    frame = pd.DataFrame({"city": RNG.choice(["Oslo", "Bern", "Rom"], 400), "snow": X[:, 0]})
    target = ((frame["city"] == "Oslo") & (frame["snow"] > 0)).astype(int)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]), (StandardScaler(), ["snow"])
    )
    rows = Rows(X[:3, :1].copy(), {"city": ["Oslo", "Rom", "Lund"]})
    usual = Rows(X[:12, :1].copy(), {"city": frame["city"][:12].tolist()})
    for last, method in (
        (GradientBoostingClassifier(n_estimators=5), "tree_shap"),
        (LogisticRegression(), "linear_shap"),
    ):
        fitted = make_pipeline(columns, last).fit(frame, target)
        found = explained(of_sklearn(fitted, tmp_path, rows=usual), tmp_path, rows)
        assert (found.method, found.unit) == (method, "log_odds")
        assert np.abs(found.values[0]).min() > 0


def test_a_linear_model_has_the_values_of_the_definition_exact_and_sampled(tmp_path: Path) -> None:
    linear = LinearRegression().fit(X, X @ [1.0, -2.0, 0.5, 3.0])
    projected = make_pipeline(PCA(4), LinearRegression()).fit(X, X @ [1.0, -2.0, 0.5, 3.0])
    wanted = (X[:3] - X[:12].mean(axis=0)) * linear.coef_
    exact = explained(of_sklearn(linear, tmp_path), tmp_path, Rows(X[:3]))
    np.testing.assert_allclose(exact.values[:, 0], wanted, atol=1e-9)
    sampled = explained(of_sklearn(projected, tmp_path), tmp_path, Rows(X[:3]))
    np.testing.assert_allclose(sampled.values[:, 0], wanted, atol=1e-9)
    assert sampled.errors is not None
    np.testing.assert_allclose(sampled.errors, 0, atol=1e-9)


def test_what_no_library_explains_is_sampled(tmp_path: Path) -> None:
    linear_leaves = lightgbm.train(
        {"objective": "regression", "linear_tree": True, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(X, X[:, 0]),
        4,
    )
    trees = model_of(linear_leaves.model_to_string().encode(), "lightgbm", tmp_path)
    assert explained(trees, tmp_path).method == "sampled_shapley"
    fitted = KNeighborsClassifier(3).fit(X, CLASSES)
    inputs, outputs = describe(fitted)
    near = model_of(dump_archive(fitted)[0], "skops", tmp_path, inputs=inputs, outputs=outputs)
    explainer = open_explainer(near, folder=tmp_path)
    assert explainer.scorer is near.scorer  # it is at work in the thread that explains alone
    assert explainer.labels == ("0", "1", "2")
    found = explained(near, tmp_path, Rows(X[:2]))
    np.testing.assert_allclose(found.scores, fitted.predict_proba(X[:2]))
    np.testing.assert_array_equal(found.values, explained(near, tmp_path, Rows(X[:2])).values)
    with pytest.raises(OutOfTime):
        explainer.attribute(Rows(X[:2]), is_time=iter([True, False]).__next__)


def test_a_model_that_gives_no_number_or_is_another_is_refused(tmp_path: Path) -> None:
    fitted = KNeighborsClassifier(3).fit(X, np.array(["a", "b", "c"])[CLASSES])
    label = (Output(name="label", datatype="BYTES"),)
    inputs, _ = describe(fitted)
    model = model_of(dump_archive(fitted)[0], "skops", tmp_path, inputs=inputs, outputs=label)
    with pytest.raises(DeploymentError, match=r"m:1 gives label \(BYTES\), and no number"):
        open_explainer(model, folder=tmp_path)
    booster = lightgbm.train({"verbosity": -1}, lightgbm.Dataset(X, X[:, 0]), 2)
    changed = model_of(booster.model_to_string().encode(), "lightgbm", tmp_path)
    (tmp_path / "model").write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        open_explainer(changed, folder=tmp_path)


def test_a_vector_is_one_input(tmp_path: Path) -> None:
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(X, X[:, 0] * X[:, 3]), 5)
    inputs = (Input(name="a", kind="number"), Input(name="v", kind="number", width=3))
    load = partial(model_of, booster.model_to_string().encode(), "lightgbm", tmp_path)
    found, apart = explained(load(inputs=inputs), tmp_path), explained(load(), tmp_path)
    np.testing.assert_allclose(found.values[:, :, 1], apart.values[:, :, 1:].sum(axis=2))
