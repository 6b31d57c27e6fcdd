"""Compiled estimators held against scikit-learn's own: one row and many, numbers and labels, refusals."""

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.serving.test_compiled_matrix import NUMBERS, frame, strings

from noria.serving.compiled import (
    NotCompiled,
    RowsRefused,
    compile_to_bytes,
    describe,
    load_compiled,
    open_sklearn,
)
from noria.serving.records import SCORE, Input, Output
from noria.serving.rows import Rows

CLASSIFIERS = [
    HistGradientBoostingClassifier(max_iter=12),
    GradientBoostingClassifier(n_estimators=8),
    GradientBoostingClassifier(n_estimators=8, init="zero"),
    RandomForestClassifier(6, random_state=0),
    ExtraTreesClassifier(6, random_state=0),
    DecisionTreeClassifier(max_depth=5),
    LogisticRegression(max_iter=300),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    LinearSVC(),
]
REGRESSORS = [
    HistGradientBoostingRegressor(max_iter=12),
    HistGradientBoostingRegressor(max_iter=12, loss="poisson"),
    HistGradientBoostingRegressor(max_iter=12, loss="quantile", quantile=0.8),
    GradientBoostingRegressor(n_estimators=8),
    GradientBoostingRegressor(n_estimators=8, loss="huber"),
    RandomForestRegressor(6, random_state=0),
    ExtraTreesRegressor(6, random_state=0),
    DecisionTreeRegressor(max_depth=5),
    LinearRegression(),
    Ridge(),
    Lasso(0.01),
    ElasticNet(0.01),
    PoissonRegressor(),
    SGDRegressor(random_state=0),
    LinearSVR(max_iter=5_000),
]
TABLE = frame(3, 300)
TARGET = np.nan_to_num(TABLE["age"].to_numpy(float)) / 20 + np.nan_to_num(TABLE["count"].to_numpy(float))


def pipeline(last: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", numbers, list(NUMBERS)), ("texts", texts, ["city", "carrier"])])
    return make_pipeline(columns, last)


def rows_of(table: pd.DataFrame) -> Rows:
    matrix = np.ascontiguousarray(table[list(NUMBERS)].to_numpy(dtype=np.float64))
    return Rows(matrix, strings(table))


def named(each: Any) -> str:
    return type(each).__name__


def check(fitted: Any, table: pd.DataFrame) -> None:
    """Hold the stored form against scikit-learn, for all rows and for one after another."""
    inputs, outputs = describe(fitted)
    data = compile_to_bytes(fitted, inputs, outputs)
    assert isinstance(data, bytes), data
    scorer = load_compiled(data)
    assert (scorer.path, scorer.fallback, scorer.outputs) == ("compiled", None, outputs)
    found = scorer.predict(rows_of(table))
    ones = [scorer.predict(rows_of(table.iloc[[each]])) for each in range(40)]
    for place, output in enumerate(outputs):
        if output.name == "probability" or (output == SCORE and hasattr(fitted, "classes_")):
            wanted = fitted.predict_proba(table)
            wanted = wanted[:, 1] if output == SCORE else wanted
        else:
            wanted = fitted.predict(table)
        if output.datatype == "FP64":
            np.testing.assert_allclose(np.asarray(found[place]), wanted, rtol=1e-9, atol=1e-9)
            single = np.concatenate([np.asarray(each[place]) for each in ones])
            np.testing.assert_allclose(single, wanted[:40], rtol=1e-9, atol=1e-9)
        else:
            assert list(found[place]) == wanted.tolist()
            assert [each[place][0] for each in ones] == wanted[:40].tolist()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("last", CLASSIFIERS, ids=named)
def test_a_compiled_classifier_gives_what_scikit_learn_gives(last: Any) -> None:
    middle = np.median(TARGET)
    for target in (
        (middle < TARGET).astype(int),
        np.where(middle < TARGET, "late", "early"),
        np.digitize(TARGET, [1.5, 3.5]) * 10,
    ):
        fitted = pipeline(last).fit(TABLE, target)
        check(fitted, frame(4, 200))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("last", REGRESSORS, ids=named)
def test_a_compiled_regressor_gives_what_scikit_learn_gives(last: Any) -> None:
    check(pipeline(last).fit(TABLE, TARGET), frame(4, 200))


def test_trees_read_missing_numbers_and_numbers_next_to_nought() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0, np.nan, 2.0], size=(400, 3))
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1], nan=3) > 0).astype(int)
    near = rng.choice(
        [0.0, -0.0, 5e-324, -1e-36, 1e-35, 9e-36, -1e-30, np.nan, np.inf, -np.inf, 1e300], (300, 3)
    )
    for model in (HistGradientBoostingClassifier(max_iter=10), RandomForestClassifier(5, random_state=0)):
        model.fit(x, y)
        scorer = open_sklearn(model, *describe(model))
        assert (scorer.path, scorer.fallback) == ("compiled", None)
        taken = (
            near if isinstance(model, HistGradientBoostingClassifier) else near[(np.abs(near) < 1e30).all(1)]
        )
        assert len(taken) > 10
        found = np.asarray(scorer.predict(Rows(taken))[0])
        few = [scorer.predict(Rows(taken[[each]]))[0] for each in range(len(taken))]
        np.testing.assert_array_equal(found, np.concatenate([np.asarray(each) for each in few]))
        np.testing.assert_allclose(found, model.predict_proba(taken)[:, 1], rtol=0, atol=1e-12)


def test_histogram_boosting_splits_on_categories() -> None:
    table = TABLE[["city", "carrier", "age"]].copy()
    table["city"] = table["city"].astype("category")
    table["carrier"] = table["carrier"].astype("category")
    target = (table["carrier"].isin(["carrier1", "carrier4"]) ^ table["city"].isna()).astype(int)
    model = HistGradientBoostingClassifier(
        max_iter=20, categorical_features="from_dtype", min_samples_leaf=3
    ).fit(table, target)
    assert any(tree[0].nodes["is_categorical"].any() for tree in model._predictors)
    inputs, outputs = describe(model)
    assert [each.kind for each in inputs] == ["string", "string", "number"]
    scorer = open_sklearn(model, inputs, outputs)
    assert (scorer.path, scorer.fallback) == ("compiled", None)
    given = strings(TABLE)
    found = scorer.predict(Rows(np.ascontiguousarray(table[["age"]].to_numpy(float)), given))
    np.testing.assert_allclose(np.asarray(found[0]), model.predict_proba(table)[:, 1], rtol=0, atol=1e-12)


def test_a_value_that_scikit_learn_refuses_is_refused_without_being_told() -> None:
    texts = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(
        pd.DataFrame({"city": ["a", "b", "a", "b"]}), [0, 1, 0, 1]
    )
    inputs, outputs = describe(texts)
    scorer = open_sklearn(texts, inputs, outputs)
    assert scorer.path == "compiled"
    for value in ("secret", None):
        with pytest.raises(
            RowsRefused, match="'city' holds a value that is none of the 2 categories"
        ) as refused:
            scorer.predict(Rows(np.empty((2, 0)), {"city": ["a", value]}))
        assert "secret" not in str(refused.value)

    numbers = LinearRegression().fit(TABLE[["age", "count"]].fillna(0), TARGET)
    scorer = open_sklearn(numbers, *describe(numbers))
    with pytest.raises(RowsRefused, match="'count' holds a missing or infinite number"):
        scorer.predict(Rows(np.array([[1.0, np.nan]])))
    forest = RandomForestClassifier(2).fit(TABLE[["age", "count"]].fillna(0), TARGET > 2)
    scorer = open_sklearn(forest, *describe(forest))
    with pytest.raises(RowsRefused, match="'age' holds an infinite number"):
        scorer.predict(Rows(np.array([[np.inf, 1.0]])))
    with pytest.raises(RowsRefused, match="too large for the float32"):
        scorer.predict(Rows(np.array([[1e39, 1.0]])))
    assert np.isfinite(np.asarray(scorer.predict(Rows(np.array([[3.4028235e38, np.nan]])))[0])).all()


@pytest.mark.parametrize(
    "before",
    [
        SimpleImputer(),
        SimpleImputer(add_indicator=True),
        StandardScaler(),
        StandardScaler(with_mean=False, with_std=False),
        MinMaxScaler(clip=True),
        PolynomialFeatures(2),
        SelectKBest(f_classif, k=2),
        VarianceThreshold(),
        make_pipeline(SimpleImputer(), PolynomialFeatures(2), StandardScaler()),
        make_pipeline(FunctionTransformer(np.log1p), StandardScaler()),
    ],
    ids=str,
)
def test_numbers_that_a_transformer_refuses_are_refused_before_trees_that_take_all(before: Any) -> None:
    table = np.abs(TABLE[[*NUMBERS[:3]]].fillna(1).to_numpy(float))
    model = make_pipeline(clone(before), HistGradientBoostingClassifier(max_iter=5)).fit(table, TARGET > 2)
    scorer = open_sklearn(model, *describe(model))
    assert (scorer.path, scorer.fallback) == ("compiled", None)
    for column in range(3):
        for wrong in (np.nan, np.inf, -np.inf, -1.0):
            row = np.array([[1.5, 2.0, 3.0]])
            row[0, column] = wrong
            try:
                with np.errstate(all="ignore"):
                    wanted = model.predict_proba(row)[:, 1]
            except ValueError:
                with pytest.raises(RowsRefused, match=r"holds (an infinite|a missing or infinite) number"):
                    scorer.predict(Rows(row))
            else:
                np.testing.assert_allclose(np.asarray(scorer.predict(Rows(row))[0]), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (KNeighborsClassifier(3), "KNeighborsClassifier has no compiled form"),
        (GaussianNB(), "GaussianNB has no compiled form"),
        (
            make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()),
            "FunctionTransformer calls nan_to_num",
        ),
        (SGDClassifier(loss="modified_huber", random_state=0), "gives probabilities in a way"),
    ],
    ids=lambda each: each[:12] if isinstance(each, str) else named(each),
)
def test_what_is_not_known_is_scored_by_scikit_learn_and_says_why(model: Any, reason: str) -> None:
    table = frame(5, 120).fillna(dict.fromkeys(NUMBERS, 1.5))
    fitted = pipeline(model).fit(table, np.arange(120) % 3)
    inputs, outputs = describe(fitted)
    scorer = open_sklearn(fitted, inputs, outputs)
    assert scorer.path == "scikit-learn"
    assert not scorer.is_native
    assert scorer.fallback is not None
    assert reason in scorer.fallback
    label, probability = scorer.predict(rows_of(table))
    assert list(label) == fitted.predict(table).tolist()
    np.testing.assert_array_equal(np.asarray(probability), fitted.predict_proba(table))
    assert compile_to_bytes(fitted, inputs, outputs) == scorer.fallback


def test_a_class_of_ones_own_is_not_taken_for_its_parent() -> None:
    class Shifted(LinearRegression):  # type: ignore[misc]
        def predict(self, X: Any) -> Any:
            return super().predict(X) + 1

    model = Shifted().fit(np.arange(6.0).reshape(3, 2), [1.0, 2.0, 3.0])
    scorer = open_sklearn(model, *describe(model))
    assert scorer.fallback == "Shifted has no compiled form"
    assert np.asarray(scorer.predict(Rows(np.array([[0.0, 1.0]])))[0]).tolist() == pytest.approx([2.0])


def test_a_compiled_form_that_differs_on_the_stored_rows_is_not_used() -> None:
    model = LinearRegression().fit(np.arange(6.0).reshape(3, 2), [1.0, 2.0, 3.0])
    original = model.predict
    model.predict = lambda table: original(table) + (np.asarray(table)[:, 0] == 123.456)
    scorer = open_sklearn(model, *describe(model), rows=Rows(np.array([[123.456, 1.0]])))
    assert scorer.fallback == "compiled, it gives another score than scikit-learn"


def test_inputs_and_outputs_are_told_by_the_fitted_estimator() -> None:
    fitted = pipeline(LogisticRegression(max_iter=300)).fit(TABLE, np.digitize(TARGET, [1.5, 3.5]))
    inputs, outputs = describe(fitted)
    texts = {"city", "carrier"}
    assert inputs == tuple(  # `code` is read by nobody
        Input(name=each, kind="string" if each in texts else "number")
        for each in TABLE.columns
        if each != "code"
    )
    assert outputs == (
        Output(name="label", datatype="INT64"),
        Output(name="probability", width=3, labels=("0", "1", "2")),
    )
    plain = LinearRegression().fit(np.eye(2), [1.0, 2.0])
    assert describe(plain) == ((Input(name="x0", kind="number"), Input(name="x1", kind="number")), (SCORE,))
    with pytest.raises(NotCompiled, match="does not say how many columns"):
        describe(LinearRegression())


def test_a_stored_plan_is_scored_without_scikit_learn(tmp_path: Any) -> None:
    fitted = pipeline(HistGradientBoostingClassifier(max_iter=3)).fit(TABLE, TARGET > 2)
    data = compile_to_bytes(fitted, *describe(fitted))
    assert isinstance(data, bytes)
    path = tmp_path / "plan"
    path.write_bytes(data)
    code = (
        "import sys, numpy as np\n"
        "from noria.serving.compiled.scoring import load_compiled\n"
        "from noria.serving.rows import Rows\n"
        "scorer = load_compiled(open(sys.argv[1], 'rb').read())\n"
        "rows = Rows(np.zeros((1, 4)), {'city': ['city1'], 'carrier': [None]})\n"
        "print(float(scorer.predict(rows)[0][0]))\n"
        "heavy = {'sklearn', 'scipy', 'pandas', 'lightgbm', 'treelite', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    row = pd.DataFrame(np.zeros((1, 7)), columns=TABLE.columns)
    row["city"], row["carrier"] = "city1", pd.Series([np.nan], dtype=object)
    assert float(told.stdout) == pytest.approx(fitted.predict_proba(row)[0, 1], abs=1e-9)
