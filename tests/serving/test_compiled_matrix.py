"""The matrix that a compiled pipeline makes, held against scikit-learn's for pipelines of any make."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from noria.serving.compiled.frames import root_frame
from noria.serving.compiled.refusals import RowsRefused
from noria.serving.compiled.running import runner
from noria.serving.compiled.transformers import transformed
from noria.serving.records import Input

NUMBERS = ("age", "price", "count", "gone")
TEXTS = ("city", "carrier", "code")
INPUTS = (
    *(Input(name=each, kind="number") for each in NUMBERS),
    *(Input(name=each, kind="string") for each in TEXTS),
)


def frame(seed: int, rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    numbers = {
        "age": rng.normal(40, 12, rows),
        "price": np.exp(rng.normal(3, 4, rows)),
        "count": rng.integers(0, 6, rows).astype(float),
        "gone": np.where(rng.random(rows) < 0.7, np.nan, rng.normal(size=rows)),
    }
    texts = {
        name: rng.choice([f"{name}{each}" for each in range(2 + 5 * place)], rows)
        for place, name in enumerate(TEXTS)
    }
    made = pd.DataFrame({**numbers, **{name: each.astype(object) for name, each in texts.items()}})
    return made.mask(rng.random(made.shape) < 0.1)


def strings(given: pd.DataFrame) -> dict[str, list[str | None]]:
    return {name: [each if isinstance(each, str) else None for each in given[name]] for name in TEXTS}


scalers = st.sampled_from(
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        MinMaxScaler(),
        MinMaxScaler(feature_range=(-1, 2), clip=True),
        RobustScaler(),
        RobustScaler(with_centering=False, quantile_range=(5, 90)),
        MaxAbsScaler(),
        FunctionTransformer(np.cbrt),
        FunctionTransformer(np.tanh),
        FunctionTransformer(np.square),
        FunctionTransformer(),
        "passthrough",
    ]
)
imputers = st.builds(
    SimpleImputer,
    strategy=st.sampled_from(["mean", "median", "most_frequent", "constant"]),
    add_indicator=st.booleans(),
    keep_empty_features=st.booleans(),
)
lasts = st.sampled_from(
    [
        "passthrough",
        PCA(2, random_state=0),
        PCA(2, whiten=True, svd_solver="full"),
        PolynomialFeatures(2),
        PolynomialFeatures(3, include_bias=False),
        PolynomialFeatures(3, interaction_only=True),
        VarianceThreshold(),
        FeatureUnion([("scaled", StandardScaler()), ("same", "passthrough")]),
    ]
)
one_hots = st.builds(
    OneHotEncoder,
    handle_unknown=st.sampled_from(["error", "ignore", "infrequent_if_exist"]),
    drop=st.sampled_from([None, "first", "if_binary"]),
    min_frequency=st.sampled_from([None, 4]),
    sparse_output=st.booleans(),
)
ordinals = st.one_of(
    st.builds(OrdinalEncoder, encoded_missing_value=st.sampled_from([np.nan, -3])),
    st.just(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2)),
    st.just(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)),
    st.just(OrdinalEncoder(min_frequency=3)),
)
text_imputers = st.sampled_from(
    [
        None,
        SimpleImputer(strategy="most_frequent"),
        SimpleImputer(strategy="constant", fill_value="?"),
    ]
)


@st.composite
def column_transformers(draw: st.DrawFn) -> Any:
    numeric = make_pipeline(draw(imputers), draw(scalers), draw(scalers), draw(lasts))
    fill = draw(text_imputers)
    encoder = draw(st.one_of(one_hots, ordinals))
    texts = encoder if fill is None else make_pipeline(fill, encoder)
    counted = draw(st.one_of(st.just("drop"), one_hots, ordinals))
    made = ColumnTransformer(
        [
            ("numbers", numeric, list(NUMBERS)),
            ("texts", texts, draw(st.sampled_from([["city"], ["code", "city"], list(TEXTS)]))),
            ("counted", counted, ["count"]),
        ],
        sparse_threshold=draw(st.sampled_from([0.0, 0.3, 1.0])),
    )
    return Pipeline([("columns", made)])


def bits(matrix: Any) -> Any:
    dense = np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, dtype=np.float64)
    return np.where(np.isnan(dense), np.nan, dense + 0.0).view(np.int64)  # of NaN and 0 there are several


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pipeline=column_transformers(),
    seed=st.integers(0, 1_000),
    rows=st.sampled_from([1, 3, 40]),
    new=st.booleans(),
)
def test_the_matrix_has_the_same_bits(pipeline: Any, seed: int, rows: int, new: bool) -> None:
    pipeline.fit(frame(seed))
    table = frame(seed + 1 if new else seed, max(rows, 60)).head(rows)
    run = runner(transformed(pipeline, root_frame(INPUTS, list(table))).numbers("the test"))
    matrix = np.ascontiguousarray(table[list(NUMBERS)].to_numpy(dtype=np.float64))
    before = matrix.copy()
    try:
        wanted = pipeline.transform(table)
    except ValueError as err:
        assert "unknown categories" in str(err)
        with pytest.raises(RowsRefused, match="none of the"):
            run(matrix, strings(table))
        return
    np.testing.assert_array_equal(bits(run(matrix, strings(table))), bits(wanted))
    np.testing.assert_array_equal(matrix, before)  # what is scored is logged as it came
