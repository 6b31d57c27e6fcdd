"""Saved models as somebody's repository has them, each with what its library gives for its rows."""

from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import skops.io
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

__all__ = ["LATE", "MIXED", "NUMBERS", "save_models", "trees"]

_RNG = np.random.default_rng(0)
MIXED = pd.DataFrame({
    "a": _RNG.normal(size=80), "b": _RNG.integers(0, 3, 80), "c": _RNG.choice(["u", "v", "w"], 80)
})  # fmt: skip
NUMBERS = MIXED[["a", "b"]]
LATE = (MIXED.a + _RNG.normal(scale=0.3, size=80) > 0).astype(int)


def trees(count: int = 4) -> Any:
    """Give a fitted classifier of LightGBM of two columns of numbers."""
    return lightgbm.LGBMClassifier(n_estimators=count, verbose=-1, n_jobs=1).fit(NUMBERS, LATE)


def save_models(folder: Path) -> dict[str, Any]:
    """Save one model of each kind; give what each library gives for the first rows, by the file's name."""
    booster = trees().booster_
    booster.save_model(folder / "trees.txt")
    coded = MIXED.assign(c=MIXED.c.astype("category"))
    categories = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=2, n_jobs=1)
    categories.fit(coded, LATE).booster_.save_model(folder / "categories.txt")
    grown = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(NUMBERS, LATE)
    grown.save_model(folder / "grown.json")
    classes = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(NUMBERS.to_numpy(), MIXED.b)
    classes.save_model(folder / "classes.ubj")
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["c"]), (StandardScaler(), ["a", "b"])
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(MIXED, LATE)
    skops.io.dump(pipeline, folder / "pipeline.skops")
    joblib.dump(pipeline, folder / "pipeline.joblib")
    weights = np.array([[2.0], [-1.0], [0.5]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "linear.onnx").write_bytes(made.SerializeToString())
    return {
        "trees.txt": booster.predict(NUMBERS),
        "categories.txt": categories.predict_proba(coded)[:, 1],
        "grown.json": grown.predict_proba(NUMBERS)[:, 1],
        "classes.ubj": classes.predict_proba(NUMBERS.to_numpy()),
        "pipeline.skops": pipeline.predict_proba(MIXED)[:, 1],
        "pipeline.joblib": pipeline.predict_proba(MIXED)[:, 1],
    }
